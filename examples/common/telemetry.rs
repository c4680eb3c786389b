//! The OpenTelemetry SDK as a service would set it up, with an exporter that can be read back.

use super::otlp::Endpoint;
use super::{Exported, Result};
use opentelemetry::global;
use opentelemetry::trace::TracerProvider;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::{
    BatchConfigBuilder, BatchSpanProcessor, InMemorySpanExporter, SdkTracer, SdkTracerProvider,
};
use std::time::Duration;

/// Spans that the SDK may hold back for OTLP: an example has fewer.
const OTLP_QUEUE: usize = 65_536;

pub(crate) struct Telemetry {
    provider: SdkTracerProvider,
    memory: InMemorySpanExporter,
    otlp: Option<Endpoint>,
}

impl Telemetry {
    /// Sets the global provider and propagator. Spans are kept in memory; if
    /// `OTEL_EXPORTER_OTLP_ENDPOINT` is set, they are sent there too.
    pub(crate) fn start(service: &'static str) -> Result<Self> {
        let memory = InMemorySpanExporter::default();
        let mut builder = SdkTracerProvider::builder()
            .with_resource(Resource::builder().with_service_name(service).build())
            .with_simple_exporter(memory.clone());
        let otlp = Endpoint::from_env();
        if let Some(endpoint) = &otlp {
            let queue = BatchConfigBuilder::default().with_max_queue_size(OTLP_QUEUE).build();
            builder =
                builder.with_span_processor(BatchSpanProcessor::new(endpoint.exporter()?, queue));
        }
        let provider = builder.build();
        global::set_tracer_provider(provider.clone());
        global::set_text_map_propagator(TraceContextPropagator::new());
        Ok(Self { provider, memory, otlp })
    }

    pub(crate) fn tracer(&self) -> SdkTracer {
        self.provider.tracer("batchlink-example")
    }

    /// Ends the SDK, once all spans have ended, and reads back what was exported.
    pub(crate) fn finish(self) -> Result<Exported> {
        let exported = Exported::new(self.memory.get_finished_spans()?);
        let shut_down = self.provider.shutdown_with_timeout(Duration::from_secs(10));
        match &self.otlp {
            Some(endpoint) => endpoint.check_with(shut_down)?,
            None => shut_down?,
        }
        Ok(exported)
    }
}
