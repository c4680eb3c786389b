//! The parent of a batch span, by policy.

use super::common::*;
use batchlink::{Dedup, Invalid, LinkBatch, LinkPolicy, LinkSet, Overflow, Parent, Unsampled};
use opentelemetry::baggage::BaggageExt;
use opentelemetry::trace::{SpanContext, SpanId, TraceContextExt, TraceFlags, TraceState};
use opentelemetry::{Context, KeyValue};

fn batch(policy: LinkPolicy, contexts: &[SpanContext]) -> LinkBatch {
    let mut set = LinkSet::builder().with_link_policy(policy).build().unwrap();
    contexts.iter().for_each(|context| _ = set.insert(context));
    set.finish()
}

fn in_trace(trace: u128, n: u64) -> SpanContext {
    SpanContext::new(trace.into(), n.into(), TraceFlags::SAMPLED, false, TraceState::NONE)
}

/// The span id of the parent that the batch span is exported with, started in span 9; 0: none.
fn parent_of(policy: LinkPolicy, contexts: &[SpanContext]) -> u64 {
    let around = Context::new().with_remote_span_context(context(9));
    let _current = around.attach();
    let batch = batch(policy, contexts);
    let linked = numbers(&batch);
    let span = exported(batch);
    assert_eq!(span.links.iter().map(number).collect::<Vec<_>>(), linked, "all links stay");
    u64::from_be_bytes(span.parent_span_id.to_bytes())
}

#[test]
fn policy_decides_on_parent() {
    let two = [context(1), context(2)];
    let twice = [context(1), context(1)];
    let and_none = [context(1), SpanContext::NONE];
    // Of one number, in two traces.
    let traces = [context(1), in_trace(0xbeef, 1)];
    for (parent, of_two, of_twice, of_none, of_and_none, of_traces) in [
        (Parent::Current, 9, 9, 9, 9, 9),
        (Parent::None, 0, 0, 0, 0, 0),
        (Parent::First, 1, 1, 9, 1, 1),
        (Parent::Only, 9, 1, 9, 9, 9),
    ] {
        let policy = LinkPolicy::new().with_parent(parent);
        let all = [&two[..], &twice, &[], &and_none, &traces];
        let found = all.map(|of| parent_of(policy.clone(), of));
        assert_eq!(found, [of_two, of_twice, of_none, of_and_none, of_traces], "{parent:?}");
    }
    assert_eq!(parent_of(LinkPolicy::new(), &two), 9, "the default is the current one");
}

/// What is not linked is no parent, and an unlinked request is one more than the only one.
#[test]
fn unlinked_context_is_no_parent() {
    let first = LinkPolicy::new().with_parent(Parent::First);
    let only = LinkPolicy::new().with_parent(Parent::Only);
    let unsampled = [with_flags(1, TraceFlags::NOT_SAMPLED), context(2)];
    assert_eq!(parent_of(first.clone(), &unsampled), 2);
    assert_eq!(parent_of(only.clone(), &unsampled), 9);
    assert_eq!(parent_of(only.clone().with_max_links(1), &[context(1), context(2)]), 9);
    let invalid = [with_state(0, &small_state()), context(2)];
    assert_eq!(parent_of(first.with_invalid(Invalid::Keep), &invalid), 2);
    assert_eq!(parent_of(only.clone().with_invalid(Invalid::Keep), &invalid[..1]), 9);
    // Links to one span, kept as often as it came.
    let kept = only.with_dedup(Dedup::Off);
    assert_eq!(parent_of(kept.clone(), &[context(1), context(1)]), 1);
    assert_eq!(parent_of(kept, &[context(1), context(1), context(2)]), 9);
}

/// The only request is that of all pages, also after the further ones were taken.
#[test]
fn pages_keep_only_request() {
    let policy = LinkPolicy::new().with_parent(Parent::Only).with_dedup(Dedup::Off);
    let policy = policy.with_overflow(Overflow::Spans { max_pages: 2 }).with_max_links(2);
    for (last, expected) in [(1, context(1)), (2, SpanContext::NONE)] {
        let mut batch = batch(policy.clone(), &[1, 1, last].map(context));
        assert_eq!(*batch.parent().span().span_context(), expected);
        drop(batch.take_pages());
        assert_eq!(*batch.parent().span().span_context(), expected);
    }
}

/// Flags, remoteness and trace state are the link's; baggage and other values stay the current
/// context's.
#[test]
fn parent_keeps_flags_and_baggage() {
    #[derive(Debug, PartialEq)]
    struct Other(u64);
    let around = Context::new().with_baggage([KeyValue::new("tenant", "a")]).with_value(Other(7));
    let _current = around.attach();
    let policy = LinkPolicy::new().with_parent(Parent::First).with_unsampled(Unsampled::Keep);
    for request in [with_state(1, &small_state()), with_flags(1, TraceFlags::new(0))] {
        let parent = batch(policy.clone(), std::slice::from_ref(&request)).parent();
        assert_eq!(*parent.span().span_context(), request);
        assert_eq!(parent.baggage().get("tenant").map(|value| value.as_str()), Some("a"));
        assert_eq!(parent.get(), Some(&Other(7)));
    }
    let _suppressed = Context::enter_telemetry_suppressed_scope();
    let none = batch(LinkPolicy::new().with_parent(Parent::None), &[]).parent();
    assert_eq!(none.baggage().get("tenant").map(|value| value.as_str()), Some("a"));
    assert!(none.is_telemetry_suppressed() && !none.has_active_span());
}

/// A parent decides for samplers that follow it: the SDK's default one drops the span of an
/// unsampled parent.
#[test]
fn parent_decides_sampling() {
    use opentelemetry::trace::{Span, TracerProvider};
    let provider = opentelemetry_sdk::trace::SdkTracerProvider::builder().build();
    let requests = [with_flags(1, TraceFlags::NOT_SAMPLED), context(2)];
    let sampled = |unsampled| {
        let policy = LinkPolicy::new().with_parent(Parent::First).with_unsampled(unsampled);
        let span = batch(policy, &requests).start(&provider.tracer("test"), "batch");
        span.span_context().is_sampled()
    };
    assert_eq!((sampled(Unsampled::Keep), sampled(Unsampled::Drop)), (false, true));
}

#[test]
fn parent_is_in_its_trace() {
    let span = exported(batch(LinkPolicy::new().with_parent(Parent::Only), &[context(1)]));
    assert_eq!(span.span_context.trace_id(), context(1).trace_id());
    assert_eq!((span.parent_span_id, span.parent_span_is_remote), (SpanId::from(1), false));
}
