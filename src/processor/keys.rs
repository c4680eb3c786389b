//! A batch for each key.
//!
//! [`divide_by`] divides what one trigger made due. [`Held`] has size, weight and delay for each
//! key: the consumer takes items out of the rings as they come and holds them by key, until one
//! key's are due. What it holds still counts as pending.

use super::Item;
use crate::collector::{Config, FlushPolicy};
use crate::error::ConfigError;
use crate::panic::caught;
use crate::queue::progress::Ticket;
use crate::queue::rules::{Early, Rules};
use crate::stats::{Trigger, Wait};
use crate::sync::Arc;
use std::collections::{HashMap, VecDeque};
use std::hash::Hash;
use std::time::Duration;

/// Divides the items of one trigger into batches.
pub(super) type Divide<T, R, E> =
    Box<dyn FnMut(Vec<Item<T, R, E>>) -> Vec<Vec<Item<T, R, E>>> + Send>;

/// Items that become one batch.
pub(super) struct Part<T, R, E> {
    pub(super) items: Vec<Item<T, R, E>>,
    pub(super) trigger: Trigger,
    /// How long the items had waited when they were taken from the rings.
    pub(super) wait: Wait,
    /// Covers these items, and perhaps others.
    pub(super) ticket: Arc<Ticket>,
}

/// When a key's items are due.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    pub(super) size: usize,
    /// `u64::MAX` if weight is no trigger.
    pub(super) weight: u64,
    /// Nanoseconds.
    pub(super) max_delay: u64,
    /// Nanoseconds without a further item of the key; `u64::MAX` if that is no trigger.
    pub(super) quiet: u64,
    /// What is held is due as soon as the consumer is free.
    pub(super) immediate: bool,
    /// The most items that are held.
    pub(super) capacity: usize,
}

impl Limits {
    pub(super) fn new(
        config: &Config,
        max_weight: Option<u64>,
        (field, policy): (&'static str, FlushPolicy),
    ) -> Result<Self, ConfigError> {
        let Rules { max_delay, early, .. } = config.rules();
        let (quiet, immediate) = match early {
            Early::Never => (u64::MAX, false),
            Early::Quiet(quiet) => (quiet, false),
            Early::Enough(1) => (u64::MAX, true),
            Early::Enough(_) => {
                let allowed = "Delay, Immediate or IdleRestart with batches by key, as the load is \
                               that of all keys together";
                return Err(ConfigError::new(field, format!("{policy:?}"), allowed.to_owned()));
            }
        };
        Ok(Self {
            size: config.max_batch_size as usize,
            weight: max_weight.unwrap_or(u64::MAX),
            max_delay,
            quiet,
            immediate,
            capacity: config.shards * config.slots_per_shard as usize,
        })
    }

    /// Returns the rules of the queue: it is emptied as soon as anything is pending.
    pub(super) fn queue_rules() -> Rules {
        Rules { size: u32::MAX, max_delay: u64::MAX, early: Early::Enough(1) }
    }
}

/// Returns what divides items by `key`, in order of each key's first item.
pub(super) fn divide_by<T, R, E, K>(
    mut key: impl FnMut(&T) -> K + Send + 'static,
) -> Divide<T, R, E>
where
    T: 'static,
    R: 'static,
    E: 'static,
    K: Hash + Eq + Send + 'static,
{
    let mut indices: HashMap<K, usize> = HashMap::new();
    Box::new(move |items| {
        let mut parts: Vec<Vec<Item<T, R, E>>> = Vec::new();
        for item in items {
            // Keys are hashed, compared and dropped by the user's code.
            let index = caught(|| *indices.entry(key(&item.payload)).or_insert(parts.len()));
            match index.and_then(|index| parts.get_mut(index)) {
                Some(part) => part.push(item),
                None => parts.push(vec![item]),
            }
        }
        let _ = caught(|| indices.clear());
        parts
    })
}

/// The items of one key.
struct Group<T, R, E> {
    id: u64,
    items: VecDeque<Item<T, R, E>>,
    weight: u64,
    /// When the first and the last of the items were submitted, which need not be at the ends: they
    /// come shard by shard. `None`: to be found again.
    times: Option<(u64, u64)>,
    /// The ticket of the first item, and so not newer than those of the others: a flush that waits
    /// for any of them waits for this.
    ticket: Arc<Ticket>,
}

/// Items held by key, those of the oldest key first.
pub(super) struct Held<T, R, E> {
    keys: Box<dyn Keys<T>>,
    groups: Vec<Group<T, R, E>>,
    limits: Limits,
    next_id: u64,
    len: usize,
}

/// Knows the group of each key. Keys are hashed, compared and dropped by the user's code.
pub(super) trait Keys<T>: Send {
    /// Returns the id of the payload's group, which is `next` if its key is new; `None` if the
    /// user's code panicked.
    fn id(&mut self, payload: &T, next: u64) -> Option<u64>;

    /// Gives the payload's key a new id.
    fn renew(&mut self, payload: &T, id: u64);

    /// Forgets the keys whose groups are gone.
    fn retain(&mut self, most: usize, lives: &dyn Fn(u64) -> bool);

    /// Forgets all keys, also those after one whose drop panics.
    fn clear(&mut self);
}

pub(super) struct KeyMap<K, F> {
    key: F,
    ids: HashMap<K, u64>,
}

impl<K, F> KeyMap<K, F> {
    pub(super) fn new(key: F) -> Self {
        Self { key, ids: HashMap::new() }
    }
}

impl<T, K, F> Keys<T> for KeyMap<K, F>
where
    K: Hash + Eq + Send,
    F: FnMut(&T) -> K + Send,
{
    fn id(&mut self, payload: &T, next: u64) -> Option<u64> {
        caught(|| *self.ids.entry((self.key)(payload)).or_insert(next))
    }

    fn renew(&mut self, payload: &T, id: u64) {
        let _ = caught(|| self.ids.insert((self.key)(payload), id));
    }

    fn retain(&mut self, most: usize, lives: &dyn Fn(u64) -> bool) {
        if self.ids.len() > most {
            let _ = caught(|| self.ids.retain(|_, id| lives(*id)));
        }
    }

    fn clear(&mut self) {
        let _ = caught(|| self.ids.clear());
    }
}

impl<T, R, E> Held<T, R, E> {
    pub(super) fn new(keys: Box<dyn Keys<T>>, limits: Limits) -> Self {
        Self { keys, groups: Vec::new(), limits, next_id: 0, len: 0 }
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Adds items that were taken from the rings under `ticket`.
    pub(super) fn add(&mut self, items: Vec<Item<T, R, E>>, ticket: &Arc<Ticket>) {
        let mut own = 0;
        self.len += items.len();
        for item in items {
            let next = self.next_id;
            let id = self.keys.id(&item.payload, next).unwrap_or(next);
            // In rising order: new groups are pushed.
            let found = self.groups.binary_search_by_key(&id, |group| group.id);
            let index = found.unwrap_or_else(|_| {
                self.next_id += 1;
                if id != next {
                    // Of a group that is gone.
                    self.keys.renew(&item.payload, next);
                }
                let (items, ticket) = (VecDeque::new(), Arc::clone(ticket));
                self.groups.push(Group { id: next, items, weight: 0, times: None, ticket });
                self.groups.len() - 1
            });
            let group = &mut self.groups[index];
            if Arc::ptr_eq(&group.ticket, ticket) {
                own += 1;
            } else {
                group.ticket.grow(1);
            }
            group.weight += item.weight();
            let at = item.submitted_at;
            group.times = group.times.map(|(oldest, newest)| (oldest.min(at), newest.max(at)));
            group.items.push_back(item);
        }
        ticket.resize(own);
    }

    /// Takes what is due out of the groups. `all` makes all items due, for this reason.
    pub(super) fn due(&mut self, now: u64, all: Option<Trigger>) -> VecDeque<Part<T, R, E>> {
        let mut due = VecDeque::new();
        let Limits { size, weight, max_delay, quiet, immediate, capacity } = self.limits;
        let all = all.or(immediate.then_some(Trigger::Policy));
        for group in &mut self.groups {
            while !group.items.is_empty() {
                let trigger = if group.items.len() >= size {
                    Trigger::Size
                } else if group.weight >= weight {
                    Trigger::Weight
                } else if let Some(trigger) = all {
                    trigger
                } else {
                    let (oldest, newest) = group.times();
                    if now >= oldest.saturating_add(max_delay) {
                        Trigger::Timeout
                    } else if now >= newest.saturating_add(quiet) {
                        Trigger::Policy
                    } else {
                        break;
                    }
                };
                self.len -= group.take(&self.limits, trigger, now, &mut due);
            }
        }
        // Memory is bounded: the oldest keys go first.
        for group in &mut self.groups {
            while self.len > capacity && !group.items.is_empty() {
                self.len -= group.take(&self.limits, Trigger::Policy, now, &mut due);
            }
        }
        self.groups.retain(|group| !group.items.is_empty());
        let groups = &self.groups;
        let lives = |id| groups.binary_search_by_key(&id, |group| group.id).is_ok();
        self.keys.retain(2 * groups.len() + 16, &lives);
        due
    }

    /// Returns when the first key is due by time; `None` if nothing is held.
    pub(super) fn deadline(&mut self) -> Option<u64> {
        let Limits { max_delay, quiet, .. } = self.limits;
        let due = |group: &mut Group<T, R, E>| {
            let (oldest, newest) = group.times();
            oldest.saturating_add(max_delay).min(newest.saturating_add(quiet))
        };
        self.groups.iter_mut().map(due).min()
    }

    /// Passes all items to `each`, which must not panic.
    pub(super) fn discard(self, each: impl Fn(Item<T, R, E>)) {
        for Group { items, ticket, .. } in self.groups {
            items.into_iter().for_each(&each);
            drop(ticket);
        }
    }
}

impl<T, R, E> Group<T, R, E> {
    /// Returns when the first and the last of the items were submitted.
    fn times(&mut self) -> (u64, u64) {
        *self.times.get_or_insert_with(|| {
            self.items.iter().fold((u64::MAX, 0), |(oldest, newest), item| {
                (oldest.min(item.submitted_at), newest.max(item.submitted_at))
            })
        })
    }

    /// Takes the items of one batch, by size and weight. Returns how many.
    fn take(
        &mut self,
        limits: &Limits,
        trigger: Trigger,
        now: u64,
        due: &mut VecDeque<Part<T, R, E>>,
    ) -> usize {
        let (mut items, mut weight) = (Vec::new(), 0_u64);
        while let Some(item) = self.items.pop_front() {
            let heavier = weight.saturating_add(item.weight());
            if items.len() == limits.size || (!items.is_empty() && heavier > limits.weight) {
                self.items.push_front(item);
                break;
            }
            (weight, self.weight) = (heavier, self.weight - item.weight());
            items.push(item);
        }
        self.times = None;
        let oldest = items.iter().filter_map(|item| item.wait(now)).max();
        let wait = Wait { bound: oldest.unwrap_or(Duration::ZERO), exact: true };
        let (taken, ticket) = (items.len(), Arc::clone(&self.ticket));
        due.push_back(Part { items, trigger, wait, ticket });
        taken
    }
}
