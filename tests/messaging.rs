//! Spans of messages: what reaches an exporter, and what moves to them from the links.

mod common;
#[path = "common/exported.rs"]
mod exporting;

use batchlink::messaging::{BatchSpan, KAFKA_OFFSET, Message, Operation, batch_span};
use batchlink::patterns::SpanGuard;
use batchlink::{Dedup, LinkBatch, LinkPolicy, LinkSet, Overflow, Parent, links};
use common::*;
use exporting::{Exporter, attribute, attributes, error, leads_to};
use opentelemetry::trace::{Link, Span, SpanBuilder, SpanKind, Status};
use opentelemetry::{Array, KeyValue, Value};

fn batch(links: impl IntoIterator<Item = Link>) -> LinkBatch {
    let builder = LinkSet::builder()
        .with_link_policy(LinkPolicy::new().with_dedup(Dedup::Off).without_link_type());
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
fn span_follows_the_conventions() {
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
        let own = [
            KeyValue::new("messaging.message.id", id),
            KeyValue::new("messaging.kafka.offset", offset),
        ];
        assert_eq!(link.attributes, own);
    }
    assert_eq!(span.links.len(), 2);
}

fn of(span: &SpanBuilder, key: &str) -> Option<Value> {
    let all = span.attributes.iter().flatten();
    all.clone()
        .find(|attribute| attribute.key.as_str() == key)
        .map(|attribute| attribute.value.clone())
}

#[test]
fn batch_apis_write_the_count() {
    for messages in [0, 1, 2] {
        for operation in
            [Operation::SEND, Operation::RECEIVE, Operation::PROCESS, Operation::SETTLE]
        {
            let span = batch_span("nats", operation, "jobs", messages, batch([link(1, &[])]));
            assert_eq!(
                of(&span, "messaging.batch.message_count"),
                Some(Value::I64(messages as i64))
            );
        }
    }
    let create = batch_span("nats", Operation::CREATE, "jobs", 1, batch([]));
    assert_eq!(of(&create, "messaging.batch.message_count"), None, "always of one message");
}

#[test]
fn kinds_follow_the_conventions() {
    let none = || batch([]);
    let some = || batch([link(1, &[])]);
    for (operation, batch, kind) in [
        (Operation::CREATE, none(), SpanKind::Producer),
        (Operation::SEND, none(), SpanKind::Producer),
        (Operation::SEND, some(), SpanKind::Client),
        (Operation::RECEIVE, none(), SpanKind::Client),
        (Operation::RECEIVE, some(), SpanKind::Client),
        (Operation::PROCESS, none(), SpanKind::Consumer),
        (Operation::PROCESS, some(), SpanKind::Consumer),
        (Operation::SETTLE, none(), SpanKind::Client),
        (Operation::SETTLE, some(), SpanKind::Client),
    ] {
        let span = batch_span("sqs", operation.clone(), "jobs", 2, batch);
        assert_eq!(span.span_kind, Some(kind), "{operation:?}");
        assert_eq!(
            of(&span, "messaging.operation.type").map(|name| format!("{name} jobs").into()),
            Some(span.name)
        );
    }
}

#[test]
fn operation_has_two_names() {
    let operation = Operation::RECEIVE.named(String::from("poll"));
    let span = batch_span(String::from("nats"), operation, "", 1, batch([]));
    assert_eq!(span.name, "poll");
    assert_eq!(of(&span, "messaging.destination.name"), None);
    assert_eq!(of(&span, "messaging.operation.name"), Some("poll".into()));
    assert_eq!(of(&span, "messaging.operation.type"), Some("receive".into()));
    assert_eq!(of(&span, "messaging.system"), Some("nats".into()));
}

#[test]
fn span_name_prefers_template() {
    let all = || {
        let receive = BatchSpan::new("kafka", Operation::RECEIVE);
        receive.with_server("broker", 9092)
    };
    for (span, name) in [
        (BatchSpan::new("kafka", Operation::RECEIVE), "receive"),
        (BatchSpan::new("kafka", Operation::RECEIVE).with_server("broker", None), "receive broker"),
        (all(), "receive broker:9092"),
        (all().with_destination("orders"), "receive orders"),
        (
            all().with_destination("reply-7f3a").with_destination_template("reply-{id}"),
            "receive reply-{id}",
        ),
        (all().with_destination_template("reply-{id}"), "receive reply-{id}"),
        (
            all().with_destination("").with_destination_template("").with_server("", 1),
            "receive broker:9092",
        ),
    ] {
        assert_eq!(span.build(batch([]), 0).name, name);
    }
    // A destination that all messages name moves to the span, and into its name.
    let links =
        [1, 2].map(|number| Message::new().with_destination("orders").link(&context(number)));
    assert_eq!(all().build(batch(links).hoist(), 2).name, "receive orders");
}

#[test]
fn description_sets_all_attributes() {
    let receive = BatchSpan::new("kafka", Operation::RECEIVE.named("poll"))
        .with_destination("orders")
        .with_consumer_group("billing")
        .with_client_id("billing-7")
        .with_server("broker", 9092)
        .with_attribute(KeyValue::new("own", 1))
        .with_attribute(KeyValue::new("own", 2))
        .with_attribute(KeyValue::new("messaging.system", "theirs"))
        .with_attribute(KeyValue::new("messaging.batch.message_count", 77));
    let expected = [
        KeyValue::new("messaging.system", "kafka"),
        KeyValue::new("messaging.operation.name", "poll"),
        KeyValue::new("messaging.operation.type", "receive"),
        KeyValue::new("messaging.destination.name", "orders"),
        KeyValue::new("messaging.consumer.group.name", "billing"),
        KeyValue::new("messaging.client.id", "billing-7"),
        KeyValue::new("server.address", "broker"),
        KeyValue::new("server.port", 9092),
        KeyValue::new("own", 2),
        KeyValue::new("messaging.batch.message_count", 1),
        KeyValue::new("batch.size", 0),
        KeyValue::new("batch.links", 0),
        KeyValue::new("batch.trigger", "manual"),
    ];
    for _ in 0..2 {
        assert_eq!(
            exported_from(receive.build(batch([]), 1)).attributes,
            expected,
            "as often as wanted"
        );
    }
}

#[test]
fn message_describes_its_link() {
    let message = Message::new()
        .with_id("m-1")
        .with_conversation_id("c-1")
        .with_destination("orders")
        .with_partition("3")
        .with_kafka_key("old")
        .with_kafka_key("k-7")
        .with_kafka_tombstone();
    let expected = [
        KeyValue::new("messaging.message.id", "m-1"),
        KeyValue::new("messaging.message.conversation_id", "c-1"),
        KeyValue::new("messaging.destination.name", "orders"),
        KeyValue::new("messaging.destination.partition.id", "3"),
        KeyValue::new("messaging.kafka.message.key", "k-7"),
        KeyValue::new("messaging.kafka.message.tombstone", true),
    ];
    assert_eq!(message.link(&context(1)).attributes, expected);
}

/// Create spans of kind PRODUCER, and one sending span of kind CLIENT that links to them.
#[test]
fn send_links_its_create_spans() {
    let exporter = Exporter::default();
    let tracer = exporter.tracer();
    let send = BatchSpan::new("kafka", Operation::SEND.named("publish"))
        .with_destination("orders")
        .with_server("broker", 9092);
    let mut set = LinkSet::builder().build().expect("valid");
    for key in ["a", "b"] {
        let message = Message::new().with_kafka_key(key);
        let create = send.create(&message).start(&tracer);
        set.insert_link(message.link(create.span_context()));
    }
    drop(send.build(set.finish().hoist(), 2).start(&tracer));

    let spans = exporter.spans();
    let names: Vec<_> = spans.iter().map(|span| (&*span.name, span.span_kind.clone())).collect();
    let create = ("create orders", SpanKind::Producer);
    assert_eq!(names, [create.clone(), create, ("publish orders", SpanKind::Client)]);
    let [first, _, last] = &spans[..] else { panic!("{spans:?}") };
    let said = [
        "messaging.destination.name=orders",
        "messaging.kafka.message.key=a",
        "messaging.operation.name=create",
        "messaging.operation.type=create",
        "messaging.system=kafka",
        "server.address=broker",
        "server.port=9092",
    ];
    assert_eq!(attributes(&first.attributes), said);
    for (link, created) in last.links.iter().zip(&spans) {
        assert!(leads_to(link, &created.span_context));
        let key = attribute(&link.attributes, "messaging.kafka.message.key");
        assert_eq!(key, attribute(&created.attributes, "messaging.kafka.message.key"));
    }
    assert_eq!(last.links.len(), 2);
    assert_eq!(attribute(&last.attributes, "messaging.batch.message_count"), Value::I64(2));
}

/// By an API that always takes one message, such as NATS' publish.
#[test]
fn single_message_has_no_count() {
    let send = BatchSpan::new("nats", Operation::SEND.named("publish")).with_destination("orders");
    let span = send.build_single(&Message::new().with_id("m-1").with_destination("refunds"));
    assert_eq!(
        (&*span.name, span.span_kind.clone()),
        ("publish refunds", Some(SpanKind::Producer))
    );
    assert_eq!(of(&span, "messaging.message.id"), Some("m-1".into()));
    assert_eq!(of(&span, "messaging.destination.name"), Some("refunds".into()));
    assert_eq!(of(&span, "messaging.batch.message_count"), None);
}

/// The guard of the span sets `error.type`.
#[test]
fn guard_fails_batch_span() {
    let exporter = Exporter::default();
    let tracer = exporter.tracer();
    let settle = || batch_span("kafka", Operation::SETTLE, "orders", 1, batch([]));
    SpanGuard::start(&tracer, settle())
        .fail_as("REBALANCE_IN_PROGRESS", "the group is rebalancing");
    drop(SpanGuard::start(&tracer, settle()));
    SpanGuard::start(&tracer, settle()).succeed();
    let spans = exporter.spans();
    assert_eq!(attribute(&spans[0].attributes, "error.type"), "REBALANCE_IN_PROGRESS".into());
    assert_eq!(error(&spans[0]), "the group is rebalancing");
    assert_eq!(attribute(&spans[1].attributes, "error.type"), "dropped".into());
    assert_eq!(spans[2].status, Status::Unset);
    assert!(spans[2].attributes.iter().all(|attribute| attribute.key.as_str() != "error.type"));
}

const PAGES: Overflow = Overflow::Spans { max_pages: 8 };

/// Twelve contexts of one topic, in pages of five.
fn paged() -> LinkBatch {
    let policy = LinkPolicy::new().with_overflow(PAGES).with_max_links(5);
    let mut set = LinkSet::builder().with_link_policy(policy).build().expect("valid");
    set.extend((1..=12).map(|number| link(number, &[("topic", 7)])));
    set.finish().hoist()
}

fn process() -> BatchSpan {
    BatchSpan::new("kafka", Operation::PROCESS).with_destination("orders")
}

/// Returns the links of each page by the numbers of their contexts, and checks the pages' spans.
fn pages(exporter: &Exporter, name: &str) -> Vec<Vec<u64>> {
    let mut spans = exporter.spans();
    spans.sort_by_key(|span| attribute(&span.attributes, "batch.page").as_str().into_owned());
    for (page, span) in (1..).zip(&spans) {
        assert_eq!(attribute(&span.attributes, "batch.page"), Value::I64(page));
        assert_eq!(attribute(&span.attributes, "batch.pages"), Value::I64(3));
        let links = span.links.links.len() as i64;
        assert_eq!(attribute(&span.attributes, "batch.links"), Value::I64(links));
        if page > 1 {
            assert_eq!(span.name, format!("{name} links"));
            assert_eq!(span.parent_span_id, spans[0].span_context.span_id());
        }
    }
    assert_eq!(spans[0].name, name);
    let number = |link: &Link| u64::from_be_bytes(link.span_context.span_id().to_bytes());
    spans.iter().map(|span| span.links.links.iter().map(number).collect()).collect()
}

/// The span of a batch of messages has its further pages, as that of a collector's batch has. The
/// guard ends it alone.
#[test]
fn batch_span_starts_pages() {
    let exporter = Exporter::default();
    process().start(&exporter.tracer(), paged(), 12).fail_as("timeout", "no answer");
    let expected: Vec<Vec<u64>> = vec![(1..=5).collect(), (6..=10).collect(), vec![11, 12]];
    assert_eq!(pages(&exporter, "process orders"), expected);

    let own = Exporter::default();
    drop(paged().start(&own.tracer(), "process orders"));
    assert_eq!(pages(&own, "process orders"), expected);

    let topic = KeyValue::new("topic", 7);
    for span in exporter.spans() {
        let is_page = span.name.ends_with(" links");
        assert_eq!(span.attributes.contains(&topic), !is_page);
        let on_links = span.links.links.iter().filter(|link| link.attributes.contains(&topic));
        assert_eq!(on_links.count(), if is_page { span.links.links.len() } else { 0 });
        assert_eq!(span.status == Status::error("no answer"), !is_page);
    }
}

/// Pages that were taken before are started once: by the code that took them.
#[test]
fn taken_pages_start_once() {
    let exporter = Exporter::default();
    let tracer = exporter.tracer();
    let mut batch = paged();
    let taken = batch.take_pages().named("own");
    let span = process().start(&tracer, batch, 12);
    assert_eq!(exporter.spans().len(), 0);
    taken.start(&tracer, &span.span_context());
    span.succeed();
    let lengths: Vec<_> = exporter.spans().iter().map(|span| span.links.links.len()).collect();
    assert_eq!(lengths, [5, 2, 5]);
    assert_eq!(exporter.spans()[1].name, "own links");
}

/// Parent and the SDK's own count are those of any batch span.
#[test]
fn batch_span_follows_policy() {
    let exporter = Exporter::default();
    let policy = LinkPolicy::new().with_parent(Parent::First).with_span_link_limit(128);
    let mut set = LinkSet::builder().with_link_policy(policy).build().unwrap();
    set.extend((1..=300).map(context));
    process().start(&exporter.tracer(), set.finish(), 300).succeed();
    let span = exporter.span("process orders");
    assert_eq!(span.parent_span_id, context(1).span_id());
    assert_eq!((span.links.links.len(), span.links.dropped_count), (128, 172));
    assert_eq!(span.status, Status::Unset);
}

#[test]
fn common_attributes_move() {
    let all = batch([
        link(1, &[("same", 1), ("differs", 1), ("missing", 1), ("late", 9)]),
        link(2, &[("late", 9), ("differs", 2), ("missing", 1), ("same", 1)]),
        link(3, &[("differs", 1), ("late", 9), ("same", 1)]),
    ]);
    let (span, links) = hoisted(all);
    assert_eq!(span, keyed(&[("same", 1), ("late", 9)]), "in the order of the first link");
    let left = [
        &[("differs", 1), ("missing", 1)][..],
        &[("differs", 2), ("missing", 1)],
        &[("differs", 1)],
    ];
    assert_eq!(links, left.map(keyed));

    let kinds = [KeyValue::new("x", 1), KeyValue::new("x", 1.0), KeyValue::new("x", "1")];
    let (span, links) =
        hoisted(batch(kinds.clone().map(|kind| Link::new(context(1), vec![kind], 0))));
    assert_eq!(span, [], "a number is not a text");
    assert_eq!(links, kinds.map(|kind| vec![kind]));

    let array = KeyValue::new("x", Value::Array(Array::I64(vec![1, 2])));
    let (span, _) = hoisted(batch([1, 2].map(|n| Link::new(context(n), vec![array.clone()], 0))));
    assert_eq!(span, [array]);
}

#[test]
fn link_attributes_stay() {
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
fn lone_link_keeps_its_attributes() {
    let (span, links) = hoisted(batch([links::batch_member(&context(1), "a", 0)]));
    assert_eq!((span, links), (vec![], vec![links::batch_member(&context(1), "a", 0).attributes]));
    let (span, links) = hoisted(batch([]));
    assert_eq!((span.len(), links.len()), (0, 0));
    let bare = hoisted(batch([link(1, &[]), link(2, &[("a", 1)])]));
    assert_eq!(bare, (vec![], vec![vec![], keyed(&[("a", 1)])]));
}

#[test]
fn keys_are_unique() {
    let attributes = vec![
        KeyValue::new("batch.size", 77),
        KeyValue::new("messaging.system", "theirs"),
        KeyValue::new("own", 1),
        KeyValue::new("own", 2),
    ];
    let all = batch([1, 2].map(|number| Link::new(context(number), attributes.clone(), 0)))
        .hoist()
        .hoist();
    let span = exported_from(batch_span("ours", Operation::PROCESS, "q", 2, all));
    let mut keys: Vec<&str> =
        span.attributes.iter().map(|attribute| attribute.key.as_str()).collect();
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
