//! Batches of messages, by OpenTelemetry's semantic conventions for messaging.
//!
//! The names are those of version 1.42.0 of the
//! [conventions](https://opentelemetry.io/docs/specs/semconv/messaging/messaging-spans/), where they
//! are still in development: they may change there, and then here. The span of a batch links to each
//! message's creation context; what all messages have in common is said once, on the span, what
//! differs on the links. [`LinkBatch::hoist`] does that for attributes that were put on every link.
//!
//! ```
//! use batchlink::{Duplicates, LinkPolicy, LinkSet, messaging};
//! use batchlink::messaging::{KAFKA_OFFSET, Message, Operation};
//! use opentelemetry::global;
//! # use opentelemetry::trace::{SpanContext, SpanId, TraceFlags, TraceId, TraceState};
//! # struct Record { context: Option<SpanContext>, partition: &'static str, offset: i64 }
//! # let poll = || Vec::<Record>::new();
//!
//! // Several messages may come from one span, and each has an offset of its own.
//! let policy = LinkPolicy::new().with_duplicates(Duplicates::Keep);
//! let mut set = LinkSet::builder().with_link_policy(policy).build()?;
//!
//! let records = poll();
//! set.extend(records.iter().filter_map(|record| {
//!     let message = Message::new().with_partition(record.partition).with_position(KAFKA_OFFSET, record.offset);
//!     Some(message.link(record.context.as_ref()?)) // some records come without a context
//! }));
//!
//! let batch = set.finish().hoist(); // all of one partition? Then the span says so
//! let span = messaging::batch_span("kafka", Operation::PROCESS, "orders", records.len(), batch)
//!     .start(&global::tracer("consumer")); // "process orders"
//! # drop(span);
//! # Ok::<(), batchlink::ConfigError>(())
//! ```

use crate::link_set::batch::{LinkBatch, add_new};
use crate::links::int;
use opentelemetry::trace::{Link, SpanBuilder, SpanContext, SpanKind};
use opentelemetry::{Key, KeyValue, StringValue};
use std::borrow::Cow;

/// Which messaging system: `messaging.system`.
pub const SYSTEM: &str = "messaging.system";
/// The queue, topic or the like: `messaging.destination.name`.
pub const DESTINATION_NAME: &str = "messaging.destination.name";
/// The partition, as a string: `messaging.destination.partition.id`.
pub const DESTINATION_PARTITION_ID: &str = "messaging.destination.partition.id";
/// What the system calls the operation: `messaging.operation.name`.
pub const OPERATION_NAME: &str = "messaging.operation.name";
/// Which kind of operation it is: `messaging.operation.type`.
pub const OPERATION_TYPE: &str = "messaging.operation.type";
/// Messages in the batch: `messaging.batch.message_count`.
pub const BATCH_MESSAGE_COUNT: &str = "messaging.batch.message_count";
/// The message's identity: `messaging.message.id`.
pub const MESSAGE_ID: &str = "messaging.message.id";
/// A record's place in its partition: `messaging.kafka.offset`.
pub const KAFKA_OFFSET: &str = "messaging.kafka.offset";

/// What is done to the messages of a batch: a kind that all systems know, and its name in one of them.
///
/// ```
/// use batchlink::messaging::Operation;
///
/// let poll = Operation::RECEIVE.named("poll"); // as Kafka calls it
/// # drop(poll);
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Operation {
    kind: &'static str,
    name: Cow<'static, str>,
}

impl Operation {
    /// `receive`: messages were asked for.
    pub const RECEIVE: Self = Self::of_kind("receive");
    /// `process`: the application works on them.
    pub const PROCESS: Self = Self::of_kind("process");
    /// `settle`: the broker is told what became of them.
    pub const SETTLE: Self = Self::of_kind("settle");

    const fn of_kind(kind: &'static str) -> Self {
        Self { kind, name: Cow::Borrowed(kind) }
    }

    /// With the system's own name for it, which begins the span's name; the kind stays.
    pub fn named(self, name: impl Into<Cow<'static, str>>) -> Self {
        Self { name: name.into(), ..self }
    }
}

/// The span of a batch of messages: named `{operation} {destination}`, of kind `CONSUMER`, with the
/// batch's links, the attributes [`SYSTEM`], [`OPERATION_NAME`], [`OPERATION_TYPE`],
/// [`DESTINATION_NAME`] and [`BATCH_MESSAGE_COUNT`], and after them the
/// [batch's own](LinkBatch::attributes), unless they have one of these keys.
///
/// `messages` counts those without a context too, which [`LinkBatch::received`] does not. The conventions
/// want no count on the span of a single message, so it is left out at 1. An empty `destination`
/// (none in particular, or several) is left out as well.
pub fn batch_span(
    system: impl Into<StringValue>,
    operation: Operation,
    destination: impl Into<Cow<'static, str>>,
    messages: usize,
    batch: LinkBatch,
) -> SpanBuilder {
    let destination = destination.into();
    let name = match &*destination {
        "" => operation.name.clone(),
        destination => format!("{} {destination}", operation.name).into(),
    };
    let mut attributes = vec![
        KeyValue::new(SYSTEM, system.into()),
        KeyValue::new(OPERATION_NAME, operation.name),
        KeyValue::new(OPERATION_TYPE, operation.kind),
    ];
    if !destination.is_empty() {
        attributes.push(KeyValue::new(DESTINATION_NAME, destination));
    }
    if messages != 1 {
        attributes.push(KeyValue::new(BATCH_MESSAGE_COUNT, int(messages)));
    }
    let mut builder =
        batch.for_messages(messages, &attributes).span_builder(name).with_kind(SpanKind::Consumer);
    add_new(&mut attributes, builder.attributes.take().into_iter().flatten());
    builder.attributes = Some(attributes);
    builder
}

/// What is to be said of one message on its link.
///
/// Systems name the place of a message differently, so its key is yours to give: [`KAFKA_OFFSET`],
/// `messaging.rabbitmq.message.delivery_tag` and the like.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Message {
    attributes: Vec<KeyValue>,
}

impl Message {
    /// A message of which nothing is said yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Its identity: [`MESSAGE_ID`].
    pub fn with_id(self, id: impl Into<StringValue>) -> Self {
        self.with_attribute(KeyValue::new(MESSAGE_ID, id.into()))
    }

    /// Its partition: [`DESTINATION_PARTITION_ID`].
    pub fn with_partition(self, partition: impl Into<StringValue>) -> Self {
        self.with_attribute(KeyValue::new(DESTINATION_PARTITION_ID, partition.into()))
    }

    /// Its place in the queue or partition.
    pub fn with_position(self, key: impl Into<Key>, position: i64) -> Self {
        self.with_attribute(KeyValue::new(key, position))
    }

    /// Anything else.
    pub fn with_attribute(mut self, attribute: KeyValue) -> Self {
        self.attributes.push(attribute);
        self
    }

    /// A link to the message's creation context. Its type is left to the set or collector.
    pub fn link(self, cx: &SpanContext) -> Link {
        Link::new(cx.clone(), self.attributes, 0)
    }
}
