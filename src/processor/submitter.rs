//! The submitting half of a processor.

use super::builder::Weigh;
use super::options::Options;
use super::reply::Caller;
use super::request::{Inner, Request};
use super::{Item, Outcomes, ProcessorStats, SubmitError, WeakSubmitter, scope};
use crate::error::{FlushError, PushError};
use crate::panic::caught;
use crate::queue::{Handle, MAX_WEIGHT, Shard};
use crate::sync::Arc;
use opentelemetry::trace::SpanContext;
use std::fmt;
use std::time::{Duration, Instant};

/// Submits items to a [`BatchProcessor`](super::BatchProcessor): its submitting half.
///
/// Clone it into every thread or task that has items. Dropping the last one closes the processor;
/// a [`WeakSubmitter`] is not counted.
///
/// | | refuses if the shard is full | waits for a slot | blocks for a slot |
/// |---|---|---|---|
/// | only submits | [`submit`] | [`submit_wait_async`] | [`submit_wait`] |
/// | returns the item's result | [`call`], [`call_blocking`] | [`call_wait`] | |
///
/// [`submit`]: Self::submit
/// [`submit_wait`]: Self::submit_wait
/// [`submit_wait_async`]: Self::submit_wait_async
/// [`call`]: Self::call
/// [`call_blocking`]: Self::call_blocking
/// [`call_wait`]: Self::call_wait
///
/// - **Order:** items keep their order per thread, or per [`producer`](Self::producer) on any
///   thread. A task that moves between threads needs a producer for its order.
/// - **Links:** an item is linked to the span that is active when the method is called, even if the
///   future that it returns is awaited elsewhere. A future that was made without an active span
///   takes the one of its first poll. Where both differ, name the span:
///   [`call_with_context`](Self::call_with_context).
/// - **Own handler:** a handler that waited for its own processor would wait for itself. In the
///   handler's own thread or task a call is refused with
///   [`OwnHandler`](super::CallError::OwnHandler), and waiting for a slot is refused as full. A
///   thread or task that the handler starts cannot be told from others, and waits.
/// - **Blocking:** on a thread that polls tokio tasks, waiting calls are refused (feature `tokio`).
///   [`flush_and_wait`](Self::flush_and_wait) is not, and **may stop what it waits for**.
/// - **Not run:** a call is answered when the processor is run or dropped. If it is neither, the
///   call waits without end: use a timeout.
///
/// ```
/// use batchlink::processor::{BatchProcessor, CallError};
/// # use opentelemetry::trace::noop::NoopTracer;
///
/// # let tracer = NoopTracer::new();
/// let (submitter, processor) =
///     BatchProcessor::<u32, u32, String>::builder("square").build(tracer)?;
/// let handle = processor.spawn(|batch| batch.succeed_all(|n| n * n))?;
///
/// submitter.submit(2)?; // the result is dropped
/// assert_eq!(submitter.call_blocking(3), Ok(9));
/// submitter.close();
/// assert_eq!(submitter.submit(4).unwrap_err().into_item(), 4);
/// assert_eq!(submitter.call_blocking(4), Err(CallError::Closed));
/// # handle.shutdown()?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Submitter<T, R, E> {
    pub(super) queue: Handle<Item<T, R, E>>,
    pub(super) inner: Inner<T>,
}

impl<T, R, E> Submitter<T, R, E> {
    pub(super) fn new(
        queue: Handle<Item<T, R, E>>,
        outcomes: Arc<Outcomes>,
        weigh: Option<Weigh<T>>,
        options: Options,
    ) -> Self {
        Self { queue, inner: Inner { shard: None, outcomes, weigh, options, batches: None } }
    }

    /// Returns a submitter that keeps the order of its items on whatever thread it is used, as
    /// [`Producer`](crate::Producer) does for contexts.
    ///
    /// It has one shard, the next in turn, and a clone of it has the same one. Batches take its
    /// items in the order in which they were accepted.
    ///
    /// ```
    /// # use batchlink::processor::{BatchProcessor, SubmitError, Submitter};
    /// # async fn import(submitter: &Submitter<u64, (), String>) -> Result<(), SubmitError<u64>> {
    /// let rows = submitter.producer();
    /// for row in 0..1000 {
    ///     rows.submit_wait_async(row).await?; // in this order, on any thread of the runtime
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn producer(&self) -> Self {
        let mut producer = self.clone();
        producer.inner.shard = Some(self.queue.next_shard());
        producer
    }

    /// Returns a handle that does not keep the processor open.
    pub fn downgrade(&self) -> WeakSubmitter<T, R, E> {
        WeakSubmitter::new(self)
    }

    /// Adds an item to the next batch, linked to the active span of the current
    /// [`Context`](opentelemetry::Context). Does not block.
    ///
    /// An item without a span is processed like any other and counted as invalid among the links.
    /// Cost: one uncontended read-modify-write, a second one with a weight, and the move of the
    /// item into the ring.
    ///
    /// # Errors
    ///
    /// [`SubmitError`] with the item, if this shard is full ([`PushError::Full`]) or the processor
    /// is closed ([`PushError::Closed`]).
    pub fn submit(&self, item: T) -> Result<(), SubmitError<T>> {
        self.put(self.item(item, self.inner.request(), None)).map_err(SubmitError::from)
    }

    /// Does the same as [`submit`](Self::submit), linked to the given span.
    ///
    /// # Errors
    ///
    /// [`SubmitError`] with the item: [`PushError::Full`] or [`PushError::Closed`].
    pub fn submit_with_context(
        &self,
        item: T,
        context: &SpanContext,
    ) -> Result<(), SubmitError<T>> {
        self.put(self.item(item, self.inner.request_of(context), None)).map_err(SubmitError::from)
    }

    /// **Blocks** the thread until a slot is free, and adds the item as [`submit`](Self::submit)
    /// does.
    ///
    /// Where blocking would stop the work that frees slots, in the processor's own handler and on a
    /// thread that polls tokio tasks (feature `tokio`), it does not block and refuses as `submit`.
    ///
    /// # Errors
    ///
    /// [`SubmitError`] with the item: [`PushError::Closed`] if the processor is closed before
    /// or during the wait, or [`PushError::Full`] where it does not block.
    pub fn submit_wait(&self, item: T) -> Result<(), SubmitError<T>> {
        self.wait(self.item(item, self.inner.request(), None), None).map_err(SubmitError::from)
    }

    /// **Blocks** the thread until a slot is free, at most for `timeout`; see
    /// [`submit_wait`](Self::submit_wait).
    ///
    /// # Errors
    ///
    /// [`SubmitError`] with the item: [`PushError::Full`] if none was free in time, or
    /// [`PushError::Closed`].
    pub fn submit_wait_timeout(&self, item: T, timeout: Duration) -> Result<(), SubmitError<T>> {
        let item = self.item(item, self.inner.request(), None);
        // A deadline beyond what `Instant` can hold is none.
        let deadline = Instant::now().checked_add(timeout);
        self.wait(item, deadline).map_err(SubmitError::from)
    }

    /// Waits until a slot is free, on any executor, and adds the item as [`submit`](Self::submit)
    /// does.
    ///
    /// The span is that of the call, the item is submitted when the future is polled. Cancel-safe:
    /// a future that is dropped before it is ready has submitted nothing, and drops the item.
    ///
    /// A task that moves between threads has one shard after the other. Use a
    /// [`producer`](Self::producer) where its items must keep their order.
    ///
    /// # Errors
    ///
    /// [`SubmitError`] with the item: [`PushError::Closed`] if the processor is closed before
    /// or during the wait, or [`PushError::Full`] in the processor's own handler.
    pub fn submit_wait_async(&self, item: T) -> impl Future<Output = Result<(), SubmitError<T>>> {
        let request = self.inner.request();
        async move {
            self.wait_async(self.item(item, self.inner.or_current(request), None))
                .await
                .map_err(SubmitError::from)
        }
    }

    /// Asks the processor to take what is pending now. Does not wait for it.
    pub fn flush(&self) {
        self.queue.trigger.ask_flush();
    }

    /// **Blocks** the thread, at most for `timeout`: asks for a flush and waits until every item
    /// that was accepted before the call has ended. It was then answered and its batch span has
    /// ended, on whatever thread. Returns the counters after that.
    ///
    /// **On a thread of an async runtime the processor may wait for what this stops**: use
    /// [`flush_and_wait_async`](Self::flush_and_wait_async) there. For a process that may be frozen
    /// or stopped after this. Flush the tracer provider after it, which then has the spans.
    ///
    /// ```
    /// use batchlink::processor::BatchProcessor;
    /// use std::time::Duration;
    /// # use opentelemetry::trace::noop::NoopTracer;
    ///
    /// # let tracer = NoopTracer::new();
    /// let (submitter, processor) =
    ///     BatchProcessor::<u32, u32, String>::builder("square").build(tracer)?;
    /// let _handle = processor.spawn(|batch| batch.succeed_all(|n| n * n))?;
    /// submitter.submit(3)?;
    /// let stats = submitter.flush_and_wait(Duration::from_secs(5))?;
    /// assert_eq!((stats.succeeded(), stats.in_flight()), (1, 0));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// - [`FlushError::Timeout`]: some items have not ended. The processor's own handler, which
    ///   would wait for itself, gets it at once.
    /// - [`FlushError::Closed`]: the processor was dropped while some were in the queue.
    pub fn flush_and_wait(&self, timeout: Duration) -> Result<ProcessorStats, FlushError> {
        let timeout = if scope::is_own(&self.inner.outcomes) { Duration::ZERO } else { timeout };
        self.queue.flush_and_wait(timeout).map(|()| self.stats())
    }

    /// Flushes and waits as [`flush_and_wait`](Self::flush_and_wait) does, in a task of any
    /// executor.
    ///
    /// Cancel-safe. The timeout is kept by the process's one timer thread; [`Duration::MAX`] needs
    /// none, for use inside a runtime's own timeout.
    ///
    /// # Errors
    ///
    /// [`FlushError::Timeout`], [`FlushError::Closed`].
    pub async fn flush_and_wait_async(
        &self,
        timeout: Duration,
    ) -> Result<ProcessorStats, FlushError> {
        let timeout = if scope::is_own(&self.inner.outcomes) { Duration::ZERO } else { timeout };
        self.queue.flush_and_wait_async(timeout).await.map(|()| self.stats())
    }

    /// Closes the processor for all submitters: no item is accepted after this, and what was
    /// accepted is still processed.
    pub fn close(&self) {
        self.queue.close();
    }

    /// Returns a snapshot of the counters.
    pub fn stats(&self) -> ProcessorStats {
        ProcessorStats::new(self.queue.stats(), &self.inner.outcomes)
    }

    #[inline(always)]
    fn shard(&self) -> Shard<'_, Item<T, R, E>> {
        match self.inner.shard {
            Some(index) => self.queue.shard(index),
            None => self.queue.thread_shard(),
        }
    }

    /// Runs the user's code, and allocates, before the claim. Inlined, as the two below: an item
    /// would be copied at every call.
    #[inline(always)]
    pub(super) fn item(
        &self,
        payload: T,
        request: Request,
        caller: Option<Caller<R, E>>,
    ) -> Item<T, R, E> {
        // Capped here, so that every counter sees the same weight.
        let weigh =
            |weigh: &Weigh<T>| caught(|| weigh(&payload)).unwrap_or(MAX_WEIGHT).min(MAX_WEIGHT);
        let weight = self.inner.weigh.as_ref().map_or(0, weigh);
        let weight = if request.suppressed { weight | Item::<T, R, E>::SUPPRESSED } else { weight };
        let timed = self.inner.options.timed;
        let submitted_at = if timed { self.queue.trigger.clock.now() } else { 0 };
        let Request { context: request, extra, .. } = request;
        Item { payload, request, extra, weight, submitted_at, caller }
    }

    #[inline(always)]
    pub(super) fn put(&self, item: Item<T, R, E>) -> Result<(), (Item<T, R, E>, PushError)> {
        let weight = item.weight();
        let shard = self.shard();
        match shard.claim() {
            Ok(claim) => shard.finish(claim, || item),
            Err(reason) => return Err((item, reason)),
        }
        self.weigh(weight);
        Ok(())
    }

    fn wait(
        &self,
        item: Item<T, R, E>,
        deadline: Option<Instant>,
    ) -> Result<(), (Item<T, R, E>, PushError)> {
        if scope::is_own(&self.inner.outcomes) {
            return self.put(item);
        }
        let weight = item.weight();
        let waited = self.shard().push_wait(deadline, (item, None));
        waited.map_err(|((item, _), reason)| (item, reason))?;
        self.weigh(weight);
        Ok(())
    }

    pub(super) async fn wait_async(
        &self,
        item: Item<T, R, E>,
    ) -> Result<(), (Item<T, R, E>, PushError)> {
        if scope::is_own(&self.inner.outcomes) {
            return self.put(item);
        }
        let weight = item.weight();
        let waited = self.shard().push_wait_async((item, None)).await;
        waited.map_err(|((item, _), reason)| (item, reason))?;
        self.weigh(weight);
        Ok(())
    }

    /// Counts the weight of an item that was published.
    #[inline(always)]
    fn weigh(&self, weight: u64) {
        if self.inner.weigh.is_some() {
            self.queue.weigh(weight);
        }
    }
}

impl<T, R, E> Clone for Submitter<T, R, E> {
    fn clone(&self) -> Self {
        Self { queue: self.queue.clone(), inner: self.inner.clone() }
    }
}

impl<T, R, E> fmt::Debug for Submitter<T, R, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Submitter").field("stats", &self.stats()).finish_non_exhaustive()
    }
}
