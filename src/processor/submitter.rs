//! The submitting half of a processor.

use super::answer::{CallError, Caller, Waiting, channel};
use super::builder::Weigh;
use super::{Item, Outcomes, ProcessorStats, Request, SubmitError, scope};
use crate::error::PushError;
use crate::panic::caught;
use crate::queue::{Handle, MAX_WEIGHT, Queue, Shard};
use crate::sync::{Arc, polls_tasks};
use opentelemetry::trace::SpanContext;
use std::fmt;
use std::time::{Duration, Instant};

/// Submits items to a [`BatchProcessor`](super::BatchProcessor): its submitting half.
///
/// Clone it into every thread or task that has items. Dropping the last one closes the processor;
/// a [`WeakSubmitter`] is not counted.
///
/// | | if the shard is full: refuses | waits (async) | blocks |
/// |---|---|---|---|
/// | only submits | [`submit`](Self::submit) | [`submit_wait_async`](Self::submit_wait_async) | [`submit_wait`](Self::submit_wait) |
/// | returns the item's result | [`call`](Self::call), [`call_blocking`](Self::call_blocking) | [`call_wait`](Self::call_wait) | |
///
/// - **Order:** items keep their order per thread, or per [`producer`](Self::producer) on any
///   thread. A task that moves between threads needs a producer for its order.
/// - **Links:** an item is linked to the span that is active when the method is called, even if the
///   future that it returns is awaited elsewhere. A future that was made without an active span takes
///   the one of its first poll. Where both differ, name the span:
///   [`call_with_context`](Self::call_with_context).
/// - **Own handler:** a handler that waited for its own processor would wait for itself. In the
///   handler's own thread or task a call is refused with [`CallError::OwnHandler`], and waiting for
///   room is refused as full. Neither can be told in a thread or task that the handler starts.
/// - **Not run:** a call is answered when the processor is run or dropped. If it is neither, the
///   call waits without end: use a timeout.
///
/// ```
/// use batchlink::processor::{BatchProcessor, CallError};
/// # use opentelemetry::trace::noop::NoopTracer;
///
/// # let tracer = NoopTracer::new();
/// let (submitter, processor) = BatchProcessor::<u32, u32, String>::builder("square").build(tracer)?;
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
    queue: Handle<Item<T, R, E>>,
    inner: Inner<T>,
}

/// What submitters have besides their handle.
struct Inner<T> {
    /// The index of a producer's shard. `None`: the shard of the calling thread.
    shard: Option<usize>,
    outcomes: Arc<Outcomes>,
    weigh: Option<Weigh<T>>,
}

impl<T, R, E> Submitter<T, R, E> {
    pub(super) fn new(
        queue: Handle<Item<T, R, E>>,
        outcomes: Arc<Outcomes>,
        weigh: Option<Weigh<T>>,
    ) -> Self {
        Self { queue, inner: Inner { shard: None, outcomes, weigh } }
    }

    /// Returns a submitter that keeps the order of its items on whatever thread it is used, as
    /// [`Producer`](crate::Producer) does for contexts.
    ///
    /// It has one shard, the next in turn, and a clone of it has the same one. Batches take its items
    /// in the order in which they were accepted.
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
        WeakSubmitter { queue: Arc::clone(self.queue.queue()), inner: self.inner.clone() }
    }

    /// Adds an item to the next batch, linked to the active span of the current
    /// [`Context`](opentelemetry::Context). Does not block.
    ///
    /// An item without a span is processed like any other and counted as invalid among the links.
    /// Cost: one uncontended read-modify-write, a second one with a weight, and the move of the item
    /// into the ring.
    ///
    /// # Errors
    ///
    /// [`SubmitError`] with the item, if this shard is full ([`PushError::Full`]) or the processor is
    /// closed ([`PushError::Closed`]).
    pub fn submit(&self, item: T) -> Result<(), SubmitError<T>> {
        self.put(self.item(item, Request::current(), None)).map_err(SubmitError::from)
    }

    /// Does the same as [`submit`](Self::submit), linked to the given span.
    ///
    /// # Errors
    ///
    /// [`SubmitError`] with the item: [`PushError::Full`] or [`PushError::Closed`].
    pub fn submit_with_context(&self, item: T, context: &SpanContext) -> Result<(), SubmitError<T>> {
        self.put(self.item(item, Request::of(context), None)).map_err(SubmitError::from)
    }

    /// **Blocks** the thread until there is room, and adds the item as [`submit`](Self::submit) does.
    ///
    /// Where blocking would stop the work that makes room, in the processor's own handler and on a
    /// thread that polls tokio tasks (feature `tokio`), it does not block and refuses as `submit`.
    ///
    /// # Errors
    ///
    /// [`SubmitError`] with the item: [`PushError::Closed`], also if the processor is closed
    /// meanwhile, or [`PushError::Full`] where it does not block.
    pub fn submit_wait(&self, item: T) -> Result<(), SubmitError<T>> {
        self.wait(self.item(item, Request::current(), None), None).map_err(SubmitError::from)
    }

    /// **Blocks** the thread until there is room, at most for `timeout`; see
    /// [`submit_wait`](Self::submit_wait).
    ///
    /// # Errors
    ///
    /// [`SubmitError`] with the item: [`PushError::Full`] if there was no room in time, or
    /// [`PushError::Closed`].
    pub fn submit_wait_timeout(&self, item: T, timeout: Duration) -> Result<(), SubmitError<T>> {
        let item = self.item(item, Request::current(), None);
        // A deadline beyond what `Instant` can hold is none.
        let deadline = Instant::now().checked_add(timeout);
        self.wait(item, deadline).map_err(SubmitError::from)
    }

    /// Waits until there is room, on any executor, and adds the item as [`submit`](Self::submit) does.
    ///
    /// The span is that of the call, the item is submitted when the future is polled. Cancel-safe: a
    /// future that is dropped before it is ready has submitted nothing, and drops the item.
    ///
    /// A task that moves between threads has one shard after the other. Use a
    /// [`producer`](Self::producer) where its items must keep their order.
    ///
    /// # Errors
    ///
    /// [`SubmitError`] with the item: [`PushError::Closed`], also if the processor is closed
    /// meanwhile, or [`PushError::Full`] in the processor's own handler.
    pub fn submit_wait_async(&self, item: T) -> impl Future<Output = Result<(), SubmitError<T>>> {
        let request = Request::current();
        async move {
            self.wait_async(self.item(item, request.or_current(), None)).await.map_err(SubmitError::from)
        }
    }

    /// Submits an item and waits for its own result, on any executor.
    ///
    /// The span is that of the call, the item is submitted at the first poll of the future. A future
    /// that is dropped before has submitted nothing. Dropped later, the item stays in its batch and
    /// its result is dropped: wrap the call in the timeout of your runtime at will. Without one it
    /// waits until the processor answers or is dropped.
    ///
    /// Cost beyond [`submit`](Self::submit): one allocation.
    ///
    /// # Errors
    ///
    /// The item was not submitted: [`CallError::Full`], [`CallError::Closed`],
    /// [`CallError::OwnHandler`]. The processor was dropped before it took the item:
    /// [`CallError::Closed`]. The handler did not succeed: [`CallError::Failed`],
    /// [`CallError::Panicked`], [`CallError::Unanswered`].
    pub fn call(&self, item: T) -> impl Future<Output = Result<R, CallError<E>>> {
        let request = Request::current();
        async move { self.ask(item, request.or_current())?.await }
    }

    /// Does the same as [`call`](Self::call), linked to the given span.
    ///
    /// # Errors
    ///
    /// Those of [`call`](Self::call).
    pub fn call_with_context(
        &self,
        item: T,
        context: &SpanContext,
    ) -> impl Future<Output = Result<R, CallError<E>>> + use<'_, T, R, E> {
        let request = Request::of(context);
        async move { self.ask(item, request)?.await }
    }

    /// Waits until there is room, submits the item and waits for its own result, on any executor;
    /// see [`call`](Self::call).
    ///
    /// A future that is dropped while it waits for room has submitted nothing, and drops the item.
    ///
    /// # Errors
    ///
    /// Those of [`call`](Self::call) except [`CallError::Full`].
    pub fn call_wait(&self, item: T) -> impl Future<Output = Result<R, CallError<E>>> {
        let request = Request::current();
        async move {
            self.refuse_own_handler()?;
            let (caller, waiting) = channel();
            self.wait_async(self.item(item, request.or_current(), Some(caller))).await.map_err(refused)?;
            waiting.await
        }
    }

    /// **Blocks** the thread until the item's own result is there. Does not wait for room.
    ///
    /// # Errors
    ///
    /// Those of [`call`](Self::call), and [`CallError::AsyncContext`] on a thread that polls tokio
    /// tasks (feature `tokio`; `spawn_blocking` and `block_in_place` may block).
    pub fn call_blocking(&self, item: T) -> Result<R, CallError<E>> {
        self.ask_blocking(item)?.wait(None)
    }

    /// **Blocks** the thread until the item's own result is there, at most for `timeout`. Does not
    /// wait for room.
    ///
    /// # Errors
    ///
    /// Those of [`call_blocking`](Self::call_blocking), and [`CallError::Timeout`]: an item that was
    /// accepted is processed all the same.
    pub fn call_blocking_timeout(&self, item: T, timeout: Duration) -> Result<R, CallError<E>> {
        let waiting = self.ask_blocking(item)?;
        waiting.wait(Instant::now().checked_add(timeout))
    }

    /// Asks the processor to take what is pending now. Does not wait for it.
    pub fn flush(&self) {
        self.queue.trigger.ask_flush();
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

    /// Submits an item whose result is waited for.
    #[inline(always)]
    fn ask(&self, item: T, request: Request) -> Result<Waiting<R, E>, CallError<E>> {
        self.refuse_own_handler()?;
        let (caller, waiting) = channel();
        self.put(self.item(item, request, Some(caller))).map_err(refused)?;
        Ok(waiting)
    }

    fn ask_blocking(&self, item: T) -> Result<Waiting<R, E>, CallError<E>> {
        if polls_tasks() {
            return Err(CallError::AsyncContext);
        }
        self.ask(item, Request::current())
    }

    #[inline(always)]
    fn refuse_own_handler(&self) -> Result<(), CallError<E>> {
        if scope::is_own(&self.inner.outcomes) { Err(CallError::OwnHandler) } else { Ok(()) }
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
    fn item(&self, payload: T, request: Request, caller: Option<Caller<R, E>>) -> Item<T, R, E> {
        // Capped here, so that every counter sees the same weight.
        let weigh = |weigh: &Weigh<T>| caught(|| weigh(&payload)).unwrap_or(MAX_WEIGHT).min(MAX_WEIGHT);
        let weight = self.inner.weigh.as_ref().map_or(0, weigh);
        let Request { context: request, suppressed } = request;
        Item { payload, request, suppressed, weight, caller }
    }

    #[inline(always)]
    fn put(&self, item: Item<T, R, E>) -> Result<(), (Item<T, R, E>, PushError)> {
        let weight = item.weight;
        let shard = self.shard();
        match shard.claim() {
            Ok(claim) => shard.finish(claim, || item),
            Err(reason) => return Err((item, reason)),
        }
        self.weigh(weight);
        Ok(())
    }

    fn wait(&self, item: Item<T, R, E>, deadline: Option<Instant>) -> Result<(), (Item<T, R, E>, PushError)> {
        if scope::is_own(&self.inner.outcomes) {
            return self.put(item);
        }
        let weight = item.weight;
        self.shard().push_wait(deadline, item)?;
        self.weigh(weight);
        Ok(())
    }

    async fn wait_async(&self, item: Item<T, R, E>) -> Result<(), (Item<T, R, E>, PushError)> {
        if scope::is_own(&self.inner.outcomes) {
            return self.put(item);
        }
        let weight = item.weight;
        self.shard().push_wait_async(item).await?;
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

fn refused<T, R, E>((_, reason): (Item<T, R, E>, PushError)) -> CallError<E> {
    match reason {
        PushError::Full => CallError::Full,
        PushError::Closed => CallError::Closed,
    }
}

impl<T> Clone for Inner<T> {
    fn clone(&self) -> Self {
        Self { shard: self.shard, outcomes: Arc::clone(&self.outcomes), weigh: self.weigh.clone() }
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

/// A [`Submitter`] that does not keep its processor open: for a handler that submits again what
/// failed, and for metrics.
///
/// It keeps the memory of the queue, but no item.
///
/// ```
/// use batchlink::processor::BatchProcessor;
/// # use opentelemetry::trace::noop::NoopTracer;
///
/// # let tracer = NoopTracer::new();
/// let (submitter, mut processor) = BatchProcessor::<u32, (), String>::builder("send").build(tracer)?;
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
    /// Returns a submitter, or `None` once the last one was dropped.
    pub fn upgrade(&self) -> Option<Submitter<T, R, E>> {
        Some(Submitter { queue: Handle::upgrade(&self.queue)?, inner: self.inner.clone() })
    }

    /// Returns a snapshot of the counters, also after the last submitter was dropped.
    pub fn stats(&self) -> ProcessorStats {
        ProcessorStats::new(self.queue.stats(), &self.inner.outcomes)
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
