//! The one consumer: decides from what it finds in the rings what is due, and takes it.
//!
//! Knows nothing of waiting; [`Step`] says what to wait for.

use crate::batch::Trigger;
use crate::queue::Queue;
use crate::ring::{Consumer, Take};
use crate::sync::Arc;

/// What is to be done next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// Take this many: a batch is due.
    Take { count: u32, trigger: Trigger },
    /// Nothing before this time (`None`: before a notification).
    Wait { deadline: Option<u64> },
    /// Somebody is in the middle of a push or a scan: look again soon, nobody will notify.
    Settle,
    /// Closed, and everything was taken.
    Closed,
}

struct Shard<T> {
    consumer: Consumer<T>,
    /// Everything below this position is to be delivered without waiting for size or timeout: it was
    /// asked for, or its time is over.
    flush_to: u64,
}

pub(crate) struct Drain<T> {
    queue: Arc<Queue<T>>,
    shards: Vec<Shard<T>>,
    size: u32,
    /// Nanoseconds.
    max_delay: u64,
    /// Where the next batch begins, so that no shard is always first.
    first: usize,
    /// Since when something has been pending without a break that is not owed yet, or earlier.
    since: Option<u64>,
    /// Why what is below `flush_to` is.
    owed: Trigger,
}

impl<T> Drain<T> {
    pub(crate) fn new(queue: Arc<Queue<T>>, consumers: Vec<Consumer<T>>, size: u32, max_delay: u64) -> Self {
        let shards = consumers.into_iter().map(|consumer| Shard { consumer, flush_to: 0 }).collect();
        Self { queue, shards, size, max_delay, first: 0, since: None, owed: Trigger::Timeout }
    }

    pub(crate) fn queue(&self) -> &Arc<Queue<T>> {
        &self.queue
    }

    /// Looks at all shards and decides. `now` is at least `not_before`, for a caller whose timer
    /// has fired already.
    pub(crate) fn step(&mut self, not_before: u64) -> Step {
        let (claimed, published, closed) = self.look();
        if claimed == 0 {
            return match closed {
                true => Step::Closed,
                // The scan that will let the next push report is not over.
                false if self.queue.trigger.is_busy() => Step::Settle,
                false => Step::Wait { deadline: None },
            };
        }
        // Set by the look, since something is pending.
        let deadline = self.since.map_or(u64::MAX, |since| since.saturating_add(self.max_delay));
        if published >= self.size {
            return Step::Take { count: self.size, trigger: Trigger::Size };
        }
        let now = self.queue.trigger.clock.now().max(not_before);
        if now >= deadline {
            self.owe(Trigger::Timeout);
            // What comes from now on has a delay of its own, whatever is in flight until then.
            self.since = Some(now);
        }
        let behind = |shard: &Shard<T>| shard.flush_to > shard.consumer.position();
        let trigger = if closed {
            Trigger::Shutdown
        } else if self.shards.iter().any(|shard| behind(shard) && shard.consumer.published() > 0) {
            self.owed
        } else if claimed >= self.size || self.shards.iter().any(behind) {
            return Step::Settle;
        } else {
            return Step::Wait { deadline: Some(deadline) };
        };
        match published {
            0 => Step::Settle,
            count => Step::Take { count, trigger },
        }
    }

    /// How many entries one batch could take right now.
    pub(crate) fn available(&mut self) -> u32 {
        self.look().1.min(self.size)
    }

    /// Claimed, published, and whether every shard is closed. (A shard that is closed has its
    /// final number of claims in the same word, so nothing can come between the two.)
    fn look(&mut self) -> (u32, u32, bool) {
        // The request before the look: the look then finds all that was pushed before it.
        let asked = self.queue.trigger.take_flush_request();
        let (mut claimed, mut published, mut closed) = (0, 0, true);
        for Shard { consumer, .. } in &mut self.shards {
            consumer.look();
            claimed += consumer.claimed();
            published += consumer.published();
            closed &= consumer.closed();
        }
        if asked {
            self.owe(Trigger::Manual);
        }
        if claimed > 0 && self.since.is_none() {
            self.since = Some(self.queue.trigger.armed_at());
        }
        (claimed, published, closed)
    }

    /// All that the last look found is to be delivered as soon as it can be, because of `why`.
    fn owe(&mut self, why: Trigger) {
        self.owed = why;
        for Shard { consumer, flush_to } in &mut self.shards {
            *flush_to = consumer.claimed_position();
        }
    }

    /// Takes `count` entries, of those that the last look found published.
    pub(crate) fn take(&mut self, count: u32, mut run: impl FnMut(Take<'_, T>)) {
        let shards = self.shards.len();
        let mut left = count;
        for step in 0..shards {
            let consumer = &mut self.shards[(self.first + step) % shards].consumer;
            let part = consumer.published().min(left);
            if part > 0 {
                run(consumer.take(part));
                left -= part;
            }
        }
        self.first = (self.first + 1) % shards;
        // What is left keeps its deadline, so that nobody waits twice.
        if self.shards.iter().all(|shard| shard.consumer.claimed() == 0) {
            self.since = None;
            self.queue.trigger.disarm();
        }
        self.queue.drained();
    }
}

impl<T> Drop for Drain<T> {
    fn drop(&mut self) {
        self.queue.close();
    }
}
