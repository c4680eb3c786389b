//! The handles that do not keep a processor open.

use super::request::Inner;
use super::run::Handled;
use super::submitter::Submitter;
use super::{Item, ProcessorStats};
use crate::queue::{Handle, Queue};
use crate::stats::{Source, StatsHandle};
use crate::sync::Arc;
use std::fmt;

/// A [`Submitter`] that does not keep its processor open: for a handler that submits again what
/// failed. A [`StatsHandle`] is enough where only the counters are read.
///
/// It keeps the memory of the queue, but no item.
///
/// ```
/// use batchlink::processor::BatchProcessor;
/// # use opentelemetry::trace::noop::NoopTracer;
///
/// # let tracer = NoopTracer::new();
/// let (submitter, mut processor) =
///     BatchProcessor::<u32, (), String>::builder("send").build(tracer)?;
/// let retries = submitter.downgrade();
/// (1..=3).for_each(|n| submitter.submit(n).unwrap());
/// drop(submitter); // the last one: what is pending is processed, then `run` ends
///
/// processor.run(|batch| {
///     for item in batch {
///         match retries.upgrade() {
///             Some(submitter) => submitter.submit(*item.payload()).unwrap(),
///             None => println!("{} is not tried again", item.payload()),
///         }
///         item.fail("offline".into());
///     }
/// });
/// assert_eq!(retries.stats().failed(), 3);
/// # Ok::<(), batchlink::ConfigError>(())
/// ```
pub struct WeakSubmitter<T, R, E> {
    queue: Arc<Queue<Item<T, R, E>>>,
    inner: Inner<T>,
}

impl<T, R, E> WeakSubmitter<T, R, E> {
    pub(super) fn new(submitter: &Submitter<T, R, E>) -> Self {
        Self { queue: Arc::clone(submitter.queue.queue()), inner: submitter.inner.clone() }
    }

    /// Returns a submitter, or `None` once the last one was dropped.
    pub fn upgrade(&self) -> Option<Submitter<T, R, E>> {
        Some(Submitter { queue: Handle::upgrade(&self.queue)?, inner: self.inner.clone() })
    }

    /// Returns a snapshot of the counters, also after the last submitter was dropped.
    pub fn stats(&self) -> ProcessorStats {
        ProcessorStats::new(self.queue.stats(), &self.inner.outcomes)
    }
}

impl<T, R, E> Submitter<T, R, E>
where
    T: Send + 'static,
    R: Send + 'static,
    E: Send + 'static,
{
    /// Returns a handle to the counters that does not keep the processor open, and has no item
    /// types.
    ///
    /// ```
    /// use batchlink::StatsHandle;
    /// use batchlink::processor::{BatchProcessor, ProcessorStats};
    /// # use opentelemetry::trace::noop::NoopTracer;
    ///
    /// # let tracer = NoopTracer::new();
    /// let (submitter, processor) =
    ///     BatchProcessor::<u32, (), String>::builder("send").build(tracer)?;
    /// let stats: StatsHandle<ProcessorStats> = submitter.stats_handle();
    /// submitter.submit(1).unwrap();
    /// drop((submitter, processor));
    /// assert_eq!((stats.stats().failed(), stats.is_final()), (1, true));
    /// # Ok::<(), batchlink::ConfigError>(())
    /// ```
    pub fn stats_handle(&self) -> StatsHandle<ProcessorStats> {
        let (queue, outcomes) = (self.queue.queue(), &self.inner.outcomes);
        StatsHandle::new(Handled { queue: Arc::clone(queue), outcomes: Arc::clone(outcomes) })
    }
}

impl<T: Send, R: Send, E: Send> Source<ProcessorStats> for Handled<T, R, E> {
    fn stats(&self) -> ProcessorStats {
        ProcessorStats::new(self.queue.stats(), &self.outcomes)
    }

    fn is_final(&self) -> bool {
        Source::is_final(&self.queue)
    }
}

impl<T, R, E> Clone for WeakSubmitter<T, R, E> {
    fn clone(&self) -> Self {
        Self { queue: Arc::clone(&self.queue), inner: self.inner.clone() }
    }
}

impl<T, R, E> fmt::Debug for WeakSubmitter<T, R, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WeakSubmitter").field("stats", &self.stats()).finish_non_exhaustive()
    }
}
