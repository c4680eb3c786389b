//! Real spans of the SDK, and what its exporter got.
#![allow(dead_code, unreachable_pub)] // each test binary uses a part of it

use opentelemetry::trace::{Link, SpanContext, SpanId, Status, TracerProvider};
use opentelemetry::{KeyValue, Value};
use opentelemetry_sdk::trace::{
    InMemorySpanExporter, Sampler, SdkTracer, SdkTracerProvider, SpanData,
};

/// A provider that samples everything, whatever the parent, and what it exported.
#[derive(Debug)]
pub struct Exporter {
    memory: InMemorySpanExporter,
    provider: SdkTracerProvider,
}

impl Default for Exporter {
    fn default() -> Self {
        let memory = InMemorySpanExporter::default();
        let provider = SdkTracerProvider::builder()
            .with_sampler(Sampler::AlwaysOn)
            .with_simple_exporter(memory.clone())
            .build();
        Self { memory, provider }
    }
}

impl Exporter {
    /// A tracer of the provider.
    pub fn tracer(&self) -> SdkTracer {
        self.provider.tracer("test")
    }

    /// The spans that have ended, in the order of their ends.
    pub fn spans(&self) -> Vec<SpanData> {
        self.memory.get_finished_spans().expect("the exporter is there")
    }

    /// The only span of this name.
    pub fn span(&self, name: &str) -> SpanData {
        let mut named: Vec<_> = self.spans().into_iter().filter(|span| span.name == name).collect();
        assert_eq!(named.len(), 1, "spans of the name {name}");
        named.remove(0)
    }
}

/// The attributes as `key=value`, in alphabetical order.
pub fn attributes(attributes: &[KeyValue]) -> Vec<String> {
    let mut all: Vec<_> = attributes.iter().map(|of| format!("{}={}", of.key, of.value)).collect();
    all.sort();
    all
}

/// The value of an attribute that must be there.
pub fn attribute(attributes: &[KeyValue], key: &str) -> Value {
    let found = attributes.iter().find(|attribute| attribute.key.as_str() == key);
    found.unwrap_or_else(|| panic!("no {key} in {attributes:?}")).value.clone()
}

/// Whether the link leads to the span.
pub fn leads_to(link: &Link, span: &SpanContext) -> bool {
    (link.span_context.trace_id(), link.span_context.span_id()) == (span.trace_id(), span.span_id())
}

/// Whether it began a trace.
pub fn is_root(span: &SpanData) -> bool {
    span.parent_span_id == SpanId::INVALID
}

/// The description of a failure.
pub fn error(span: &SpanData) -> &str {
    match &span.status {
        Status::Error { description } => description,
        status => panic!("{} did not fail: {status:?}", span.name),
    }
}
