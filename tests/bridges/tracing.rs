//! What is pushed of a `tracing` span is what `tracing-opentelemetry` exports of it.

use crate::common::{NEVER, assert_stats};
use batchlink::{Flusher, LinkCollector, LinkSet};
use opentelemetry::Context;
use opentelemetry::trace::{Link, SpanId, SpanKind, TraceContextExt, TraceId, TracerProvider};
use opentelemetry_sdk::trace::{
    InMemorySpanExporter, Sampler, SamplingDecision, SamplingResult, SdkTracer, SdkTracerProvider,
    ShouldSample, SpanData,
};
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::thread;
use tracing::subscriber::{DefaultGuard, NoSubscriber, set_default};
use tracing::{Dispatch, Level, Span, debug_span, info_span};
use tracing_opentelemetry::{OpenTelemetryLayer, OpenTelemetrySpanExt};
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::layer::{Layer, SubscriberExt};
use tracing_subscriber::{Registry, reload};

/// A provider, and what it exported.
pub(crate) struct Traces {
    memory: InMemorySpanExporter,
    provider: SdkTracerProvider,
}

impl Traces {
    pub(crate) fn all() -> Self {
        Self::sampled(Sampler::AlwaysOn)
    }

    pub(crate) fn sampled(sampler: impl ShouldSample + 'static) -> Self {
        let memory = InMemorySpanExporter::default();
        let builder = SdkTracerProvider::builder().with_sampler(sampler);
        let provider = builder.with_simple_exporter(memory.clone()).build();
        Self { memory, provider }
    }

    pub(crate) fn tracer(&self) -> SdkTracer {
        self.provider.tracer("test")
    }

    pub(crate) fn layer(&self) -> OpenTelemetryLayer<Registry, SdkTracer> {
        tracing_opentelemetry::layer().with_tracer(self.tracer())
    }

    pub(crate) fn dispatch(&self) -> Dispatch {
        Registry::default().with(self.layer()).into()
    }

    /// Makes the layer the thread's default.
    pub(crate) fn install(&self) -> DefaultGuard {
        tracing::dispatcher::set_default(&self.dispatch())
    }

    pub(crate) fn exported(&self) -> Vec<SpanData> {
        self.memory.get_finished_spans().expect("the exporter is there")
    }

    /// The only span of this name.
    pub(crate) fn span(&self, name: &str) -> SpanData {
        let mut named = self.exported();
        named.retain(|span| span.name == name);
        assert_eq!(named.len(), 1, "spans of the name {name}");
        named.remove(0)
    }

    /// Checks that exactly the exported spans are linked, by ids, flags and trace state.
    fn assert_linked(&self, links: &[Link]) {
        let ids = |trace: TraceId, span: SpanId| (trace.to_string(), span.to_string());
        let exported: BTreeSet<_> = (self.exported().iter())
            .map(|span| ids(span.span_context.trace_id(), span.span_context.span_id()))
            .collect();
        let linked: BTreeSet<_> = (links.iter())
            .map(|link| ids(link.span_context.trace_id(), link.span_context.span_id()))
            .collect();
        assert_eq!(linked, exported);
        assert_eq!(linked.len(), links.len());
        for span in self.exported() {
            assert!(links.iter().any(|link| link.span_context == span.span_context), "{span:?}");
        }
    }
}

fn collector() -> (LinkCollector, Flusher) {
    LinkCollector::builder().with_max_delay(NEVER).with_shards(1).build().expect("valid")
}

/// The links of what was pushed.
fn links(flusher: &mut Flusher) -> Vec<Link> {
    flusher.try_next().map_or_else(Vec::new, |batch| batch.into_links())
}

/// Entered, only created, nested, recorded and remote spans, through a collector and a producer.
#[test]
fn pushed_spans_are_exported() {
    let traces = Traces::all();
    let _default = traces.install();
    let (collector, mut flusher) = collector();
    let producer = collector.producer();
    {
        let created = info_span!("created");
        collector.push_tracing(&created).unwrap();
        let entered = info_span!("entered", item = tracing::field::Empty).entered();
        producer.push_tracing(&entered).unwrap();
        entered.record("item", 7);
        let inner = debug_span!("inner", otel.kind = "client");
        collector.push_tracing(&inner).unwrap();
        inner.in_scope(|| collector.push_tracing(&Span::current())).unwrap();
        let child = info_span!(parent: &created, "child");
        producer.push_tracing(&child).unwrap();
        let remote = info_span!("remote");
        let caller = crate::common::with_state(9, &crate::common::small_state());
        remote.set_parent(Context::new().with_remote_span_context(caller)).unwrap();
        producer.push_tracing(&remote.clone()).unwrap();
    }
    assert_stats(&collector.stats(), 6, 0, 0, 0);
    let links = links(&mut flusher);
    assert_eq!(links.len(), 5);
    traces.assert_linked(&links);
    assert_eq!(traces.span("inner").span_kind, SpanKind::Client);
    let remote = traces.span("remote");
    assert_eq!(remote.parent_span_id, SpanId::from(9));
    assert_eq!(remote.span_context.trace_state(), &crate::common::small_state());
    let created = traces.span("created").span_context;
    assert_eq!(traces.span("child").parent_span_id, created.span_id());
}

/// One producer's spans are linked in the order in which they were pushed.
#[test]
fn producer_keeps_span_order() {
    let traces = Traces::all();
    let _default = traces.install();
    let (collector, mut flusher) = collector();
    let producer = collector.producer();
    for _ in 0..20 {
        producer.push_tracing(&info_span!("request")).unwrap();
    }
    let linked: Vec<_> =
        links(&mut flusher).into_iter().map(|link| link.span_context.span_id()).collect();
    let exported: Vec<_> =
        traces.exported().iter().map(|span| span.span_context.span_id()).collect();
    assert_eq!(linked, exported);
}

#[test]
fn threads_push_their_spans() {
    let traces = Traces::all();
    let (collector, mut flusher) = collector();
    let dispatch = traces.dispatch();
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let _default = tracing::dispatcher::set_default(&dispatch);
                for _ in 0..25 {
                    let span = info_span!("request");
                    // On a thread that does not know the subscriber, too.
                    thread::scope(|scope| {
                        scope.spawn(|| collector.push_tracing(&span)).join().unwrap().unwrap();
                    });
                }
            });
        }
    });
    let links = links(&mut flusher);
    assert_eq!(links.len(), 100);
    traces.assert_linked(&links);
}

/// The entered span, by both ways to it, is one span.
#[test]
fn current_span_is_pushed() {
    let traces = Traces::all();
    let _default = traces.install();
    let (collector, mut flusher) = collector();
    info_span!("request").in_scope(|| {
        collector.push_current().unwrap();
        collector.push_tracing(&Span::current()).unwrap();
    });
    let batch = flusher.try_next().unwrap();
    assert_eq!((batch.linked(), batch.duplicates()), (1, 1));
    traces.assert_linked(batch.links());
}

/// Without context activation only `tracing` knows the current span.
#[test]
fn inactive_context_is_found() {
    let traces = Traces::all();
    let _default =
        set_default(Registry::default().with(traces.layer().with_context_activation(false)));
    let (collector, mut flusher) = collector();
    info_span!("request").in_scope(|| {
        collector.push_current().unwrap();
        collector.push_tracing(&Span::current()).unwrap();
    });
    assert_stats(&collector.stats(), 1, 0, 0, 1);
    traces.assert_linked(&links(&mut flusher));
}

/// A span that the layer does not see has no context. The current one is the span around it.
#[test]
fn filtered_span_is_invalid() {
    let traces = Traces::all();
    let layer = traces.layer().with_filter(LevelFilter::INFO);
    let all = tracing_subscriber::layer::Identity::new();
    let _default = set_default(Registry::default().with(layer).with(all));
    let (collector, mut flusher) = collector();
    info_span!("request").in_scope(|| {
        debug_span!("query").in_scope(|| {
            assert!(!Span::current().is_disabled(), "the registry has it");
            collector.push_tracing(&Span::current()).unwrap();
            collector.push_optional(Span::current()).unwrap();
            collector.push_current().unwrap();
        });
    });
    assert_stats(&collector.stats(), 1, 0, 0, 1);
    traces.assert_linked(&links(&mut flusher));
    assert_eq!(traces.span("request").name, "request");
}

#[test]
fn disabled_callsite_is_invalid() {
    let traces = Traces::all();
    let _default = set_default(
        Registry::default()
            .with(LevelFilter::INFO)
            .with(tracing_opentelemetry::layer().with_tracer(traces.tracer())),
    );
    let (collector, mut flusher) = collector();
    info_span!("request").in_scope(|| {
        let query = debug_span!("query");
        assert!(query.is_disabled());
        collector.push_tracing(&query).unwrap();
        query.in_scope(|| collector.push_tracing(&Span::current())).unwrap(); // the request
    });
    collector.push_tracing(&Span::none()).unwrap();
    assert_stats(&collector.stats(), 1, 0, 0, 2);
    traces.assert_linked(&links(&mut flusher));
}

/// No subscriber at all, one without a layer, a layer without a tracer, a provider that was shut
/// down, and one that `reload` hides: all are no span to be linked.
#[test]
fn missing_layer_is_invalid() {
    let (collector, mut flusher) = collector();
    let push = |dispatch: Dispatch| {
        let _default = tracing::dispatcher::set_default(&dispatch);
        let span = info_span!("request");
        collector.push_tracing(&span).unwrap();
        collector.push_optional(&span).unwrap();
        span.in_scope(|| collector.push_tracing(&Span::current())).unwrap();
    };
    push(Dispatch::new(NoSubscriber::default()));
    push(Dispatch::new(Registry::default()));
    push(Dispatch::new(Registry::default().with(tracing_opentelemetry::layer())));
    let traces = Traces::all();
    let over = traces.dispatch();
    traces.provider.shutdown().unwrap();
    push(over);
    let (hidden, _handle) = reload::Layer::new(Traces::all().layer());
    push(Dispatch::new(Registry::default().with(hidden)));
    let stats = collector.stats();
    assert_eq!((stats.accepted(), stats.pending()), (0, 0), "{stats:?}");
    // `push_optional` counts two: without a tracer, and after the shutdown, the layer has a context
    // for the span, which is invalid.
    assert_eq!(stats.invalid(), 5 * 2 + 2, "{stats:?}");
    assert!(flusher.try_next().is_none());
}

/// An unsampled span has a context, which the batch counts; a policy may keep it.
#[test]
fn unsampled_span_is_counted() {
    let traces = Traces::sampled(Sampler::AlwaysOff);
    let _default = traces.install();
    let (collector, mut flusher) = collector();
    let span = info_span!("request");
    collector.push_tracing(&span).unwrap();
    let batch = flusher.try_next().unwrap();
    assert_eq!((batch.received(), batch.unsampled(), batch.linked()), (1, 1, 0));

    let keep = batchlink::LinkPolicy::new().with_unsampled(batchlink::Unsampled::Keep);
    let mut set = LinkSet::builder().with_link_policy(keep).build().unwrap();
    set.insert_optional(&span);
    let batch = set.finish();
    assert_eq!(&batch.links()[0].span_context, span.context().span().span_context());
    drop(span);
    assert_eq!(traces.exported().len(), 0);
}

/// What was pushed stays linked when its span is long closed, and a span whose OpenTelemetry span
/// has ended can still be pushed.
#[test]
fn closed_span_stays_linked() {
    let traces = Traces::all();
    let _default = traces.install();
    let (collector, mut flusher) = collector();
    let gone = info_span!("gone");
    collector.push_tracing(&gone).unwrap();
    drop(gone);
    let ended = info_span!("ended");
    ended.context().span().end();
    assert_eq!(traces.exported().len(), 2, "both are exported already");
    collector.push_tracing(&ended).unwrap();
    let links = links(&mut flusher);
    assert_eq!(links.len(), 2);
    traces.assert_linked(&links);
}

/// `tracing-opentelemetry` panics for a span that was closed behind its handle. That is caught.
#[test]
fn hand_closed_span_is_invalid() {
    let traces = Traces::all();
    let _default = traces.install();
    let (collector, _flusher) = collector();
    let span = info_span!("closed");
    let (id, dispatch) = span.with_subscriber(|(id, it)| (id.clone(), it.clone())).unwrap();
    assert!(dispatch.try_close(id));
    assert_eq!(traces.exported().len(), 1);
    collector.push_tracing(&span).unwrap();
    collector.push_optional(&span).unwrap();
    assert_stats(&collector.stats(), 0, 0, 0, 1);
    assert!(!LinkSet::builder().build().unwrap().finish().link_tracing(&span));
    std::mem::forget(span); // the registry panics if it is closed twice
}

/// Panics in its first decision.
#[derive(Clone, Debug, Default)]
struct Panicky(Arc<Mutex<bool>>);

impl ShouldSample for Panicky {
    fn should_sample(
        &self,
        _parent: Option<&Context>,
        _trace: TraceId,
        _name: &str,
        _kind: &SpanKind,
        _attributes: &[opentelemetry::KeyValue],
        _links: &[Link],
    ) -> SamplingResult {
        let first = !std::mem::replace(&mut *self.0.lock().unwrap(), true);
        assert!(!first, "the sampler's panic");
        SamplingResult {
            decision: SamplingDecision::RecordAndSample,
            attributes: Vec::new(),
            trace_state: Default::default(),
        }
    }
}

#[test]
fn sampler_panic_is_caught() {
    let traces = Traces::sampled(Panicky::default());
    let _default = traces.install();
    let (collector, mut flusher) = collector();
    let span = info_span!("request");
    collector.push_tracing(&span).unwrap();
    std::mem::forget(span); // its lock is poisoned, and its drop would panic
    assert_stats(&collector.stats(), 0, 0, 0, 1);
    collector.push_tracing(&info_span!("next")).unwrap();
    traces.assert_linked(&links(&mut flusher));
}

/// Refusals are those of `push`.
#[test]
fn full_shard_refuses_span() {
    let traces = Traces::all();
    let _default = traces.install();
    let builder = LinkCollector::builder().with_max_batch_size(1).with_queue_capacity(1);
    let (collector, _flusher) = builder.with_shards(1).build().unwrap();
    let span = tracing::span!(Level::INFO, "request");
    collector.push_tracing(&span).unwrap();
    assert_eq!(collector.push_tracing(&span), Err(batchlink::PushError::Full));
    collector.close();
    assert_eq!(collector.producer().push_tracing(&span), Err(batchlink::PushError::Closed));
    assert_stats(&collector.stats(), 1, 1, 1, 0);
}
