//! One batch of items.

use super::Item;
use super::answer::{Answer, CallError};
use super::failure::Failure;
use super::request::Extra;
use super::span::BatchSpan;
use crate::link_set::record::Bounded;
use crate::panic::caught;
use crate::stats::{Counts, Trigger, Wait};
use crate::sync::Arc;
use opentelemetry::Context;
use opentelemetry::baggage::Baggage;
use opentelemetry::trace::SpanContext;
use std::fmt::{self, Display};
use std::time::Duration;

/// A batch of items, with a span that links the request of each.
///
/// Iterate over it to answer item by item, or answer all items at once. An item counts as succeeded
/// only if it was answered so: a batch that is dropped, or a handler that returns early, fails the
/// items that are left. Items can be moved to other threads and tasks.
///
/// The span ends when every item has its answer and the batch is gone, and in
/// [`run`](super::BatchProcessor::run), `run_async` and [`spawn`](super::BatchProcessor::spawn) not
/// before the handler has returned. There it is the current one while the handler runs. Elsewhere,
/// and in threads and tasks that the handler starts, attach [`context`](Self::context) or pass it
/// on (`batch.context().clone().attach()`; `future.with_context(batch.context().clone())`).
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
#[must_use = "dropping it fails its items"]
pub struct Batch<T, R, E> {
    /// In order of arrival, per producer.
    pub(super) items: Vec<BatchItem<T, R, E>>,
    pub(super) span: Arc<BatchSpan>,
    made: Made,
}

/// What is known of a batch when it is made.
#[derive(Clone, Copy)]
pub(super) struct Made {
    pub(super) counts: Counts,
    pub(super) trigger: Trigger,
    pub(super) number: u64,
    pub(super) wait: Wait,
    /// When it was made, by the queue's clock, if waits are measured.
    pub(super) at: u64,
}

impl<T, R, E> Batch<T, R, E> {
    pub(super) fn new(
        items: impl ExactSizeIterator<Item = Item<T, R, E>>,
        span: BatchSpan,
        made: Made,
    ) -> Self {
        let span = Arc::new(span);
        let item = |(index, item): (usize, Item<T, R, E>)| BatchItem {
            suppressed: item.is_suppressed(),
            wait: item.wait(made.at),
            payload: item.payload,
            request: item.request,
            extra: item.extra,
            index,
            answer: Answer::new(item.caller, Arc::clone(&span)),
        };
        let items = items.enumerate().map(item).collect();
        Self { items, span, made }
    }

    /// Returns the number of items, at least 1. With
    /// [`with_coalescing`](super::BatchProcessorBuilder::with_coalescing) it is the number of keys,
    /// and [`counts`](Self::counts) has the number of items that were submitted.
    #[expect(clippy::len_without_is_empty)] // never empty
    pub fn len(&self) -> usize {
        self.items.len()
    }

    /// Returns the payloads, in order.
    pub fn payloads(&self) -> impl ExactSizeIterator<Item = &T> {
        self.items.iter().map(BatchItem::payload)
    }

    /// Returns the items, in order. Iterate over the batch to take them.
    pub fn items(&self) -> &[BatchItem<T, R, E>] {
        &self.items
    }

    /// Returns the context of the batch span, to be the parent of further spans. If all items were
    /// submitted where telemetry is suppressed there is no span, and telemetry is suppressed in it.
    pub fn context(&self) -> &Context {
        self.span.context()
    }

    /// Returns what ended the batch.
    pub fn trigger(&self) -> Trigger {
        self.made.trigger
    }

    /// Returns the number of this batch, from 1 on: `batch.number` on its span.
    pub fn number(&self) -> u64 {
        self.made.number
    }

    /// Returns how many of the items' contexts were linked, and why others were not. All items
    /// count that were submitted, coalesced or not.
    pub fn counts(&self) -> Counts {
        self.made.counts
    }

    /// Returns how long the oldest item has waited for this batch; `None` if that is not known.
    ///
    /// If its items' waits are measured it is always known: the longest [`wait`](BatchItem::wait).
    /// Otherwise it is known where
    /// [`LinkBatch::oldest_wait`](crate::LinkBatch::oldest_wait) is, but not for a batch of one key
    /// among others.
    pub fn oldest_wait(&self) -> Option<Duration> {
        self.made.wait.oldest()
    }

    /// Returns a bound of the waits: no item has waited longer for this batch to be taken from the
    /// queue. See [`LinkBatch::wait_bound`](crate::LinkBatch::wait_bound).
    pub fn wait_bound(&self) -> Duration {
        self.made.wait.bound
    }

    /// Reports the results given, in the order of the items.
    ///
    /// All results are taken before the first is reported. If there is another number of them than
    /// of items, none is reported: every item fails with
    /// [`CallError::ResultCount`](super::CallError::ResultCount).
    ///
    /// ```
    /// # use batchlink::processor::BatchProcessor;
    /// # use opentelemetry::trace::noop::NoopTracer;
    /// let (submitter, mut processor) = BatchProcessor::<u64, (), String>::builder("insert")
    ///     .with_max_batch_size(2)
    ///     .build(NoopTracer::new())?;
    /// (1..=2).for_each(|row| submitter.submit(row).unwrap());
    /// let batch = processor.next_batch().expect("two items");
    /// batch.complete([Ok(()), Err("duplicate key".to_owned())]);
    /// assert_eq!((submitter.stats().succeeded(), submitter.stats().failed()), (1, 1));
    /// # Ok::<(), batchlink::ConfigError>(())
    /// ```
    pub fn complete(self, results: impl IntoIterator<Item = Result<R, E>>)
    where
        E: Display,
    {
        let items = self.len();
        let results: Vec<_> = results.into_iter().take(items + 1).collect();
        if results.len() == items {
            for (item, result) in self.items.into_iter().zip(results) {
                item.complete(result);
            }
        } else {
            for item in self.items {
                let error = CallError::ResultCount { items, results: results.len() };
                item.finish(|answer| answer.give(Err(error), Failure::of));
            }
        }
    }

    /// Reports that every item succeeded, with what `result` makes of its payload.
    pub fn succeed_all(self, mut result: impl FnMut(&T) -> R) {
        for item in self.items {
            let result = result(&item.payload);
            item.succeed(result);
        }
    }

    /// Reports that every item failed, with what `error` makes of its payload.
    pub fn fail_all(self, mut error: impl FnMut(&T) -> E)
    where
        E: Display,
    {
        for item in self.items {
            let error = error(&item.payload);
            item.fail(error);
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
            .field("number", &self.made.number)
            .field("len", &self.len())
            .field("trigger", &self.made.trigger)
            .field("counts", &self.made.counts)
            .finish_non_exhaustive()
    }
}

/// One item of a batch. Dropping it reports a failure, as dropping its [`Answer`] does.
///
/// With [`with_coalescing`](super::BatchProcessorBuilder::with_coalescing) it is the first item of
/// its key, with its payload, context and baggage. Its answer goes to the callers of all items of
/// the key, its [`wait`](Self::wait) is the longest of theirs, and its [`index`](Self::index) is
/// that of the key. The span that `run_each` starts links all of their requests, up to `max_links`.
///
/// ```
/// # fn handler(batch: batchlink::processor::Batch<String, usize, String>) {
/// for item in batch {
///     match item.payload().len() {
///         0 => item.fail("an empty row".into()),
///         length => item.succeed(length),
///     }
/// }
/// # }
/// ```
#[must_use = "dropping it fails the item"]
pub struct BatchItem<T, R, E> {
    pub(super) payload: T,
    pub(super) request: Bounded,
    /// It was submitted where telemetry is suppressed.
    pub(super) suppressed: bool,
    pub(super) extra: Option<Box<Extra>>,
    pub(super) index: usize,
    pub(super) wait: Option<Duration>,
    pub(super) answer: Answer<R, E>,
}

impl<T, R, E> BatchItem<T, R, E> {
    /// Returns what was submitted.
    pub fn payload(&self) -> &T {
        &self.payload
    }

    /// Returns the context of the request's span. It is invalid if the item was submitted outside
    /// of any span, or where telemetry is suppressed.
    pub fn span_context(&self) -> &SpanContext {
        &self.request.context
    }

    /// Returns the contexts of the requests that get its answer, for a span of your own that links
    /// them: [`span_context`](Self::span_context), and those of items that were coalesced with it.
    pub fn span_contexts(&self) -> impl Iterator<Item = &SpanContext> {
        let others = self.extra.iter().flat_map(|extra| &extra.requests);
        std::iter::once(&self.request).chain(others).map(|request| &request.context)
    }

    /// Returns the baggage of the context that it was submitted in; `None` if there was none, or
    /// [`with_baggage`](super::BatchProcessorBuilder::with_baggage) does not ask for it.
    pub fn baggage(&self) -> Option<&Baggage> {
        self.extra.as_ref()?.baggage.as_ref()
    }

    /// Returns the place in the batch, from 0 on.
    pub fn index(&self) -> usize {
        self.index
    }

    /// Returns how long it waited, from its submission to its batch, the wait for a free slot
    /// included. `None` if it is not measured: it is with
    /// [`with_wait_times`](super::BatchProcessorBuilder::with_wait_times), and with
    /// [`with_key_batches`](super::BatchProcessorBuilder::with_key_batches).
    pub fn wait(&self) -> Option<Duration> {
        self.wait
    }

    /// Returns whether a caller waits for the result, of any item that shares it; see
    /// [`Answer::is_awaited`].
    pub fn is_awaited(&self) -> bool {
        self.answer.is_awaited()
    }

    /// Returns the payload, and the handle to report its result.
    pub fn into_parts(self) -> (T, Answer<R, E>) {
        (self.payload, self.answer)
    }

    /// Reports success; see [`Answer::succeed`].
    pub fn succeed(self, result: R) {
        self.finish(|answer| answer.succeed(result));
    }

    /// Reports a failure; see [`Answer::fail`].
    pub fn fail(self, error: E)
    where
        E: Display,
    {
        self.finish(|answer| answer.fail(error));
    }

    /// Reports `result`.
    pub fn complete(self, result: Result<R, E>)
    where
        E: Display,
    {
        self.finish(|answer| answer.complete(result));
    }

    /// Answers, then drops the payload: its drop is user code, and must not cost other items their
    /// answers.
    fn finish(self, answer: impl FnOnce(Answer<R, E>)) {
        let (payload, handle) = self.into_parts();
        answer(handle);
        let _ = caught(|| drop(payload));
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
