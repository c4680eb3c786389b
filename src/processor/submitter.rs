//! What those who have items hold.

use super::answer::{CallError, Caller, Waiting, channel};
use super::builder::Weigh;
use super::{Item, Outcomes, ProcessorStats};
use crate::error::PushError;
use crate::link_set::record::Bounded;
use crate::panic::caught;
use crate::queue::{Handle, MAX_WEIGHT};
use crate::sync::Arc;
use opentelemetry::Context;
use opentelemetry::trace::{SpanContext, TraceContextExt};
use std::error::Error;
use std::fmt;
use std::time::{Duration, Instant};

/// Gives items to a [`BatchProcessor`](super::BatchProcessor). Clone it into every thread or task
/// that has some; when the last one is gone, the processor closes by itself.
///
/// Two ways: [`submit`](Self::submit) and forget, or [`call`](Self::call) and get the item's own
/// result back. Each in a variant that refuses when the queue is full and one that waits.
pub struct Submitter<T, R, E> {
    queue: Handle<Item<T, R, E>>,
    outcomes: Arc<Outcomes>,
    weigh: Option<Weigh<T>>,
}

impl<T, R, E> Submitter<T, R, E> {
    pub(super) fn new(
        queue: Handle<Item<T, R, E>>,
        outcomes: Arc<Outcomes>,
        weigh: Option<Weigh<T>>,
    ) -> Self {
        Self { queue, outcomes, weigh }
    }

    /// Adds an item to the next batch, linked to the active span of the current
    /// [`Context`](opentelemetry::Context). Never blocks. An item without a span is processed like
    /// any other and counted as invalid among the links.
    ///
    /// Cost: one uncontended read-modify-write, and the item moved into the ring.
    ///
    /// # Errors
    ///
    /// [`SubmitError`] with the item if this thread's shard is full or the processor is closed.
    pub fn submit(&self, item: T) -> Result<(), SubmitError<T>> {
        self.put(self.item(item, current(), None)).map_err(SubmitError::from)
    }

    /// As [`submit`](Self::submit), linked to the span given.
    ///
    /// # Errors
    ///
    /// As there.
    pub fn submit_with_context(&self, item: T, context: &SpanContext) -> Result<(), SubmitError<T>> {
        self.put(self.item(item, given(context), None)).map_err(SubmitError::from)
    }

    /// As [`submit`](Self::submit), but waits for room: back-pressure. **Blocks the thread**; not
    /// to be called from the processor's own handler, which would wait for itself.
    ///
    /// # Errors
    ///
    /// [`SubmitError`] with the item if the processor is closed, also while waiting.
    pub fn submit_wait(&self, item: T) -> Result<(), SubmitError<T>> {
        let item = self.item(item, current(), None);
        self.wait(item, None).map_err(SubmitError::from)
    }

    /// As [`submit_wait`](Self::submit_wait), at most for `timeout`.
    ///
    /// # Errors
    ///
    /// As there, and if there was no room in time.
    pub fn submit_wait_timeout(&self, item: T, timeout: Duration) -> Result<(), SubmitError<T>> {
        let item = self.item(item, current(), None);
        let deadline = Instant::now().checked_add(timeout);
        self.wait(item, deadline).map_err(SubmitError::from)
    }

    /// As [`submit_wait`](Self::submit_wait), for tasks of any executor. Cancel-safe: dropped
    /// before it is ready, it has submitted nothing (and the item is dropped with it).
    ///
    /// # Errors
    ///
    /// As there.
    pub async fn submit_wait_async(&self, item: T) -> Result<(), SubmitError<T>> {
        self.wait_async(self.item(item, current(), None)).await.map_err(SubmitError::from)
    }

    /// Submits an item and waits for its own result, on any executor.
    ///
    /// Dropped while it waits, the item stays in its batch and its result goes nowhere; wrap it in
    /// your runtime's timeout at will. Cost beyond [`submit`](Self::submit): one allocation.
    ///
    /// # Errors
    ///
    /// [`CallError::Full`] and [`CallError::Closed`] if the item was not accepted,
    /// [`CallError::Closed`] also if the processor went before it took the item;
    /// [`CallError::Failed`], [`CallError::Panicked`], [`CallError::Unanswered`]: the handler's.
    pub async fn call(&self, item: T) -> Result<R, CallError<E>> {
        self.ask(item, current())?.await
    }

    /// As [`call`](Self::call), linked to the span given.
    ///
    /// # Errors
    ///
    /// As there.
    pub async fn call_with_context(&self, item: T, context: &SpanContext) -> Result<R, CallError<E>> {
        self.ask(item, given(context))?.await
    }

    /// As [`call`](Self::call), but waits for room first: back-pressure.
    ///
    /// # Errors
    ///
    /// As there, without [`CallError::Full`].
    pub async fn call_wait(&self, item: T) -> Result<R, CallError<E>> {
        let (caller, waiting) = channel();
        self.wait_async(self.item(item, current(), Some(caller))).await.map_err(refused)?;
        waiting.await
    }

    /// As [`call`](Self::call), on a thread. **Blocks it**; not to be called from the processor's
    /// own handler, which would wait for itself.
    ///
    /// # Errors
    ///
    /// As there.
    pub fn call_blocking(&self, item: T) -> Result<R, CallError<E>> {
        self.ask(item, current())?.wait(None)
    }

    /// As [`call_blocking`](Self::call_blocking), at most for `timeout`. An item that was accepted
    /// is processed all the same.
    ///
    /// # Errors
    ///
    /// As there, and [`CallError::Timeout`].
    pub fn call_blocking_timeout(&self, item: T, timeout: Duration) -> Result<R, CallError<E>> {
        let waiting = self.ask(item, current())?;
        waiting.wait(Instant::now().checked_add(timeout))
    }

    /// Asks the processor to take what is pending now; does not wait for it.
    pub fn flush(&self) {
        self.queue.trigger.ask_flush();
    }

    /// Closes the processor for all: nothing is accepted any more, what was accepted is processed.
    pub fn close(&self) {
        self.queue.close();
    }

    /// The counters so far.
    pub fn stats(&self) -> ProcessorStats {
        ProcessorStats::new(self.queue.stats(), &self.outcomes)
    }

    /// Submits an item whose result is waited for.
    #[inline(always)]
    fn ask(&self, item: T, request: Request) -> Result<Waiting<R, E>, CallError<E>> {
        let (caller, waiting) = channel();
        self.put(self.item(item, request, Some(caller))).map_err(refused)?;
        Ok(waiting)
    }

    /// Everything that is the user's code, or allocates, comes before the claim. Inlined, as the
    /// two below: an item would be copied at every call.
    #[inline(always)]
    fn item(&self, payload: T, request: Request, caller: Option<Caller<R, E>>) -> Item<T, R, E> {
        // Capped here, so that all who count it count the same.
        let weight = self.weigh.as_ref().map_or(0, |weigh| weigh(&payload).min(MAX_WEIGHT));
        let Request { context: request, suppressed } = request;
        Item { payload, request, suppressed, weight, caller }
    }

    #[inline(always)]
    fn put(&self, item: Item<T, R, E>) -> Result<(), (Item<T, R, E>, PushError)> {
        let weight = item.weight;
        self.queue.thread_shard().push_value(item)?;
        self.weigh(weight);
        Ok(())
    }

    fn wait(&self, item: Item<T, R, E>, deadline: Option<Instant>) -> Result<(), (Item<T, R, E>, PushError)> {
        let weight = item.weight;
        self.queue.thread_shard().push_wait(deadline, item)?;
        self.weigh(weight);
        Ok(())
    }

    async fn wait_async(&self, item: Item<T, R, E>) -> Result<(), (Item<T, R, E>, PushError)> {
        let weight = item.weight;
        self.queue.thread_shard().push_wait_async(item).await?;
        self.weigh(weight);
        Ok(())
    }

    /// An item of this weight was published.
    #[inline(always)]
    fn weigh(&self, weight: u64) {
        if self.weigh.is_some() {
            self.queue.weigh(weight);
        }
    }
}

/// Where an item comes from.
struct Request {
    /// Invalid without a span, and where telemetry is suppressed.
    context: Bounded,
    suppressed: bool,
}

/// The active span's context; an invalid one if there is none.
#[inline]
fn current() -> Request {
    // Written in place: handed out through both closures it would be copied twice, just written.
    let mut request = Request { context: Bounded::NONE, suppressed: false };
    // A thread that is ending may have lost its current context; asking for it then panics.
    let _ = caught(|| {
        Context::map_current(|cx| {
            request.suppressed = cx.is_telemetry_suppressed();
            if !request.suppressed {
                request.context = Bounded::new(cx.span().span_context());
            }
        });
    });
    request
}

#[inline]
fn given(context: &SpanContext) -> Request {
    match caught(Context::is_current_telemetry_suppressed) {
        Some(true) => Request { context: Bounded::NONE, suppressed: true },
        _ => Request { context: Bounded::new(context), suppressed: false },
    }
}

fn refused<T, R, E>((_, reason): (Item<T, R, E>, PushError)) -> CallError<E> {
    match reason {
        PushError::Full => CallError::Full,
        PushError::Closed => CallError::Closed,
    }
}

impl<T, R, E> Clone for Submitter<T, R, E> {
    fn clone(&self) -> Self {
        Self { queue: self.queue.clone(), outcomes: Arc::clone(&self.outcomes), weigh: self.weigh.clone() }
    }
}

impl<T, R, E> fmt::Debug for Submitter<T, R, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Submitter").field("stats", &self.stats()).finish_non_exhaustive()
    }
}

/// An item that was not accepted, given back.
pub struct SubmitError<T> {
    item: T,
    reason: PushError,
}

impl<T> SubmitError<T> {
    /// The item, unchanged.
    pub fn into_item(self) -> T {
        self.item
    }

    /// Why it was refused.
    pub fn reason(&self) -> PushError {
        self.reason
    }
}

impl<T, R, E> From<(Item<T, R, E>, PushError)> for SubmitError<T> {
    fn from((item, reason): (Item<T, R, E>, PushError)) -> Self {
        Self { item: item.payload, reason }
    }
}

impl<T> fmt::Debug for SubmitError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SubmitError").field("reason", &self.reason).finish_non_exhaustive()
    }
}

impl<T> fmt::Display for SubmitError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "item not accepted: {}", self.reason)
    }
}

impl<T> Error for SubmitError<T> {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(&self.reason)
    }
}
