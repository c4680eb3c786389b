//! Counters without the right to push.

use super::Stats;
use std::fmt;
use std::sync::Arc;

/// Reads the counters of a collector or a processor, and does not keep it open: for callbacks of
/// metrics, health checks and the like, which live longer than what they watch.
///
/// Made by [`LinkCollector::stats_handle`](crate::LinkCollector::stats_handle), and with
/// `ProcessorStats` by `Submitter::stats_handle` (feature `processor`). It is not counted among the
/// producers: when the last one is dropped, the collector closes. It keeps the memory of the queue,
/// but no item.
///
/// ```
/// use batchlink::{LinkCollector, StatsHandle};
///
/// let (collector, mut flusher) = LinkCollector::builder().build()?;
/// let stats: StatsHandle = collector.stats_handle();
/// collector.push_current()?;
/// drop(collector); // the last producer: closes
/// assert!(flusher.next_batch().is_none());
/// assert_eq!((stats.stats().pushed(), stats.is_final()), (1, false));
/// drop(flusher);
/// assert_eq!((stats.stats().pushed(), stats.is_final()), (1, true));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct StatsHandle<S = Stats>(Arc<dyn Source<S>>);

/// What counts.
pub(crate) trait Source<S>: Send + Sync {
    /// Returns a snapshot of the counters.
    fn stats(&self) -> S;
    /// Returns whether nothing is left that counts.
    fn is_final(&self) -> bool;
}

impl<S> StatsHandle<S> {
    pub(crate) fn new(source: impl Source<S> + 'static) -> Self {
        Self(Arc::new(source))
    }

    /// Returns a snapshot of the counters, also when everything else is gone. Does not block. Cost:
    /// a few loads per shard.
    pub fn stats(&self) -> S {
        self.0.stats()
    }

    /// Returns whether the counters change no more: every producer and the flusher or processor
    /// were dropped, and every batch is finished. Cost: a lock that is never held for long.
    ///
    /// Counters that are read after this returned true are the last ones.
    pub fn is_final(&self) -> bool {
        self.0.is_final()
    }
}

impl<S> Clone for StatsHandle<S> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<S: fmt::Debug> fmt::Debug for StatsHandle<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StatsHandle").field("stats", &self.stats()).finish_non_exhaustive()
    }
}
