//! When a processor's batches are due, and how many run at once.

use super::builder::BatchProcessorBuilder;
use super::keys::KeyMap;
use crate::collector::FlushPolicy;
use std::hash::Hash;

/// When batches are due, and how many run at once.
impl<T, R, E> BatchProcessorBuilder<T, R, E>
where
    T: Send + 'static,
    R: Send + 'static,
    E: Send + 'static,
{
    /// Sets when a batch is due beside size, weight and delay; defaults to [`FlushPolicy::Delay`].
    /// With `Balanced` and `IdleRestart` the delay defaults to 200 ms and not to zero, which would
    /// leave them nothing to decide.
    ///
    /// ```
    /// use batchlink::{FlushPolicy, processor::BatchProcessor};
    /// # use opentelemetry::trace::noop::NoopTracer;
    ///
    /// let (submitter, processor) = BatchProcessor::<u32, (), String>::builder("send")
    ///     .with_flush_policy(FlushPolicy::Balanced { min_size: 16 })
    ///     .with_max_concurrent_batches(4)
    ///     .build(NoopTracer::new())?;
    /// # Ok::<(), batchlink::ConfigError>(())
    /// ```
    pub fn with_flush_policy(mut self, policy: FlushPolicy) -> Self {
        self.queue = self.queue.with_flush_policy(policy);
        self
    }

    /// Measures how long each item waits, from its submission to its batch:
    /// [`BatchItem::wait`](super::BatchItem::wait). The batch span then has `batch.oldest_wait`,
    /// and an item's own span `item.wait`, both in seconds. With metrics each wait is recorded in
    /// `batchlink.item.wait`. A link does not state it, as one link stands for all items of its
    /// span.
    ///
    /// Costs one reading of the clock per submission and one per batch.
    ///
    /// ```
    /// # use batchlink::processor::BatchProcessor;
    /// # use opentelemetry::trace::noop::NoopTracer;
    /// let (submitter, mut processor) = BatchProcessor::<u32, (), String>::builder("send")
    ///     .with_wait_times()
    ///     .build(NoopTracer::new())?;
    /// submitter.submit(1)?;
    /// let batch = processor.next_batch().expect("an item");
    /// assert_eq!(batch.items()[0].wait(), batch.oldest_wait());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn with_wait_times(mut self) -> Self {
        self.queue = self.queue.with_wait_times();
        self
    }

    /// Makes one batch per key as [`with_key`](Self::with_key) does, with a trigger for each: size,
    /// weight and delay are those of the items of one key.
    ///
    /// The processor takes items out of the queue as they come and holds them by key until one
    /// key's are due. They still count as pending. It holds at most as many as the queue can,
    /// besides those in the queue. If there are more, those of the oldest keys are due
    /// ([`Trigger::Policy`](crate::Trigger::Policy)). The delay counts from the submission of a
    /// key's oldest item.
    ///
    /// Costs a wake-up of the processor for each submission while it waits, one reading of the
    /// clock per submission, and for each wake-up a look at every key that has items.
    ///
    /// The flush policy can be [`FlushPolicy::Delay`], [`FlushPolicy::Immediate`] or
    /// [`FlushPolicy::IdleRestart`]: a key is then due when none of its items was submitted for
    /// `idle`, exactly, as no polling is needed. [`FlushPolicy::Balanced`] is an error of
    /// [`build`](Self::build). It waits for more items if there is load, which the processor has
    /// for all keys together: that says nothing of the items that one key still gets.
    ///
    /// ```
    /// use batchlink::{Trigger, processor::BatchProcessor};
    /// use std::time::Duration;
    /// # use opentelemetry::trace::noop::NoopTracer;
    ///
    /// let (submitter, mut processor) = BatchProcessor::<(&str, u32), (), String>::builder("send")
    ///     .with_max_batch_size(2)
    ///     .with_max_delay(Duration::from_secs(60))
    ///     .with_key_batches(|&(host, _)| host)
    ///     .build(NoopTracer::new())?;
    /// for item in [("a", 1), ("b", 2), ("a", 3)] {
    ///     submitter.submit(item)?;
    /// }
    /// let batch = processor.next_batch().expect("two for a");
    /// assert_eq!((batch.trigger(), batch.len()), (Trigger::Size, 2));
    /// assert_eq!(submitter.stats().queue().pending(), 1); // waits for another one for b
    /// # drop(batch);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn with_key_batches<K: Hash + Eq + Send + 'static>(
        mut self,
        key: impl FnMut(&T) -> K + Send + 'static,
    ) -> Self {
        self.keys = Some(Box::new(KeyMap::new(key)));
        self.divide = None;
        self
    }

    /// Sets how many batches `run_async` and `run_each_async` (feature `tokio`) process at the same
    /// time; defaults to 1, and can be 1 to 1024.
    ///
    /// Their handlers take turns in the one task, and each of its wake-ups polls all of them: it is
    /// for handlers that wait, for a database or a network. Batches begin in their order and end in
    /// any. While so many are in flight, items stay in the queue, whose capacity bounds them.
    ///
    /// ```
    /// # use batchlink::processor::BatchProcessor;
    /// # use opentelemetry::trace::noop::NoopTracer;
    /// let builder = BatchProcessor::<u32, (), String>::builder("send");
    /// let error = builder.with_max_concurrent_batches(0).build(NoopTracer::new()).unwrap_err();
    /// assert_eq!(error.to_string(), "invalid max_concurrent_batches: 0 (allowed: 1 to 1024)");
    /// ```
    pub fn with_max_concurrent_batches(mut self, batches: usize) -> Self {
        self.options.max_concurrent_batches = batches;
        self
    }
}
