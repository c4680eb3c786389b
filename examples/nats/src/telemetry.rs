//! The OpenTelemetry SDK with OTLP export, and a journal of the spans that the collector took.

use crate::{Journal, Result};
use opentelemetry::KeyValue;
use opentelemetry::global;
use opentelemetry::trace::TracerProvider;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::{SdkTracer, SdkTracerProvider, SpanData, SpanExporter};
use serde::Serialize;
use std::time::Duration;

/// The SDK of one process. Endpoint, sampler, queue and limits come from the standard environment
/// variables: `OTEL_EXPORTER_OTLP_ENDPOINT`, `OTEL_TRACES_SAMPLER`, `OTEL_BSP_*` and so on.
pub struct Telemetry(SdkTracerProvider);

impl Telemetry {
    /// Sets the global propagator and starts the SDK. Must not be called on a tokio thread: the
    /// exporter's HTTP client is a blocking one.
    pub fn start(service: &'static str, instance: &str, journal: Journal) -> Result<Self> {
        global::set_text_map_propagator(TraceContextPropagator::new());
        let exporter = opentelemetry_otlp::SpanExporter::builder().with_http().build()?;
        let resource = Resource::builder()
            .with_service_name(service)
            .with_attribute(KeyValue::new("service.instance.id", instance.to_owned()))
            .build();
        let provider = SdkTracerProvider::builder()
            .with_resource(resource)
            .with_batch_exporter(Journaled { exporter, journal })
            .build();
        Ok(Self(provider))
    }

    /// Returns the tracer of this example.
    pub fn tracer(&self) -> SdkTracer {
        self.0.tracer("batchlink-nats-example")
    }

    /// Exports what is left and ends the SDK.
    pub fn shutdown(self) -> Result {
        Ok(self.0.shutdown_with_timeout(Duration::from_secs(60))?)
    }
}

/// Exports by OTLP and journals each span after the collector has acknowledged it.
#[derive(Debug)]
struct Journaled {
    exporter: opentelemetry_otlp::SpanExporter,
    journal: Journal,
}

#[derive(Serialize)]
struct Exported {
    exported: Vec<String>,
}

impl SpanExporter for Journaled {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let name = |span: &SpanData| span.span_context.span_id().to_string();
        let exported = batch.iter().map(name).collect();
        self.exporter.export(batch).await?;
        if let Err(error) = self.journal.write(&Exported { exported }) {
            eprintln!("the journal cannot be written: {error}");
        }
        Ok(())
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.exporter.shutdown_with_timeout(timeout)
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.exporter.force_flush()
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.exporter.set_resource(resource);
    }
}
