//! The weight of the pending items: a third trigger beside size and time.

use crate::sync::{AtomicI64, Ordering};

/// The total weight of the pending items, and the limit at which a batch is due.
pub(crate) struct Weight {
    /// `i64::MAX` if weight is no trigger.
    limit: i64,
    /// The weight of the items published and not yet taken. Added after the publication: for a
    /// moment it can be less than that, even negative, but never more (invariant
    /// `weight-after-publish`).
    pending: AtomicI64,
}

#[cfg_attr(not(feature = "processor"), expect(dead_code))]
impl Weight {
    /// Makes a counter. With `limit` 0, weight is no trigger.
    pub(crate) fn new(limit: u64) -> Self {
        let limit = if limit == 0 { i64::MAX } else { saturated(limit) };
        Self { limit, pending: AtomicI64::new(0) }
    }

    /// Adds an item that was published. Returns true if this addition reached the limit.
    pub(crate) fn add(&self, weight: u64) -> bool {
        let weight = saturated(weight);
        // Release: pairs with the Acquire in `is_reached`; the item is published before it is
        // counted.
        let before = self.pending.fetch_add(weight, Ordering::Release);
        before < self.limit && before.saturating_add(weight) >= self.limit
    }

    /// Subtracts an item that was taken.
    pub(crate) fn remove(&self, weight: u64) {
        // Relaxed: nothing is read under it.
        self.pending.fetch_sub(saturated(weight), Ordering::Relaxed);
    }

    /// Returns whether a batch is due by weight.
    pub(crate) fn is_reached(&self) -> bool {
        // Acquire: pairs with the Release in `add`; the poll that follows finds the counted items.
        self.pending.load(Ordering::Acquire) >= self.limit
    }

    /// Returns the weight at which a batch is due.
    pub(crate) fn limit(&self) -> u64 {
        self.limit as u64
    }
}

/// The most that one item counts: the sum of 2²⁴ items, the most slots there are, does not
/// overflow.
pub(crate) const MAX_WEIGHT: u64 = 1 << 38;

fn saturated(weight: u64) -> i64 {
    weight.min(MAX_WEIGHT) as i64
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Only the addition that reaches the limit returns true: it wakes the consumer.
    #[test]
    fn addition_reaching_limit_reports() {
        let weight = Weight::new(10);
        assert_eq!([4, 5, 1, 3].map(|more| weight.add(more)), [false, false, true, false]);
        weight.remove(4);
        assert_eq!([0, 2, u64::MAX].map(|more| weight.add(more)), [false, true, false]);
        assert!(!Weight::new(0).add(u64::MAX) && !weight.add(1));
    }
}
