//! What a batch span has at its start, where samplers see it.

use super::support::{Text, spans, telemetry, text};
use batchlink::processor::{BatchProcessor, BatchProcessorBuilder};
use batchlink::{LinkPolicy, Parent};
use opentelemetry::trace::{
    Link, SpanId, SpanKind, TraceContextExt, TraceId, Tracer, TracerProvider,
};
use opentelemetry::{Context, KeyValue};
use opentelemetry_sdk::trace::{SamplingDecision, SamplingResult, SdkTracerProvider, ShouldSample};
use std::sync::{Arc, Mutex};

type Builder = BatchProcessorBuilder<u64, u64, Text>;

fn builder() -> Builder {
    BatchProcessor::builder("batch").with_shards(1)
}

/// The kind and the attributes of a span.
type Start = (SpanKind, Vec<KeyValue>);

/// A sampler that keeps what it was asked.
#[derive(Clone, Debug, Default)]
struct Asked(Arc<Mutex<Vec<Start>>>);

impl ShouldSample for Asked {
    fn should_sample(
        &self,
        _: Option<&Context>,
        _: TraceId,
        _: &str,
        kind: &SpanKind,
        attributes: &[KeyValue],
        _: &[Link],
    ) -> SamplingResult {
        self.0.lock().unwrap().push((kind.clone(), attributes.to_vec()));
        SamplingResult {
            decision: SamplingDecision::RecordAndSample,
            attributes: Vec::new(),
            trace_state: Default::default(),
        }
    }
}

/// What the sampler was told of the batches of these items.
fn asked(builder: Builder, items: &[u64]) -> Vec<Start> {
    let sampler = Asked::default();
    let provider = SdkTracerProvider::builder().with_sampler(sampler.clone()).build();
    let (submitter, mut processor) = builder.build(provider.tracer("test")).unwrap();
    items.iter().for_each(|item| submitter.submit(*item).unwrap());
    while let Some(batch) = processor.try_next() {
        batch.succeed_all(|n| *n);
    }
    sampler.0.lock().unwrap().clone()
}

/// The kind, and the key of each batch.
#[test]
fn sampler_sees_kind_and_key() {
    let keyed = builder()
        .with_key(|n| n % 2)
        .with_span_kind(SpanKind::Client)
        .with_span_attributes(|&first| {
            [KeyValue::new("key", (first % 2) as i64), KeyValue::new("first", first as i64)]
        });
    let asked = asked(keyed, &[1, 2, 3]);
    assert_eq!(asked.len(), 2);
    let expected = [("1", "1", "2"), ("0", "2", "1")];
    for ((kind, attributes), (key, first, size)) in asked.iter().zip(expected) {
        assert_eq!(*kind, SpanKind::Client);
        assert_eq!(text(attributes, "key").as_deref(), Some(key));
        assert_eq!(text(attributes, "first").as_deref(), Some(first));
        assert_eq!(text(attributes, "batch.size").as_deref(), Some(size));
    }
}

#[test]
fn default_kind_is_internal() {
    let asked = asked(builder(), &[1]);
    assert_eq!(asked[0].0, SpanKind::Internal);
    let keys: Vec<_> = asked[0].1.iter().map(|attribute| attribute.key.as_str()).collect();
    let own = ["batch.size", "batch.links", "batch.trigger", "links.invalid", "batch.number"];
    assert_eq!(keys, own);
}

/// The batch's own attributes stay what they are.
#[test]
fn own_attributes_stay() {
    let attributes = [KeyValue::new("batch.size", 7), KeyValue::new("more", 8)];
    let asked = asked(builder().with_span_attributes(move |_| attributes.clone()), &[1]);
    let sizes = asked[0].1.iter().filter(|attribute| attribute.key.as_str() == "batch.size");
    assert_eq!((sizes.count(), text(&asked[0].1, "batch.size").as_deref()), (1, Some("1")));
    assert_eq!(text(&asked[0].1, "more").as_deref(), Some("8"));
}

/// A panic costs the attributes, and nothing else.
#[test]
fn panicking_attributes_are_left_out() {
    let panicking = builder().with_span_attributes(|_| -> [KeyValue; 1] {
        super::support::on_purpose();
        [KeyValue::new("more", 8)]
    });
    let asked = asked(panicking, &[1]);
    assert_eq!(text(&asked[0].1, "batch.size").as_deref(), Some("1"));
    assert_eq!(text(&asked[0].1, "more"), None);
}

/// The first request is the parent of the batch span, and the item spans stay below that.
#[test]
fn first_request_is_parent() {
    let (_provider, tracer, exporter) = telemetry();
    let policy = LinkPolicy::new().with_parent(Parent::First);
    let builder = builder().with_link_policy(policy);
    let (submitter, mut processor) = builder.build(tracer.clone()).unwrap();
    let requests = [1, 2].map(|item| {
        tracer.in_span("request", |cx| {
            submitter.submit(item).unwrap();
            cx.span().span_context().clone()
        })
    });
    submitter.close();
    processor.run_each(|item, cx| {
        assert_eq!(cx.span().span_context().trace_id(), requests[0].trace_id());
        Ok(item)
    });
    let batch = &spans(&exporter, "batch")[0];
    assert_eq!(batch.parent_span_id, requests[0].span_id());
    let linked: Vec<_> = batch.links.iter().map(|link| link.span_context.clone()).collect();
    assert_eq!(linked, requests);
    for item in spans(&exporter, "process_item") {
        assert_eq!(item.parent_span_id, batch.span_context.span_id());
    }
    assert_ne!(requests[0].span_id(), SpanId::INVALID);
}
