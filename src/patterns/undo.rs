//! The compensations of a saga, one by one.

use crate::link_set::LinkSet;
use crate::link_set::policy::LinkPolicy;
use crate::links;
use crate::panic::unpoisoned;
use crate::patterns::operation::{SpanGuard, shortened};
use crate::patterns::saga::{CompensationFailure, SagaOutcome, SagaStep};
use opentelemetry::trace::{Span, SpanBuilder, SpanContext, Tracer};
use opentelemetry::{Context, KeyValue, StringValue};
use std::borrow::Cow;
use std::iter::FusedIterator;
use std::sync::{Arc, Mutex};
use std::vec;

/// The steps of a [`Saga`](crate::patterns::Saga) that are to be undone, newest first.
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
    pub(super) steps: vec::IntoIter<SagaStep<C>>,
    pub(super) about: Arc<About>,
}

/// The state that the compensations of one saga share.
#[derive(Debug)]
pub(super) struct About {
    pub(super) saga: StringValue,
    pub(super) reason: StringValue,
    pub(super) outcome: Mutex<SagaOutcome>,
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
        Some(UndoStep {
            undo,
            name,
            index: self.steps.len(),
            context,
            about: Arc::clone(&self.about),
        })
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
    /// How to undo it, as given to [`Saga::completed`](crate::patterns::Saga::completed).
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
                    let failure =
                        CompensationFailure { step: name.into(), index, error: shortened(error) };
                    outcome.failed.push(failure);
                }
            }
            None
        })
    }
}
