//! Counts the steps of the protocol, where a small machine could not time them.
//!
//! Compiled in with `--cfg batchlink_count` only; otherwise [`count`] does nothing.

/// A step that is counted.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Counter {
    /// Read-modify-write on a shard's own word by a claim.
    Claim,
    /// A claim past the limit: the slow path.
    SlowPath,
    /// Read-modify-write on a line that all threads share: the coordinator's word.
    Coordination,
    /// Read-modify-write on another thread's shard: a limit was set.
    Limit,
    /// A scan over all shards.
    Scan,
    /// The flusher was notified.
    Notification,
}

#[cfg(not(batchlink_count))]
#[inline(always)]
pub(crate) fn count(_step: Counter) {}

#[cfg(batchlink_count)]
pub(crate) use counting::count;
#[cfg(batchlink_count)]
pub use counting::{StepCounts, take_step_counts};

#[cfg(batchlink_count)]
mod counting {
    use super::Counter;
    use crate::sync::Ordering;
    use crate::sync::unmodelled::AtomicU64;

    static COUNTS: [AtomicU64; 6] = [const { AtomicU64::new(0) }; 6];

    pub(crate) fn count(step: Counter) {
        COUNTS[step as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// The steps of all collectors of this process since the last call.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub struct StepCounts {
        /// Read-modify-writes on a shard's own word by claims.
        pub claims: u64,
        /// Claims past the limit.
        pub slow_paths: u64,
        /// Read-modify-writes on the coordinator's word, which all threads share.
        pub coordinations: u64,
        /// Read-modify-writes on shards' words that set a limit.
        pub limits: u64,
        /// Scans over all shards.
        pub scans: u64,
        /// Notifications of the flusher.
        pub notifications: u64,
    }

    /// Reads the counts and sets them to zero.
    pub fn take_step_counts() -> StepCounts {
        let [claims, slow_paths, coordinations, limits, scans, notifications] =
            COUNTS.each_ref().map(|count| count.swap(0, Ordering::Relaxed));
        StepCounts { claims, slow_paths, coordinations, limits, scans, notifications }
    }
}
