//! When a batch is due.

/// How often in a quiet time the consumer polls for new entries.
pub(super) const QUIET_POLLS: u64 = 4;

/// When a batch is due.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rules {
    /// The most that a batch takes; so many are due.
    pub(crate) size: u32,
    /// Nanoseconds.
    pub(crate) max_delay: u64,
    pub(crate) early: Early,
}

/// When a batch is due before its size and delay.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Early {
    Never,
    /// At so many entries, at most the batch size; at any number for an idle consumer.
    Enough(u32),
    /// When no entry came for so many nanoseconds.
    Quiet(u64),
}

impl Rules {
    /// Returns the number of entries at which the trigger must wake the consumer.
    pub(crate) fn threshold(&self) -> u32 {
        match self.early {
            Early::Enough(entries) => entries.min(self.size),
            Early::Never | Early::Quiet(_) => self.size,
        }
    }
}
