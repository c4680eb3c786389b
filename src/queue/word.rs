//! The one word of a shard: `closed:1 | limit:31 | tail:31`.

/// Positions in a word and in `seq` are modulo 2³¹.
pub(super) const MASK: u32 = (1 << 31) - 1;

/// Returns how far `to` is after `from`, modulo 2³¹.
#[inline(always)]
pub(super) fn distance(from: u32, to: u32) -> u32 {
    to.wrapping_sub(from) & MASK
}

/// The packed word, decoded by value.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Word(pub(super) u64);

impl Word {
    pub(super) const CLOSED: u64 = 1 << 63;

    pub(super) fn new(limit: u32, tail: u32) -> Self {
        Self(u64::from(limit & MASK) << 31 | u64::from(tail & MASK))
    }

    #[inline(always)]
    pub(super) fn tail(self) -> u32 {
        self.0 as u32 & MASK
    }

    #[inline(always)]
    pub(super) fn limit(self) -> u32 {
        (self.0 >> 31) as u32 & MASK
    }

    pub(super) fn closed(self) -> bool {
        self.0 & Self::CLOSED != 0
    }

    /// Positions that may be claimed without a report. `limit` is never behind `tail`.
    #[inline(always)]
    pub(super) fn allowance(self) -> u32 {
        distance(self.tail(), self.limit())
    }

    #[inline(always)]
    pub(super) fn with_tail(self, tail: u32) -> Self {
        Self(self.0 & !u64::from(MASK) | u64::from(tail & MASK))
    }

    pub(super) fn with_limit(self, limit: u32) -> Self {
        Self(self.0 & Self::CLOSED | Self::new(limit, self.tail()).0)
    }
}
