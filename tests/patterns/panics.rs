//! Panics of samplers, span processors and error texts: contained, and counted like other failures.

use super::common::context;
use super::exported::*;
use batchlink::patterns::{Attempts, FanOut, Saga, SpanGuard};
use opentelemetry::trace::{
    Link, SpanBuilder, SpanContext, SpanKind, Status, TraceContextExt, TraceId, Tracer,
    TracerProvider,
};
use opentelemetry::{Context, KeyValue};
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{
    InMemorySpanExporter, SamplingDecision, SamplingResult, SdkTracer, SdkTracerProvider,
    ShouldSample, Span, SpanData, SpanProcessor,
};
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

/// Panics at the end of every span, after counting it.
#[derive(Clone, Debug, Default)]
struct BrokenProcessor(Arc<AtomicUsize>);

impl SpanProcessor for BrokenProcessor {
    fn on_start(&self, _span: &mut Span, _cx: &Context) {}

    fn on_end(&self, _span: SpanData) {
        self.0.fetch_add(1, Ordering::Relaxed);
        panic!("a span processor, and meant to be");
    }

    fn force_flush(&self) -> OTelSdkResult {
        Ok(())
    }

    fn shutdown_with_timeout(&self, _timeout: Duration) -> OTelSdkResult {
        Ok(())
    }
}

fn broken_processor() -> (SdkTracer, BrokenProcessor) {
    let processor = BrokenProcessor::default();
    let provider = SdkTracerProvider::builder().with_span_processor(processor.clone()).build();
    (provider.tracer("test"), processor)
}

/// Panics for every span but those whose name is `parent`.
#[derive(Clone, Debug)]
struct BrokenSampler;

impl ShouldSample for BrokenSampler {
    fn should_sample(
        &self,
        _parent: Option<&Context>,
        _trace: TraceId,
        name: &str,
        _kind: &SpanKind,
        _attributes: &[KeyValue],
        _links: &[Link],
    ) -> SamplingResult {
        assert!(["parent", "child"].contains(&name), "a sampler's panic, and meant to be");
        let (decision, attributes) = (SamplingDecision::RecordAndSample, vec![]);
        SamplingResult { decision, attributes, trace_state: Default::default() }
    }
}

fn broken_sampler() -> (SdkTracer, InMemorySpanExporter) {
    let memory = InMemorySpanExporter::default();
    let provider = SdkTracerProvider::builder()
        .with_sampler(BrokenSampler)
        .with_simple_exporter(memory.clone())
        .build();
    (provider.tracer("test"), memory)
}

fn panicking() -> Result<(), String> {
    panic!("the work's own, and meant to be")
}

/// Panics when it is shown.
struct Unspeakable;

impl fmt::Display for Unspeakable {
    fn fmt(&self, _f: &mut fmt::Formatter<'_>) -> fmt::Result {
        panic!("an error's text, and meant to be")
    }
}

/// A second panic that left the guard's drop would abort the process.
#[test]
fn processor_panics_during_unwinding() {
    let (tracer, processor) = broken_processor();
    let attempts = Attempts::new("call");
    assert!(catch_unwind(AssertUnwindSafe(|| attempts.run(&tracer, |_| panicking()))).is_err());
    assert_eq!((attempts.outcome().attempts, attempts.outcome().failed), (1, 1));

    let fan = FanOut::new(&context(1));
    let worker = fan.start(&tracer, "work");
    assert!(catch_unwind(AssertUnwindSafe(|| worker.run(|_| panicking()))).is_err());
    assert_eq!((fan.counts().started, fan.counts().failed), (1, 1));

    let mut saga = Saga::new("order");
    saga.completed("reserve", &context(1), ());
    saga.completed("charge", &context(2), ());
    let outcome = saga.compensate(&tracer, "why not", |(), _| panicking());
    assert_eq!((outcome.compensated, outcome.failed.len()), (0, 2));
    assert_eq!(processor.0.load(Ordering::Relaxed), 4, "every span ended");
}

#[test]
fn processor_panic_leaves_results() {
    let (tracer, _) = broken_processor();
    let attempts = Attempts::new("call");
    assert_eq!(attempts.run(&tracer, |_| Err::<(), _>("no")), Err("no"));
    assert_eq!(attempts.run(&tracer, |_| Ok::<_, String>(7)), Ok(7));
    attempts.start(&tracer).fail("no");
    drop(attempts.start(&tracer));
    let outcome = attempts.outcome();
    assert_eq!((outcome.attempts, outcome.failed, outcome.succeeded_on), (4, 3, Some(2)));
    let (merge, _) = FanOut::new(&context(1)).aggregate(&tracer, "merge");
    merge.succeed();
}

/// The work goes on in the parent's context, and is counted by its own result.
#[test]
fn sampler_panic_leaves_attempt_counted() {
    let (tracer, memory) = broken_sampler();
    let attempts = Attempts::new("call");
    tracer.in_span("parent", |parent| {
        let result = attempts.run(&tracer, |cx| {
            assert_eq!(cx.span().span_context(), parent.span().span_context());
            tracer.in_span("child", |_| Err::<(), _>("no"))
        });
        assert_eq!(result, Err("no"));
        let attempt = attempts.start(&tracer);
        assert_eq!(attempt.span_context(), SpanContext::NONE, "there is nothing to link to");
        attempt.succeed();
        assert!(memory.get_finished_spans().unwrap().iter().all(|span| span.name != "parent"));
    });
    let outcome = attempts.outcome();
    assert_eq!((outcome.attempts, outcome.failed, outcome.succeeded_on), (2, 1, Some(2)));

    let spans = memory.get_finished_spans().unwrap();
    assert_eq!(spans.iter().map(|span| &*span.name).collect::<Vec<_>>(), ["child", "parent"]);
    assert_eq!(spans[0].parent_span_id, spans[1].span_context.span_id());
    assert!(
        spans[1].status == Status::Unset && spans[1].attributes.is_empty(),
        "it is not the attempt's"
    );
    let last = Exporter::default();
    attempts.start(&last.tracer()).succeed();
    assert_eq!(last.span("call").links.len(), 0, "no link to the parent");
}

#[test]
fn sampler_panic_leaves_workers_counted() {
    let (tracer, memory) = broken_sampler();
    let fan = FanOut::new(&context(1));
    assert_eq!(fan.start(&tracer, "work").run(|_| Err::<(), _>("no")), Err("no"));
    let (merge, counts) = fan.aggregate(&tracer, "merge");
    merge.succeed();
    assert_eq!((counts.started, counts.failed), (1, 1));

    let mut saga = Saga::new("order");
    saga.completed("reserve", &context(1), ());
    let outcome = saga.compensate(&tracer, "why not", |(), _| Ok::<_, String>(()));
    assert_eq!((outcome.steps, outcome.compensated), (1, 1));
    assert_eq!(memory.get_finished_spans().unwrap().len(), 0);
}

#[test]
fn error_text_panics() {
    let exporter = Exporter::default();
    let tracer = exporter.tracer();
    let attempts = Attempts::new("call");
    attempts.start(&tracer).fail(Unspeakable);
    assert!(attempts.run(&tracer, |_| Err::<(), _>(Unspeakable)).is_err());
    attempts.collect(&context(3), Err(Unspeakable));
    FanOut::new(&context(1)).collect("work", &context(2), Err(Unspeakable));
    let outcome = attempts.outcome();
    assert_eq!((outcome.attempts, outcome.failed), (3, 3));
    assert_eq!(outcome.last_error.as_deref(), Some("(its text panicked)"));
    assert_eq!(exporter.spans().iter().map(error).collect::<Vec<_>>(), ["(its text panicked)"; 2]);
}

/// An error that panics when it is dropped fails its span all the same, with its text.
#[test]
fn error_drop_panics() {
    struct BadDrop;
    impl fmt::Display for BadDrop {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("bad")
        }
    }
    impl Drop for BadDrop {
        fn drop(&mut self) {
            panic!("an error's drop, and meant to be");
        }
    }

    let memory = InMemorySpanExporter::default();
    let provider = SdkTracerProvider::builder().with_simple_exporter(memory.clone()).build();
    SpanGuard::start(&provider.tracer("test"), SpanBuilder::from_name("work"))
        .fail_as("timeout", BadDrop);
    let spans = memory.get_finished_spans().unwrap();
    assert_eq!(spans[0].status, Status::error("bad"));
}
