//! OpenTelemetry and `tracing`, as a service sets them up.

use crate::Result;
use opentelemetry::global;
use opentelemetry::trace::TracerProvider;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::{SdkTracer, SdkTracerProvider, SpanData, SpanExporter};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tracing_subscriber::filter::{LevelFilter, filter_fn};
use tracing_subscriber::layer::{Layer, SubscriberExt};
use tracing_subscriber::util::SubscriberInitExt;

/// Exports spans by OTLP to `OTEL_EXPORTER_OTLP_ENDPOINT`, by default http://localhost:4318. Call
/// it outside of a runtime: the exporter's HTTP client has one of its own.
pub fn start(service: &'static str) -> Result<(SdkTracerProvider, Arc<Exports>)> {
    let exports = Arc::<Exports>::default();
    let otlp = opentelemetry_otlp::SpanExporter::builder().build()?;
    let provider = SdkTracerProvider::builder()
        .with_resource(Resource::builder().with_service_name(service).build())
        .with_batch_exporter(Counted { otlp, exports: Arc::clone(&exports) })
        .build();
    global::set_text_map_propagator(TraceContextPropagator::new());
    subscribe(provider.tracer(service))?;
    Ok((provider, exports))
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

/// What became of the spans that the SDK gave to the exporter. Those that its queue had no place
/// for are not among them.
#[derive(Debug, Default)]
pub struct Exports {
    pub exported: Spans,
    pub failed: Spans,
}

#[derive(Debug, Default)]
pub struct Spans {
    pub spans: AtomicU64,
    pub links: AtomicU64,
}

/// Counts what arrives at the collector and what is lost, which the SDK only logs.
#[derive(Debug)]
struct Counted {
    otlp: opentelemetry_otlp::SpanExporter,
    exports: Arc<Exports>,
}

impl SpanExporter for Counted {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let spans = batch.len() as u64;
        let links = batch.iter().map(|span| span.links.len() as u64).sum();
        let result = self.otlp.export(batch).await;
        let outcome = if result.is_ok() { &self.exports.exported } else { &self.exports.failed };
        outcome.spans.fetch_add(spans, Ordering::Relaxed);
        outcome.links.fetch_add(links, Ordering::Relaxed);
        result
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.otlp.shutdown_with_timeout(timeout)
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.otlp.set_resource(resource);
    }
}
