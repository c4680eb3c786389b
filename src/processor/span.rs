//! The spans of batches and items: how they start, report a failure, and end.

use super::Outcomes;
use super::answer::{Answer, CallError, CallResult};
use super::failure::{Failure, PANICKED};
use crate::link_set::batch::add_new;
use crate::link_set::{LinkBatch, LinkPages};
use crate::links::int;
use crate::meter::BatchTimer;
use crate::panic::{caught, unpoisoned};
use crate::queue::progress::Ticket;
use crate::span::OwnSpan;
use crate::sync::{Arc, AtomicU64, Ordering};
use opentelemetry::trace::{SpanBuilder, SpanKind, TraceContextExt, Tracer};
use opentelemetry::{Context, KeyValue};
use std::any::Any;
use std::borrow::Cow;
use std::fmt::Display;
use std::sync::Mutex;

/// Starts a span as child of the first context, and puts it into the second.
pub(super) type Start = Box<dyn Fn(SpanBuilder, &Context, &Context) -> OwnSpan + Send>;

/// Returns what starts spans with `tracer`.
pub(super) fn start_with<T>(tracer: T) -> Start
where
    T: Tracer + Send + Sync + 'static,
    T::Span: Send + Sync + 'static,
{
    Box::new(move |builder, parent, base| OwnSpan::start(&tracer, builder, parent, base))
}

/// What the spans of batches and items are like.
pub(super) struct Shape<T> {
    pub(super) name: Cow<'static, str>,
    pub(super) item_name: Cow<'static, str>,
    /// `None`: the API's default.
    pub(super) kind: Option<SpanKind>,
    pub(super) describe: Option<Describe<T>>,
}

/// Returns attributes of a batch, by its first item.
pub(super) type Describe<T> = Box<dyn FnMut(&T) -> Vec<KeyValue> + Send>;

impl<T> Shape<T> {
    pub(super) fn new(name: Cow<'static, str>) -> Self {
        Self { name, item_name: "process_item".into(), kind: None, describe: None }
    }

    /// Builds the span of a batch: all that samplers see.
    pub(super) fn batch(
        &mut self,
        links: LinkBatch,
        number: u64,
        coalesced: usize,
        first: Option<&T>,
    ) -> SpanBuilder {
        let mut builder = links.span_builder(self.name.clone());
        builder.span_kind = self.kind.clone();
        let attributes = builder.attributes.get_or_insert_default();
        attributes.push(KeyValue::new("batch.number", int(number)));
        if coalesced > 0 {
            attributes.push(KeyValue::new("batch.coalesced", int(coalesced as u64)));
        }
        if let (Some(describe), Some(first)) = (&mut self.describe, first) {
            add_new(attributes, caught(|| describe(first)).unwrap_or_default());
        }
        builder
    }
}

/// Starts and ends the spans of further pages of links, as [`LinkPages::start`] does.
pub(super) fn start_pages(start: &Start, pages: LinkPages, batch: &OwnSpan) {
    if batch.span_context().is_sampled() {
        pages
            .into_builders()
            .for_each(|span| end(&start(span, batch.context(), batch.context()), None));
    }
}

/// Records the failure's exception, if it is one, as the semantic conventions ask.
fn record(span: &OwnSpan, Failure { text, exception, .. }: &Failure) {
    let Some(exception) = *exception else { return };
    let _ = caught(|| {
        let attributes = vec![
            KeyValue::new("exception.type", exception),
            KeyValue::new("exception.message", text.clone()),
        ];
        span.context().span().add_event("exception", attributes);
    });
}

/// Ends the span: as failed if there is a failure, otherwise with the status that it has.
fn end(span: &OwnSpan, failure: Option<Failure>) {
    // An exporter may submit to a processor on its own provider: that makes no further span.
    let _suppressed = caught(Context::enter_telemetry_suppressed_scope);
    if let Some(Failure { kind, text, .. }) = failure {
        span.fail(kind.into(), text);
    }
    span.end();
}

/// The span of a batch, shared by the batch, its answers and the loop that runs its handler. When
/// the last of them is dropped it ends, with the outcomes (invariant `last-answer-ends`).
pub(super) struct BatchSpan {
    span: OwnSpan,
    size: u64,
    failed: AtomicU64,
    /// The first one. `std`'s lock: no step of the protocol depends on it, and no thread waits in
    /// it.
    failure: Mutex<Option<Failure>>,
    outcomes: Arc<Outcomes>,
    /// Before the ticket, so that the time is recorded when a flush hears of the batch.
    _timer: BatchTimer,
    /// Last, so that the span has ended when a flush hears of it.
    _ticket: Arc<Ticket>,
}

impl BatchSpan {
    pub(super) fn new(
        span: OwnSpan,
        size: u64,
        outcomes: Arc<Outcomes>,
        timer: BatchTimer,
        ticket: Arc<Ticket>,
    ) -> Self {
        let (failed, failure) = (AtomicU64::new(0), Mutex::new(None));
        Self { span, size, failed, failure, outcomes, _timer: timer, _ticket: ticket }
    }

    pub(super) fn context(&self) -> &Context {
        self.span.context()
    }

    /// Counts an item as succeeded.
    pub(super) fn succeed(&self) {
        self.outcomes.succeeded.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts an item as failed, and keeps why if it is the first.
    pub(super) fn fail(&self, why: impl FnOnce() -> Failure) {
        // Relaxed: read after the last reference was dropped, which acquires.
        self.failed.fetch_add(1, Ordering::Relaxed);
        self.outcomes.failed.fetch_add(1, Ordering::Relaxed);
        if self.with_failure(|first| first.is_some()) {
            return;
        }
        // Not under the lock: it is text that the user's code makes.
        let why = why();
        record(&self.span, &why);
        self.with_failure(|first| {
            first.get_or_insert(why);
        });
    }

    /// Records a panic of the batch's handler, which fails the batch even if every item has its
    /// answer.
    pub(super) fn panicked(&self, panic: &(dyn Any + Send)) {
        let why = Failure::panic(panic);
        record(&self.span, &why);
        self.with_failure(|first| {
            // The items that were dropped while it unwound did not know its message.
            if first.as_ref().is_none_or(|first| first.kind == PANICKED) {
                *first = Some(why);
            }
        });
    }

    fn with_failure<O>(&self, f: impl FnOnce(&mut Option<Failure>) -> O) -> O {
        let mut failure = unpoisoned(self.failure.lock());
        f(&mut failure)
    }
}

impl Drop for BatchSpan {
    fn drop(&mut self) {
        // Every item has its answer, of which a drop is one.
        let failed = self.failed.load(Ordering::Relaxed);
        let succeeded = self.size - failed;
        for attribute in [
            KeyValue::new("batch.succeeded", int(succeeded)),
            KeyValue::new("batch.failed", int(failed)),
            KeyValue::new("batch.success_rate", succeeded as f64 / self.size.max(1) as f64),
        ] {
            let _ = caught(|| self.span.context().span().set_attribute(attribute));
        }
        let failure = self.with_failure(Option::take).map(|first| {
            let text = match failed {
                0 => first.text,
                1 => format!("1 item failed: {}", first.text),
                _ => format!("{failed} items failed, first: {}", first.text),
            };
            Failure { text, ..first }
        });
        end(&self.span, failure);
    }
}

/// The span of one item whose handler runs. Dropped before that is done, it ends as failed, and so
/// does the item.
pub(super) struct ItemSpan<R, E> {
    span: OwnSpan,
    /// `None` once given.
    answer: Option<Answer<R, E>>,
}

impl<R, E> ItemSpan<R, E> {
    pub(super) fn new(span: OwnSpan, answer: Answer<R, E>) -> Self {
        Self { span, answer: Some(answer) }
    }

    pub(super) fn context(&self) -> &Context {
        self.span.context()
    }

    /// Answers the item by what its handler returned, or panicked with, and ends the span.
    pub(super) fn end(mut self, result: Result<Result<R, E>, &(dyn Any + Send)>)
    where
        E: Display,
    {
        match result {
            Ok(Ok(result)) => {
                let _ = caught(|| self.span.context().span().add_event("item.succeeded", vec![]));
                self.answer(Ok(result), None);
            }
            Ok(Err(error)) => {
                let why = Failure::error(&error);
                self.answer(Err(CallError::Failed(error)), Some(why));
            }
            Err(panic) => self.answer(Err(CallError::Panicked), Some(Failure::panic(panic))),
        }
    }

    fn answer(&mut self, reply: CallResult<R, E>, why: Option<Failure>) {
        let Some(answer) = self.answer.take() else { return };
        if let Some(why) = &why {
            let error = KeyValue::new("error", why.text.clone());
            let _ = caught(|| self.span.context().span().add_event("item.failed", vec![error]));
            record(&self.span, why);
        }
        // The exception is recorded here, and not on the batch's span once more.
        let on_batch =
            |_: &_| Failure { exception: None, ..why.clone().unwrap_or_else(Failure::dropped) };
        answer.give(reply, on_batch);
        end(&self.span, why);
    }
}

impl<R, E> Drop for ItemSpan<R, E> {
    fn drop(&mut self) {
        self.answer(Err(CallError::Unanswered), Some(Failure::dropped()));
    }
}
