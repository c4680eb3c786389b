//! The weight of what is pending: a third trigger beside size and time.

use crate::sync::{AtomicI64, Ordering};

/// What the pending items weigh, if that is a trigger.
pub(crate) struct Weight {
    /// `i64::MAX`: it is none.
    limit: i64,
    /// Of what is published and not yet taken. Counted after the publication, so it can be below
    /// that for a moment, even below zero, but never above.
    pending: AtomicI64,
}

#[cfg_attr(not(feature = "processor"), expect(dead_code))]
impl Weight {
    /// `limit` 0: weight is no trigger.
    pub(crate) fn new(limit: u64) -> Self {
        let limit = if limit == 0 { i64::MAX } else { saturated(limit) };
        Self { limit, pending: AtomicI64::new(0) }
    }

    /// Adds an item that was published. True if it was the one that reached the limit.
    pub(crate) fn add(&self, weight: u64) -> bool {
        let weight = saturated(weight);
        // Release: pairs with the Acquire in `is_reached`; what was added for is published.
        let before = self.pending.fetch_add(weight, Ordering::Release);
        before < self.limit && before.saturating_add(weight) >= self.limit
    }

    /// Takes off an item that was taken.
    pub(crate) fn remove(&self, weight: u64) {
        // Relaxed: nothing is read under it.
        self.pending.fetch_sub(saturated(weight), Ordering::Relaxed);
    }

    pub(crate) fn is_reached(&self) -> bool {
        // Acquire: pairs with the Release in `add`; the look that follows finds what was added for.
        self.pending.load(Ordering::Acquire) >= self.limit
    }

    pub(crate) fn limit(&self) -> u64 {
        self.limit as u64
    }
}

/// The most that an item counts: a sum of 2²⁴ of them, the most slots there are, does not overflow.
pub(crate) const MAX_WEIGHT: u64 = 1 << 38;

fn saturated(weight: u64) -> i64 {
    weight.min(MAX_WEIGHT) as i64
}

#[cfg(test)]
mod tests {
    use super::*;

    /// And no other: it is the one that wakes the consumer.
    #[test]
    fn the_addition_that_reaches_the_limit_says_so() {
        let weight = Weight::new(10);
        assert_eq!([4, 5, 1, 3].map(|more| weight.add(more)), [false, false, true, false]);
        weight.remove(4);
        assert_eq!([0, 2, u64::MAX].map(|more| weight.add(more)), [false, true, false]);
        assert!(!Weight::new(0).add(u64::MAX) && !weight.add(1));
    }
}
