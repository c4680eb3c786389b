//! OpenTelemetry and `tracing`, as a service sets them up.

use crate::Result;
use crate::metrics::Metrics;
use opentelemetry::metrics::Counter;
use opentelemetry::trace::TracerProvider;
use opentelemetry::{KeyValue, global};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::{SdkTracer, SdkTracerProvider, SpanData, SpanExporter};
use std::time::Duration;
use tracing_subscriber::filter::{LevelFilter, filter_fn};
use tracing_subscriber::layer::{Layer, SubscriberExt};
use tracing_subscriber::util::SubscriberInitExt;

/// Exports spans by OTLP to `OTEL_EXPORTER_OTLP_ENDPOINT`, by default http://localhost:4318. Call
/// it outside of a runtime: the exporter's HTTP client has one of its own.
pub fn start(service: &'static str) -> Result<(SdkTracerProvider, Metrics)> {
    let metrics = Metrics::start(service)?;
    let exporter = Counted::new(opentelemetry_otlp::SpanExporter::builder().build()?, &metrics);
    let provider = SdkTracerProvider::builder()
        .with_resource(Resource::builder().with_service_name(service).build())
        .with_batch_exporter(exporter)
        .build();
    global::set_text_map_propagator(TraceContextPropagator::new());
    subscribe(provider.tracer(service))?;
    Ok((provider, metrics))
}

/// Spans go to `tracer`, events to standard error and to the span that they happen in.
pub fn subscribe(tracer: SdkTracer) -> Result {
    let spans = tracing_opentelemetry::layer().with_tracer(tracer).with_location(false);
    let log = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    tracing_subscriber::registry()
        .with(spans.with_filter(LevelFilter::INFO))
        .with(log.with_filter(filter_fn(|of| of.is_event() && *of.level() <= tracing::Level::INFO)))
        .try_init()?;
    Ok(())
}

/// Counts what arrives at the collector and what is lost, which the SDK only logs. Spans that its
/// queue had no place for are not among them.
#[derive(Debug)]
struct Counted {
    otlp: opentelemetry_otlp::SpanExporter,
    spans: Counter<u64>,
    links: Counter<u64>,
}

impl Counted {
    fn new(otlp: opentelemetry_otlp::SpanExporter, metrics: &Metrics) -> Self {
        let meter = metrics.meter("exporter");
        // A name of the semantic conventions, which have none for links.
        let spans = meter.u64_counter("otel.sdk.exporter.span.exported").with_unit("{span}");
        let links = meter.u64_counter("exporter.link.exported").with_unit("{link}");
        Self { otlp, spans: spans.build(), links: links.build() }
    }
}

impl SpanExporter for Counted {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let spans = batch.len() as u64;
        let links = batch.iter().map(|span| span.links.len() as u64).sum();
        let result = self.otlp.export(batch).await;
        let failed = result.is_err().then(|| KeyValue::new("error.type", "_OTHER"));
        self.spans.add(spans, failed.as_slice());
        self.links.add(links, failed.as_slice());
        result
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.otlp.shutdown_with_timeout(timeout)
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.otlp.set_resource(resource);
    }
}
