//! What the one consumer of items holds, and the ways to run it.

use super::batch::{Batch, BatchItem};
use super::builder::{BatchProcessorBuilder, Divide};
use super::span::{BatchSpan, ItemSpan, OwnSpan, Start};
use super::{Item, Outcomes, ProcessorStats, scope};
use crate::collector::FlusherHandle;
use crate::collector::handle::Control;
use crate::collector::log::{self, RefusalLog};
use crate::error::Timeout;
use crate::link_set::LinkSet;
use crate::links::{ITEM_INDEX, int};
use crate::panic::{caught, discard};
use crate::queue::Queue;
use crate::queue::progress::{Progress, Ticket};
use crate::queue::receiver::{Due, Receiver};
use crate::stats::{Stats, Trigger};
use crate::sync::{Arc, Ordering};
use opentelemetry::trace::SpanBuilder;
use opentelemetry::{Context, KeyValue};
use std::any::Any;
use std::borrow::Cow;
use std::collections::VecDeque;
use std::fmt::{self, Display};
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

/// Turns items from many threads and tasks into batches, each with one span that links the
/// requests of its items, and gives every caller its own item's result.
///
/// It is a [`LinkCollector`](crate::LinkCollector) whose rings carry payloads: exact size trigger,
/// timeout, bounded queue, de-duplicated and bounded links. There is one processor; whoever has a
/// [`Submitter`](super::Submitter) can submit. Run it on a thread of yours ([`run`](Self::run),
/// [`run_each`](Self::run_each)), on one of its own ([`spawn`](Self::spawn),
/// [`spawn_each`](Self::spawn_each)), in a task (`run_async`, `run_each_async`; feature `tokio`),
/// or take the batches one by one ([`next_batch`](Self::next_batch)).
///
/// ```
/// use batchlink::processor::BatchProcessor;
/// use opentelemetry::global;
/// use std::time::Duration;
///
/// let (submitter, processor) = BatchProcessor::builder("insert_batch")
///     .with_max_batch_size(64)
///     .with_max_delay(Duration::from_millis(5))
///     .build(global::tracer("writer"))?;
/// let handle = processor.spawn(|batch| {
///     // ... one transaction for all rows
///     batch.succeed_all(|row: &String| row.len());
/// })?;
///
/// let length = submitter.call_blocking("a row".to_owned());
/// assert_eq!(length, Ok::<_, batchlink::processor::CallError<String>>(5));
/// handle.shutdown_with_timeout(Duration::from_secs(5))?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// The batch span has, at its start, the links and `batch.size`, `batch.links`, `batch.trigger`,
/// `batch.number`; at its end `batch.succeeded`, `batch.failed`, `batch.success_rate`, and a status:
/// *Ok*, or *Error* with the number of items that failed.
///
/// Dropping it closes it: items that wait are dropped and their callers get
/// [`CallError::Closed`](super::CallError::Closed). That waits for submissions that are in the
/// middle of being made, which takes nanoseconds unless their thread lost the processor.
pub struct BatchProcessor<T, R, E> {
    pub(super) receiver: Receiver<Item<T, R, E>>,
    set: LinkSet,
    start: Start,
    divide: Option<Divide<T, R, E>>,
    name: Cow<'static, str>,
    item_name: Cow<'static, str>,
    pub(super) outcomes: Arc<Outcomes>,
    /// Taken and not yet given out: more than one part if there are keys.
    pub(super) parts: VecDeque<Vec<Item<T, R, E>>>,
    /// Of all these parts, and of those given out.
    ticket: Option<Arc<Ticket>>,
    trigger: Trigger,
    /// Batches made so far.
    number: u64,
    log: RefusalLog,
}

/// What a handle does with a processor.
struct Handled<T, R, E> {
    queue: Arc<Queue<Item<T, R, E>>>,
    outcomes: Arc<Outcomes>,
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
    /// Starts a configuration; `name` is the batch span's.
    pub fn builder(name: impl Into<Cow<'static, str>>) -> BatchProcessorBuilder<T, R, E> {
        BatchProcessorBuilder::new(name.into())
    }

    pub(super) fn new(
        receiver: Receiver<Item<T, R, E>>,
        set: LinkSet,
        start: Start,
        divide: Option<Divide<T, R, E>>,
        (name, item_name): (Cow<'static, str>, Cow<'static, str>),
        outcomes: Arc<Outcomes>,
    ) -> Self {
        Self {
            receiver,
            set,
            start,
            divide,
            name,
            item_name,
            outcomes,
            parts: VecDeque::new(),
            ticket: None,
            trigger: Trigger::Manual,
            number: 0,
            log: RefusalLog::new(log::Consumer::Processor),
        }
    }

    /// **Blocks** the thread until a batch is due, and starts its span. Returns `None` once the
    /// processor is closed and every item was handed out.
    ///
    /// **On a thread of an async runtime this stops all its other tasks**, perhaps those that submit.
    /// Use `next`, or a thread of its own.
    pub fn next_batch(&mut self) -> Option<Batch<T, R, E>> {
        if self.parts.is_empty() {
            let due = self.receiver.wait()?;
            self.take(due);
        }
        self.next_part()
    }

    /// **Blocks** the thread as [`next_batch`](Self::next_batch) does, at most for `timeout`. Zero does
    /// not wait.
    ///
    /// # Errors
    ///
    /// [`Timeout`] if no batch was due by then. Nothing is lost by that.
    pub fn next_batch_timeout(&mut self, timeout: Duration) -> Result<Option<Batch<T, R, E>>, Timeout> {
        if self.parts.is_empty() {
            let Some(due) = self.receiver.wait_timeout(timeout)? else { return Ok(None) };
            self.take(due);
        }
        Ok(self.next_part())
    }

    /// Returns what is pending now, up to one batch ([`Trigger::Manual`]), or `None` if nothing is. Does
    /// not wait.
    pub fn try_next(&mut self) -> Option<Batch<T, R, E>> {
        if self.parts.is_empty() {
            let due = self.receiver.available()?;
            self.take(due);
        }
        self.next_part()
    }

    /// **Blocks** the thread until the processor is closed and every item was handed out, and calls
    /// `handler` with each batch.
    ///
    /// A panic of `handler` fails the items that it had not answered, is counted in
    /// [`Stats::handler_panics`](crate::Stats::handler_panics), and the next batch comes as usual.
    ///
    /// **On a thread of an async runtime this stops all its other tasks**, perhaps those that submit.
    /// Use `run_async`, or [`spawn`](Self::spawn). A handler that keeps a
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
    /// Each item has a span of its own, child of the batch span and linked to the item's request;
    /// it is the current one during the call and is passed as a `Context`. It gets the event
    /// `item.succeeded`, or `item.failed` with the `error`, and a status to match. An item that
    /// fails or panics does not touch its neighbours.
    pub fn run_each(&mut self, mut handler: impl FnMut(T, &Context) -> Result<R, E>)
    where
        E: Display,
    {
        while let Some(batch) = self.next_batch() {
            // It ends after its items' spans.
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

    /// Moves the processor to a thread of its own, named `batchlink-flusher`, that does
    /// [`run`](Self::run).
    ///
    /// # Errors
    ///
    /// If the operating system has no thread to give. The processor is then closed.
    pub fn spawn(
        mut self,
        handler: impl FnMut(Batch<T, R, E>) + Send + 'static,
    ) -> io::Result<FlusherHandle> {
        FlusherHandle::spawn(self.handled(), move || self.run(handler))
    }

    /// Moves the processor to a thread of its own, named `batchlink-flusher`, that does
    /// [`run_each`](Self::run_each).
    ///
    /// # Errors
    ///
    /// As [`spawn`](Self::spawn).
    pub fn spawn_each(
        mut self,
        handler: impl FnMut(T, &Context) -> Result<R, E> + Send + 'static,
    ) -> io::Result<FlusherHandle>
    where
        E: Display,
    {
        FlusherHandle::spawn(self.handled(), move || self.run_each(handler))
    }

    /// The counters so far.
    pub fn stats(&self) -> ProcessorStats {
        ProcessorStats::new(self.receiver.queue().stats(), &self.outcomes)
    }

    /// Takes what is due out of the rings, divided if there are keys.
    pub(super) fn take(&mut self, Due { count, trigger }: Due) {
        let mut items = Vec::with_capacity(count as usize);
        let queue = Arc::clone(self.receiver.queue());
        self.ticket = Some(Arc::new(Progress::begin(&queue.progress, count)));
        // `None`, which is less than any weight, once an item is heavier than all the room: it goes alone.
        let mut room = Some(queue.weight.limit());
        self.receiver.drain.take(count, |take| {
            while let Some(item) = take.next_if(|item| items.is_empty() || Some(item.weight) <= room) {
                room = room.and_then(|room| room.checked_sub(item.weight));
                queue.weight.remove(item.weight);
                items.push(item);
            }
        });
        self.trigger = trigger;
        self.parts = match &mut self.divide {
            None => VecDeque::from([items]),
            Some(divide) => divide(items).into(),
        };
    }

    fn handled(&self) -> Handled<T, R, E> {
        Handled { queue: Arc::clone(self.receiver.queue()), outcomes: Arc::clone(&self.outcomes) }
    }

    pub(super) fn next_part(&mut self) -> Option<Batch<T, R, E>> {
        let items = self.parts.pop_front()?;
        // The last part has the processor's own.
        let ticket = if self.parts.is_empty() { self.ticket.take() } else { self.ticket.clone() };
        self.set.reserve(items.len());
        for item in &items {
            self.set.insert_bounded(&item.request);
        }
        self.number += 1;
        let links = self.set.finish_as(self.trigger);
        let (counts, uncounted) = (links.counts(), links.uncounted());
        let queue = self.receiver.queue();
        queue.totals.add_batch(&counts, self.trigger);
        self.log.check(|| queue.stats());
        let mut builder = links.span_builder(self.name.clone());
        builder.attributes.get_or_insert_default().push(KeyValue::new("batch.number", int(self.number)));
        let parent = Context::current();
        let span = match items.iter().all(|item| item.suppressed) {
            true => OwnSpan::suppressed(&parent),
            false => (self.start)(builder, &parent),
        };
        span.count_dropped_links(uncounted);
        let span = BatchSpan::new(span, items.len() as u64, Arc::clone(&self.outcomes), ticket);
        Some(Batch::new(items.into_iter(), span, counts, self.trigger, self.number))
    }

    pub(super) fn start_item(&self, item: BatchItem<T, R, E>, parent: &Context) -> (T, ItemSpan<R, E>) {
        let span = if item.suppressed {
            OwnSpan::suppressed(parent)
        } else {
            let mut builder = SpanBuilder::from_name(self.item_name.clone())
                .with_attributes([KeyValue::new(ITEM_INDEX, int(item.index()))]);
            // `with_links` would drop what the set's policy keeps.
            builder.links = self.set.link_to(&item.request, item.index()).map(|link| vec![link]);
            (self.start)(builder, parent)
        };
        let (payload, answer) = item.into_parts();
        (payload, ItemSpan::new(span, answer))
    }

    pub(super) fn end_item(&self, span: ItemSpan<R, E>, result: Result<Result<R, E>, Panic>)
    where
        E: Display,
    {
        match result {
            Ok(result) => span.end(Ok(result)),
            Err(panic) => {
                span.end(Err(panic.as_ref()));
                self.count_panic(panic);
            }
        }
    }

    pub(super) fn handler_panicked(&self, span: &BatchSpan, panic: Panic) {
        span.panicked(panic.as_ref());
        self.count_panic(panic);
    }

    fn count_panic(&self, panic: Panic) {
        self.receiver.queue().totals.add_handler_panic();
        discard(panic);
    }
}

/// What a handler panicked with.
type Panic = Box<dyn Any + Send>;

/// Nothing in it is pinned: the handlers' futures never live in here.
impl<T, R, E> Unpin for BatchProcessor<T, R, E> {}

impl<T, R, E> Drop for BatchProcessor<T, R, E> {
    fn drop(&mut self) {
        self.log.end(&self.receiver.queue().stats());
        let parts = std::mem::take(&mut self.parts);
        let discard = |item: Item<T, R, E>| {
            self.outcomes.failed.fetch_add(1, Ordering::Relaxed);
            // It is the user's, and its drop may panic; the others must go too.
            let _ = caught(|| drop(item));
        };
        parts.into_iter().flatten().for_each(discard);
        self.receiver.discard(discard);
    }
}

impl<T, R, E> fmt::Debug for BatchProcessor<T, R, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let stats = ProcessorStats::new(self.receiver.queue().stats(), &self.outcomes);
        f.debug_struct("BatchProcessor").field("stats", &stats).finish_non_exhaustive()
    }
}
