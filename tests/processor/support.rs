//! Processors with the SDK's tracer, and what the exporter got of a batch.

use super::common::NEVER;
use batchlink::processor::{BatchProcessor, Submitter};
use opentelemetry::KeyValue;
use opentelemetry::trace::TracerProvider;
use opentelemetry_sdk::trace::{InMemorySpanExporter, SdkTracer, SdkTracerProvider, SpanData};

pub(crate) type Text = &'static str;

pub(crate) fn telemetry() -> (SdkTracerProvider, SdkTracer, InMemorySpanExporter) {
    let exporter = InMemorySpanExporter::default();
    let provider = SdkTracerProvider::builder().with_simple_exporter(exporter.clone()).build();
    let tracer = provider.tracer("test");
    (provider, tracer, exporter)
}

/// Batches of `size` that only size can trigger, of numbers, with numbers as results.
pub(crate) fn of_size(
    size: usize,
    tracer: SdkTracer,
) -> (Submitter<u64, u64, Text>, BatchProcessor<u64, u64, Text>) {
    BatchProcessor::builder("batch")
        .with_max_batch_size(size)
        .with_max_delay(NEVER)
        .with_shards(1)
        .build(tracer)
        .expect("valid")
}

/// Batches of two, and no more room than that.
pub(crate) fn room_for_two<T: Send + 'static>(
    tracer: SdkTracer,
) -> (Submitter<T, (), Text>, BatchProcessor<T, (), Text>) {
    BatchProcessor::builder("batch")
        .with_max_batch_size(2)
        .with_queue_capacity(2)
        .with_max_delay(NEVER)
        .with_shards(1)
        .build(tracer)
        .expect("valid")
}

pub(crate) fn spans(exporter: &InMemorySpanExporter, name: &str) -> Vec<SpanData> {
    exporter
        .get_finished_spans()
        .expect("exported")
        .into_iter()
        .filter(|span| span.name == name)
        .collect()
}

pub(crate) fn text(attributes: &[KeyValue], key: &str) -> Option<String> {
    attributes
        .iter()
        .find(|attribute| attribute.key.as_str() == key)
        .map(|found| found.value.to_string())
}

/// The attributes of a batch span, in one line.
pub(crate) fn account(span: &SpanData) -> String {
    let keys = ["size", "links", "trigger", "number", "succeeded", "failed", "success_rate"];
    let values =
        keys.map(|key| text(&span.attributes, &format!("batch.{key}")).unwrap_or("-".into()));
    values.join(" ")
}

/// Panics without a message to the user.
pub(crate) fn on_purpose() {
    std::panic::resume_unwind(Box::new("on purpose"));
}
