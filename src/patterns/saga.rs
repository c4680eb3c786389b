//! Steps that are undone, newest first, when a later one fails.

use crate::link_set::LinkSet;
use crate::link_set::policy::LinkPolicy;
use crate::links;
use crate::panic::{caught, unpoisoned};
use crate::patterns::operation::{SpanGuard, shortened};
use opentelemetry::trace::{Span, SpanBuilder, SpanContext, Tracer};
use opentelemetry::{Context, KeyValue, StringValue};
use std::borrow::Cow;
use std::fmt::Display;
use std::iter::FusedIterator;
use std::sync::{Arc, Mutex};
use std::vec;

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
/// | `error.type` if it failed, see [`SpanGuard`] | ● | |
///
/// # Guarantees
///
/// - Newest step first. A compensation that fails or panics does not stop the others: it is
///   counted, its span has status `Error`, and the outcome names it. Success leaves the status as
///   it is.
/// - A saga that is dropped undoes nothing: that is how one ends well.
/// - A step whose context is invalid or unsampled is undone like any other. Its span has no link,
///   as in a [`LinkSet`].
#[derive(Clone, Debug)]
pub struct Saga<C> {
    name: Cow<'static, str>,
    steps: Vec<SagaStep<C>>,
}

#[derive(Clone, Debug)]
struct SagaStep<C> {
    name: Cow<'static, str>,
    context: SpanContext,
    undo: C,
}

impl<C> Saga<C> {
    /// Creates a saga without steps.
    pub fn new(name: impl Into<Cow<'static, str>>) -> Self {
        Self { name: name.into(), steps: Vec::new() }
    }

    /// Records a complete step: its name, its span, and how to undo it (`()` if the name says
    /// that).
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

/// The steps of a [`Saga`] that are to be undone, newest first.
///
/// ```
/// use batchlink::patterns::Saga;
/// use opentelemetry::{global, trace::SpanContext};
///
/// let mut saga = Saga::new("order");
/// saga.completed("reserve_stock", &SpanContext::NONE, ());
/// let mut steps = saga.undo("card declined");
/// for step in &mut steps {
///     assert_eq!((step.name(), step.index()), ("reserve_stock", 0));
///     step.start(&global::tracer("orders")).fail("the warehouse is offline");
/// }
/// let outcome = steps.outcome();
/// assert_eq!(outcome.failed[0].error, "the warehouse is offline");
/// ```
#[derive(Debug)]
#[must_use = "compensations do not run until the steps are iterated and started"]
pub struct UndoSteps<C> {
    steps: vec::IntoIter<SagaStep<C>>,
    about: Arc<About>,
}

/// The state that the compensations of one saga share.
#[derive(Debug)]
struct About {
    saga: StringValue,
    reason: StringValue,
    outcome: Mutex<SagaOutcome>,
}

impl<C> UndoSteps<C> {
    /// Returns the results of the compensations that have ended.
    pub fn outcome(&self) -> SagaOutcome {
        unpoisoned(self.about.outcome.lock()).clone()
    }
}

impl<C> Iterator for UndoSteps<C> {
    type Item = UndoStep<C>;

    fn next(&mut self) -> Option<UndoStep<C>> {
        let SagaStep { name, context, undo } = self.steps.next_back()?;
        Some(UndoStep { undo, name, index: self.steps.len(), context, about: Arc::clone(&self.about) })
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.steps.size_hint()
    }
}

impl<C> ExactSizeIterator for UndoSteps<C> {}
impl<C> FusedIterator for UndoSteps<C> {}

/// A step that is to be undone, from [`UndoSteps`].
///
/// ```
/// use batchlink::patterns::Saga;
/// use opentelemetry::{global, trace::SpanContext};
///
/// let mut saga = Saga::new("order");
/// saga.completed("reserve_stock", &SpanContext::NONE, 2);
/// let step = saga.undo("card declined").next().expect("there is one");
/// let mut stock = 3;
/// let _ = step.start(&global::tracer("orders")).run(|_cx| {
///     stock += step.undo;
///     Ok::<_, String>(())
/// });
/// assert_eq!(stock, 5);
/// ```
#[derive(Debug)]
pub struct UndoStep<C> {
    /// How to undo it, as given to [`Saga::completed`].
    pub undo: C,
    name: Cow<'static, str>,
    index: usize,
    context: SpanContext,
    about: Arc<About>,
}

impl<C> UndoStep<C> {
    /// Returns the step's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns the step's index in the saga, from 0.
    pub fn index(&self) -> usize {
        self.index
    }

    /// Returns the context of the step's span.
    pub fn span_context(&self) -> &SpanContext {
        &self.context
    }

    /// Starts the span of the compensation, linked to the step. Its result is counted in the
    /// [outcome](UndoSteps::outcome).
    pub fn start<T>(&self, tracer: &T) -> SpanGuard
    where
        T: Tracer,
        T::Span: Span + Send + Sync + 'static,
    {
        let step = [
            KeyValue::new("saga.step", self.name.clone()),
            KeyValue::new("saga.step_index", links::int(self.index)),
        ];
        let mut link = links::compensation(&self.context, self.about.reason.clone());
        link.attributes.extend(step.clone());
        let mut set = LinkSet::new(LinkPolicy::default(), 1);
        set.insert_link(link);

        let attributes = [
            KeyValue::new("saga.name", self.about.saga.clone()),
            KeyValue::new("compensation.reason", self.about.reason.clone()),
        ];
        let span = SpanBuilder::from_name(format!("compensate {}", self.name))
            .with_links(set.finish().into_links())
            .with_attributes(attributes.into_iter().chain(step));
        let (about, index, name) = (Arc::clone(&self.about), self.index, self.name.clone());
        SpanGuard::start_with(tracer, span, &Context::current(), move |_, result| {
            let mut outcome = unpoisoned(about.outcome.lock());
            match result {
                Ok(()) => outcome.compensated += 1,
                Err(error) => {
                    let failure = CompensationFailure { step: name.into(), index, error: shortened(error) };
                    outcome.failed.push(failure);
                }
            }
            None
        })
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
    pub fn attributes(&self) -> [KeyValue; 3] {
        [
            KeyValue::new("saga.steps", links::int(self.steps)),
            KeyValue::new("saga.compensated", links::int(self.compensated)),
            KeyValue::new("saga.compensations_failed", links::int(self.failed.len())),
        ]
    }
}
