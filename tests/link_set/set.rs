//! `LinkSet` on its own: what is linked, what is not, in which order, and that it can be used
//! again.

use super::common::*;
use batchlink::{Dedup, LinkPolicy, LinkSet, LinkSetBuilder, Outcome, Trigger, Unsampled};
use opentelemetry::KeyValue;
use opentelemetry::trace::{Link, SpanContext, SpanId, TraceFlags, TraceId, TraceState};
use std::collections::HashSet;

fn set(configure: impl FnOnce(LinkSetBuilder) -> LinkSetBuilder) -> LinkSet {
    configure(LinkSet::builder()).build().expect("valid")
}

#[test]
fn ids_decide_on_duplicates() {
    let mut set =
        set(|builder| builder.with_link_policy(LinkPolicy::new().with_unsampled(Unsampled::Keep)));
    let ids = |trace: u128, span: u64, flags, remote, state| {
        SpanContext::new(
            TraceId::from(trace),
            SpanId::from(span),
            TraceFlags::new(flags),
            remote,
            state,
        )
    };
    assert_eq!(set.insert(&ids(1, 1, 1, false, TraceState::NONE)), Outcome::Linked);
    assert_eq!(set.insert(&ids(1, 1, 0, false, TraceState::NONE)), Outcome::Duplicate);
    assert_eq!(set.insert(&ids(1, 1, 1, true, small_state())), Outcome::Duplicate);
    let link = Link::new(ids(1, 1, 1, false, TraceState::NONE), vec![KeyValue::new("a", 1)], 0);
    assert_eq!(set.insert_link(link), Outcome::Duplicate);
    assert_eq!(set.insert(&ids(1, 2, 1, false, TraceState::NONE)), Outcome::Linked);
    assert_eq!(set.insert(&ids(2, 1, 1, false, TraceState::NONE)), Outcome::Linked);
    let batch = set.finish();
    assert_account(&batch);
    assert_eq!((batch.received(), batch.linked(), batch.duplicates()), (6, 3, 3));
    assert!(!batch.links()[0].span_context.is_remote(), "the first one stays");
    assert_eq!(batch.trigger(), Trigger::Manual);
}

#[test]
fn full_set_still_finds_duplicates() {
    let mut set = set(|builder| builder.with_max_links(2));
    let outcomes = [1, 2, 3, 1, 3, 2].map(|number| set.insert(&context(number)));
    use Outcome::{Duplicate, Linked, Truncated};
    assert_eq!(outcomes, [Linked, Linked, Truncated, Duplicate, Truncated, Duplicate]);
    let batch = set.finish();
    assert_account(&batch);
    assert_eq!((numbers(&batch), batch.truncated(), batch.duplicates()), (vec![1, 2], 2, 2));
}

#[test]
fn invalid_contexts_are_counted() {
    let mut set = set(|builder| builder);
    let halves = [(0, 0), (0, 1), (1, 0)].map(|(trace, span): (u128, u64)| {
        let (trace, span) = (TraceId::from(trace), SpanId::from(span));
        SpanContext::new(trace, span, TraceFlags::SAMPLED, false, TraceState::NONE)
    });
    for context in &halves {
        assert_eq!(set.insert(context), Outcome::Invalid);
        assert_eq!(set.insert_link(Link::with_context(context.clone())), Outcome::Invalid);
    }
    assert_eq!(set.received(), 6);
    let batch = set.finish();
    assert_account(&batch);
    assert_eq!((batch.invalid(), batch.linked()), (6, 0));
}

#[test]
fn policy_decides_on_contexts() {
    let unsampled = with_flags(1, TraceFlags::new(0xfe));
    let mut dropping = set(|builder| builder);
    assert_eq!(dropping.insert(&unsampled), Outcome::Unsampled);
    assert_eq!(dropping.insert(&context(1)), Outcome::Linked, "it did not take the place");
    assert_eq!(dropping.insert(&unsampled), Outcome::Unsampled, "nor is it a duplicate");
    assert_eq!(dropping.finish().unsampled(), 2);

    let mut keeping = set(|builder| {
        builder
            .with_link_policy(
                LinkPolicy::new().with_unsampled(Unsampled::Keep).with_dedup(Dedup::Off),
            )
            .with_max_links(3)
    });
    let outcomes =
        [&unsampled, &context(1), &context(1), &context(1)].map(|context| keeping.insert(context));
    use Outcome::{Linked, Truncated};
    assert_eq!(outcomes, [Linked, Linked, Linked, Truncated]);
    let batch = keeping.finish();
    assert_account(&batch);
    assert_eq!(batch.links()[0].span_context.trace_flags(), TraceFlags::new(0xfe));
}

#[test]
fn finished_set_starts_anew() {
    let mut set = set(|builder| builder.with_max_links(3));
    for round in 0..100 {
        // Numbers that overlap from round to round: nothing may be remembered.
        let outcomes =
            [round, round + 1, round + 2, round + 3].map(|n| set.insert(&context(1 + n)));
        assert_eq!(outcomes[..3], [Outcome::Linked; 3], "round {round}");
        assert_eq!(outcomes[3], Outcome::Truncated);
        assert_eq!(set.received(), 4);
        let batch = set.finish();
        assert_eq!(numbers(&batch), [1 + round, 2 + round, 3 + round]);
        assert_eq!(set.received(), 0);
    }
    let empty = set.finish();
    assert_eq!((empty.received(), empty.links().len()), (0, 0));
}

/// The last bound that was set, in the policy or beside it, whichever the policy is.
#[test]
fn policy_keeps_earlier_bound() {
    use batchlink::LinkCollector;
    let typed = || LinkPolicy::new().with_link_type("row");
    let builders = [
        (set(|builder| builder.with_max_links(2).with_link_policy(typed())), 2),
        (set(|builder| builder.with_max_links(2).with_link_policy(typed().with_max_links(3))), 3),
        (set(|builder| builder.with_link_policy(typed().with_max_links(3)).with_max_links(2)), 2),
        (set(|builder| builder.with_link_policy(typed())), 128),
    ];
    for (mut set, bound) in builders {
        set.extend((1..=200).map(context));
        let batch = set.finish();
        assert_eq!(batch.linked(), bound);
        assert_eq!(batch.links()[0].attributes, [KeyValue::new("link.type", "row")]);
    }
    let builder = LinkCollector::builder().with_max_links(2).with_link_policy(typed());
    let (collector, mut flusher) = builder.build().unwrap();
    assert_eq!(collector.push_all(&[1, 2, 3].map(context)), 3);
    assert_eq!(numbers(&flusher.try_next().unwrap()), [1, 2]);
}

/// Against a `HashSet`, with keys that differ in few bits and bounds on both sides of them.
#[test]
fn set_agrees_with_hash_set() {
    let mut random = Random(5);
    for bound in [1, 2, 3, 7, 8, 9, 100, 128, 129, 1000] {
        let mut set = set(|builder| builder.with_max_links(bound));
        for _ in 0..20 {
            let (mut known, mut order) = (HashSet::new(), Vec::new());
            let distinct = 1 + random.below(2 * bound as u64);
            let shift = random.below(50);
            for _ in 0..3 * bound {
                let number = (1 + random.below(distinct)) << shift;
                let expected = if known.contains(&number) {
                    Outcome::Duplicate
                } else if known.len() == bound {
                    Outcome::Truncated
                } else {
                    known.insert(number);
                    order.push(number);
                    Outcome::Linked
                };
                assert_eq!(set.insert(&context(number)), expected);
            }
            let batch = set.finish();
            assert_account(&batch);
            assert_eq!(numbers(&batch), order);
        }
    }
}

/// A hundred thousand links whose ids are in sequence, those of the span or those of the trace: all
/// are told apart, and it is over in no time, or (if such keys met in one place of the table) not
/// before the watchdog.
#[test]
fn sequential_ids_do_not_collide() {
    let _watchdog = watchdog();
    let mut set = set(|builder| {
        builder.with_max_links(100_000).with_link_policy(LinkPolicy::new().without_link_type())
    });
    let link = |trace: u128, span: u64| {
        let (trace, span) = (TraceId::from(trace), SpanId::from(span));
        SpanContext::new(trace, span, TraceFlags::SAMPLED, false, TraceState::NONE)
    };
    for shift in [0, 20, 40] {
        for number in 1..=100_000_u64 {
            assert_eq!(set.insert(&link(7, number << shift)), Outcome::Linked);
        }
        assert_eq!(set.finish().linked(), 100_000);
        for number in 1..=100_000_u128 {
            assert_eq!(set.insert(&link(number << (2 * shift), 7)), Outcome::Linked);
        }
        assert_eq!(set.finish().linked(), 100_000);
    }
}
