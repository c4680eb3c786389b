//! Which spans are recorded under a `LinkedSampler`.

use super::common::*;
use batchlink::sampler::LinkedSampler;
use batchlink::{LinkBatch, LinkPolicy, LinkSet, Unsampled};
use opentelemetry::trace::{
    Link, Span, SpanBuilder, SpanContext, SpanId, SpanKind, TraceContextExt, TraceFlags, TraceId,
    TraceState, Tracer, TracerProvider,
};
use opentelemetry::{Context, KeyValue};
use opentelemetry_sdk::trace::{
    IdGenerator, InMemorySpanExporter, Sampler, SamplingDecision, SamplingResult,
    SdkTracerProvider, ShouldSample,
};
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

/// Ids from a seed.
#[derive(Clone)]
struct Seeded(Arc<Mutex<Random>>);

impl Default for Seeded {
    fn default() -> Self {
        Self(Arc::new(Mutex::new(Random(1))))
    }
}

impl fmt::Debug for Seeded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Seeded")
    }
}

impl Seeded {
    fn next(&self) -> u64 {
        self.0.lock().unwrap().next()
    }
}

impl IdGenerator for Seeded {
    fn new_trace_id(&self) -> TraceId {
        TraceId::from(u128::from(self.next()) << 64 | u128::from(self.next()))
    }

    fn new_span_id(&self) -> SpanId {
        SpanId::from(self.next())
    }
}

/// An inner sampler that counts its calls, and marks its results.
#[derive(Clone, Debug)]
struct Inner {
    decision: SamplingDecision,
    calls: Arc<AtomicU64>,
}

impl Inner {
    fn new(decision: SamplingDecision) -> Self {
        Self { decision, calls: Arc::default() }
    }

    fn calls(&self) -> u64 {
        self.calls.load(Ordering::Relaxed)
    }
}

impl ShouldSample for Inner {
    fn should_sample(
        &self,
        _parent: Option<&Context>,
        _trace_id: TraceId,
        _name: &str,
        _kind: &SpanKind,
        _attributes: &[KeyValue],
        _links: &[Link],
    ) -> SamplingResult {
        self.calls.fetch_add(1, Ordering::Relaxed);
        SamplingResult {
            decision: self.decision.clone(),
            attributes: vec![KeyValue::new("inner", true)],
            trace_state: TraceState::from_key_value([("inner", "1")]).unwrap(),
        }
    }
}

fn provider(
    sampler: impl ShouldSample + 'static,
    ids: impl IdGenerator + 'static,
) -> (SdkTracerProvider, InMemorySpanExporter) {
    let exporter = InMemorySpanExporter::default();
    let provider = SdkTracerProvider::builder()
        .with_simple_exporter(exporter.clone())
        .with_sampler(sampler)
        .with_id_generator(ids)
        .build();
    (provider, exporter)
}

/// Returns `sampled` links to sampled contexts, and `unsampled` links to others.
fn links(sampled: u64, unsampled: u64) -> Vec<Link> {
    let flags = |n| if n < sampled { TraceFlags::SAMPLED } else { TraceFlags::default() };
    (0..sampled + unsampled).map(|n| Link::with_context(with_flags(n + 1, flags(n)))).collect()
}

/// Whether a root span with these links and attributes is recorded and sampled.
fn sampled(sampler: &LinkedSampler, links: Vec<Link>, attributes: Vec<KeyValue>) -> bool {
    let (provider, _exporter) = provider(sampler.clone(), Seeded::default());
    let mut builder = SpanBuilder::from_name("batch").with_attributes(attributes);
    builder.links = Some(links);
    let span = provider.tracer("test").build_with_context(builder, &Context::new());
    assert_eq!(span.is_recording(), span.span_context().is_sampled());
    span.is_recording()
}

/// A rule decides over every mixture of links as its documentation says, whatever the inner sampler
/// would do, which is not asked.
#[test]
fn links_decide_alone() {
    for decision in [SamplingDecision::RecordAndSample, SamplingDecision::Drop] {
        let inner = Inner::new(decision);
        let any = LinkedSampler::any_sampled(inner.clone());
        let all = LinkedSampler::all_sampled(inner.clone());
        let ratio = LinkedSampler::ratio_of_sampled(inner.clone());
        for (yes, no) in [(0, 1), (1, 0), (1, 1), (0, 200), (200, 0), (1, 200), (200, 1)] {
            assert_eq!(sampled(&any, links(yes, no), vec![]), yes > 0, "any of {yes}+{no}");
            assert_eq!(sampled(&all, links(yes, no), vec![]), no == 0, "all of {yes}+{no}");
            if yes * no == 0 {
                assert_eq!(sampled(&ratio, links(yes, no), vec![]), no == 0, "{yes}+{no}");
            }
        }
        assert_eq!(inner.calls(), 0);
    }
}

/// A span without links is decided by the inner sampler, whose attributes and trace state are kept.
/// Links to invalid contexts are none.
#[test]
fn inner_decides_without_links() {
    let invalid = vec![Link::with_context(SpanContext::NONE)];
    for links in [vec![], invalid] {
        for decision in [SamplingDecision::RecordAndSample, SamplingDecision::Drop] {
            let inner = Inner::new(decision.clone());
            for sampler in [
                LinkedSampler::any_sampled(inner.clone()),
                LinkedSampler::all_sampled(inner.clone()),
                LinkedSampler::ratio_of_sampled(inner.clone()),
            ] {
                let recorded = decision == SamplingDecision::RecordAndSample;
                assert_eq!(sampled(&sampler, links.clone(), vec![]), recorded);
                let id = TraceId::from(1);
                let kind = SpanKind::Internal;
                let result = sampler.should_sample(None, id, "batch", &kind, &[], &links);
                assert_eq!(result.attributes, [KeyValue::new("inner", true)]);
                assert_eq!(result.trace_state.header(), "inner=1");
            }
            assert_eq!(inner.calls(), 6);
        }
    }
}

/// What a link set left out as unsampled counts as unsampled, by the set's own attribute, and also
/// if no link is left.
#[test]
fn left_out_requests_count() {
    let keep = LinkPolicy::new().with_unsampled(Unsampled::Keep);
    for policy in [LinkPolicy::new(), keep] {
        let batch = |yes: u64, no: u64| -> LinkBatch {
            let builder = LinkSet::builder().with_link_policy(policy.clone());
            let mut set = builder.build().unwrap();
            links(yes, no).iter().for_each(|link| _ = set.insert(&link.span_context));
            set.finish()
        };
        let recorded = |sampler: &LinkedSampler, batch: LinkBatch| {
            let attributes = batch.attributes();
            sampled(sampler, batch.into_links(), attributes)
        };
        let inner = Inner::new(SamplingDecision::RecordAndSample);
        let any = LinkedSampler::any_sampled(inner.clone());
        let all = LinkedSampler::all_sampled(inner.clone());
        assert!(recorded(&any, batch(1, 5)));
        assert!(!recorded(&any, batch(0, 5)));
        assert!(recorded(&all, batch(5, 0)));
        assert!(!recorded(&all, batch(5, 1)));
        assert_eq!(inner.calls(), 0);
        assert!(recorded(&all, batch(0, 0)));
        assert_eq!(inner.calls(), 1);
    }
}

/// An attribute that is not the set's own, or makes no sense, neither panics nor overflows.
#[test]
fn foreign_attributes_are_harmless() {
    let inner = Inner::new(SamplingDecision::Drop);
    let all = LinkedSampler::all_sampled(inner);
    for value in [KeyValue::new("links.unsampled", "many"), KeyValue::new("links.unsampled", -1)] {
        assert!(sampled(&all, links(1, 0), vec![value]));
    }
    let most = KeyValue::new("links.unsampled", i64::MAX);
    assert!(!sampled(&all, links(1, 0), vec![most.clone(), most.clone(), most]));
}

/// Links that are added to a started span come too late.
#[test]
fn later_links_are_invisible() {
    let sampler = LinkedSampler::any_sampled(Sampler::AlwaysOff);
    let (provider, exporter) = provider(sampler, Seeded::default());
    let mut span = provider.tracer("test").start("batch");
    span.add_link(context(1), vec![]);
    assert!(!span.is_recording());
    drop(span);
    assert_eq!(exporter.get_finished_spans().unwrap(), []);
}

fn child_of(parent: &SpanContext, sampler: &(impl ShouldSample + Clone + 'static)) -> SpanContext {
    let (provider, _exporter) = provider(sampler.clone(), Seeded::default());
    let parent = Context::new().with_remote_span_context(parent.clone());
    let mut builder = SpanBuilder::from_name("batch");
    builder.links = Some(links(1, 0));
    provider.tracer("test").build_with_context(builder, &parent).span_context().clone()
}

/// Alone the sampler does not look at the parent. Inside `parent_based` the parent decides, and
/// links do so for the parents for which the user says it.
#[test]
fn parents_decide_where_set() {
    let linked = LinkedSampler::any_sampled(Sampler::AlwaysOff);
    let parent_based = Sampler::parent_based(linked.clone());
    let for_all = parent_based
        .clone()
        .with_local_parent_not_sampled(linked.clone())
        .with_remote_parent_not_sampled(linked.clone());
    for remote in [false, true] {
        let parent = |flags| {
            let (trace_id, span_id) = (TraceId::from(7), SpanId::from(7));
            SpanContext::new(trace_id, span_id, flags, remote, TraceState::NONE)
        };
        let (yes, no) = (parent(TraceFlags::SAMPLED), parent(TraceFlags::default()));
        assert!(child_of(&no, &linked).is_sampled());
        assert!(!child_of(&no, &parent_based).is_sampled());
        assert!(child_of(&no, &for_all).is_sampled());
        for sampler in [&parent_based, &for_all] {
            let child = child_of(&yes, sampler);
            assert_eq!((child.trace_id(), child.is_sampled()), (yes.trace_id(), true));
        }
    }
    assert!(child_of(&SpanContext::NONE, &parent_based).is_sampled());
}

/// The parent's trace state reaches the span where links decide, recorded or not.
#[test]
fn trace_state_passes_through() {
    let parent = with_state(7, &small_state());
    for sampler in [
        LinkedSampler::any_sampled(Sampler::AlwaysOff),
        LinkedSampler::all_sampled(Sampler::AlwaysOff),
        LinkedSampler::ratio_of_sampled(Sampler::AlwaysOff),
    ] {
        for links in [links(1, 0), links(0, 1)] {
            let parent = Context::new().with_remote_span_context(parent.clone());
            let (id, kind) = (TraceId::from(1), SpanKind::Internal);
            let result = sampler.should_sample(Some(&parent), id, "", &kind, &[], &links);
            assert_eq!(result.trace_state, small_state());
            assert_eq!(result.attributes, []);
        }
        assert_eq!(*child_of(&parent, &sampler).trace_state(), small_state());
    }
}

/// A ratio samples with the probability of the sampled share: χ² over ten shares, 4000 spans each,
/// from a seed. 29.6 is exceeded with a probability of 0.001 at 10 degrees of freedom.
#[test]
fn ratio_has_its_probability() {
    let ids = Seeded::default();
    let sampler = LinkedSampler::ratio_of_sampled(Sampler::AlwaysOff);
    let (provider, _exporter) = provider(sampler, ids);
    let tracer = provider.tracer("test");
    let spans = 4000;
    let mut chi_square = 0.0;
    for share in 1..=10_u64 {
        // Among 11 requests, some of which the link set has left out.
        let left_out = KeyValue::new("links.unsampled", 1);
        let started = (0..spans).map(|_| {
            let mut builder = SpanBuilder::from_name("batch").with_attributes([left_out.clone()]);
            builder.links = Some(links(share, 10 - share));
            tracer.build_with_context(builder, &Context::new())
        });
        let recorded = started.filter(|span| span.span_context().is_sampled()).count() as f64;
        let (yes, spans) = (share as f64 / 11.0, f64::from(spans));
        let difference = recorded - spans * yes;
        chi_square += difference * difference / (spans * yes * (1.0 - yes));
    }
    assert!(chi_square < 29.6, "χ² = {chi_square}");
}

/// Serves 2250 requests in batches of ten, and returns how many requests were sampled, and how many
/// of these the exported batch spans link.
fn serve(sampler: impl ShouldSample + 'static) -> (usize, usize) {
    let (provider, exporter) = provider(sampler, Seeded::default());
    let tracer = provider.tracer("service");
    let (collector, mut flusher) = by_size(10).with_queue_capacity(4096).build().unwrap();
    for _ in 0..225 {
        for _ in 0..10 {
            tracer.in_span("request", |_cx| collector.push_current()).unwrap();
        }
        drop(flusher.try_next().unwrap().start(&tracer, "insert_batch"));
    }
    let spans = exporter.get_finished_spans().unwrap();
    let requests = spans.iter().filter(|span| span.name == "request");
    let requests: Vec<_> = requests.map(|span| span.span_context.span_id()).collect();
    let batches = spans.iter().filter(|span| span.name == "insert_batch");
    let linked: Vec<_> = batches.flat_map(|span| span.links.iter()).collect();
    assert!(linked.iter().all(|link| requests.contains(&link.span_context.span_id())));
    assert_eq!(collector.stats().counts().linked, requests.len() as u64);
    (requests.len(), linked.len())
}

/// With one request of ten sampled, the exported spans link every sampled request; with the plain
/// sampler about a tenth of them.
#[test]
fn sampled_requests_keep_links() {
    let ratio = Sampler::TraceIdRatioBased(0.1);
    let (requests, linked) = serve(Sampler::parent_based(ratio.clone()));
    println!("without: {linked} of {requests} links");
    assert!(0 < linked && 5 * linked < requests, "{linked} of {requests}");
    let linked_sampler = LinkedSampler::any_sampled(ratio);
    let (requests, linked) = serve(Sampler::parent_based(linked_sampler));
    println!("with: {linked} of {requests} links");
    assert!(requests > 150, "{requests}");
    assert_eq!(linked, requests);
}

/// The batch span of a processor is recorded if one of its requests is, and the spans of its items
/// follow it, those of unsampled requests, too.
#[cfg(feature = "processor")]
#[test]
fn item_spans_follow_batch() {
    use batchlink::processor::BatchProcessor;

    let root = LinkedSampler::any_sampled(Sampler::AlwaysOff);
    let (provider, exporter) = provider(Sampler::parent_based(root), Seeded::default());
    let (submitter, mut processor) = BatchProcessor::<u64, (), String>::builder("batch")
        .with_max_batch_size(2)
        .with_shards(1)
        .build(provider.tracer("test"))
        .unwrap();
    for sampled in [[false, false], [false, true], [true, true]] {
        for (n, sampled) in [1, 2].into_iter().zip(sampled) {
            let flags = TraceFlags::default().with_sampled(sampled);
            submitter.submit_with_context(n, &with_flags(n, flags)).unwrap();
        }
    }
    drop(submitter);
    processor.run_each(|_, _| Ok(()));
    let spans = exporter.get_finished_spans().unwrap();
    let batches = spans.iter().filter(|span| span.name == "batch");
    let links: Vec<_> = batches.map(|span| span.links.len()).collect();
    assert_eq!(links, [1, 2]);
    assert_eq!(spans.iter().filter(|span| span.name == "process_item").count(), 4);
}
