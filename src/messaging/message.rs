//! What is said of one message.

use super::{
    DESTINATION_NAME, DESTINATION_PARTITION_ID, KAFKA_MESSAGE_KEY, KAFKA_MESSAGE_TOMBSTONE,
    MESSAGE_CONVERSATION_ID, MESSAGE_ID,
};
use opentelemetry::trace::{Link, SpanContext};
use opentelemetry::{Key, KeyValue, StringValue};

/// The attributes of one message, for its link and its [creation span](super::BatchSpan::create).
///
/// Systems name the position of a message differently, so its key is yours to give:
/// [`KAFKA_OFFSET`](super::KAFKA_OFFSET), `messaging.rabbitmq.message.delivery_tag` and the like.
///
/// ```
/// use batchlink::messaging::{KAFKA_OFFSET, Message};
/// # use opentelemetry::trace::SpanContext;
/// # let context = SpanContext::NONE;
///
/// let message = Message::new().with_id("m-1").with_partition("3").with_position(KAFKA_OFFSET, 42);
/// let link = message.link(&context);
/// assert_eq!(link.attributes.len(), 3);
/// ```
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Message {
    pub(super) attributes: Vec<KeyValue>,
}

impl Message {
    /// Creates a message without attributes.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets its identity: [`MESSAGE_ID`].
    ///
    /// ```
    /// use batchlink::messaging::{self, Message};
    /// use opentelemetry::{KeyValue, trace::SpanContext};
    ///
    /// let link = Message::new().with_id("m-1").link(&SpanContext::NONE);
    /// assert_eq!(link.attributes, [KeyValue::new(messaging::MESSAGE_ID, "m-1")]);
    /// ```
    pub fn with_id(self, id: impl Into<StringValue>) -> Self {
        self.with_attribute(KeyValue::new(MESSAGE_ID, id.into()))
    }

    /// Sets its conversation, also called correlation id: [`MESSAGE_CONVERSATION_ID`].
    pub fn with_conversation_id(self, id: impl Into<StringValue>) -> Self {
        self.with_attribute(KeyValue::new(MESSAGE_CONVERSATION_ID, id.into()))
    }

    /// Sets its destination, for batches with several: [`DESTINATION_NAME`].
    ///
    /// ```
    /// use batchlink::messaging::{self, Message};
    /// use opentelemetry::{KeyValue, trace::SpanContext};
    ///
    /// let link = Message::new().with_destination("orders").link(&SpanContext::NONE);
    /// assert_eq!(link.attributes, [KeyValue::new(messaging::DESTINATION_NAME, "orders")]);
    /// ```
    pub fn with_destination(self, name: impl Into<StringValue>) -> Self {
        self.with_attribute(KeyValue::new(DESTINATION_NAME, name.into()))
    }

    /// Sets its partition: [`DESTINATION_PARTITION_ID`].
    ///
    /// ```
    /// use batchlink::messaging::{self, Message};
    /// use opentelemetry::{KeyValue, trace::SpanContext};
    ///
    /// let link = Message::new().with_partition("3").link(&SpanContext::NONE);
    /// assert_eq!(link.attributes, [KeyValue::new(messaging::DESTINATION_PARTITION_ID, "3")]);
    /// ```
    pub fn with_partition(self, partition: impl Into<StringValue>) -> Self {
        self.with_attribute(KeyValue::new(DESTINATION_PARTITION_ID, partition.into()))
    }

    /// Sets its position in the queue or partition, under the system's own key.
    ///
    /// ```
    /// use batchlink::messaging::Message;
    /// use opentelemetry::trace::SpanContext;
    ///
    /// let delivery = Message::new().with_position("messaging.rabbitmq.message.delivery_tag", 7);
    /// assert_eq!(delivery.link(&SpanContext::NONE).attributes.len(), 1);
    /// ```
    pub fn with_position(self, key: impl Into<Key>, position: i64) -> Self {
        self.with_attribute(KeyValue::new(key, position))
    }

    /// Sets a Kafka record's key, if it has a text form: [`KAFKA_MESSAGE_KEY`].
    ///
    /// ```
    /// use batchlink::messaging::{self, Message};
    /// use opentelemetry::{KeyValue, trace::SpanContext};
    ///
    /// let link = Message::new().with_kafka_key("k-7").link(&SpanContext::NONE);
    /// assert_eq!(link.attributes, [KeyValue::new(messaging::KAFKA_MESSAGE_KEY, "k-7")]);
    /// ```
    pub fn with_kafka_key(self, key: impl Into<StringValue>) -> Self {
        self.with_attribute(KeyValue::new(KAFKA_MESSAGE_KEY, key.into()))
    }

    /// Marks a Kafka record without a value: [`KAFKA_MESSAGE_TOMBSTONE`].
    ///
    /// ```
    /// use batchlink::messaging::{self, Message};
    /// use opentelemetry::{KeyValue, trace::SpanContext};
    ///
    /// let link = Message::new().with_kafka_tombstone().link(&SpanContext::NONE);
    /// assert_eq!(link.attributes, [KeyValue::new(messaging::KAFKA_MESSAGE_TOMBSTONE, true)]);
    /// ```
    pub fn with_kafka_tombstone(self) -> Self {
        self.with_attribute(KeyValue::new(KAFKA_MESSAGE_TOMBSTONE, true))
    }

    /// Sets any other attribute. The last value of a key counts.
    pub fn with_attribute(mut self, attribute: KeyValue) -> Self {
        set(&mut self.attributes, attribute);
        self
    }

    /// Makes a link to the message's creation context. Its type is left to the set or collector.
    pub fn link(self, cx: &SpanContext) -> Link {
        Link::new(cx.clone(), self.attributes, 0)
    }
}

/// Sets an attribute in place of one with the same key.
pub(super) fn set(attributes: &mut Vec<KeyValue>, attribute: KeyValue) {
    match attributes.iter_mut().find(|known| known.key == attribute.key) {
        Some(known) => *known = attribute,
        None => attributes.push(attribute),
    }
}
