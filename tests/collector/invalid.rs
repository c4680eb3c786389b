//! Links to invalid contexts, whole traces among them: which are kept, and that these arrive.

use super::common::*;
use batchlink::links::whole_trace;
use batchlink::{
    Dedup, Invalid, LinkCollector, LinkPolicy, LinkSet, Outcome, PushError, Unsampled,
};
use futures_util::FutureExt;
use opentelemetry::trace::{Link, SpanContext, SpanId, SpanKind, TraceFlags, TraceId, TraceState};
use opentelemetry::trace::{TraceContextExt, TracerProvider};
use opentelemetry::{Context, KeyValue};
use opentelemetry_sdk::trace::{SamplingDecision, SamplingResult, SdkTracerProvider, ShouldSample};
use std::sync::{Arc, Mutex};

const POLICIES: [Invalid; 3] = [Invalid::Drop, Invalid::KeepWithAttributes, Invalid::Keep];

/// Neither flag: the policy for unsampled contexts must not ask these.
fn with_ids(trace: u128, span: u64, state: TraceState) -> SpanContext {
    SpanContext::new(TraceId::from(trace), SpanId::from(span), TraceFlags::default(), true, state)
}

/// All kinds of invalid contexts, each bare, with trace state, with attributes and with both; and
/// whether each policy keeps them.
fn cases() -> Vec<(Link, [bool; 3])> {
    let ids = [(0, 0), (7, 0), (0, 7)];
    let mut cases = Vec::new();
    for (trace, span) in ids {
        for state in [TraceState::NONE, small_state()] {
            for attributes in [vec![], vec![KeyValue::new("a", 1)]] {
                let says_more = !attributes.is_empty() || state != TraceState::NONE;
                let has_id = (trace, span) != (0, 0);
                let link = Link::new(with_ids(trace, span, state.clone()), attributes, 0);
                cases.push((link, [false, says_more, says_more || has_id]));
            }
        }
    }
    assert_eq!(cases.len(), 12);
    cases
}

/// What arrives of a link.
fn typed(mut link: Link) -> (SpanContext, Vec<KeyValue>) {
    link.attributes.push(KeyValue::new("link.type", "batch_item"));
    (link.span_context, link.attributes)
}

#[test]
fn each_policy_keeps_its_links() {
    for (which, policy) in POLICIES.into_iter().enumerate() {
        for (link, kept) in cases() {
            let kept = kept[which];
            let says = format!("{policy:?}: {link:?}");
            let mut set = LinkSet::builder()
                .with_link_policy(LinkPolicy::new().with_invalid(policy))
                .build()
                .unwrap();
            let builder =
                by_size(8).with_shards(1).with_link_policy(LinkPolicy::new().with_invalid(policy));
            let (collector, mut flusher) = builder.build().unwrap();

            let outcome = set.insert_link(link.clone());
            assert_eq!(outcome, if kept { Outcome::Linked } else { Outcome::Invalid }, "{says}");
            collector.push_link(link.clone()).unwrap();
            assert_stats(&collector.stats(), u64::from(kept), 0, 0, u64::from(!kept));
            if link.attributes.is_empty() {
                // The same by its context alone, in each way there is.
                let cx = &link.span_context;
                let mut set = LinkSet::builder()
                    .with_link_policy(LinkPolicy::new().with_invalid(policy))
                    .build()
                    .unwrap();
                assert_eq!(set.insert(cx), outcome, "{says}");
                assert_eq!(set.finish().links(), if kept { exported_links(&link) } else { vec![] });
                collector.push(cx).unwrap();
                assert_eq!(collector.push_all(std::slice::from_ref(cx)), 1);
                collector.producer().push(cx).unwrap();
                collector.clone().push_optional(cx).unwrap();
                assert_stats(&collector.stats(), 5 * u64::from(kept), 0, 0, 5 * u64::from(!kept));
            }

            let batch = set.finish();
            assert_account(&batch);
            assert_eq!(
                (batch.received(), batch.linked(), batch.invalid()),
                (1, kept.into(), (!kept).into())
            );
            let arrived = exported(batch)
                .links
                .links
                .into_iter()
                .map(|link| (link.span_context, link.attributes));
            let expected = if kept { vec![typed(link.clone())] } else { vec![] };
            assert_eq!(arrived.collect::<Vec<_>>(), expected, "{says}");
            let batch = flusher.try_next();
            assert_eq!(batch.is_some(), kept, "{says}");
            assert!(batch.iter().all(|batch| batch.received() == collector.stats().accepted()));
            batch.iter().for_each(assert_account);
        }
    }
}

/// As a set makes it of its context alone.
fn exported_links(link: &Link) -> Vec<Link> {
    let (context, attributes) = typed(link.clone());
    vec![Link::new(context, attributes, 0)]
}

/// Notes the links it is shown, and samples.
#[derive(Clone, Debug, Default)]
struct Observer(Arc<Mutex<Vec<Link>>>);

impl ShouldSample for Observer {
    fn should_sample(
        &self,
        _parent: Option<&Context>,
        _trace: TraceId,
        _name: &str,
        _kind: &SpanKind,
        _attributes: &[KeyValue],
        links: &[Link],
    ) -> SamplingResult {
        self.0.lock().expect("no panic").extend_from_slice(links);
        let trace_state = TraceState::NONE;
        SamplingResult {
            decision: SamplingDecision::RecordAndSample,
            attributes: vec![],
            trace_state,
        }
    }
}

/// Samplers see them.
#[test]
fn whole_traces_arrive_in_order() {
    let trace = TraceId::from(0xabc_u128);
    let builder = LinkCollector::builder()
        .with_link_policy(LinkPolicy::new().with_invalid(Invalid::KeepWithAttributes))
        .with_shards(1);
    let (collector, mut flusher) = builder.build().unwrap();
    let observer = Observer::default();
    let provider = SdkTracerProvider::builder().with_sampler(observer.clone()).build();
    for built in [false, true] {
        collector.push(&context(1)).unwrap();
        collector.push_link(whole_trace(trace)).unwrap();
        collector.push(&context(2)).unwrap();
        let batch = flusher.try_next().unwrap();
        assert_eq!(batch.links()[1], whole_trace(trace), "it has its type already");
        drop(batch.clone().start(&provider.tracer("test"), "batch"));
        let span = if built { exported_from(batch.span_builder("batch")) } else { exported(batch) };
        assert_eq!(span.links.iter().map(number).collect::<Vec<_>>(), [1, 0, 2]);
        assert_eq!(span.links[1].span_context.trace_id(), trace);
        assert_eq!(span.links[1].attributes, [KeyValue::new("link.type", "aggregated_trace")]);
        assert_eq!(
            observer.0.lock().unwrap().drain(..).map(|link| number(&link)).collect::<Vec<_>>(),
            [1, 0, 2]
        );
    }
}

/// What has no trace id is linked each time.
#[test]
fn whole_trace_is_linked_once() {
    let link = |trace, span, value| {
        Link::new(with_ids(trace, span, TraceState::NONE), vec![KeyValue::new("a", value)], 0)
    };
    use Outcome::{Duplicate, Linked, Truncated};
    for (dedup, second) in [(Dedup::ByContext, Duplicate), (Dedup::Off, Linked)] {
        let builder = LinkSet::builder()
            .with_link_policy(LinkPolicy::new().with_invalid(Invalid::Keep).with_dedup(dedup));
        let mut set = builder.with_max_links(9).build().unwrap();
        assert_eq!(set.insert_link(link(1, 0, 1)), Linked);
        assert_eq!(set.insert_link(link(2, 0, 1)), Linked, "another trace");
        assert_eq!(set.insert_link(link(1, 0, 2)), second);
        assert_eq!(set.insert(&with_ids(1, 0, TraceState::NONE)), second);
        for value in [1, 2] {
            assert_eq!(set.insert_link(link(0, 0, value)), Linked);
            assert_eq!(set.insert_link(link(0, 5, value)), Linked);
        }
        let room = if second == Duplicate { 3 } else { 1 };
        for number in 1..=room {
            assert_eq!(set.insert(&context(number)), Linked);
        }
        assert_eq!(set.insert_link(link(0, 0, 3)), Truncated);
        let batch = set.finish();
        assert_account(&batch);
        assert_eq!((batch.linked(), batch.truncated(), batch.invalid()), (9, 1, 0));
    }
}

/// It keeps its link, though the link is without it.
#[test]
fn cut_trace_state_was_there() {
    let unfit = TraceState::from_key_value([("k".repeat(256), "v".repeat(256))]).unwrap();
    let cx = with_ids(7, 0, unfit.clone());
    let mut set = LinkSet::builder()
        .with_link_policy(LinkPolicy::new().with_invalid(Invalid::KeepWithAttributes))
        .build()
        .unwrap();
    assert_eq!(set.insert(&cx), Outcome::Linked);
    let batch = set.finish();
    assert_eq!(batch.counts().trace_states_cut, 1);
    assert_eq!(batch.links()[0].span_context, with_ids(7, 0, TraceState::NONE));
}

/// Whichever way it is pushed.
#[test]
fn kept_link_arrives() {
    let (collector, mut flusher) = by_size(4)
        .with_shards(1)
        .with_link_policy(LinkPolicy::new().with_invalid(Invalid::Keep))
        .build()
        .unwrap();
    let bare = |trace| with_ids(trace, 0, TraceState::NONE);
    collector.push(&bare(1)).unwrap();
    collector.push_wait(&bare(2)).unwrap();
    collector.push_wait_async(&bare(3)).now_or_never().unwrap().unwrap();
    let _entered = Context::new().with_remote_span_context(bare(4)).attach();
    collector.push_current().unwrap();
    let batch = flusher.next_batch().unwrap();
    let linked: Vec<_> = batch.links().iter().map(|link| link.span_context.clone()).collect();
    assert_eq!(linked, [1, 2, 3, 4].map(bare));
}

#[test]
fn kept_link_can_be_refused() {
    let builder = by_size(1)
        .with_queue_capacity(1)
        .with_shards(1)
        .with_link_policy(LinkPolicy::new().with_invalid(Invalid::Keep));
    let (collector, flusher) = builder.build().unwrap();
    let bare = with_ids(7, 0, TraceState::NONE);
    collector.push(&bare).unwrap();
    assert_eq!(collector.push(&bare), Err(PushError::Full));
    let refused = collector.push_link(whole_trace(TraceId::from(8_u128))).unwrap_err();
    assert_eq!(
        (refused.reason(), refused.into_link()),
        (PushError::Full, whole_trace(TraceId::from(8_u128)))
    );
    assert_eq!(collector.push_all(&[SpanContext::NONE, bare.clone(), SpanContext::NONE]), 1);
    collector.push_current().unwrap();
    drop(flusher);
    assert_eq!(collector.push(&bare), Err(PushError::Closed));
    collector.push(&SpanContext::NONE).unwrap();
    assert_stats(&collector.stats(), 1, 4, 1, 3);
}

/// Random contexts, valid and not, with and without attributes, under every combination of
/// policies: a set and a collector do with them what a plain list and a few rules would.
#[test]
fn all_policy_combinations_hold() {
    let mut random = Random(11);
    for round in 0..300 {
        let invalid = POLICIES[round % 3];
        let unsampled = [Unsampled::Drop, Unsampled::Keep][round / 3 % 2];
        let dedup = [Dedup::ByContext, Dedup::Off][round / 6 % 2];
        let bound = 1 + random.below(12) as usize;
        let policy = LinkPolicy::new().with_invalid(invalid).with_unsampled(unsampled);
        let policy = policy.with_dedup(dedup).with_max_links(bound);
        let mut set = LinkSet::builder().with_link_policy(policy.clone()).build().unwrap();
        let builder = by_size(64).with_shards(1).with_link_policy(policy);
        let (collector, mut flusher) = builder.build().unwrap();
        let (mut expected, mut refused): (Vec<Link>, u64) = (Vec::new(), 0);
        for _ in 0..32 {
            let (trace, span) = (u128::from(random.below(3)), random.below(3));
            let flags = TraceFlags::new(random.below(2) as u8);
            let state = if random.below(4) == 0 { small_state() } else { TraceState::NONE };
            let says_more = state != TraceState::NONE;
            let cx =
                SpanContext::new(TraceId::from(trace), SpanId::from(span), flags, false, state);
            let attributes =
                if random.below(3) == 0 { vec![KeyValue::new("a", 1)] } else { vec![] };
            let link = Link::new(cx.clone(), attributes, 0);

            let kept = match invalid {
                _ if trace != 0 && span != 0 => true,
                Invalid::Drop => false,
                Invalid::KeepWithAttributes => says_more || !link.attributes.is_empty(),
                _ => says_more || !link.attributes.is_empty() || trace != 0 || span != 0,
            };
            let known = |other: &Link| {
                other.span_context.trace_id() == cx.trace_id() && number(other) == span
            };
            let outcome = if !kept {
                Outcome::Invalid
            } else if unsampled == Unsampled::Drop && cx.is_valid() && !flags.is_sampled() {
                Outcome::Unsampled
            } else if dedup == Dedup::ByContext && trace != 0 && expected.iter().any(known) {
                Outcome::Duplicate
            } else if expected.len() == bound {
                Outcome::Truncated
            } else {
                expected.push(link.clone());
                Outcome::Linked
            };
            refused += u64::from(outcome == Outcome::Invalid);
            assert_eq!(
                set.insert_link(link.clone()),
                outcome,
                "{link:?} with {invalid:?}, {unsampled:?}"
            );
            collector.push_link(link).unwrap();
        }
        assert_stats(&collector.stats(), 32 - refused, 0, 0, refused);
        let expected: Vec<_> = expected.into_iter().map(typed).collect();
        let from_set = set.finish();
        assert_eq!((from_set.received(), from_set.invalid()), (32, refused));
        for batch in [Some(from_set), flusher.try_next()].into_iter().flatten() {
            assert_account(&batch);
            let links = exported(batch)
                .links
                .links
                .into_iter()
                .map(|link| (link.span_context, link.attributes));
            assert_eq!(links.collect::<Vec<_>>(), expected);
        }
        assert_stats(&collector.stats(), 32 - refused, 0, 0, refused);
    }
}
