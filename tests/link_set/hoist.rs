//! What moves from the links to the batch span: only what is true of everything received.

use super::common::*;
use batchlink::messaging::{self, DESTINATION_NAME, KAFKA_OFFSET, Message, Operation};
use batchlink::{Dedup, LinkBatch, LinkPolicy, LinkSet, links};
use opentelemetry::trace::{Link, SpanContext, TraceFlags};
use opentelemetry::{KeyValue, Value};

const PARTITION: &str = "messaging.destination.partition.id";

fn batch_of(policy: LinkPolicy, links: impl IntoIterator<Item = Link>) -> LinkBatch {
    let mut set = LinkSet::builder().with_link_policy(policy.without_link_type()).build().unwrap();
    set.extend(links);
    set.finish()
}

fn batch(links: impl IntoIterator<Item = Link>) -> LinkBatch {
    batch_of(LinkPolicy::new().with_dedup(Dedup::Off), links)
}

/// A record of a topic, if it says so, and a partition.
fn record(number: u64, topic: Option<&'static str>, partition: &'static str, offset: i64) -> Link {
    let topic = topic.map(|topic| KeyValue::new(DESTINATION_NAME, topic));
    let message = Message::new().with_partition(partition).with_position(KAFKA_OFFSET, offset);
    topic.into_iter().fold(message, Message::with_attribute).link(&context(number))
}

fn value(attributes: &[KeyValue], key: &str) -> Option<Value> {
    attributes.iter().find(|known| known.key.as_str() == key).map(|known| known.value.clone())
}

/// `keys` are exported on the links as they were given, and not on the span.
fn assert_stays(batch: LinkBatch, given: &[Link], keys: &[&str]) {
    let span = exported(batch);
    for key in keys {
        assert_eq!(value(&span.attributes, key), None, "{key} moved: {:?}", span.attributes);
    }
    for (link, given) in span.links.iter().zip(given) {
        for key in keys {
            assert_eq!(
                value(&link.attributes, key),
                value(&given.attributes, key),
                "{key}: {link:?}"
            );
        }
    }
}

/// Partitions of two topics share their numbers.
#[test]
fn partition_needs_one_destination() {
    let of = |topics: [Option<&'static str>; 2]| {
        let [first, second] = topics;
        [record(1, first, "0", 3), record(2, second, "0", 4)]
    };
    for topics in
        [[Some("orders"), Some("refunds")], [Some("orders"), None], [None, Some("refunds")]]
    {
        let links = of(topics);
        assert_stays(
            batch(links.clone()).hoist(),
            &links,
            &[PARTITION, DESTINATION_NAME, KAFKA_OFFSET],
        );
    }
    for topics in [[Some("orders"); 2], [None; 2]] {
        let span = exported(batch(of(topics)).hoist());
        assert_eq!(value(&span.attributes, PARTITION), Some("0".into()));
        assert_eq!(value(&span.attributes, DESTINATION_NAME), topics[0].map(Value::from));
    }
    // The same topic's name on two brokers.
    let mut links = of([Some("orders"); 2]);
    for (link, broker) in links.iter_mut().zip(["kafka-1", "kafka-2"]) {
        link.attributes.push(KeyValue::new("server.address", broker));
    }
    assert_stays(batch(links.clone()).hoist(), &links, &[PARTITION, "server.address"]);
}

/// An offset that two partitions have in common names two messages, as does one that is alone.
#[test]
fn message_identity_stays() {
    let two = [record(1, Some("orders"), "0", 7), record(2, Some("orders"), "1", 7)];
    assert_stays(batch(two.clone()).hoist(), &two, &[KAFKA_OFFSET, PARTITION]);

    let keys = [
        "messaging.message.id",
        "messaging.message.conversation_id",
        "messaging.message.body.size",
        "messaging.kafka.message.key",
        "messaging.kafka.offset",
        "messaging.rabbitmq.message.delivery_tag",
        "messaging.gcp_pubsub.message.ack_id",
        "my.queue.position",
        "nats.stream.sequence",
        "item.index",
        "item.id",
        "link.reason",
    ];
    for links in [1, 2] {
        let attributes = keys.map(|key| KeyValue::new(key, 7));
        let links: Vec<_> =
            (0..links).map(|n| Link::new(context(1 + n), attributes.to_vec(), 0)).collect();
        assert_stays(batch(links.clone()).hoist(), &links, &keys);
        // Asked for or not: only those of the link itself can be.
        let all = batch(links.clone()).hoist_where(|_| true).attributes();
        assert_eq!(all[3..], [KeyValue::new("link.reason", 7)]);
    }
}

/// What was received and not linked may have said otherwise.
#[test]
fn unlinked_contexts_prevent_it() {
    let of = |number, partition| record(number, None, partition, 1);
    let unsampled = SpanContext::new(
        context(3).trace_id(),
        context(3).span_id(),
        TraceFlags::default(),
        false,
        Default::default(),
    );
    let third = |context| Link::new(context, of(3, "1").attributes, 0);
    let drop = || LinkPolicy::new();
    let cases = [
        ("truncated", drop().with_max_links(2), third(context(3))),
        ("duplicate", drop(), third(context(2))),
        ("unsampled", drop(), third(unsampled)),
        ("invalid", drop(), third(SpanContext::NONE)),
    ];
    for (case, policy, third) in cases {
        println!("{case}");
        let links = [of(1, "0"), of(2, "0")];
        let batch = batch_of(policy, links.iter().cloned().chain([third]));
        assert_eq!((batch.received(), batch.linked()), (3, 2));
        assert_stays(batch.hoist(), &links, &[PARTITION]);
    }
}

/// A record without a context is not in the batch, but one of the messages.
#[test]
fn messages_without_context_undo_it() {
    let links = [record(1, None, "0", 1), record(2, None, "0", 2)];
    for (messages, expected) in [(2, Some(Value::from("0"))), (3, None)] {
        let batch = batch(links.clone()).hoist();
        let span = messaging::batch_span("kafka", Operation::PROCESS, "orders", messages, batch);
        let span = exported_from(span);
        assert_eq!(value(&span.attributes, PARTITION), expected);
        let on_links =
            span.links.iter().filter(|link| value(&link.attributes, PARTITION).is_some()).count();
        assert_eq!(on_links, if expected.is_some() { 0 } else { 2 });
    }
}

/// The span of several destinations cannot name a partition of one.
#[test]
fn unnamed_destination_keeps_partition() {
    let span = |topic| {
        let batch = batch([record(1, topic, "0", 1), record(2, topic, "0", 2)]).hoist();
        exported_from(messaging::batch_span("kafka", Operation::PROCESS, "", 2, batch))
    };
    assert_eq!(value(&span(None).attributes, PARTITION), None);
    assert_eq!(value(&span(None).links[0].attributes, PARTITION), Some("0".into()));
    let named = span(Some("orders"));
    assert_eq!(value(&named.attributes, PARTITION), Some("0".into()));
    assert_eq!(value(&named.attributes, DESTINATION_NAME), Some("orders".into()));
}

/// A value that the span's own key displaces goes back to the links.
#[test]
fn displaced_value_is_not_lost() {
    let links = [1, 2].map(|number| record(number, Some("retries"), "0", 1));
    let batch = batch(links).hoist();
    let span =
        exported_from(messaging::batch_span("kafka", Operation::PROCESS, "orders", 2, batch));
    assert_eq!(value(&span.attributes, DESTINATION_NAME), Some("orders".into()));
    assert!(
        span.links
            .iter()
            .all(|link| value(&link.attributes, DESTINATION_NAME) == Some("retries".into()))
    );
    assert_eq!(value(&span.attributes, PARTITION), None, "of another destination");
    let links = [1, 2].map(|number| links::causal(&context(number), "x"));
    assert_eq!(batch_of(LinkPolicy::new(), links).hoist().attributes().len(), 3);
}
