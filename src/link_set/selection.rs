//! The links of a batch whose policy compares attributes, counts contexts, or lets a later context
//! take the place of an earlier one.

use super::identity::{Mix, hash_attributes, same_attributes};
use super::policy::LinkPolicy;
use super::record::Ids;
use super::table::{Probe, Table, hash};
use super::treatment::{Dedup, Truncation};
use super::{Admitted, Outcome};
use crate::links::int;
use crate::stats::Counts;
use ahash::RandomState;
use opentelemetry::KeyValue;
use opentelemetry::trace::{Link, TraceId};
use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashSet};
use std::hash::Hasher;

/// How many contexts a link stands for.
const LINK_COUNT: &str = "link.count";

/// What is known of each link of a set beside the link. Memory is bounded by the set's bound.
#[derive(Debug)]
pub(super) struct Selection {
    dedup: Dedup,
    pub(super) truncation: Truncation,
    pub(super) with_count: bool,
    /// Contexts that were neither invalid nor dropped as unsampled.
    arrivals: u64,
    /// One for each link, with the same index.
    entries: Vec<Entry>,
    /// The rank and index of each link once the set is full, the lowest on top. A rank that has
    /// risen since is corrected when it comes to the top.
    lowest: BinaryHeap<Reverse<(u64, u32)>>,
    /// For [`Truncation::OnePerTrace`], the traces that are linked.
    traces: HashSet<TraceId, RandomState>,
}

#[derive(Debug)]
struct Entry {
    /// Number of the context that made the link.
    arrival: u64,
    /// The link with the lowest gives way first.
    rank: u64,
    /// Contexts that it stands for.
    contexts: u64,
    /// Hash of what is compared, if it is in the table.
    hash: Option<u64>,
    state_cut: bool,
}

/// The parts of a link set that a selection works on.
pub(super) struct Parts<'a> {
    pub(super) links: &'a mut Vec<Link>,
    pub(super) table: &'a mut Table,
    pub(super) counts: &'a mut Counts,
    pub(super) max_links: usize,
}

impl Selection {
    /// Returns an empty selection, or `None` if the policy needs none.
    pub(super) fn new(policy: &LinkPolicy) -> Option<Box<Self>> {
        let simple = policy.dedup != Dedup::ByContextAndAttributes
            && policy.truncation == Truncation::KeepFirst
            && !policy.link_count;
        (!simple).then(|| {
            Box::new(Self {
                dedup: policy.dedup,
                truncation: policy.truncation,
                with_count: policy.link_count,
                arrivals: 0,
                entries: Vec::new(),
                lowest: BinaryHeap::new(),
                traces: HashSet::default(),
            })
        })
    }

    /// Decides on a context that is neither invalid nor dropped as unsampled.
    pub(super) fn insert(&mut self, set: Parts<'_>, context: &Admitted, link: Link) -> Outcome {
        let Parts { links, table, counts, max_links } = set;
        self.arrivals += 1;
        let hash = self.hash(table, context, &link);
        if let Some(hash) = hash {
            let by_attributes = self.dedup == Dedup::ByContextAndAttributes;
            let same = |index: usize| {
                let known: &Link = &links[index];
                Ids::of(&known.span_context) == context.ids
                    && (!by_attributes || same_attributes(known, &link))
            };
            if let Probe::Found(index) = table.find_by(hash, same) {
                let entry = &mut self.entries[index];
                entry.contexts += 1;
                if self.truncation == Truncation::KeepLast {
                    entry.rank = self.arrivals;
                }
                counts.duplicates += 1;
                return Outcome::Duplicate;
            }
        }
        let trace = context.trace().filter(|_| self.truncation == Truncation::OnePerTrace);
        let new_trace = trace.filter(|trace| !self.traces.contains(trace));
        let rank = self.rank(context, &link, new_trace.is_some(), hash.is_some());
        let state_cut = context.state_cut;
        let entry = Entry { arrival: self.arrivals, rank, contexts: 1, hash, state_cut };
        let index = links.len();
        let index = if index < max_links {
            links.push(link);
            self.entries.push(entry);
            index
        } else {
            let Some(index) = self.lower_than(rank, index as u32) else {
                counts.truncated += 1;
                return Outcome::Truncated;
            };
            // Its duplicates are linked by it no more.
            if let Some(hash) = self.entries[index].hash {
                table.remove(index, hash, |index| self.entries[index].hash.unwrap_or_default());
            }
            let old = std::mem::replace(&mut self.entries[index], entry);
            counts.linked -= 1;
            counts.duplicates -= old.contexts - 1;
            counts.truncated += old.contexts;
            counts.trace_states_cut -= u64::from(old.state_cut);
            links[index] = link;
            index
        };
        if let Some(hash) = hash {
            table.insert(hash, index);
        }
        self.traces.extend(new_trace);
        counts.linked += 1;
        counts.trace_states_cut += u64::from(state_cut);
        Outcome::Linked
    }

    /// Returns the hash of what is compared; `None` if the context is never a duplicate.
    fn hash(&self, table: &Table, context: &Admitted, link: &Link) -> Option<u64> {
        if self.dedup == Dedup::Off || !context.identified {
            return None;
        }
        let ids = hash(&table.hasher, &context.ids);
        Some(match self.dedup {
            Dedup::ByContextAndAttributes => {
                ids.wrapping_add(hash_attributes(&table.hasher, &link.attributes))
            }
            _ => ids,
        })
    }

    /// Returns the rank of a new link.
    fn rank(&self, context: &Admitted, link: &Link, new_trace: bool, compared: bool) -> u64 {
        // The first of a class is the highest.
        let class = |high: bool| (u64::from(high) << 63) | ((u64::MAX >> 1) - self.arrivals);
        match self.truncation {
            Truncation::KeepFirst => class(false),
            Truncation::KeepLast => self.arrivals,
            Truncation::SampledFirst => class(context.sampled),
            Truncation::OnePerTrace => class(new_trace),
            Truncation::Reservoir { seed } => {
                let mut mix = Mix(seed);
                mix.write_ids(&context.ids);
                if !compared {
                    mix.write_u64(self.arrivals);
                } else if self.dedup == Dedup::ByContextAndAttributes {
                    mix.write_u64(hash_attributes(&mix, &link.attributes));
                }
                mix.finish()
            }
        }
    }

    /// Returns the index of the link with the lowest rank of all, and gives its place in the order
    /// to the new one; `None` if that has the lowest itself.
    fn lower_than(&mut self, rank: u64, links: u32) -> Option<usize> {
        if self.truncation == Truncation::KeepFirst {
            return None;
        }
        if self.lowest.is_empty() {
            let ranks = (0..links).zip(&self.entries);
            self.lowest.extend(ranks.map(|(index, entry)| Reverse((entry.rank, index))));
        }
        loop {
            let mut top = self.lowest.peek_mut()?;
            let Reverse((known, index)) = *top;
            let current = self.entries[index as usize].rank;
            if known < current {
                *top = Reverse((current, index));
            } else if rank > current {
                *top = Reverse((rank, index));
                return Some(index as usize);
            } else {
                return None;
            }
        }
    }

    /// Ends the batch: completes the links, in order of arrival, and forgets them.
    pub(super) fn finish(&mut self, set: Parts<'_>, policy: &LinkPolicy) {
        let Parts { links, table, counts, .. } = set;
        table.clear_by(links.len(), |_, index| self.entries[index].hash.unwrap_or_default());
        self.restore_order(links);
        for (index, (link, entry)) in links.iter_mut().zip(&self.entries).enumerate() {
            if self.with_count {
                // For the type too.
                link.attributes.reserve_exact(2);
            }
            if !policy.complete(link, index) {
                counts.attribute_panics += 1;
            }
            let counted =
                link.attributes.iter().any(|attribute| attribute.key.as_str() == LINK_COUNT);
            if self.with_count && !counted {
                link.attributes.push(KeyValue::new(LINK_COUNT, int(entry.contexts)));
            }
        }
        self.arrivals = 0;
        self.entries.clear();
        self.lowest.clear();
        self.traces.clear();
    }

    /// Sorts links and entries by arrival. Allocates nothing: the order of the ranks has memory for
    /// that of the arrivals.
    fn restore_order(&mut self, links: &mut [Link]) {
        if self.entries.is_sorted_by_key(|entry| entry.arrival) {
            return;
        }
        let mut order = std::mem::take(&mut self.lowest).into_vec();
        order.clear();
        let arrivals = (0..).zip(&self.entries);
        order.extend(arrivals.map(|(index, entry)| Reverse((entry.arrival, index))));
        order.sort_unstable_by_key(|&Reverse(arrival)| arrival);
        for first in 0..order.len() {
            // Along the cycle of places, each of which gets what belongs there.
            let mut place = first;
            loop {
                let Reverse((_, from)) = &mut order[place];
                let from = std::mem::replace(from, place as u32) as usize;
                if from == first {
                    break;
                }
                links.swap(place, from);
                self.entries.swap(place, from);
                place = from;
            }
        }
        order.clear();
        self.lowest = order.into();
    }
}
