//! Sagas: what the spans of compensations say, and what they link to, as exported.

use super::common::{context, with_flags};
use super::exported::*;
use batchlink::patterns::{Saga, SagaOutcome};
use futures_util::FutureExt;
use opentelemetry::trace::{SpanContext, Status, TraceContextExt, TraceFlags, Tracer};
use opentelemetry::{Context, KeyValue};
use std::future;
use std::panic::panic_any;

/// Panics once more when it is dropped.
struct Explosive;

impl Drop for Explosive {
    fn drop(&mut self) {
        panic!("when dropped, and meant to be")
    }
}

type Closure<'a> = Box<dyn FnOnce() -> Result<(), String> + 'a>;

const STEPS: [&str; 3] = ["reserve", "charge", "ship"];

/// A saga of three steps, each a span of a trace of its own.
fn saga<C>(exporter: &Exporter, undo: impl Fn(usize) -> C) -> Saga<C> {
    let tracer = exporter.tracer();
    let mut saga = Saga::new("order");
    for (index, name) in STEPS.into_iter().enumerate() {
        tracer.in_span(name, |cx| saga.completed(name, cx.span().span_context(), undo(index)));
    }
    saga
}

fn failures(outcome: &SagaOutcome) -> Vec<(&str, usize, &str)> {
    outcome.failed.iter().map(|of| (of.step.as_str(), of.index, of.error.as_str())).collect()
}

#[test]
fn compensations_run_newest_first() {
    let exporter = Exporter::default();
    let saga = saga(&exporter, |index| index);
    assert_eq!(saga.steps(), 3);
    let mut undone = Vec::new();
    let tracer = exporter.tracer();
    let outcome = tracer.in_span("order", |_| {
        saga.compensate(&tracer, String::from("card declined"), |index, cx| {
            assert_eq!(Context::current().span().span_context(), cx.span().span_context());
            undone.push(index);
            Ok::<_, String>(())
        })
    });
    assert_eq!(undone, [2, 1, 0]);
    assert_eq!((outcome.steps, outcome.compensated, failures(&outcome)), (3, 3, vec![]));
    let said = ["saga.compensated=3", "saga.compensations_failed=0", "saga.steps=3"];
    assert_eq!(attributes(&outcome.attributes()), said);

    let spans = exporter.spans();
    let parent = exporter.span("order").span_context.span_id();
    for (place, (index, step)) in STEPS.into_iter().enumerate().rev().enumerate() {
        let span = &spans[3 + place];
        assert_eq!(
            (span.name.as_ref(), &span.status),
            (&*format!("compensate {step}"), &Status::Unset)
        );
        assert_eq!(span.parent_span_id, parent);
        let expected = [
            "compensation.reason=card declined".to_owned(),
            "saga.name=order".to_owned(),
            format!("saga.step={step}"),
            format!("saga.step_index={index}"),
        ];
        assert_eq!(attributes(&span.attributes), expected);
        assert_eq!(span.links.len(), 1);
        assert!(leads_to(&span.links[0], &exporter.span(step).span_context));
        let expected = [
            "link.reason=card declined".to_owned(),
            "link.type=compensation".to_owned(),
            format!("saga.step={step}"),
            format!("saga.step_index={index}"),
        ];
        assert_eq!(attributes(&span.links[0].attributes), expected);
    }
}

#[test]
fn failed_compensation_stops_no_other() {
    let exporter = Exporter::default();
    let saga = saga(&exporter, |index| -> Closure<'_> {
        match index {
            2 => Box::new(|| panic_any(Explosive)),
            1 => Box::new(|| Err("bank is closed".to_owned())),
            _ => Box::new(|| Ok(())),
        }
    });
    let outcome = saga.compensate(&exporter.tracer(), "no stock", |undo, _| undo());
    assert_eq!((outcome.steps, outcome.compensated), (3, 1));
    assert_eq!(
        failures(&outcome),
        [("ship", 2, "panicked before it finished"), ("charge", 1, "bank is closed")]
    );
    let spans = exporter.spans();
    assert_eq!(
        (error(&spans[3]), error(&spans[4])),
        ("panicked before it finished", "bank is closed")
    );
    assert_eq!(spans[5].status, Status::Unset);
}

#[test]
fn futures_compensate() {
    let exporter = Exporter::default();
    let tracer = exporter.tracer();
    let mut steps = saga(&exporter, |index| async move {
        match index {
            2 => future::pending().await,
            1 => Err("bank is closed"),
            _ => Ok(()),
        }
    })
    .undo("no stock");
    assert_eq!(steps.len(), 3);
    let mut seen = Vec::new();
    for step in &mut steps {
        seen.push((step.name().to_owned(), step.index(), step.span_context().clone()));
        let span = step.start(&tracer);
        let _ = span.run_async(step.undo).now_or_never(); // the pending one is dropped by that
    }
    let expected = STEPS.into_iter().enumerate().rev();
    let expected =
        expected.map(|(index, name)| (name.to_owned(), index, exporter.span(name).span_context));
    assert!(seen.into_iter().eq(expected));
    assert_eq!((steps.len(), steps.next().is_none()), (0, true));
    let outcome = steps.outcome();
    assert_eq!((outcome.steps, outcome.compensated), (3, 1));
    assert_eq!(
        failures(&outcome),
        [("ship", 2, "dropped before it finished"), ("charge", 1, "bank is closed")]
    );
    assert_eq!(exporter.span("compensate ship").links.len(), 1);
}

#[test]
fn unstarted_compensation_is_not_counted() {
    let exporter = Exporter::default();
    let mut steps = saga(&exporter, |_| ()).undo("enough");
    steps.next().unwrap().start(&exporter.tracer()).succeed();
    drop(steps.next());
    let outcome = steps.outcome();
    assert_eq!((outcome.steps, outcome.compensated, outcome.failed.len()), (3, 1, 0));
    drop(saga(&exporter, |_| ())); // one that ended well
    assert_eq!(
        exporter.spans().iter().filter(|span| span.name.starts_with("compensate")).count(),
        1
    );

    let empty =
        Saga::<()>::new("empty").compensate(&exporter.tracer(), "none", |(), _| Err("never"));
    assert_eq!(empty, SagaOutcome::default());
}

#[test]
fn unsampled_step_is_undone_unlinked() {
    let exporter = Exporter::default();
    let mut saga = Saga::new("order");
    for context in [context(1), SpanContext::NONE, with_flags(3, TraceFlags::NOT_SAMPLED)] {
        saga.completed("step", &context, ());
    }
    let outcome = saga.compensate(&exporter.tracer(), "why not", |(), cx| {
        cx.span().set_attribute(KeyValue::new("by", "hand"));
        Ok::<_, String>(())
    });
    assert_eq!(outcome.compensated, 3);
    let spans = exporter.spans();
    assert_eq!(spans.iter().map(|span| span.links.len()).collect::<Vec<_>>(), [0, 0, 1]);
    assert!(spans.iter().all(|span| attribute(&span.attributes, "by") == "hand".into()));
}

#[test]
fn long_error_is_cut() {
    let exporter = Exporter::default();
    let long = "é".repeat(1000);
    let outcome = saga(&exporter, |_| ())
        .compensate(&exporter.tracer(), "no", |(), _| Err::<(), _>(long.clone()));
    assert!(outcome.failed.iter().all(|failure| failure.error == "é".repeat(128)));
    assert_eq!(error(&exporter.span("compensate ship")), long);
}
