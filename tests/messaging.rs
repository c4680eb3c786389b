//! Batches of messages: the span that reaches an exporter, and what is moved to it from the links.

mod common;

use batchlink::messaging::{KAFKA_OFFSET, Message, Operation, batch_span};
use batchlink::{Duplicates, LinkBatch, LinkPolicy, LinkSet, links};
use common::*;
use opentelemetry::trace::{Link, SpanKind};
use opentelemetry::{Array, KeyValue, Value};

fn batch(links: impl IntoIterator<Item = Link>) -> LinkBatch {
    let builder = LinkSet::builder()
        .with_link_policy(LinkPolicy::new().with_duplicates(Duplicates::Keep).without_link_type());
    let mut set = builder.build().expect("valid");
    set.extend(links);
    set.finish()
}

fn keyed(pairs: &[(&'static str, i64)]) -> Vec<KeyValue> {
    pairs.iter().map(|&(key, value)| KeyValue::new(key, value)).collect()
}

fn link(number: u64, pairs: &[(&'static str, i64)]) -> Link {
    Link::new(context(number), keyed(pairs), 0)
}

/// What the span has beside the counts of its batch, and what each link has.
fn hoisted(batch: LinkBatch) -> (Vec<KeyValue>, Vec<Vec<KeyValue>>) {
    let counts = batch.attributes().iter().filter(|a| a.key.as_str().starts_with("batch.")).count();
    let span = exported(batch.hoist());
    let links = span.links.links.into_iter().map(|link| link.attributes).collect();
    (span.attributes[counts..].to_vec(), links)
}

#[test]
fn the_span_of_a_batch_is_as_the_conventions_want_it() {
    let messages = [("m-1", 40), ("m-2", 41)];
    let links = messages.map(|(id, offset)| {
        let message = Message::new().with_id(id).with_partition(String::from("3"));
        message.with_position(KAFKA_OFFSET, offset).link(&context(1))
    });
    let batch = batch(links).hoist();
    let span = exported_from(batch_span("kafka", Operation::PROCESS, "orders", 2, batch));
    assert_eq!((&*span.name, span.span_kind), ("process orders", SpanKind::Consumer));
    let expected = [
        KeyValue::new("messaging.system", "kafka"),
        KeyValue::new("messaging.operation.name", "process"),
        KeyValue::new("messaging.operation.type", "process"),
        KeyValue::new("messaging.destination.name", "orders"),
        KeyValue::new("messaging.batch.message_count", 2),
        KeyValue::new("batch.size", 2),
        KeyValue::new("batch.links", 2),
        KeyValue::new("batch.trigger", "manual"),
        KeyValue::new("messaging.destination.partition.id", "3"),
    ];
    assert_eq!(span.attributes, expected);
    for (link, (id, offset)) in span.links.iter().zip(messages) {
        let own =
            [KeyValue::new("messaging.message.id", id), KeyValue::new("messaging.kafka.offset", offset)];
        assert_eq!(link.attributes, own);
    }
    assert_eq!(span.links.len(), 2);
}

#[test]
fn a_single_message_has_no_count_and_an_unknown_destination_no_name() {
    for (messages, count) in [(0, Some(0)), (1, None), (2, Some(2))] {
        let batch = batch([link(1, &[])]);
        let operation = Operation::RECEIVE.named(String::from("poll"));
        let span = exported_from(batch_span(String::from("nats"), operation, "", messages, batch));
        assert_eq!(span.name, "poll");
        let of = |key: &str| {
            let found = span.attributes.iter().find(|attribute| attribute.key.as_str() == key);
            found.map(|attribute| attribute.value.clone())
        };
        assert_eq!(of("messaging.batch.message_count"), count.map(Value::I64), "{messages} messages");
        assert_eq!(of("messaging.destination.name"), None);
        assert_eq!(of("messaging.operation.name"), Some("poll".into()));
        assert_eq!(of("messaging.operation.type"), Some("receive".into()));
        assert_eq!(of("messaging.system"), Some("nats".into()));
    }
    let settle = batch_span("sqs", Operation::SETTLE, "jobs", 2, batch([]));
    assert_eq!((&*settle.name, settle.span_kind), ("settle jobs", Some(SpanKind::Consumer)));
}

#[test]
fn what_is_the_same_on_all_links_moves_and_nothing_else() {
    let all = batch([
        link(1, &[("same", 1), ("differs", 1), ("missing", 1), ("late", 9)]),
        link(2, &[("late", 9), ("differs", 2), ("missing", 1), ("same", 1)]),
        link(3, &[("differs", 1), ("late", 9), ("same", 1)]),
    ]);
    let (span, links) = hoisted(all);
    assert_eq!(span, keyed(&[("same", 1), ("late", 9)]), "in the order of the first link");
    let left = [&[("differs", 1), ("missing", 1)][..], &[("differs", 2), ("missing", 1)], &[("differs", 1)]];
    assert_eq!(links, left.map(keyed));

    let kinds = [KeyValue::new("x", 1), KeyValue::new("x", 1.0), KeyValue::new("x", "1")];
    let (span, links) = hoisted(batch(kinds.clone().map(|kind| Link::new(context(1), vec![kind], 0))));
    assert_eq!(span, [], "a number is not a text");
    assert_eq!(links, kinds.map(|kind| vec![kind]));

    let array = KeyValue::new("x", Value::Array(Array::I64(vec![1, 2])));
    let (span, _) = hoisted(batch([1, 2].map(|n| Link::new(context(n), vec![array.clone()], 0))));
    assert_eq!(span, [array]);
}

#[test]
fn what_speaks_of_the_link_stays_there_unless_it_is_asked_for() {
    let links = || [1, 2].map(|number| links::follows_from(&context(number), "queued"));
    let (span, left) = hoisted(batch(links()));
    assert_eq!(span, []);
    assert_eq!(left, links().map(|link| link.attributes));

    let moved = batch(links()).hoist_where(|key| key.as_str() == "link.reason");
    let span = exported(moved);
    assert_eq!(span.attributes[3..], [KeyValue::new("link.reason", "queued")]);
    let left = [KeyValue::new("link.type", "follows_from")];
    assert!(span.links.iter().all(|link| link.attributes == left));
}

#[test]
fn one_link_or_none() {
    let (span, links) = hoisted(batch([links::batch_member(&context(1), "a", 0)]));
    assert_eq!((span, links), (vec![], vec![links::batch_member(&context(1), "a", 0).attributes]));
    let (span, links) = hoisted(batch([]));
    assert_eq!((span.len(), links.len()), (0, 0));
    let bare = hoisted(batch([link(1, &[]), link(2, &[("a", 1)])]));
    assert_eq!(bare, (vec![], vec![vec![], keyed(&[("a", 1)])]));
}

#[test]
fn no_key_is_twice_on_the_span() {
    let attributes = vec![
        KeyValue::new("batch.size", 77),
        KeyValue::new("messaging.system", "theirs"),
        KeyValue::new("own", 1),
        KeyValue::new("own", 2),
    ];
    let all = batch([1, 2].map(|number| Link::new(context(number), attributes.clone(), 0))).hoist().hoist();
    let span = exported_from(batch_span("ours", Operation::PROCESS, "q", 2, all));
    let mut keys: Vec<&str> = span.attributes.iter().map(|attribute| attribute.key.as_str()).collect();
    assert!(span.attributes.contains(&KeyValue::new("messaging.system", "ours")));
    assert!(span.attributes.contains(&KeyValue::new("batch.size", 2)));
    assert!(span.attributes.contains(&KeyValue::new("own", 1)));
    let all = keys.len();
    keys.sort_unstable();
    keys.dedup();
    assert_eq!(keys.len(), all, "{keys:?}");
    // Where there was no room for them.
    let mut left = keyed(&[("batch.size", 77), ("own", 2)]);
    left.push(KeyValue::new("messaging.system", "theirs"));
    assert!(span.links.iter().all(|link| link.attributes == left), "{:?}", span.links);
}
