//! Steps that are undone, newest first, when a later one fails.

use crate::link_set::LinkSet;
use crate::link_set::policy::LinkPolicy;
use crate::links;
use crate::panic::caught;
use crate::patterns::operation::{SpanGuard, lock, shortened};
use opentelemetry::trace::{Span, SpanContext, Tracer};
use opentelemetry::{Context, KeyValue, StringValue};
use std::borrow::Cow;
use std::fmt::Display;
use std::iter::FusedIterator;
use std::sync::{Arc, Mutex};
use std::vec;

/// The steps of a long transaction, and their undoing: a span for each compensation, linked to the
/// step that it undoes.
///
/// Note each step when it is complete, with its span and what is to be done to undo it: a closure, or
/// data that you know how to undo. If a step fails, the noted ones are undone in the reverse order:
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
/// Steps that differ are closures, as `Saga<Box<dyn FnOnce() -> Result<(), MyError>>>`. Where they are
/// futures, or where something else decides when to go on, [`undo`](Self::undo) gives the steps
/// one by one, each with a span to be started.
///
/// The span of a compensation is called `compensate` and the step's name. Its parent is the current
/// context.
///
/// | attribute | of the span | of the link |
/// |---|---|---|
/// | `link.type` = `compensation` | | ● |
/// | `link.reason` | | ● |
/// | `compensation.reason` | ● | |
/// | `saga.name` | ● | |
/// | `saga.step`, `saga.step_index` (from 0) | ● | ● |
///
/// # Guarantees
///
/// - Newest step first. A compensation that fails or panics does not keep the others from being
///   made; it is counted, its span has status `Error`, and the outcome names it.
/// - A saga that is dropped without a word undoes nothing: that is how one ends well.
/// - A step whose context is not valid or not sampled is undone like any other; the span then has
///   no link, as in a [`LinkSet`].
#[derive(Clone, Debug)]
pub struct Saga<C> {
    name: Cow<'static, str>,
    steps: Vec<Step<C>>,
}

#[derive(Clone, Debug)]
struct Step<C> {
    name: Cow<'static, str>,
    context: SpanContext,
    undo: C,
}

impl<C> Saga<C> {
    /// A saga without steps.
    pub fn new(name: impl Into<Cow<'static, str>>) -> Self {
        Self { name: name.into(), steps: Vec::new() }
    }

    /// Notes that a step is complete: its name, its span, and what is to be done to undo it (`()` if you
    /// know that from the name).
    pub fn completed(&mut self, step: impl Into<Cow<'static, str>>, span: &SpanContext, undo: C) {
        self.steps.push(Step { name: step.into(), context: span.clone(), undo });
    }

    /// Steps that were noted.
    pub fn steps(&self) -> usize {
        self.steps.len()
    }

    /// Undoes all steps, newest first, each in a span of its own that is the current one meanwhile.
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
            // A panic drops the span's operation, which then has failed.
            let _ = caught(|| drop(span.run(|cx| undo(step.undo, cx))));
        }
        steps.outcome()
    }

    /// The steps to be undone, newest first, for compensations that are futures:
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
#[derive(Debug)]
#[must_use = "nothing is undone but by you"]
pub struct UndoSteps<C> {
    steps: vec::IntoIter<Step<C>>,
    about: Arc<About>,
}

/// What the compensations of one saga share.
#[derive(Debug)]
struct About {
    saga: StringValue,
    reason: StringValue,
    outcome: Mutex<SagaOutcome>,
}

impl<C> UndoSteps<C> {
    /// What became of the compensations that have ended.
    pub fn outcome(&self) -> SagaOutcome {
        lock(&self.about.outcome).clone()
    }
}

impl<C> Iterator for UndoSteps<C> {
    type Item = UndoStep<C>;

    fn next(&mut self) -> Option<UndoStep<C>> {
        let Step { name, context, undo } = self.steps.next_back()?;
        Some(UndoStep { undo, name, index: self.steps.len(), context, about: Arc::clone(&self.about) })
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.steps.size_hint()
    }
}

impl<C> ExactSizeIterator for UndoSteps<C> {}
impl<C> FusedIterator for UndoSteps<C> {}

/// A step that is to be undone.
#[derive(Debug)]
pub struct UndoStep<C> {
    /// What is to be done, as given to [`Saga::completed`].
    pub undo: C,
    name: Cow<'static, str>,
    index: usize,
    context: SpanContext,
    about: Arc<About>,
}

impl<C> UndoStep<C> {
    /// The step's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its place in the saga, from 0.
    pub fn index(&self) -> usize {
        self.index
    }

    /// Its span.
    pub fn span_context(&self) -> &SpanContext {
        &self.context
    }

    /// Starts the span of the compensation, linked to the step. Its end is counted in the
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
        let span = tracer
            .span_builder(format!("compensate {}", self.name))
            .with_links(set.finish().into_links())
            .with_attributes(attributes.into_iter().chain(step));
        let (about, index, name) = (Arc::clone(&self.about), self.index, self.name.clone());
        SpanGuard::start(tracer, span, &Context::current(), move |_, result| {
            let mut outcome = lock(&about.outcome);
            match result {
                Ok(()) => outcome.compensated += 1,
                Err(error) => {
                    let failure = CompensationFailure { step: name.into(), index, error: shortened(error) };
                    outcome.failed.push(failure);
                }
            }
        })
    }
}

/// What became of a saga's compensations.
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

/// A compensation that failed: somebody must look after this step.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct CompensationFailure {
    /// The name of the step that was to be undone.
    pub step: String,
    /// Its place in the saga, from 0.
    pub index: usize,
    /// The error, at most 256 bytes; `dropped` after a panic.
    pub error: String,
}

impl SagaOutcome {
    /// For the span of the saga: `saga.steps`, `saga.compensated`, `saga.compensations_failed`.
    pub fn attributes(&self) -> [KeyValue; 3] {
        [
            KeyValue::new("saga.steps", links::int(self.steps)),
            KeyValue::new("saga.compensated", links::int(self.compensated)),
            KeyValue::new("saga.compensations_failed", links::int(self.failed.len())),
        ]
    }
}
