//! Steps that are undone, newest first, when a later one fails.

use crate::links;
use crate::panic::caught;
use crate::patterns::undo::{About, UndoSteps};
use opentelemetry::trace::{Span, SpanContext, Tracer};
use opentelemetry::{Context, KeyValue};
use std::borrow::Cow;
use std::fmt::Display;
use std::sync::{Arc, Mutex};

/// The steps of a long transaction and their compensation: a span for each compensation, linked to
/// the step that it undoes.
///
/// Record each step when it is complete: its name, its span, and how to undo it, as a closure or as
/// data. If a step fails, the recorded ones are undone in reverse order:
///
/// ```
/// use batchlink::patterns::Saga;
/// use opentelemetry::{global, trace::{TraceContextExt, Tracer}};
///
/// let tracer = global::tracer("orders");
/// let mut stock = 5;
/// let mut saga = Saga::new("order");
/// tracer.in_span("reserve_stock", |cx| {
///     stock -= 2;
///     saga.completed("reserve_stock", cx.span().span_context(), 2);
/// });
/// // ... the next step fails ...
/// let undone = saga.compensate(&tracer, "card declined", |reserved, _cx| {
///     stock += reserved;
///     Ok::<(), String>(())
/// });
/// assert_eq!((stock, undone.compensated), (5, 1));
/// ```
///
/// Steps that differ are closures, as in `Saga<Box<dyn FnOnce() -> Result<(), MyError>>>`. Where
/// they are futures, or where other code decides when to go on, [`undo`](Self::undo) yields the
/// steps one by one, and each starts its own span.
///
/// The span of a compensation is named `compensate {step}` and is a child of the current context.
///
/// | attribute | of the span | of the link |
/// |---|---|---|
/// | `link.type` = `compensation` | | ● |
/// | `link.reason` | | ● |
/// | `compensation.reason` | ● | |
/// | `saga.name` | ● | |
/// | `saga.step`, `saga.step_index` (from 0) | ● | ● |
/// | `error.type` if it failed, see [`SpanGuard`](crate::patterns::SpanGuard) | ● | |
///
/// # Guarantees
///
/// - Newest step first. A compensation that fails or panics does not stop the others: it is
///   counted, its span has status `Error`, and the outcome names it. Success leaves the status as
///   it is.
/// - A saga that is dropped undoes nothing: that is how one ends well.
/// - A step whose context is invalid or unsampled is undone like any other. Its span has no link,
///   as in a [`LinkSet`](crate::LinkSet).
#[derive(Clone, Debug)]
pub struct Saga<C> {
    name: Cow<'static, str>,
    steps: Vec<SagaStep<C>>,
}

#[derive(Clone, Debug)]
pub(super) struct SagaStep<C> {
    pub(super) name: Cow<'static, str>,
    pub(super) context: SpanContext,
    pub(super) undo: C,
}

impl<C> Saga<C> {
    /// Creates a saga without steps.
    pub fn new(name: impl Into<Cow<'static, str>>) -> Self {
        Self { name: name.into(), steps: Vec::new() }
    }

    /// Records a complete step: its name, its span, and how to undo it (`()` if the name says
    /// that).
    ///
    /// ```
    /// use batchlink::patterns::Saga;
    /// use opentelemetry::trace::SpanContext;
    ///
    /// let mut saga = Saga::new("order");
    /// saga.completed("reserve_stock", &SpanContext::NONE, || println!("released"));
    /// assert_eq!(saga.steps(), 1);
    /// ```
    pub fn completed(&mut self, step: impl Into<Cow<'static, str>>, span: &SpanContext, undo: C) {
        self.steps.push(SagaStep { name: step.into(), context: span.clone(), undo });
    }

    /// Returns the number of recorded steps.
    pub fn steps(&self) -> usize {
        self.steps.len()
    }

    /// Undoes all steps, newest first, each in a span of its own that is the current one meanwhile.
    /// Panics of `undo` are caught and counted.
    pub fn compensate<T, E>(
        self,
        tracer: &T,
        reason: impl Into<Cow<'static, str>>,
        mut undo: impl FnMut(C, &Context) -> Result<(), E>,
    ) -> SagaOutcome
    where
        T: Tracer,
        T::Span: Span + Send + Sync + 'static,
        E: Display,
    {
        let mut steps = self.undo(reason);
        for step in &mut steps {
            let span = step.start(tracer);
            // A panic drops the guard, which counts the failure.
            let _ = caught(|| drop(span.run(|cx| undo(step.undo, cx))));
        }
        steps.outcome()
    }

    /// Yields the steps to be undone, newest first, for compensations that are futures:
    ///
    /// ```
    /// # use batchlink::patterns::Saga;
    /// # use opentelemetry::global;
    /// # async fn refund(order: u64) -> Result<(), String> { Ok(()) }
    /// # async fn undo_all(saga: Saga<u64>) {
    /// let tracer = global::tracer("orders");
    /// let mut steps = saga.undo("card declined");
    /// for step in &mut steps {
    ///     let span = step.start(&tracer);
    ///     let _ = span.run_async(refund(step.undo)).await; // a failure is counted
    /// }
    /// println!("{} compensations failed", steps.outcome().failed.len());
    /// # }
    /// ```
    pub fn undo(self, reason: impl Into<Cow<'static, str>>) -> UndoSteps<C> {
        let outcome = SagaOutcome { steps: self.steps.len(), ..SagaOutcome::default() };
        let about = About {
            saga: self.name.into(),
            reason: Arc::<str>::from(&*reason.into()).into(),
            outcome: Mutex::new(outcome),
        };
        UndoSteps { steps: self.steps.into_iter(), about: Arc::new(about) }
    }
}

/// The results of a saga's compensations.
///
/// ```
/// use batchlink::patterns::Saga;
/// use opentelemetry::{global, trace::SpanContext};
///
/// let mut saga = Saga::new("order");
/// saga.completed("reserve_stock", &SpanContext::NONE, 2);
/// let tracer = global::tracer("orders");
/// let outcome = saga.compensate(&tracer, "card declined", |_, _| Err("offline"));
/// for failure in &outcome.failed {
///     println!("step {} ({}) needs a person: {}", failure.index, failure.step, failure.error);
/// }
/// assert_eq!((outcome.steps, outcome.compensated, outcome.failed.len()), (1, 0, 1));
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct SagaOutcome {
    /// Steps that were to be undone.
    pub steps: usize,
    /// Compensations that succeeded.
    pub compensated: usize,
    /// Compensations that failed, in the order in which they ended.
    pub failed: Vec<CompensationFailure>,
}

/// A compensation that failed, from [`SagaOutcome::failed`]: its step is not undone.
///
/// ```
/// use batchlink::patterns::Saga;
/// use opentelemetry::{global, trace::SpanContext};
///
/// let mut saga = Saga::new("order");
/// saga.completed("reserve_stock", &SpanContext::NONE, ());
/// let tracer = global::tracer("orders");
/// let outcome = saga.compensate(&tracer, "card declined", |_, _| Err("offline"));
/// let failure = &outcome.failed[0];
/// assert_eq!((&*failure.step, failure.index, &*failure.error), ("reserve_stock", 0, "offline"));
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct CompensationFailure {
    /// The name of the step that was to be undone.
    pub step: String,
    /// The step's index in the saga, from 0.
    pub index: usize,
    /// The error, at most 256 bytes.
    pub error: String,
}

impl SagaOutcome {
    /// Returns attributes for the span of the saga: `saga.steps`, `saga.compensated`,
    /// `saga.compensations_failed`.
    ///
    /// ```
    /// use batchlink::patterns::Saga;
    /// use opentelemetry::{global, trace::{TraceContextExt, Tracer}};
    ///
    /// let tracer = global::tracer("orders");
    /// tracer.in_span("cancel_order", |cancel| {
    ///     let saga = Saga::<()>::new("order");
    ///     let outcome = saga.compensate(&tracer, "sold out", |(), _cx| Ok::<_, String>(()));
    ///     cancel.span().set_attributes(outcome.attributes());
    /// });
    /// ```
    pub fn attributes(&self) -> [KeyValue; 3] {
        [
            KeyValue::new("saga.steps", links::int(self.steps)),
            KeyValue::new("saga.compensated", links::int(self.compensated)),
            KeyValue::new("saga.compensations_failed", links::int(self.failed.len())),
        ]
    }
}
