//! The table that finds duplicates: open addressing, keyed.

use super::record::Ids;
use ahash::RandomState;
use opentelemetry::trace::Link;
use std::hash::{BuildHasher, Hasher};

/// Slots that are filled in about the time of one look-up.
const SLOTS_PER_LOOKUP: usize = 64;

/// The ids of the links of one batch.
#[derive(Debug)]
pub(super) struct Table {
    /// At most a quarter full, so that most look-ups read one slot. 0 is empty. Otherwise the low
    /// bits are the index of the link plus one, and the high bits those of the hash.
    pub(super) slots: Box<[u32]>,
    /// Invariant: keyed-table. Trace ids come from the network.
    pub(super) hasher: RandomState,
    /// Slots read so far.
    #[cfg(test)]
    pub(super) reads: std::cell::Cell<u64>,
    /// Slots that the last `clear` wrote.
    #[cfg(test)]
    cleared: std::cell::Cell<usize>,
}

/// Where a key is, or would be, in the table.
pub(super) enum Probe {
    /// The index of its link.
    Found(usize),
    Free {
        slot: usize,
        tag: u32,
    },
}

impl Table {
    /// Returns an empty table for up to `links` links.
    pub(super) fn new(links: usize) -> Self {
        Self {
            slots: vec![0; (4 * links).next_power_of_two().max(8)].into(),
            hasher: RandomState::new(),
            #[cfg(test)]
            reads: Default::default(),
            #[cfg(test)]
            cleared: Default::default(),
        }
    }

    /// Looks up the ids of one of `links`.
    #[inline(always)]
    pub(super) fn find(&self, ids: &Ids, links: &[Link]) -> Probe {
        self.find_by(hash(&self.hasher, ids), |index| Ids::of(&links[index].span_context) == *ids)
    }

    /// Looks up a key by its hash. `same` tells whether it is that of the link with an index.
    #[inline(always)]
    pub(super) fn find_by(&self, hash: u64, same: impl Fn(usize) -> bool) -> Probe {
        let (mut slot, tag) = self.start(hash);
        loop {
            #[cfg(test)]
            self.reads.set(self.reads.get() + 1);
            let found = self.slots[slot];
            if found == 0 {
                return Probe::Free { slot, tag };
            }
            if found & !self.mask() as u32 == tag && same(self.index(found)) {
                return Probe::Found(self.index(found));
            }
            slot = self.next(slot);
        }
    }

    /// Fills a free slot with the index of a link.
    #[inline(always)]
    pub(super) fn fill(&mut self, slot: usize, tag: u32, index: usize) {
        // It fits in the low bits: there are four times as many slots as links.
        self.slots[slot] = tag | (index as u32 + 1);
    }

    /// Enters a link under a hash.
    pub(super) fn insert(&mut self, hash: u64, index: usize) {
        if let Probe::Free { slot, tag } = self.find_by(hash, |_| false) {
            self.fill(slot, tag, index);
        }
    }

    /// Removes a link, and moves those behind it up, so that no search ends early.
    pub(super) fn remove(&mut self, index: usize, hash: u64, hash_of: impl Fn(usize) -> u64) {
        let mut hole = self.start(hash).0;
        while self.index(self.slots[hole]) != index {
            hole = self.next(hole);
        }
        let mut slot = self.next(hole);
        while self.slots[slot] != 0 {
            let start = self.start(hash_of(self.index(self.slots[slot]))).0;
            // Its search passes the hole.
            if slot.wrapping_sub(start) & self.mask() >= slot.wrapping_sub(hole) & self.mask() {
                self.slots[hole] = self.slots[slot];
                hole = slot;
            }
            slot = self.next(slot);
        }
        self.slots[hole] = 0;
    }

    /// Empties a table that holds these links, or some of them.
    pub(super) fn clear(&mut self, links: &[Link]) {
        self.clear_by(links.len(), |hasher, index| {
            hash(hasher, &Ids::of(&links[index].span_context))
        });
    }

    /// Empties a table that holds some of so many links, of which none was removed unless they are
    /// as many as it can hold. Clears the slots of a few links one by one, as to fill a large table
    /// takes long.
    pub(super) fn clear_by(&mut self, links: usize, hash_of: impl Fn(&RandomState, usize) -> u64) {
        #[cfg(test)]
        self.cleared.set(0);
        if links >= self.slots.len() / SLOTS_PER_LOOKUP {
            #[cfg(test)]
            self.cleared.set(self.slots.len());
            return self.slots.fill(0);
        }
        // From the last to the first: the search for a link passed only earlier ones.
        for index in (0..links).rev() {
            let mut slot = self.start(hash_of(&self.hasher, index)).0;
            while self.slots[slot] != 0 {
                if self.index(self.slots[slot]) == index {
                    self.slots[slot] = 0;
                    #[cfg(test)]
                    self.cleared.set(self.cleared.get() + 1);
                    break;
                }
                slot = self.next(slot);
            }
        }
    }

    /// Returns where the search for a hash starts, and the tag in its slot.
    #[inline(always)]
    fn start(&self, hash: u64) -> (usize, u32) {
        ((hash >> 32) as usize & self.mask(), hash as u32 & !self.mask() as u32)
    }

    #[inline(always)]
    fn mask(&self) -> usize {
        self.slots.len() - 1
    }

    #[inline(always)]
    fn next(&self, slot: usize) -> usize {
        (slot + 1) & self.mask()
    }

    /// Returns the index of the link in a slot that is not empty.
    #[inline(always)]
    fn index(&self, found: u32) -> usize {
        (found as usize & self.mask()) - 1
    }
}

#[inline(always)]
pub(super) fn hash(keyed: &RandomState, ids: &Ids) -> u64 {
    let mut hasher = keyed.build_hasher();
    hasher.write_u128(u128::from_ne_bytes(ids.trace));
    hasher.write_u64(u64::from_ne_bytes(ids.span));
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::super::{Dedup, Invalid, LinkPolicy, LinkSet, Outcome, Truncation};
    use opentelemetry::trace::{SpanContext, SpanId, TraceFlags, TraceId, TraceState};

    fn context(number: u64) -> SpanContext {
        let (trace, span) = (TraceId::from(1_u128), SpanId::from(number));
        SpanContext::new(trace, span, TraceFlags::SAMPLED, false, TraceState::NONE)
    }

    fn filled(links: usize) -> LinkSet {
        let mut set = LinkSet::builder().with_max_links(links).build().unwrap();
        assert!((1..=links as u64).all(|number| set.insert(&context(number)) == Outcome::Linked));
        set
    }

    fn is_empty(set: &LinkSet) -> bool {
        set.table.slots.iter().all(|&slot| slot == 0)
    }

    #[test]
    fn table_is_quarter_full() {
        for links in [1, 2, 3, 4, 5, 127, 128, 129] {
            let mut set = filled(links);
            let size = set.table.slots.len();
            assert!(
                size >= 4 * links && size <= (8 * links).max(8),
                "{size} slots for {links} links"
            );
            assert_eq!(set.table.slots.iter().filter(|&&slot| slot != 0).count(), links);
            drop(set.finish());
            assert!(set.table.slots.len() == size && is_empty(&set));
        }
    }

    /// In a large table, few links have few slots cleared, and these are all that were used.
    #[test]
    fn few_links_clear_few_slots() {
        let mut set = filled(1 << 18);
        assert!(
            set.finish().linked() == 1 << 18 && set.table.cleared.get() == set.table.slots.len()
        );
        for links in [0, 1, 2, 1000, 16_000] {
            for _ in 0..2 {
                (1..=links).for_each(|number| _ = set.insert(&context(number)));
            }
            assert_eq!(set.finish().linked(), links);
            assert_eq!(set.table.cleared.get(), links as usize);
            assert!(is_empty(&set), "{links} links");
        }
    }

    /// Links that are not in the table: those kept without a trace id, and all if duplicates are
    /// kept.
    #[test]
    fn unlisted_links_clear_nothing() {
        let (trace, span) = (TraceId::INVALID, SpanId::from(1));
        let nameless = SpanContext::new(trace, span, TraceFlags::SAMPLED, false, TraceState::NONE);
        let policy = LinkPolicy::new().with_max_links(10_000).with_invalid(Invalid::Keep);
        for (dedup, slots) in [(Dedup::ByContext, 1), (Dedup::Off, 0)] {
            let policy = policy.clone().with_dedup(dedup);
            let mut set = LinkSet::builder().with_link_policy(policy).build().unwrap();
            for context in [&nameless, &context(1), &nameless] {
                set.insert(context);
            }
            assert_eq!((set.finish().linked(), set.table.cleared.get()), (3, slots));
            assert!(is_empty(&set));
        }
    }

    /// All in one run would be as slow as a list.
    #[test]
    fn links_are_spread() {
        let set = filled(100);
        let slots = &set.table.slots;
        let taken = |slot: usize| slots[slot % slots.len()] != 0;
        let runs = (0..slots.len()).filter(|&slot| taken(slot) && !taken(slot + 1)).count();
        assert!(runs > 25, "{runs} runs");
    }

    #[test]
    fn batch_size_bounds_the_table() {
        let policy = LinkPolicy::new().with_max_links(1 << 20);
        assert_eq!(LinkSet::new(policy, 10).table.slots.len(), 64);
    }

    /// Against a map, with keys that share few places: each one is found until it is removed, and
    /// at last no slot is taken.
    #[test]
    fn removal_loses_no_key() {
        use super::{Probe, Table};
        use std::collections::HashMap;
        let mut table = Table::new(8);
        let mut hash_of = [0_u64; 8];
        let mut known = HashMap::new();
        let mut state = 1_u64;
        let mut next = |end: u64| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 33) % end
        };
        for round in 0..100_000 {
            let index = next(8) as usize;
            match known.remove(&index) {
                Some(hash) => table.remove(index, hash, |index| hash_of[index]),
                None => {
                    // The last places, so that searches go on at the first.
                    let hash = (28 + next(5)) << 32 | next(2) << 31 | round << 8;
                    hash_of[index] = hash;
                    table.insert(hash, index);
                    known.insert(index, hash);
                }
            }
            for (&index, &hash) in &known {
                let found = table.find_by(hash, |found| found == index);
                assert!(matches!(found, Probe::Found(found) if found == index), "{round}");
            }
            assert_eq!(table.slots.iter().filter(|&&slot| slot != 0).count(), known.len());
        }
    }

    /// Links that took the place of others are found, and cleared, in as few reads.
    #[test]
    fn evicted_links_cost_nothing() {
        let policy = LinkPolicy::new().with_max_links(1000).with_truncation(Truncation::KeepLast);
        let mut set = LinkSet::builder().with_link_policy(policy).build().unwrap();
        for _ in 0..2 {
            for number in 1..=100_000 {
                assert_eq!(set.insert(&context(number)), Outcome::Linked);
                assert_eq!(set.insert(&context(number)), Outcome::Duplicate);
            }
            assert_eq!(set.finish().links().len(), 1000);
            assert!(is_empty(&set));
        }
        let reads = set.table.reads.get() as f64 / 600_000.0;
        assert!(reads < 1.5, "{reads} reads per search");
    }
}
