//! Module `links`, optional contexts and attributes made lazily: what reaches an exporter.

use super::common::*;
use batchlink::links::{self, InvalidLinkReason, LinkTemplate};
use batchlink::{LinkCollector, LinkSet, Outcome, links::Relation};
use opentelemetry::trace::{
    Link, SpanContext, SpanId, TraceContextExt, TraceFlags, TraceId, TraceState,
};
use opentelemetry::trace::{Tracer, TracerProvider};
use opentelemetry::{Context, Key, KeyValue};
use opentelemetry_sdk::trace::SdkTracerProvider;
use std::sync::Arc;

fn with_ids(trace: u128, span: u64) -> SpanContext {
    let (trace, span) = (TraceId::from(trace), SpanId::from(span));
    SpanContext::new(trace, span, TraceFlags::SAMPLED, false, TraceState::NONE)
}

fn of_type(name: &'static str) -> KeyValue {
    KeyValue::new("link.type", name)
}

/// Every constructor, and the attributes documented for it.
fn constructors() -> Vec<(Link, Vec<KeyValue>)> {
    let cx = |number| with_state(number, &small_state());
    let owned = String::from("orders");
    vec![
        (links::typed(&cx(1), Relation::SpawnedFrom), vec![of_type("spawned_from")]),
        (links::batch_item(&cx(2), 0), vec![of_type("batch_item"), KeyValue::new("item.index", 0)]),
        (
            links::batch_member(&cx(3), "m-3", 7),
            vec![
                of_type("batch_member"),
                KeyValue::new("item.id", "m-3"),
                KeyValue::new("item.index", 7),
            ],
        ),
        (
            links::follows_from(&cx(4), "queued"),
            vec![of_type("follows_from"), KeyValue::new("link.reason", "queued")],
        ),
        (
            links::causal(&cx(5), owned.clone()),
            vec![of_type("caused_by"), KeyValue::new("link.reason", owned.clone())],
        ),
        (
            links::compensation(&cx(6), Arc::from("payment failed")),
            vec![of_type("compensation"), KeyValue::new("link.reason", "payment failed")],
        ),
        (links::retry(&cx(7), 2), vec![of_type("retry"), KeyValue::new("retry.attempt_number", 2)]),
        (
            links::aggregate(&cx(8), owned),
            vec![of_type("aggregation"), KeyValue::new("aggregation.source", "orders")],
        ),
    ]
}

#[test]
fn constructors_set_documented_attributes() {
    let (collector, mut flusher) = LinkCollector::builder().with_shards(1).build().unwrap();
    for (link, _) in constructors() {
        collector.push_link(link).unwrap();
    }
    let arrived = exported(flusher.try_next().unwrap()).links.links;
    assert_eq!(arrived.len(), 8);
    for (number, (link, (_, attributes))) in (1..).zip(arrived.iter().zip(constructors())) {
        assert_eq!(link.span_context, with_state(number, &small_state()));
        assert_eq!(link.attributes, attributes, "nothing is added, and the type least of all");
    }
}

#[test]
fn large_numbers_saturate() {
    let link = links::batch_item(&context(1), usize::MAX);
    assert_eq!(link.attributes[1], KeyValue::new("item.index", i64::MAX));
    assert_eq!(links::retry(&context(1), u32::MAX).attributes[1].value, i64::from(u32::MAX).into());
}

#[test]
fn template_links_are_alike() {
    let template = LinkTemplate::new(Relation::ConsumedFrom)
        .with_description("to be replaced")
        .with_source(String::from("shop"), "place_order")
        .with_correlation_id(format!("c-{}", 1))
        .with_business_entity("order", "4711")
        .with_description("an order to be shipped")
        .with_attribute(KeyValue::new("own", true));
    let expected = [
        of_type("consumed_from"),
        KeyValue::new("link.description", "an order to be shipped"),
        KeyValue::new("source.service", "shop"),
        KeyValue::new("source.operation", "place_order"),
        KeyValue::new("correlation.id", "c-1"),
        KeyValue::new("business.entity.type", "order"),
        KeyValue::new("business.entity.id", "4711"),
        KeyValue::new("own", true),
    ];
    assert_eq!(template.attributes(), expected);
    let mut set = LinkSet::builder().build().unwrap();
    set.extend((1..=3).map(|number| template.link(&context(number))));
    let own = [KeyValue::new("item.index", 3), KeyValue::new("own", false)];
    set.insert_link(template.link_with(&context(4), own.clone()));
    let arrived = exported(set.finish()).links.links;
    assert!(arrived[..3].iter().all(|link| link.attributes == expected));
    assert_eq!(arrived[3].attributes[..7], expected[..7]);
    assert_eq!(arrived[3].attributes[7..], [own[1].clone(), own[0].clone()], "its own value wins");
    assert_eq!(template.attributes(), expected, "the template stays as it was");
}

#[test]
fn validate_names_link_and_fault() {
    let good = || vec![links::batch_item(&context(1), 0), Link::with_context(context(1))];
    assert_eq!(links::validate(&[]), Ok(()));
    assert_eq!(links::validate(&good()), Ok(()));
    let key = |key: &'static str| KeyValue::new(key, 1);
    let with = |attributes| Link::new(context(1), attributes, 0);
    let whole = |key: &'static str| {
        Link::new(with_ids(1, 0), vec![KeyValue::new(key, "aggregated_trace")], 0)
    };
    let bad = [
        (
            Link::with_context(with_ids(0, 1)),
            InvalidLinkReason::ZeroTraceId,
            "its trace id is zero",
        ),
        (
            Link::with_context(SpanContext::NONE),
            InvalidLinkReason::ZeroTraceId,
            "its trace id is zero",
        ),
        (
            links::batch_item(&with_ids(1, 0), 0),
            InvalidLinkReason::ZeroSpanId,
            "its span id is zero, and it is not typed as an aggregated_trace",
        ),
        (
            whole("some.key"),
            InvalidLinkReason::ZeroSpanId,
            "its span id is zero, and it is not typed as an aggregated_trace",
        ),
        (
            with(vec![key("a"), key("")]),
            InvalidLinkReason::EmptyAttributeKey { attribute: 1 },
            "its attribute 1 has an empty key",
        ),
        (
            with(vec![key("a"), key("b"), key("a")]),
            InvalidLinkReason::RepeatedAttributeKey { key: Key::new("a") },
            "it has the attribute a twice",
        ),
    ];
    for (link, reason, text) in bad {
        let mut all = good();
        all.push(link);
        all.extend(good());
        let error = links::validate(&all).unwrap_err();
        assert_eq!((error.index, &error.reason), (2, &reason));
        assert_eq!(error.to_string(), format!("link 2: {text}"));
    }
    let traces =
        [links::whole_trace(TraceId::from(1_u128)), whole("link.type"), whole("link.relationship")];
    assert_eq!(links::validate(&traces), Ok(()));
}

#[test]
fn missing_contexts_are_skipped() {
    let none: Option<SpanContext> = None;
    let active = Context::new().with_remote_span_context(context(5));
    let idle = Context::new();
    let spans = |links: Vec<Link>| links.iter().map(number).collect::<Vec<_>>();
    let follows = || Relation::FollowsFrom;
    assert_eq!(spans(links::from_contexts([context(1), context(2)], follows())), [1, 2]);
    assert_eq!(spans(links::from_contexts(&[context(1), context(2)], follows())), [1, 2]);
    assert_eq!(spans(links::from_contexts([None, Some(context(3)), None], follows())), [3]);
    assert_eq!(spans(links::from_contexts([Some(&context(3)), none.as_ref()], follows())), [3]);
    assert_eq!(spans(links::from_contexts(&[none.clone(), Some(context(4))], follows())), [4]);
    assert_eq!(spans(links::from_contexts([&idle, &active], follows())), [5]);
    assert_eq!(spans(links::from_contexts([None, Some(&active), Some(&idle)], follows())), [5]);
    assert_eq!(
        spans(links::from_contexts([Some(Some(active.clone())), Some(None), None], follows())),
        [5]
    );

    // Into a set: what is missing is not counted, what is invalid is.
    let mut set = LinkSet::builder().build().unwrap();
    set.extend([Some(context(1)), None, Some(context(1)), Some(SpanContext::NONE)]);
    set.extend([&idle, &active]);
    assert_eq!(set.insert_optional(&none), None);
    assert_eq!(set.insert_optional(&idle), None);
    assert_eq!(set.insert_optional(Some(&context(6))), Some(Outcome::Linked));
    let batch = set.finish();
    assert_account(&batch);
    assert_eq!((batch.received(), batch.duplicates(), batch.invalid()), (5, 1, 1));
    assert_eq!(numbers(&batch), [1, 5, 6]);
}

#[test]
fn collector_skips_missing_contexts() {
    let (collector, mut flusher) = by_size(3).with_shards(1).build().unwrap();
    let provider = SdkTracerProvider::builder().build();
    let active = Context::new().with_span(provider.tracer("test").start("request"));
    let none: Option<&SpanContext> = None;
    collector.push_optional(none).unwrap();
    collector.push_optional(Context::new()).unwrap();
    collector.push_optional(Some(context(1))).unwrap();
    collector.producer().push_optional(&active).unwrap();
    collector.producer().push_optional(none).unwrap();
    assert_stats(&collector.stats(), 2, 0, 0, 0);
    collector.push_optional(SpanContext::NONE).unwrap();
    assert_stats(&collector.stats(), 2, 0, 0, 1);
    let batch = flusher.try_next().unwrap();
    assert_eq!(batch.links()[1].span_context, *active.span().span_context());
    collector.close();
    assert!(collector.push_optional(none).is_ok(), "nothing was refused");
    assert!(collector.push_optional(&active).is_err());
    assert!(collector.producer().push_optional(&active).is_err());
    assert_stats(&collector.stats(), 2, 0, 2, 1);
}
