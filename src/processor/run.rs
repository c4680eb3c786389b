//! The consumer of items, and the ways to run it.

use super::batch::Batch;
use super::builder::BatchProcessorBuilder;
use super::coalesce::Coalescing;
use super::keys::{Divide, Held, Part};
use super::options::Options;
use super::span::{Shape, Start};
use super::{Item, Outcomes, ProcessorStats, scope};
use crate::collector::FlusherHandle;
use crate::collector::handle::Control;
use crate::collector::log::{self, RefusalLog};
use crate::error::Timeout;
use crate::link_set::LinkSet;
use crate::meter::BatchMeter;
use crate::panic::caught;
use crate::queue::Queue;
use crate::queue::receiver::Receiver;
use crate::stats::Stats;
use crate::sync::{Arc, Ordering};
use opentelemetry::Context;
use std::borrow::Cow;
use std::collections::VecDeque;
use std::fmt::{self, Display};
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

/// Turns items from many threads and tasks into batches, each with one span that links the
/// requests of its items, and gives every caller its own item's result.
///
/// It is a [`LinkCollector`](crate::LinkCollector) whose rings carry payloads: exact size trigger,
/// timeout, bounded queue, de-duplicated and bounded links. Threads and tasks submit by clones of
/// one [`Submitter`](super::Submitter). Run the processor on a thread of yours ([`run`](Self::run),
/// [`run_each`](Self::run_each)), on one of its own ([`spawn`](Self::spawn),
/// [`spawn_each`](Self::spawn_each)), in a task (`run_async`, `run_each_async`; feature `tokio`),
/// or take the batches one by one ([`next_batch`](Self::next_batch)).
///
/// ```
/// use batchlink::processor::BatchProcessor;
/// use opentelemetry::global;
/// use std::{io, time::Duration};
///
/// // Rows, the result of each, and the error of one that failed.
/// let (submitter, processor) = BatchProcessor::<String, usize, io::Error>::builder("insert_batch")
///     .with_max_batch_size(64)
///     .build(global::tracer("writer"))?;
/// let handle = processor.spawn(|batch| {
///     // ... one transaction for all rows
///     batch.succeed_all(|row| row.len());
/// })?;
///
/// let length = submitter.call_blocking("a row".to_owned())?;
/// assert_eq!(length, 5);
/// handle.shutdown_with_timeout(Duration::from_secs(5))?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// `?` needs an `E` that is an error; see [`CallError`](super::CallError) for a `String`. There is
/// no [`with_max_delay`](BatchProcessorBuilder::with_max_delay) here: it defaults to zero, and
/// callers that wait would only lose it.
///
/// # The batch span
///
/// It starts with the links and `batch.size`, `batch.links`, `batch.trigger`, `batch.number`, and
/// ends with `batch.succeeded`, `batch.failed` and `batch.success_rate`. An item counts as
/// succeeded only if the handler said so (`succeed`, `complete`, `Ok` of `run_each`). If an item
/// failed the status is `Error` with the first error's text, cut at 4096 bytes, and `error.type` is
/// `_OTHER` for an error of the handler, or `panicked`, `dropped`, `unanswered`, `result_count`,
/// `clone_panicked`. The first error and every panic are `exception` events. A status or
/// `error.type` that you set stays; success sets none.
///
/// # Suppressed telemetry
///
/// Items that are submitted where telemetry is suppressed
/// ([`Context::enter_telemetry_suppressed_scope`]) are processed without spans of their own and
/// without a link. A batch of only such items has no span, and telemetry is suppressed in its
/// handler. A mixed batch has a span that counts all of its items. So an exporter that submits to a
/// processor on its own provider does not feed itself.
///
/// # Dropping it
///
/// Dropping the processor closes it. Items that wait are dropped and counted as failed, and their
/// callers get [`CallError::Closed`](super::CallError::Closed). The drop waits for submissions that
/// are in the middle of being made, which takes nanoseconds unless their thread lost the processor.
pub struct BatchProcessor<T, R, E> {
    pub(super) receiver: Receiver<Item<T, R, E>>,
    pub(super) set: LinkSet,
    pub(super) start: Start,
    pub(super) divide: Option<Divide<T, R, E>>,
    /// Items held by key, if keys have batches of their own.
    pub(super) held: Option<Held<T, R, E>>,
    pub(super) coalescing: Option<Coalescing<T, R, E>>,
    pub(super) options: Options,
    pub(super) shape: Shape<T>,
    pub(super) outcomes: Arc<Outcomes>,
    /// Taken and not yet handed out. With keys there can be more than one.
    pub(super) parts: VecDeque<Part<T, R, E>>,
    /// Batches made so far.
    pub(super) number: u64,
    pub(super) log: RefusalLog,
    pub(super) meter: BatchMeter,
}

/// What handles do with a processor.
pub(super) struct Handled<T, R, E> {
    pub(super) queue: Arc<Queue<Item<T, R, E>>>,
    pub(super) outcomes: Arc<Outcomes>,
}

impl<T: Send, R: Send, E: Send> Control for Handled<T, R, E> {
    fn close(&self) {
        self.queue.close();
    }

    fn stats(&self) -> Stats {
        self.queue.stats()
    }

    fn in_flight(&self) -> u64 {
        ProcessorStats::new(self.queue.stats(), &self.outcomes).in_flight()
    }
}

impl<T, R, E> BatchProcessor<T, R, E>
where
    T: Send + 'static,
    R: Send + 'static,
    E: Send + 'static,
{
    /// Starts a configuration. `name` is the name of the batch spans.
    ///
    /// ```
    /// # use batchlink::processor::BatchProcessor;
    /// # use opentelemetry::trace::noop::NoopTracer;
    /// let builder = BatchProcessor::<u64, (), String>::builder("send").with_max_batch_size(100);
    /// let (submitter, processor) = builder.build(NoopTracer::new())?;
    /// # drop((submitter, processor));
    /// # Ok::<(), batchlink::ConfigError>(())
    /// ```
    pub fn builder(name: impl Into<Cow<'static, str>>) -> BatchProcessorBuilder<T, R, E> {
        BatchProcessorBuilder::new(name.into())
    }

    pub(super) fn new(
        receiver: Receiver<Item<T, R, E>>,
        set: LinkSet,
        start: Start,
        divide: Option<Divide<T, R, E>>,
        (options, shape): (Options, Shape<T>),
        outcomes: Arc<Outcomes>,
        meter: BatchMeter,
    ) -> Self {
        Self {
            receiver,
            set,
            start,
            divide,
            options,
            shape,
            outcomes,
            held: None,
            coalescing: None,
            parts: VecDeque::new(),
            number: 0,
            log: RefusalLog::new(log::Consumer::Processor),
            meter,
        }
    }

    /// **Blocks** the thread until a batch is due, and starts its span. Returns `None` once the
    /// processor is closed and every item was handed out.
    ///
    /// **On a thread of an async runtime this stops all its other tasks**, perhaps those that
    /// submit. Use `next`, or a thread of its own.
    pub fn next_batch(&mut self) -> Option<Batch<T, R, E>> {
        while self.parts.is_empty() {
            let due = self.receiver.wait()?;
            self.take(due);
        }
        self.next_part()
    }

    /// **Blocks** the thread as [`next_batch`](Self::next_batch) does, at most for `timeout`. Zero
    /// does not wait.
    ///
    /// # Errors
    ///
    /// [`Timeout`] if no batch was due by then. Nothing is lost by that.
    pub fn next_batch_timeout(
        &mut self,
        mut timeout: Duration,
    ) -> Result<Option<Batch<T, R, E>>, Timeout> {
        // A take may make no batch due: items are held by key, or all callers have left. Without
        // a deadline, which is beyond what `Instant` can hold, the wait starts anew.
        let again = self.options.skip_canceled || self.held.is_some();
        let deadline = again.then(|| Instant::now().checked_add(timeout)).flatten();
        while self.parts.is_empty() {
            let Some(due) = self.receiver.wait_timeout(timeout)? else { return Ok(None) };
            self.take(due);
            if let Some(deadline) = deadline {
                timeout = deadline.saturating_duration_since(Instant::now());
            }
        }
        Ok(self.next_part())
    }

    /// Returns what is pending now, up to one batch ([`Trigger::Manual`](crate::Trigger)), or
    /// `None` if nothing is. Does not wait.
    pub fn try_next(&mut self) -> Option<Batch<T, R, E>> {
        while self.parts.is_empty() {
            let due = self.receiver.available()?;
            self.take(due);
        }
        self.next_part()
    }

    /// **Blocks** the thread until the processor is closed and every item was handed out, and calls
    /// `handler` with each batch.
    ///
    /// The batch's span is current while `handler` runs, and does not end before it returns. Items
    /// that `handler` leaves unanswered are failed. A panic of `handler` fails them too, is
    /// recorded on the span and counted in [`Stats::handler_panics`](crate::Stats::handler_panics),
    /// and the next batch comes as usual.
    ///
    /// **On a thread of an async runtime this stops all its other tasks**, perhaps those that
    /// submit. Use `run_async`, or [`spawn`](Self::spawn). A handler that keeps a
    /// [`Submitter`](super::Submitter) keeps the processor open: give it a
    /// [`WeakSubmitter`](super::WeakSubmitter).
    pub fn run(&mut self, mut handler: impl FnMut(Batch<T, R, E>)) {
        while let Some(batch) = self.next_batch() {
            let span = Arc::clone(&batch.span);
            let _current = span.context().clone().attach();
            let _scope = scope::enter(&self.outcomes);
            if let Err(panic) = catch_unwind(AssertUnwindSafe(|| handler(batch))) {
                self.handler_panicked(&span, panic);
            }
        }
    }

    /// **Blocks** the thread until the processor is closed and every item was handed out, and calls
    /// `handler` with each item. In async code use `run_each_async`, or
    /// [`spawn_each`](Self::spawn_each); see [`run`](Self::run).
    ///
    /// Each item has a span of its own, a child of the batch span and linked to the item's request.
    /// It is current during the call, and passed as a `Context`. It gets the event
    /// `item.succeeded`, or `item.failed` with the `error`, an `exception` event, `error.type` and
    /// the status `Error`. An item that fails or panics does not touch its neighbours. By
    /// [`with_baggage`](BatchProcessorBuilder::with_baggage) it also has the item's own baggage.
    pub fn run_each(&mut self, mut handler: impl FnMut(T, &Context) -> Result<R, E>)
    where
        E: Display,
    {
        while let Some(batch) = self.next_batch() {
            // Keeps the batch's span open until its items' spans have ended.
            let whole = Arc::clone(&batch.span);
            for item in batch {
                let (payload, span) = self.start_item(item, whole.context());
                let _current = span.context().clone().attach();
                let _scope = scope::enter(&self.outcomes);
                let result = catch_unwind(AssertUnwindSafe(|| handler(payload, span.context())));
                self.end_item(span, result);
            }
        }
    }

    /// Moves the processor to a thread of its own that calls [`run`](Self::run). The thread is
    /// named `batchlink-flusher`, as a collector's is.
    ///
    /// # Errors
    ///
    /// The error of the operating system if it has no thread to give. The processor is then closed.
    pub fn spawn(
        mut self,
        handler: impl FnMut(Batch<T, R, E>) + Send + 'static,
    ) -> io::Result<FlusherHandle> {
        FlusherHandle::spawn(self.handled(), move || self.run(handler))
    }

    /// Moves the processor to a thread of its own that calls [`run_each`](Self::run_each). The
    /// thread is named `batchlink-flusher`, as a collector's is.
    ///
    /// # Errors
    ///
    /// The error of the operating system if it has no thread to give. The processor is then closed.
    pub fn spawn_each(
        mut self,
        handler: impl FnMut(T, &Context) -> Result<R, E> + Send + 'static,
    ) -> io::Result<FlusherHandle>
    where
        E: Display,
    {
        FlusherHandle::spawn(self.handled(), move || self.run_each(handler))
    }

    /// Returns a snapshot of the counters.
    pub fn stats(&self) -> ProcessorStats {
        ProcessorStats::new(self.receiver.queue().stats(), &self.outcomes)
    }

    fn handled(&self) -> Handled<T, R, E> {
        Handled { queue: Arc::clone(self.receiver.queue()), outcomes: Arc::clone(&self.outcomes) }
    }
}

/// Nothing in it is pinned: it does not hold the handlers' futures.
impl<T, R, E> Unpin for BatchProcessor<T, R, E> {}

impl<T, R, E> Drop for BatchProcessor<T, R, E> {
    fn drop(&mut self) {
        self.log.end(&self.receiver.queue().stats());
        let parts = std::mem::take(&mut self.parts);
        let discard = |item: Item<T, R, E>| {
            self.outcomes.failed.fetch_add(1, Ordering::Relaxed);
            // A payload's drop may panic, and the others must be dropped, too.
            let _ = caught(|| drop(item));
        };
        for Part { items, ticket, .. } in parts {
            items.into_iter().for_each(discard);
            drop(ticket);
        }
        let held = self.held.take();
        // Its keys are dropped last, by the user's code.
        let _ = caught(|| held.into_iter().for_each(|held| held.discard(discard)));
        self.receiver.queue().held.store(0, Ordering::Relaxed);
        self.receiver.drain.held_until = None;
        self.receiver.discard(discard);
    }
}

impl<T, R, E> fmt::Debug for BatchProcessor<T, R, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let stats = ProcessorStats::new(self.receiver.queue().stats(), &self.outcomes);
        f.debug_struct("BatchProcessor").field("stats", &stats).finish_non_exhaustive()
    }
}
