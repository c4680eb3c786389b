//! The baggage of an item, from its caller to its handler.

use super::support::{Text, of_size, telemetry};
use batchlink::processor::{BatchProcessor, Submitter};
use opentelemetry::baggage::{Baggage, BaggageExt};
use opentelemetry::trace::{TraceContextExt, Tracer, TracerProvider};
use opentelemetry::{Context, KeyValue};
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{SdkTracer, SdkTracerProvider, SpanData, SpanProcessor};
use std::sync::{Arc, Mutex};
use std::time::Duration;

type Pair = (Submitter<u64, u64, Text>, BatchProcessor<u64, u64, Text>);

fn carrying(tracer: SdkTracer) -> Pair {
    BatchProcessor::builder("batch").with_shards(1).with_baggage(true).build(tracer).unwrap()
}

fn tenant(baggage: &Baggage) -> Option<String> {
    baggage.get("tenant").map(|value| value.to_string())
}

/// Submits 1 and 2 with baggage of their own, and 3 with none.
fn submit(submitter: &Submitter<u64, u64, Text>) {
    for (item, name) in [(1, "a"), (2, "b")] {
        let cx = Context::current_with_baggage([KeyValue::new("tenant", name)]);
        let _current = cx.attach();
        submitter.submit(item).unwrap();
    }
    submitter.submit(3).unwrap();
}

/// The tenant that the handler of each item finds, and the number of all entries, where the
/// processor's own context has baggage, too.
fn found(pair: Pair) -> Vec<(Option<String>, usize)> {
    let (submitter, mut processor) = pair;
    submit(&submitter);
    drop(submitter);
    let own = [KeyValue::new("tenant", "own"), KeyValue::new("region", "own")];
    let _own = Context::current_with_baggage(own).attach();
    let mut found = Vec::new();
    processor.run_each(|item, cx| {
        let current = Context::map_current(|cx| tenant(cx.baggage()));
        assert_eq!(tenant(cx.baggage()), current);
        found.push((current, cx.baggage().len()));
        Ok(item)
    });
    found
}

#[test]
fn item_runs_with_its_baggage() {
    let (_provider, tracer, _exporter) = telemetry();
    let own = [(Some("a".to_owned()), 1), (Some("b".to_owned()), 1), (None, 0)];
    assert_eq!(found(carrying(tracer)), own);
}

/// By default the processor's own context is all that there is.
#[test]
fn default_carries_no_baggage() {
    let (_provider, tracer, _exporter) = telemetry();
    assert_eq!(found(of_size(8, tracer)), vec![(Some("own".to_owned()), 2); 3]);
}

/// Both the handler, when it is called, and its future.
#[cfg(feature = "tokio")]
#[test]
fn task_runs_with_its_baggage() {
    let (_provider, tracer, _exporter) = telemetry();
    let (submitter, mut processor) = carrying(tracer);
    submit(&submitter);
    drop(submitter);
    let found = Mutex::new(Vec::new());
    let current = || Context::map_current(|cx| tenant(cx.baggage()));
    let found_ref = &found;
    let handler = |item, _| {
        let called = current();
        async move {
            found_ref.lock().unwrap().push([called, current()]);
            Ok(item)
        }
    };
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(processor.run_each_async(handler));
    let own = [Some("a"), Some("b"), None].map(|own| [0; 2].map(|_| own.map(str::to_owned)));
    assert_eq!(found.into_inner().unwrap(), own);
}

/// A handler of whole batches reads it from the items. It comes with its metadata.
#[test]
fn batch_item_has_its_baggage() {
    let (_provider, tracer, _exporter) = telemetry();
    let (submitter, mut processor) = carrying(tracer);
    submit(&submitter);
    let mut baggage = Baggage::new();
    baggage.insert_with_metadata("tenant", "c", "signed");
    let _current = Context::current_with_baggage(baggage).attach();
    submitter.submit_with_context(4, &super::common::context(4)).unwrap();
    let suppressed = Context::enter_telemetry_suppressed_scope();
    submitter.submit(5).unwrap();
    drop(suppressed);
    let batch = processor.try_next().unwrap();
    assert_eq!(batch.context().baggage().get("tenant").map(|of| of.as_str()), Some("c"));
    let metadata = |baggage: &Baggage| {
        let (value, metadata) = baggage.get_with_metadata("tenant").unwrap();
        format!("{value};{}", metadata.as_str())
    };
    let found: Vec<_> = batch.items().iter().map(|item| item.baggage().map(metadata)).collect();
    let own = [Some("a;"), Some("b;"), None, Some("c;signed"), Some("c;signed")];
    assert_eq!(found, own.map(|own| own.map(str::to_owned)));
    batch.succeed_all(|n| *n);
}

/// The name of a span, and the tenant.
type Start = (String, Option<String>);

/// A span processor that keeps the baggage at each span's start.
#[derive(Clone, Debug, Default)]
struct Starts(Arc<Mutex<Vec<Start>>>);

impl SpanProcessor for Starts {
    fn on_start(&self, span: &mut opentelemetry_sdk::trace::Span, cx: &Context) {
        let name = span.exported_data().map(|data| data.name.to_string()).unwrap_or_default();
        self.0.lock().unwrap().push((name, tenant(cx.baggage())));
    }

    fn on_end(&self, _: SpanData) {}

    fn force_flush(&self) -> OTelSdkResult {
        Ok(())
    }

    fn shutdown_with_timeout(&self, _: Duration) -> OTelSdkResult {
        Ok(())
    }
}

/// The item's span starts with it, and the batch's without.
#[test]
fn item_span_starts_with_baggage() {
    let starts = Starts::default();
    let provider = SdkTracerProvider::builder().with_span_processor(starts.clone()).build();
    let (submitter, mut processor) = carrying(provider.tracer("test"));
    let tracer = provider.tracer("test");
    let cx = Context::current_with_baggage([KeyValue::new("tenant", "a")]);
    {
        let _current = cx.with_span(tracer.start("request")).attach();
        submitter.submit(1).unwrap();
    }
    drop(submitter);
    processor.run_each(|item, _| Ok(item));
    let expected = [("request", None), ("batch", None), ("process_item", Some("a".to_owned()))];
    assert_eq!(*starts.0.lock().unwrap(), expected.map(|(name, own)| (name.to_owned(), own)));
}
