//! A `tracing` span as batch span has the links, attributes and counts of a span of our own.

use crate::common::{context, state_of, with_flags, with_state};
use crate::exported::attributes;
use crate::tracing::Traces;
use batchlink::{
    Dedup, Invalid, LinkBatch, LinkPolicy, LinkSet, LinkSetBuilder, Overflow, Parent, links,
};
use opentelemetry::trace::{
    Link, SpanContext, SpanId, SpanKind, TraceContextExt, TraceFlags, TraceId,
};
use opentelemetry::{Context, KeyValue};
use opentelemetry_sdk::trace::{Sampler, SamplingResult, ShouldSample, SpanData};
use std::sync::{Arc, Mutex};
use tracing::subscriber::{NoSubscriber, set_default};
use tracing::{Span, debug_span, info_span};
use tracing_opentelemetry::OpenTelemetrySpanExt;
use tracing_subscriber::Registry;
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::layer::{Layer, SubscriberExt};

/// Makes the batch span of `make`'s batch on a `tracing` span, after `before` was done with it.
fn traced(make: &dyn Fn() -> LinkBatch, before: impl FnOnce(&Span)) -> SpanData {
    let traces = Traces::all();
    let _default = set_default(Registry::default().with(traces.layer().with_location(false)));
    let span = info_span!("batch");
    before(&span);
    assert!(make().link_tracing(&span));
    span.in_scope(|| {});
    drop(span);
    traces.span("batch")
}

fn own(make: &dyn Fn() -> LinkBatch) -> SpanData {
    let traces = Traces::all();
    drop(make().start(&traces.tracer(), "batch"));
    traces.span("batch")
}

/// The attributes that are not the layer's own.
fn ours(span: &SpanData) -> Vec<String> {
    let mut all = attributes(&span.attributes);
    all.retain(|one| {
        !["thread.", "busy_ns", "idle_ns", "target", "level"].iter().any(|of| one.starts_with(of))
    });
    all
}

fn set(builder: LinkSetBuilder, contexts: impl IntoIterator<Item = SpanContext>) -> LinkBatch {
    let mut set = builder.build().expect("valid");
    set.extend(contexts);
    set.finish()
}

fn policy(policy: LinkPolicy) -> LinkSetBuilder {
    LinkSet::builder().with_link_policy(policy)
}

/// Batches of every kind: the same span results as from `LinkBatch::start`.
#[test]
fn spans_equal_our_own() {
    let unsampled = |n| with_flags(n, TraceFlags::default());
    let state = state_of(300);
    let mixed = || {
        let kept = policy(LinkPolicy::new().with_invalid(Invalid::Keep));
        let mut set = kept.build().unwrap();
        set.insert(&context(1));
        set.insert_link(links::whole_trace(TraceId::from(7)));
        set.insert(&context(2));
        set.finish()
    };
    let attributed = || {
        let mut set = policy(LinkPolicy::new().with_dedup(Dedup::Off)).build().unwrap();
        for id in ["a", "b"] {
            set.insert_link(Link::new(context(1), vec![KeyValue::new("message", id)], 0));
        }
        set.finish()
    };
    let told = || policy(LinkPolicy::new().with_span_link_limit(128));
    let cases: [(&str, &dyn Fn() -> LinkBatch); 11] = [
        ("empty", &|| set(LinkSet::builder(), [])),
        ("few", &|| set(LinkSet::builder(), (1..=3).map(context))),
        ("state", &|| set(LinkSet::builder(), [with_state(4, &state)])),
        ("duplicates", &|| set(LinkSet::builder(), [1, 2, 1].map(context))),
        ("unsampled", &|| set(LinkSet::builder(), [context(1), unsampled(2)])),
        ("truncated", &|| set(LinkSet::builder().with_max_links(5), (1..=9).map(context))),
        ("at the limit", &|| set(LinkSet::builder(), (1..=128).map(context))),
        ("over the limit", &|| set(LinkSet::builder().with_max_links(200), (1..=200).map(context))),
        ("told", &|| set(told(), (1..=300).map(context))),
        ("invalid", &mixed),
        ("attributes", &attributed),
    ];
    for (name, make) in cases {
        let expected = own(make);
        let counts = make().counts();
        for (entered, before) in
            [(false, (|_: &Span| ()) as fn(&Span)), (true, |span: &Span| span.in_scope(|| ()))]
        {
            let span = traced(make, before);
            let what = format!("{name}, entered before: {entered}");
            assert_eq!(span.links.links, expected.links.links, "{what}");
            assert_eq!(span.links.dropped_count, expected.links.dropped_count, "{what}");
            assert_eq!(ours(&span), attributes(&expected.attributes), "{what}");
            assert!(span.links.links.len() <= 128, "{what}");
        }
        assert_eq!(expected.links.links.len() as u64, counts.linked.min(128), "{name}");
    }
    // One of them in figures, not by comparison.
    let span = traced(&|| set(told(), (1..=300).map(context)), |_| ());
    assert_eq!((span.links.links.len(), span.links.dropped_count), (128, 172));
    assert!(ours(&span).contains(&"links.original_count=300".to_owned()));
}

/// Hoisted attributes are on the span, not on its links.
#[test]
fn hoisted_attributes_reach_span() {
    let make = || {
        let mut set = LinkSet::builder().build().unwrap();
        for n in [1, 2] {
            let topic = KeyValue::new("messaging.destination.name", "orders");
            set.insert_link(Link::new(context(n), vec![topic], 0));
        }
        set.finish().hoist()
    };
    let span = traced(&make, |_| ());
    assert_eq!(ours(&span), attributes(&own(&make).attributes));
    assert!(ours(&span).contains(&"messaging.destination.name=orders".to_owned()));
}

/// Links over the bound are on further spans, as with a batch span of our own.
#[test]
fn pages_follow_batch_span() {
    let make = || {
        let pages = LinkPolicy::new().with_overflow(Overflow::Spans { max_pages: 3 });
        set(policy(pages).with_max_links(5), (1..=12).map(context))
    };
    let own = Traces::all();
    drop(make().start(&own.tracer(), "batch"));

    let traces = Traces::all();
    let _default = set_default(Registry::default().with(traces.layer().with_location(false)));
    let span = info_span!("batch");
    let mut batch = make();
    let pages = batch.take_pages().named("batch");
    assert!(batch.link_tracing(&span));
    pages.start(&traces.tracer(), span.context().span().span_context());
    drop(span);

    let batch_id = traces.span("batch").span_context.span_id();
    let shown = |traces: &Traces| -> Vec<(String, Vec<Link>, Vec<String>)> {
        let spans = traces.exported();
        spans.iter().map(|it| (it.name.to_string(), it.links.links.clone(), ours(it))).collect()
    };
    let mut expected = shown(&own);
    let mut found = shown(&traces);
    assert_eq!(found.len(), 3);
    expected.sort_by_key(|(name, links, _)| (name.clone(), links.len()));
    found.sort_by_key(|(name, links, _)| (name.clone(), links.len()));
    assert_eq!(found, expected);
    let pages = traces.exported().into_iter().filter(|span| span.name == "batch links");
    assert!(pages.into_iter().all(|page| page.parent_span_id == batch_id));
}

/// What the sampler sees of each span: name, number of links, keys of attributes.
#[derive(Clone, Debug, Default)]
struct Seen(Arc<Mutex<Vec<Decision>>>);

type Decision = (String, usize, Vec<String>);

impl ShouldSample for Seen {
    fn should_sample(
        &self,
        parent: Option<&Context>,
        trace: TraceId,
        name: &str,
        kind: &SpanKind,
        attributes: &[KeyValue],
        links: &[Link],
    ) -> SamplingResult {
        let keys = attributes.iter().map(|attribute| attribute.key.to_string()).collect();
        self.0.lock().unwrap().push((name.to_owned(), links.len(), keys));
        Sampler::AlwaysOn.should_sample(parent, trace, name, kind, attributes, links)
    }
}

/// Links and attributes are there when the sampler decides, which it does once.
#[test]
fn sampler_sees_links() {
    let seen = Seen::default();
    let traces = Traces::sampled(seen.clone());
    let _default = traces.install();
    let span = info_span!("batch");
    assert!(set(LinkSet::builder(), (1..=3).map(context)).link_tracing(&span));
    let seen = seen.0.lock().unwrap();
    let [(name, links, keys)] = &seen[..] else { panic!("one decision: {seen:?}") };
    assert_eq!((name.as_str(), *links), ("batch", 3));
    for key in ["batch.size", "batch.links", "batch.trigger"] {
        assert!(keys.iter().any(|known| known == key), "{key} in {keys:?}");
    }
}

/// Parent, kind and attributes that the user sets are kept.
#[test]
fn user_settings_are_kept() {
    let traces = Traces::all();
    let _default = traces.install();
    let span =
        info_span!("batch", otel.kind = "consumer", topic = "orders", late = tracing::field::Empty);
    let caller = Context::new().with_remote_span_context(context(7));
    span.set_parent(caller).unwrap();
    assert!(set(LinkSet::builder(), [context(1)]).link_tracing(&span));
    span.record("late", "yes");
    span.in_scope(|| info_span!("child").in_scope(|| ()));
    let batch_id = span.context().span().span_context().span_id();
    drop(span);
    let batch = traces.span("batch");
    assert_eq!(batch.span_kind, SpanKind::Consumer);
    assert_eq!(batch.parent_span_id, context(7).span_id());
    let attributes = ours(&batch);
    for expected in ["batch.links=1", "late=yes", "topic=orders"] {
        assert!(attributes.iter().any(|one| one == expected), "{expected} in {attributes:?}");
    }
    assert_eq!(traces.span("child").parent_span_id, batch_id);
}

/// The parent is the one that the policy chooses, else the one that `tracing` gave the span. A span
/// that was started keeps its own.
#[test]
fn policy_chooses_parent() {
    let outer_id = context(7).span_id();
    let none = SpanId::INVALID;
    let id = |number| context(number).span_id();
    for (parent, of_two, of_twice, of_none) in [
        (Parent::Current, outer_id, outer_id, outer_id),
        (Parent::None, none, none, none),
        (Parent::First, id(1), id(1), outer_id),
        (Parent::Only, outer_id, id(1), outer_id),
    ] {
        let cases = [(&[1, 2][..], of_two), (&[1, 1], of_twice), (&[], of_none)];
        for ((numbers, expected), started) in
            cases.into_iter().flat_map(|case| [(case, false), (case, true)])
        {
            let traces = Traces::all();
            let _default = traces.install();
            let span = info_span!("batch");
            // As `tracing` would give it, and not the current one: that is span 9.
            span.set_parent(Context::new().with_remote_span_context(context(7))).unwrap();
            if started {
                span.in_scope(|| ());
            }
            let _current = Context::new().with_remote_span_context(context(9)).attach();
            let builder = policy(LinkPolicy::new().with_parent(parent));
            assert!(set(builder, numbers.iter().copied().map(context)).link_tracing(&span));
            drop(span);
            let batch = traces.span("batch");
            let expected = if started { outer_id } else { expected };
            assert_eq!(batch.parent_span_id, expected, "{parent:?} of {numbers:?}, {started}");
            let trace = batch.span_context.trace_id();
            assert_eq!(trace == context(1).trace_id(), expected != none, "of its parent");
        }
    }
}

/// `false` if no exported span has the links, `true` if one has.
#[test]
fn unrecorded_span_is_reported() {
    let batch = || set(LinkSet::builder(), (1..=3).map(context));
    assert!(!batch().link_tracing(&Span::none()));
    {
        let _default = set_default(NoSubscriber::default());
        assert!(!batch().link_tracing(&info_span!("batch")));
    }
    {
        let _default = set_default(Registry::default());
        assert!(!batch().link_tracing(&info_span!("batch")));
    }
    let traces = Traces::all();
    {
        let filtered = traces.layer().with_filter(LevelFilter::INFO);
        let _default = set_default(Registry::default().with(filtered));
        assert!(!batch().link_tracing(&debug_span!("filtered")));
        assert!(batch().link_tracing(&info_span!("batch")));
    }
    assert_eq!(traces.exported().len(), 1);
    assert_eq!(traces.span("batch").links.links.len(), 3);
    {
        let _default = traces.install();
        let ended = info_span!("ended");
        ended.context().span().end();
        assert!(!batch().link_tracing(&ended));
        drop(ended);
        assert_eq!(traces.span("ended").links.links.len(), 0);
    }
    let traces = Traces::sampled(Sampler::AlwaysOff);
    let _default = traces.install();
    assert!(!batch().link_tracing(&info_span!("batch")));
    assert_eq!(traces.exported().len(), 0);
}
