//! Spans and links of messages, by OpenTelemetry's semantic conventions for messaging.
//!
//! Names, kinds and values are those of version 1.44.0 of the
//! [conventions](https://opentelemetry.io/docs/specs/semconv/messaging/messaging-spans/), where
//! those of messaging are in development: if they change there, they change here. The span of a
//! batch links to the creation context of each message. What holds for all messages is said once,
//! on the span, by [`LinkBatch::hoist`]; what differs stays on the links.
//!
//! A consumer:
//!
//! ```
//! use batchlink::messaging::{BatchSpan, KAFKA_OFFSET, Message, Operation};
//! use batchlink::{Dedup, LinkPolicy, LinkSet};
//! use opentelemetry::global;
//! # use opentelemetry::trace::SpanContext;
//! # struct Record { context: Option<SpanContext>, partition: &'static str, offset: i64 }
//! # let poll = || Vec::<Record>::new();
//! # fn insert(records: &[Record]) -> Result<(), String> { Ok(()) }
//!
//! // Several messages may come from one span, and each has an offset of its own.
//! let policy = LinkPolicy::new().with_dedup(Dedup::Off);
//! let mut set = LinkSet::builder().with_link_policy(policy).build()?;
//! let process = BatchSpan::new("kafka", Operation::PROCESS)
//!     .with_destination("orders")
//!     .with_consumer_group("billing");
//!
//! let records = poll();
//! set.extend(records.iter().filter_map(|record| {
//!     let message = Message::new().with_partition(record.partition);
//!     let message = message.with_position(KAFKA_OFFSET, record.offset);
//!     Some(message.link(record.context.as_ref()?)) // some records come without a context
//! }));
//! // If all are of one partition, and each is linked, the partition moves to the span.
//! let tracer = global::tracer("consumer");
//! let span = process.start(&tracer, set.finish().hoist(), records.len()); // "process orders"
//! let _ = span.run(|_cx| insert(&records)); // failures set the status and `error.type`
//! # Ok::<(), batchlink::ConfigError>(())
//! ```
//!
//! A producer gives each message a context of its own, and links the sending span to all of them:
//!
//! ```
//! use batchlink::messaging::{BatchSpan, Message, Operation};
//! use batchlink::{LinkSet, carrier, links::Relation, LinkPolicy};
//! use opentelemetry::{global, trace::Span};
//! # struct Record { key: &'static str, headers: Vec<(String, Vec<u8>)> }
//! # let mut records = vec![Record { key: "k", headers: vec![] }];
//!
//! let tracer = global::tracer("producer");
//! let policy = LinkPolicy::new().with_link_type(Relation::BatchMember);
//! let mut set = LinkSet::builder().with_link_policy(policy).build()?;
//! let send = BatchSpan::new("kafka", Operation::SEND).with_destination("orders");
//! for record in &mut records {
//!     let message = Message::new().with_kafka_key(record.key);
//!     let create = send.create(&message).start(&tracer); // "create orders"
//!     carrier::inject(create.span_context(), &mut carrier::HeadersMut::new(&mut record.headers));
//!     set.insert_link(message.link(create.span_context()));
//! }
//! let span = send.start(&tracer, set.finish(), records.len()); // "send orders"
//! // ... send the records ...
//! span.succeed();
//! # Ok::<(), batchlink::ConfigError>(())
//! ```

mod batch_span;
mod message;
mod operation;

pub use batch_span::BatchSpan;
pub use message::Message;
pub use operation::Operation;

use crate::link_set::batch::LinkBatch;
use opentelemetry::StringValue;
use opentelemetry::trace::SpanBuilder;
use std::borrow::Cow;

/// The messaging system, such as `kafka`: `messaging.system`.
pub const SYSTEM: &str = "messaging.system";
/// The queue, topic or the like: `messaging.destination.name`.
pub const DESTINATION_NAME: &str = "messaging.destination.name";
/// The pattern of generated destination names: `messaging.destination.template`.
pub const DESTINATION_TEMPLATE: &str = "messaging.destination.template";
/// The partition, as a string: `messaging.destination.partition.id`.
pub const DESTINATION_PARTITION_ID: &str = "messaging.destination.partition.id";
/// The consumer group: `messaging.consumer.group.name`.
pub const CONSUMER_GROUP_NAME: &str = "messaging.consumer.group.name";
/// The client that sends or receives: `messaging.client.id`.
pub const CLIENT_ID: &str = "messaging.client.id";
/// The broker's host name or address: `server.address`.
pub const SERVER_ADDRESS: &str = "server.address";
/// The broker's port: `server.port`.
pub const SERVER_PORT: &str = "server.port";
/// The system's own name of the operation: `messaging.operation.name`.
pub const OPERATION_NAME: &str = "messaging.operation.name";
/// The kind of operation: `messaging.operation.type`.
pub const OPERATION_TYPE: &str = "messaging.operation.type";
/// The number of messages in the batch: `messaging.batch.message_count`.
pub const BATCH_MESSAGE_COUNT: &str = "messaging.batch.message_count";
/// The message's identity: `messaging.message.id`.
pub const MESSAGE_ID: &str = "messaging.message.id";
/// The conversation that the message belongs to: `messaging.message.conversation_id`.
pub const MESSAGE_CONVERSATION_ID: &str = "messaging.message.conversation_id";
/// A record's offset in its partition: `messaging.kafka.offset`.
pub const KAFKA_OFFSET: &str = "messaging.kafka.offset";
/// A record's key, as text: `messaging.kafka.message.key`.
pub const KAFKA_MESSAGE_KEY: &str = "messaging.kafka.message.key";
/// `true` for a record without a value: `messaging.kafka.message.tombstone`.
pub const KAFKA_MESSAGE_TOMBSTONE: &str = "messaging.kafka.message.tombstone";

/// Builds the span of a batch of messages, with one destination: the short form of
/// [`BatchSpan::build`].
///
/// `messages` counts those without a context too, which [`LinkBatch::received`] does not. An empty
/// `destination` (none in particular, or several) is left out.
///
/// ```
/// use batchlink::{LinkSet, messaging::{Operation, batch_span}};
/// use opentelemetry::trace::SpanKind;
///
/// let batch = LinkSet::builder().build()?.finish();
/// let span = batch_span("kafka", Operation::RECEIVE.named("poll"), "orders", 3, batch);
/// assert_eq!((&*span.name, span.span_kind), ("poll orders", Some(SpanKind::Client)));
/// # Ok::<(), batchlink::ConfigError>(())
/// ```
pub fn batch_span(
    system: impl Into<StringValue>,
    operation: Operation,
    destination: impl Into<Cow<'static, str>>,
    messages: usize,
    batch: LinkBatch,
) -> SpanBuilder {
    BatchSpan::new(system, operation).with_destination(destination).build(batch, messages)
}
