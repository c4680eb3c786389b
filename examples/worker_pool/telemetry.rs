//! The OpenTelemetry SDK, and an exporter that reads back what it exports.

use crate::common::otlp::{self, Endpoint};
use opentelemetry::trace::{Link, SpanKind, TraceId, Tracer, TracerProvider};
use opentelemetry::{Context, KeyValue, Value};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{
    BatchConfigBuilder, BatchSpanProcessor, Sampler, SamplingResult, SdkTracerProvider,
    ShouldSample, Span, SpanData, SpanExporter, SpanProcessor,
};
use std::collections::HashSet;
use std::error::Error;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

pub(crate) const REQUEST_SPAN: &str = "request";
pub(crate) const BATCH_SPAN: &str = "process_batch";
/// Sent ahead to see whether a collector listens.
const HELLO_SPAN: &str = "worker_pool";

/// Share of requests that are sampled.
const SAMPLED: f64 = 0.9;
/// Batch spans that the SDK may hold back for the OTLP exporter.
const BATCH_QUEUE: usize = 2048;
/// Request spans that it may hold back; it drops more, as it would in any service.
const REQUEST_QUEUE: usize = 65_536;
/// Links in one OTLP message, about: receivers limit the size of messages to a few megabytes.
const LINKS_PER_MESSAGE: usize = 8192;

/// What one exported batch span says.
#[derive(Clone, Debug)]
pub(crate) struct ExportedBatch {
    /// Links on the span.
    pub(crate) links: u64,
    /// Different spans that they lead to.
    pub(crate) targets: u64,
    /// Links that the SDK has cut.
    pub(crate) dropped: u64,
    /// Its attributes `batch.size`, `batch.links`, `batch.trigger`.
    pub(crate) batch_size: Option<i64>,
    pub(crate) batch_links: Option<i64>,
    pub(crate) batch_trigger: Option<String>,
}

/// All that was exported.
#[derive(Clone, Debug, Default)]
pub(crate) struct Exported {
    pub(crate) batches: Vec<ExportedBatch>,
    /// The first batch span with links.
    pub(crate) sample: Option<SpanData>,
    /// Spans of requests.
    pub(crate) request_spans: u64,
}

/// The provider, and what its exporters have exported.
pub(crate) struct Telemetry {
    pub(crate) provider: SdkTracerProvider,
    exported: Arc<Mutex<Exported>>,
    /// Where spans are sent, if they are.
    endpoint: Option<Endpoint>,
}

impl Telemetry {
    /// With OTLP if an endpoint is set, which must answer; otherwise within the process.
    pub(crate) fn start(max_links: usize) -> Result<Self, Box<dyn Error>> {
        let exported = Arc::new(Mutex::new(Exported::default()));
        let endpoint = Endpoint::from_env();
        let builder = SdkTracerProvider::builder()
            .with_resource(Resource::builder().with_service_name("batchlink-worker-pool").build())
            .with_sampler(Sampler::ParentBased(Box::new(RootSampler)))
            // The SDK's own limit of links is 128: it would cut what `--max-links` allows.
            .with_max_links_per_span(u32::try_from(max_links).unwrap_or(u32::MAX));
        let provider = match &endpoint {
            // Exports every span when it ends: nothing can be lost on the way.
            None => builder
                .with_simple_exporter(Readback { otlp: None, exported: Arc::clone(&exported) }),
            Some(endpoint) => {
                let otlp = || -> Result<Readback, Box<dyn Error>> {
                    Ok(Readback {
                        otlp: Some(endpoint.exporter()?),
                        exported: Arc::clone(&exported),
                    })
                };
                builder.with_span_processor(TwoQueues::new(otlp()?, otlp()?, max_links))
            }
        }
        .build();
        let telemetry = Self { provider, exported, endpoint };
        telemetry.say_hello()?;
        Ok(telemetry)
    }

    fn say_hello(&self) -> Result<(), Box<dyn Error>> {
        self.provider.tracer("worker_pool").in_span(HELLO_SPAN, |_| {});
        self.answer(self.provider.force_flush())
    }

    /// Whether every export so far went well.
    pub(crate) fn check(&self) -> Result<(), Box<dyn Error>> {
        self.endpoint.as_ref().map_or(Ok(()), Endpoint::check)
    }

    fn answer(&self, sdk: OTelSdkResult) -> Result<(), Box<dyn Error>> {
        match &self.endpoint {
            None => Ok(sdk?),
            Some(endpoint) => endpoint.check_with(sdk),
        }
    }

    /// Exports what is left.
    pub(crate) fn shutdown(&self) -> Result<(), Box<dyn Error>> {
        self.answer(self.provider.shutdown_with_timeout(Duration::from_secs(10)))
    }

    pub(crate) fn exported(&self) -> Exported {
        lock(&self.exported).clone()
    }
}

fn lock(exported: &Mutex<Exported>) -> MutexGuard<'_, Exported> {
    exported.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Samples nine requests in ten, and every other trace. A batch span has a trace of its own: if it
/// were subject to the ratio, one batch in ten would be lost with all its links.
#[derive(Clone, Debug)]
struct RootSampler;

impl ShouldSample for RootSampler {
    fn should_sample(
        &self,
        parent: Option<&Context>,
        trace_id: TraceId,
        name: &str,
        kind: &SpanKind,
        attributes: &[KeyValue],
        links: &[Link],
    ) -> SamplingResult {
        let sampler = if name == REQUEST_SPAN {
            Sampler::TraceIdRatioBased(SAMPLED)
        } else {
            Sampler::AlwaysOn
        };
        sampler.should_sample(parent, trace_id, name, kind, attributes, links)
    }
}

/// Counts what was exported: within the process, or by OTLP once the receiver has taken it.
#[derive(Debug)]
struct Readback {
    otlp: Option<otlp::Exporter>,
    exported: Arc<Mutex<Exported>>,
}

impl SpanExporter for Readback {
    async fn export(&self, spans: Vec<SpanData>) -> OTelSdkResult {
        let mut read = Exported::default();
        for span in &spans {
            read.add(span);
        }
        let result = match &self.otlp {
            None => Ok(()),
            Some(otlp) => otlp.export(spans).await,
        };
        if result.is_ok() {
            lock(&self.exported).append(read);
        }
        result
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.otlp.as_ref().map_or(Ok(()), |otlp| otlp.shutdown_with_timeout(timeout))
    }

    fn set_resource(&mut self, resource: &Resource) {
        if let Some(otlp) = &mut self.otlp {
            otlp.set_resource(resource);
        }
    }
}

impl Exported {
    fn add(&mut self, span: &SpanData) {
        match span.name.as_ref() {
            BATCH_SPAN => {
                self.batches.push(ExportedBatch::new(span));
                if self.sample.is_none() && !span.links.is_empty() {
                    self.sample = Some(span.clone());
                }
            }
            HELLO_SPAN => {}
            _ => self.request_spans += 1,
        }
    }

    fn append(&mut self, mut newer: Self) {
        self.batches.append(&mut newer.batches);
        self.sample = self.sample.take().or(newer.sample);
        self.request_spans += newer.request_spans;
    }

    pub(crate) fn links(&self) -> u64 {
        self.batches.iter().map(|batch| batch.links).sum()
    }
}

impl ExportedBatch {
    fn new(span: &SpanData) -> Self {
        let targets: HashSet<_> = span
            .links
            .iter()
            .map(|link| (link.span_context.trace_id(), link.span_context.span_id()))
            .collect();
        let number = |key: &str| match attribute(span, key) {
            Some(Value::I64(number)) => Some(*number),
            _ => None,
        };
        Self {
            links: span.links.len() as u64,
            targets: targets.len() as u64,
            dropped: span.links.dropped_count.into(),
            batch_size: number("batch.size"),
            batch_links: number("batch.links"),
            batch_trigger: attribute(span, "batch.trigger")
                .map(|value| value.as_str().into_owned()),
        }
    }
}

pub(crate) fn attribute<'a>(span: &'a SpanData, key: &str) -> Option<&'a Value> {
    span.attributes
        .iter()
        .find(|attribute| attribute.key.as_str() == key)
        .map(|attribute| &attribute.value)
}

/// For OTLP: batch spans do not share a queue with the crowd of request spans, and are never
/// dropped.
#[derive(Debug)]
struct TwoQueues {
    batches: BatchSpanProcessor,
    requests: BatchSpanProcessor,
    /// Batch spans so far.
    sent: AtomicUsize,
}

impl TwoQueues {
    fn new(for_batches: Readback, for_requests: Readback, max_links: usize) -> Self {
        let batches = BatchConfigBuilder::default()
            .with_max_queue_size(BATCH_QUEUE)
            .with_max_export_batch_size((LINKS_PER_MESSAGE / max_links).clamp(1, 512))
            .build();
        let requests = BatchConfigBuilder::default().with_max_queue_size(REQUEST_QUEUE).build();
        Self {
            batches: BatchSpanProcessor::new(for_batches, batches),
            requests: BatchSpanProcessor::new(for_requests, requests),
            sent: AtomicUsize::new(0),
        }
    }
}

impl SpanProcessor for TwoQueues {
    fn on_start(&self, _span: &mut Span, _cx: &Context) {}

    fn on_end(&self, span: SpanData) {
        if span.name != BATCH_SPAN {
            return self.requests.on_end(span);
        }
        self.batches.on_end(span);
        // Only the flusher's thread ends batch spans: if it waits here, the queue cannot overflow.
        if (self.sent.fetch_add(1, Ordering::Relaxed) + 1) % (BATCH_QUEUE / 2) == 0 {
            let _ = self.batches.force_flush(); // a failed export is noted by `Readback`
        }
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.batches.force_flush().and(self.requests.force_flush())
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        let batches = self.batches.shutdown_with_timeout(timeout);
        batches.and(self.requests.shutdown_with_timeout(timeout))
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.batches.set_resource(resource);
        self.requests.set_resource(resource);
    }
}
