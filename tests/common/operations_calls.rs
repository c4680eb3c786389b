//! The oracle of `Attempts`, `FanOut` and `Saga`: any calls in any order, and the counts, spans and
//! links that must come of them.

#![allow(dead_code, unreachable_pub)] // each test binary uses a part of it

use super::common::choices::{Choices, Item, one_of};
use super::common::context;
use super::common::oracle::{self, Policy};
use super::exported::{Exporter, attribute};
use batchlink::{
    Dedup, LinkSet, Outcome, Truncation,
    patterns::{Attempts, FanOut, Saga, SpanGuard, UndoSteps},
};
use opentelemetry::trace::{Link, SpanContext, SpanId, Status, TraceContextExt, TraceId};
use opentelemetry::{Context, ContextGuard, KeyValue, Value};
use opentelemetry_sdk::trace::SpanData;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

/// How the work of a span ends.
#[derive(Clone, Debug)]
pub enum How {
    Succeed,
    Fail(String),
    FailAs(&'static str, String),
    Run(Result<(), String>),
    Panic,
    Drop,
}

impl How {
    pub fn choose(choices: &mut impl Choices) -> Self {
        // On both sides of the limit for texts, which may fall into the middle of a character.
        let bytes = one_of(choices, &[3, 0, 254, 255, 256, 257, 300]);
        let error = "e".repeat(bytes % 2) + &"é".repeat(bytes / 2);
        match choices.below(7) {
            0 => Self::Succeed,
            1 => Self::Fail(error),
            2 => Self::Run(Ok(())),
            3 => Self::Run(Err(error)),
            4 => Self::FailAs("timeout", error),
            5 => Self::Panic,
            _ => Self::Drop,
        }
    }

    fn end(&self, guard: SpanGuard) {
        match self {
            Self::Succeed => guard.succeed(),
            Self::Fail(error) => guard.fail(error),
            Self::FailAs(error_type, error) => guard.fail_as(*error_type, error),
            Self::Run(result) => assert_eq!(guard.run(|_| result.clone()), *result),
            // Without the hook: it would print each.
            Self::Panic => {
                let run = || {
                    guard.run(|_| -> Result<(), String> { resume_unwind(Box::new("on purpose")) })
                };
                assert!(catch_unwind(AssertUnwindSafe(run)).is_err());
            }
            Self::Drop => drop(guard),
        }
    }

    /// The same by a closure, which can neither drop its guard nor name the error's type.
    fn by_closure(&self) -> Self {
        match self {
            Self::Panic => Self::Panic,
            how => Self::Run(how.result()),
        }
    }

    fn result(&self) -> Result<(), String> {
        match self {
            Self::Succeed | Self::Run(Ok(())) => Ok(()),
            Self::Fail(error) | Self::FailAs(_, error) | Self::Run(Err(error)) => {
                Err(error.clone())
            }
            Self::Panic => Err("panicked before it finished".into()),
            Self::Drop => Err("dropped before it finished".into()),
        }
    }

    /// The `error.type` of the span.
    fn error_type(&self) -> Option<&'static str> {
        match self {
            Self::Succeed | Self::Run(Ok(())) => None,
            Self::FailAs(error_type, _) => Some(error_type),
            Self::Fail(_) | Self::Run(Err(_)) => Some("_OTHER"),
            Self::Panic => Some("panicked"),
            Self::Drop => Some("dropped"),
        }
    }
}

/// The part of an error that links keep.
fn short(error: &str) -> String {
    let ends = error.char_indices().map(|(at, character)| at + character.len_utf8());
    error[..ends.take_while(|&end| end <= 256).last().unwrap_or(0)].to_owned()
}

/// A span as it must be exported.
#[derive(Debug)]
struct Expected {
    name: String,
    /// The current span, or none for the root of a trace.
    parent: SpanId,
    attributes: Vec<KeyValue>,
    links: Vec<Link>,
    /// The number of missing links is not known.
    inexact: bool,
    result: Result<(), String>,
    error_type: Option<&'static str>,
}

impl Expected {
    fn new(
        name: impl Into<String>,
        parent: SpanId,
        attributes: Vec<KeyValue>,
        links: Vec<Link>,
    ) -> Self {
        let (result, error_type) = (Ok(()), None);
        Self { name: name.into(), parent, attributes, links, inexact: false, result, error_type }
    }

    fn ended(self, how: &How) -> Self {
        Self { result: how.result(), error_type: how.error_type(), ..self }
    }
}

/// The span that is current at every call.
const PARENT: u64 = 77;

fn enter() -> ContextGuard {
    Context::new().with_remote_span_context(context(PARENT)).attach()
}

/// Compares spans. Returns how many of them stated missing links.
fn check_spans(mut spans: Vec<SpanData>, mut expected: Vec<Expected>) -> usize {
    assert_eq!(spans.len(), expected.len());
    let mut truncated = 0;
    for (span, expected) in spans.iter_mut().zip(&mut expected) {
        let is_count = |attribute: &KeyValue| attribute.key.as_str().starts_with("links.");
        if expected.inexact {
            span.attributes.retain(|attribute| !is_count(attribute));
            expected.attributes.retain(|attribute| !is_count(attribute));
        }
        truncated += usize::from(span.attributes.iter().any(is_count));
    }
    for (span, expected) in spans.iter().zip(&mut expected) {
        let Expected { name, parent, attributes, links, result, error_type, .. } = expected;
        attributes.extend(error_type.map(|error_type| KeyValue::new("error.type", error_type)));
        assert_eq!((&*span.name, span.parent_span_id), (&**name, *parent));
        assert_eq!((&span.attributes, &span.links.links), (&*attributes, &*links));
        assert_eq!(span.status, result.clone().map_or_else(Status::error, |()| Status::Unset));
    }
    truncated
}

fn typed(
    context: &SpanContext,
    link_type: &'static str,
    more: impl IntoIterator<Item = KeyValue>,
) -> Link {
    let mut attributes = vec![KeyValue::new("link.type", link_type)];
    attributes.extend(more);
    Link::new(context.clone(), attributes, 0)
}

fn truncation(linked: usize, left_out: u64) -> Vec<KeyValue> {
    match left_out {
        0 => vec![],
        _ => vec![
            KeyValue::new("links.truncated", true),
            KeyValue::new("links.original_count", linked as i64 + left_out as i64),
        ],
    }
}

fn link_set(policy: &Policy) -> LinkSet {
    LinkSet::builder().with_link_policy(policy.links()).build().expect("valid")
}

/// One call of attempts or of a fan-out.
#[derive(Clone, Debug)]
pub enum Call {
    Start,
    End(usize, How),
    Collect(Item, How),
}

impl Call {
    /// With `spans` different span ids.
    pub fn choose(choices: &mut impl Choices, spans: u64) -> Self {
        match choices.below(8) {
            0..3 => Self::Start,
            3..6 => Self::End(choices.below(16) as usize, How::choose(choices)),
            _ => Self::Collect(Item::choose(choices, spans), How::choose(choices)),
        }
    }
}

/// Attempts, and the expected results.
pub struct AttemptsSession {
    attempts: Attempts,
    max_attempts: u32,
    exporter: Exporter,
    /// Running attempts, by number.
    running: Vec<(u32, SpanGuard, Expected)>,
    ended: Vec<Expected>,
    set: oracle::LinkSet,
    /// All attempts so far: context and error.
    earlier: Vec<(SpanContext, Option<String>)>,
    /// How many do not fit. Exact while all contexts differ: if a context that did not fit comes
    /// again and is linked, the count depends on the time.
    left_out: u64,
    same: bool,
    dedup: Dedup,
    /// Started, failed, first success, latest error.
    counts: (u32, u32, Option<u32>, Option<String>),
}

impl AttemptsSession {
    pub fn new(policy: &Policy, max_attempts: u32) -> Self {
        let attempts =
            Attempts::new("try").with_link_set(link_set(policy)).with_max_attempts(max_attempts);
        Self {
            attempts,
            max_attempts,
            exporter: Exporter::default(),
            running: Vec::new(),
            ended: Vec::new(),
            // Attempts choose among themselves.
            set: oracle::LinkSet::new(Policy {
                truncation: Truncation::KeepFirst,
                link_count: false,
                max_pages: None,
                ..policy.clone()
            }),
            earlier: Vec::new(),
            left_out: 0,
            same: false,
            dedup: policy.dedup,
            counts: (0, 0, None, None),
        }
    }

    pub fn call(&mut self, call: &Call) {
        match call {
            Call::Start => {
                let operation = {
                    let _current = enter();
                    self.attempts.start(&self.exporter.tracer())
                };
                self.counts.0 += 1;
                let number = self.counts.0;
                let links = self.links(number);
                let mut attributes = truncation(links.len(), self.left_out);
                attributes.push(KeyValue::new("retry.attempt_number", i64::from(number)));
                self.earlier.push((operation.span_context(), None));
                let mut expected = Expected::new("try", SpanId::from(PARENT), attributes, links);
                expected.inexact = self.same;
                self.running.push((number, operation, expected));
            }
            Call::End(which, how) => {
                if !self.running.is_empty() {
                    let (number, operation, mut expected) =
                        self.running.swap_remove(which % self.running.len());
                    how.end(operation);
                    if how.result().is_err() && number >= self.max_attempts {
                        expected.attributes.push(KeyValue::new("retry.exhausted", true));
                    }
                    self.ended.push(expected.ended(how));
                    self.count(number, how);
                }
            }
            Call::Collect(item, how) => {
                let context = item.context(0, 0);
                self.attempts.collect(&context, how.result());
                self.counts.0 += 1;
                let ids = |context: &SpanContext| (context.trace_id(), context.span_id());
                self.same |= self.dedup == Dedup::ByContext
                    && context.trace_id() != TraceId::INVALID
                    && self.earlier.iter().any(|(earlier, _)| ids(earlier) == ids(&context));
                self.earlier.push((context, None));
                self.count(self.counts.0, how);
            }
        }
        let outcome = self.attempts.outcome();
        let found =
            (outcome.attempts, outcome.failed, outcome.succeeded_on, outcome.last_error.clone());
        assert_eq!(found, self.counts);
        assert_eq!(outcome.exhausted(), self.counts.0 > 0 && self.counts.0 == self.counts.1);
    }

    /// Ends what runs and compares. Returns how many spans stated missing links.
    pub fn end(mut self) -> usize {
        while !self.running.is_empty() {
            self.call(&Call::End(0, How::Drop));
        }
        check_spans(self.exporter.spans(), self.ended)
    }

    fn count(&mut self, number: u32, how: &How) {
        match how.result() {
            Ok(()) => _ = self.counts.2.get_or_insert(number),
            Err(error) => {
                let error = short(&error);
                self.counts.1 += 1;
                self.counts.3 = Some(error.clone());
                self.earlier[number as usize - 1].1 = Some(error);
            }
        }
    }

    /// The first attempt that can be linked, and as many of the latest as there is room for, in
    /// order.
    fn links(&mut self, number: u32) -> Vec<Link> {
        let Self { earlier, set, .. } = self;
        let mut insert = |earlier: usize, (context, error): &(SpanContext, Option<String>)| {
            let mut link =
                typed(context, "retry", [KeyValue::new("retry.attempt_number", i64::from(number))]);
            link.attributes.push(KeyValue::new("previous.attempt_number", earlier as i64 + 1));
            link.attributes
                .extend(error.clone().map(|error| KeyValue::new("previous.error", error)));
            set.insert(link) == Outcome::Linked
        };
        let mut all = earlier.iter().enumerate();
        all.by_ref().find(|&(index, attempt)| insert(index, attempt));
        all.rev().for_each(|(index, attempt)| _ = insert(index, attempt));
        let (mut links, counts) = set.finish();
        self.left_out = counts.truncated;
        links.sort_by_key(|link| match attribute(&link.attributes, "previous.attempt_number") {
            Value::I64(number) => number,
            other => panic!("{other:?}"),
        });
        links
    }
}

/// A fan-out, and the expected results.
pub struct FanSession {
    fan: FanOut,
    request: SpanContext,
    exporter: Exporter,
    /// Running workers, by index.
    running: Vec<(usize, SpanGuard, Expected)>,
    ended: Vec<Expected>,
    set: oracle::LinkSet,
    /// Started, succeeded, failed.
    counts: (usize, usize, usize),
}

impl FanSession {
    pub fn new(policy: &Policy, request: &Item) -> Self {
        let request = request.context(0, 0);
        // Further spans are not expected here.
        let policy = &Policy { max_pages: None, ..policy.clone() };
        let mut set = oracle::LinkSet::new(policy.clone());
        set.insert(typed(&request, "caused_by", []));
        Self {
            fan: FanOut::with_link_set(&request, link_set(policy)),
            request,
            exporter: Exporter::default(),
            running: Vec::new(),
            ended: Vec::new(),
            set,
            counts: (0, 0, 0),
        }
    }

    pub fn call(&mut self, call: &Call) {
        match call {
            Call::Start => {
                let _current = enter();
                let operation = self.fan.start(&self.exporter.tracer(), "work");
                let attributes = vec![KeyValue::new("worker.index", self.counts.0 as i64)];
                let mut set = oracle::LinkSet::new(default_policy());
                set.insert(typed(&self.request, "spawned_from", []));
                let links = set.finish().0;
                let expected = Expected::new("work", SpanId::INVALID, attributes, links);
                self.running.push((self.counts.0, operation, expected));
                self.counts.0 += 1;
            }
            Call::End(which, how) => {
                if !self.running.is_empty() {
                    let (index, operation, expected) =
                        self.running.swap_remove(which % self.running.len());
                    let context = operation.span_context();
                    how.end(operation);
                    self.ended.push(expected.ended(how));
                    self.count(index, &context, how);
                }
            }
            Call::Collect(item, how) => {
                let context = item.context(0, 0);
                self.fan.collect("work", &context, how.result());
                self.counts.0 += 1;
                self.count(self.counts.0 - 1, &context, how);
            }
        }
        let counts = self.fan.counts();
        assert_eq!((counts.started, counts.succeeded, counts.failed), self.counts);
        assert_eq!(counts.result().is_ok(), self.counts.2 == 0);
    }

    /// Aggregates and compares. Returns how many spans stated missing links.
    pub fn end(mut self, how: &How) -> usize {
        let counts = self.counts;
        let (aggregation, found) = {
            let _current = enter();
            self.fan.clone().aggregate(&self.exporter.tracer(), "merge")
        };
        assert_eq!((found.started, found.succeeded, found.failed), counts);
        let (links, of_links) = self.set.finish();
        let mut attributes = truncation(links.len(), of_links.truncated);
        attributes.push(KeyValue::new("workers.started", counts.0 as i64));
        attributes.push(KeyValue::new("workers.succeeded", counts.1 as i64));
        attributes.push(KeyValue::new("workers.failed", counts.2 as i64));
        how.end(aggregation);
        let merge = Expected::new("merge", SpanId::from(PARENT), attributes, links);
        self.ended.push(merge.ended(how));
        // Some are late.
        while !self.running.is_empty() {
            self.call(&Call::End(0, How::Succeed));
        }
        check_spans(self.exporter.spans(), self.ended)
    }

    fn count(&mut self, index: usize, context: &SpanContext, how: &How) {
        let about = [
            KeyValue::new("aggregation.source", "work"),
            KeyValue::new("worker.index", index as i64),
        ];
        let mut link = typed(context, "aggregation", about);
        match how.result() {
            Ok(()) => self.counts.1 += 1,
            Err(error) => {
                self.counts.2 += 1;
                link.attributes.push(KeyValue::new("worker.failed", true));
                link.attributes.push(KeyValue::new("worker.error", short(&error)));
            }
        }
        self.set.insert(link);
    }
}

/// A link set's default policy, with one link.
fn default_policy() -> Policy {
    Policy { max_links: 1, ..Policy::default() }
}

/// One step of a saga: its span, how its compensation ends, and whether at once or after the
/// others.
pub type Step = (Item, How, bool);

/// Undoes all steps, by `compensate` or one by one, and compares.
pub fn saga(steps: &[Step], one_by_one: bool) {
    let exporter = Exporter::default();
    let tracer = exporter.tracer();
    let by_closure = |(item, how, now): &Step| (*item, how.by_closure(), *now);
    let steps = &if one_by_one { steps.to_vec() } else { steps.iter().map(by_closure).collect() };
    let mut saga = Saga::new("order");
    for (index, (item, ..)) in steps.iter().enumerate() {
        assert_eq!(saga.steps(), index);
        saga.completed(format!("step {index}"), &item.context(0, 0), index);
    }
    let (mut undone, mut ended) = (Vec::new(), Vec::new());
    let _current = enter();
    let outcome = if one_by_one {
        let mut undo: UndoSteps<usize> = saga.undo("sold out");
        let mut late = Vec::new();
        for step in &mut undo {
            undone.push(step.index());
            let (item, how, now) = &steps[step.index()];
            assert_eq!(
                (step.undo, step.name()),
                (step.index(), &*format!("step {}", step.index()))
            );
            assert_eq!(step.span_context(), &item.context(0, 0));
            let operation = step.start(&tracer);
            match now {
                true => {
                    how.end(operation);
                    ended.push(step.index());
                }
                false => late.push((step.index(), operation)),
            }
        }
        while let Some((index, operation)) = late.pop() {
            steps[index].1.end(operation);
            ended.push(index);
        }
        undo.outcome()
    } else {
        let outcome = saga.compensate(&tracer, "sold out", |index, _| {
            undone.push(index);
            match &steps[index].1 {
                How::Panic => resume_unwind(Box::new("on purpose")),
                how => how.result(),
            }
        });
        ended.clone_from(&undone);
        outcome
    };
    assert!(undone.into_iter().eq((0..steps.len()).rev()), "newest first");
    let expected: Vec<Expected> =
        ended.iter().map(|&index| compensation(index, &steps[index])).collect();
    let failed: Vec<(usize, String)> =
        outcome.failed.iter().map(|failure| (failure.index, failure.error.clone())).collect();
    let errors =
        ended.iter().filter_map(|&index| Some((index, short(&steps[index].1.result().err()?))));
    assert_eq!(failed, errors.collect::<Vec<_>>());
    assert_eq!((outcome.steps, outcome.compensated), (steps.len(), steps.len() - failed.len()));
    check_spans(exporter.spans(), expected);
}

fn compensation(index: usize, (item, how, _): &Step) -> Expected {
    let name = format!("step {index}");
    let step =
        [KeyValue::new("saga.step", name.clone()), KeyValue::new("saga.step_index", index as i64)];
    let mut about = vec![KeyValue::new("link.reason", "sold out")];
    about.extend(step.clone());
    let mut set = oracle::LinkSet::new(default_policy());
    set.insert(typed(&item.context(0, 0), "compensation", about));
    let mut attributes =
        vec![KeyValue::new("saga.name", "order"), KeyValue::new("compensation.reason", "sold out")];
    attributes.extend(step);
    let expected = Expected::new(
        format!("compensate {name}"),
        SpanId::from(PARENT),
        attributes,
        set.finish().0,
    );
    expected.ended(how)
}
