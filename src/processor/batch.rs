//! One batch of items, and the span that knows what became of them.

use super::answer::Answer;
use super::{Item, Outcomes};
use crate::link_set::record::Bounded;
use crate::links::int;
use crate::panic::caught;
use crate::stats::{Counts, Trigger};
use crate::sync::{Arc, AtomicU64, Ordering};
use opentelemetry::trace::{SpanContext, Status, TraceContextExt};
use opentelemetry::{Context, KeyValue};
use std::fmt;

/// The batch span, as long as an answer is due. When the last one is given it says how the batch
/// went, and ends.
pub(super) struct BatchSpan {
    context: Context,
    size: u64,
    succeeded: AtomicU64,
    outcomes: Arc<Outcomes>,
}

impl BatchSpan {
    pub(super) fn new(context: Context, size: u64, outcomes: Arc<Outcomes>) -> Self {
        Self { context, size, succeeded: AtomicU64::new(0), outcomes }
    }

    /// One item has its answer.
    pub(super) fn count(&self, succeeded: bool) {
        // Relaxed: read by whoever drops the last reference to this, and that acquires.
        if succeeded {
            self.succeeded.fetch_add(1, Ordering::Relaxed);
            self.outcomes.succeeded.fetch_add(1, Ordering::Relaxed);
        } else {
            self.outcomes.failed.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl BatchSpan {
    fn end(&self) {
        let succeeded = self.succeeded.load(Ordering::Relaxed);
        let failed = self.size - succeeded;
        let span = self.context.span();
        span.set_attribute(KeyValue::new("batch.succeeded", int(succeeded)));
        span.set_attribute(KeyValue::new("batch.failed", int(failed)));
        span.set_attribute(KeyValue::new("batch.success_rate", succeeded as f64 / self.size.max(1) as f64));
        span.set_status(match failed {
            0 => Status::Ok,
            1 => Status::error("1 item failed"),
            failed => Status::error(format!("{failed} items failed")),
        });
        span.end();
    }
}

impl Drop for BatchSpan {
    fn drop(&mut self) {
        // Span processors are the user's code; this may be a handler's unwinding, or an answer of many.
        let _ = caught(|| self.end());
    }
}

/// A batch of items with its span, which links every item's request.
///
/// The span ends, with the outcomes counted on it, when the batch is gone and every item has its
/// answer, so items can be moved to other threads and tasks. Iterate over it for the items, or
/// answer them all at once.
///
/// ```no_run
/// # fn insert_all(rows: &[&String]) -> Result<Vec<u64>, String> { Ok(vec![0; rows.len()]) }
/// # fn handler(batch: batchlink::processor::Batch<String, u64, String>) {
/// let rows: Vec<&String> = batch.payloads().collect();
/// match insert_all(&rows) {
///     Ok(ids) => batch.complete(ids.into_iter().map(Ok)),
///     Err(error) => batch.fail_all(|_row| error.clone()),
/// }
/// # }
/// ```
#[must_use = "items that are dropped fail their callers"]
pub struct Batch<T, R, E> {
    /// In order of arrival, per producer.
    pub(super) items: Vec<BatchItem<T, R, E>>,
    span: Arc<BatchSpan>,
    counts: Counts,
    trigger: Trigger,
    number: u64,
}

impl<T, R, E> Batch<T, R, E> {
    pub(super) fn new(
        items: impl ExactSizeIterator<Item = Item<T, R, E>>,
        span: BatchSpan,
        counts: Counts,
        trigger: Trigger,
        number: u64,
    ) -> Self {
        let span = Arc::new(span);
        let item = |(index, item): (usize, Item<T, R, E>)| BatchItem {
            payload: item.payload,
            request: item.request,
            index,
            answer: Answer::new(item.caller, Arc::clone(&span)),
        };
        let items = items.enumerate().map(item).collect();
        Self { items, span, counts, trigger, number }
    }

    /// How many items; at least 1.
    #[expect(clippy::len_without_is_empty)] // never empty
    pub fn len(&self) -> usize {
        self.items.len()
    }

    /// The payloads, in order.
    pub fn payloads(&self) -> impl ExactSizeIterator<Item = &T> {
        self.items.iter().map(BatchItem::payload)
    }

    /// The items, in order. (To take them, iterate over the batch.)
    pub fn items(&self) -> &[BatchItem<T, R, E>] {
        &self.items
    }

    /// The context of the batch span, as parent of further spans.
    pub fn context(&self) -> &Context {
        &self.span.context
    }

    /// What ended the batch.
    pub fn trigger(&self) -> Trigger {
        self.trigger
    }

    /// The number of this batch, from 1 on; `batch.number` on its span.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// What became of the items' contexts.
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// Answers every item, in order, by the results given. Items without a result fail with
    /// [`CallError::Unanswered`](super::CallError::Unanswered) if somebody waits; results without
    /// an item are dropped.
    pub fn complete(self, results: impl IntoIterator<Item = Result<R, E>>) {
        for (item, result) in self.items.into_iter().zip(results) {
            item.answer.complete(result);
        }
    }

    /// Every item was processed well; `result` makes each one's result.
    pub fn succeed_all(self, mut result: impl FnMut(&T) -> R) {
        for item in self.items {
            let result = result(&item.payload);
            item.answer.succeed(result);
        }
    }

    /// Every item failed; `error` makes each one's error.
    pub fn fail_all(self, mut error: impl FnMut(&T) -> E) {
        for item in self.items {
            let error = error(&item.payload);
            item.answer.fail(error);
        }
    }
}

impl<T, R, E> IntoIterator for Batch<T, R, E> {
    type Item = BatchItem<T, R, E>;
    type IntoIter = std::vec::IntoIter<BatchItem<T, R, E>>;

    fn into_iter(self) -> Self::IntoIter {
        self.items.into_iter()
    }
}

impl<T, R, E> fmt::Debug for Batch<T, R, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Batch")
            .field("number", &self.number)
            .field("len", &self.len())
            .field("trigger", &self.trigger)
            .field("counts", &self.counts)
            .finish_non_exhaustive()
    }
}

/// One item of a batch. See [`Answer`] for what happens if it is dropped.
#[must_use = "an item that is dropped fails its caller"]
pub struct BatchItem<T, R, E> {
    payload: T,
    pub(super) request: Bounded,
    index: usize,
    answer: Answer<R, E>,
}

impl<T, R, E> BatchItem<T, R, E> {
    /// What was submitted.
    pub fn payload(&self) -> &T {
        &self.payload
    }

    /// The request's span; invalid if it was submitted outside of any.
    pub fn span_context(&self) -> &SpanContext {
        &self.request.context
    }

    /// The place in the batch, from 0 on.
    pub fn index(&self) -> usize {
        self.index
    }

    /// Whether somebody waits for the result; see [`Answer::is_awaited`].
    pub fn is_awaited(&self) -> bool {
        self.answer.is_awaited()
    }

    /// The payload, and the duty to answer for it.
    pub fn into_parts(self) -> (T, Answer<R, E>) {
        (self.payload, self.answer)
    }

    /// It was processed well.
    pub fn succeed(self, result: R) {
        self.answer.succeed(result);
    }

    /// It failed.
    pub fn fail(self, error: E) {
        self.answer.fail(error);
    }

    /// As `result` says.
    pub fn complete(self, result: Result<R, E>) {
        self.answer.complete(result);
    }
}

impl<T: fmt::Debug, R, E> fmt::Debug for BatchItem<T, R, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BatchItem")
            .field("index", &self.index)
            .field("payload", &self.payload)
            .finish_non_exhaustive()
    }
}
