//! The span of a batch of messages.

use super::message::{Message, set};
use super::{
    BATCH_MESSAGE_COUNT, CLIENT_ID, CONSUMER_GROUP_NAME, DESTINATION_NAME, DESTINATION_TEMPLATE,
    OPERATION_NAME, OPERATION_TYPE, Operation, SERVER_ADDRESS, SERVER_PORT, SYSTEM,
};
use crate::link_set::batch::{LinkBatch, add_new};
use crate::links::int;
use crate::patterns::SpanGuard;
use crate::span::count_dropped_links;
use opentelemetry::trace::{SpanBuilder, Tracer};
use opentelemetry::{KeyValue, StringValue};
use std::borrow::Cow;

/// The description of a batch operation on messages, from which its spans are built. Make it once
/// for all batches of a consumer or producer.
///
/// The span is named `{operation} {destination}`. The destination is the template, else the name,
/// else the server's `address:port`, else it is left out. For names that are generated, such as
/// those of reply queues, give a template: the name of a span must be one of few.
///
/// All of this is set when the span is created, so that samplers see it. `error.type` and the
/// status are for the end: the [`SpanGuard`] that [`start`](Self::start) returns sets them if the
/// work fails, panics or is dropped.
///
/// ```
/// use batchlink::LinkSet;
/// use batchlink::messaging::{BatchSpan, Operation};
/// use opentelemetry::trace::SpanKind;
///
/// let receive = BatchSpan::new("kafka", Operation::RECEIVE.named("poll"))
///     .with_destination("orders")
///     .with_consumer_group("billing")
///     .with_server("broker-1", 9092);
/// let mut set = LinkSet::builder().build()?;
/// // ... a link for each message ...
/// let span = receive.build(set.finish().hoist(), 0);
/// assert_eq!((&*span.name, span.span_kind), ("poll orders", Some(SpanKind::Client)));
/// # Ok::<(), batchlink::ConfigError>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
#[must_use = "a description makes spans only when it is built"]
pub struct BatchSpan {
    system: StringValue,
    operation: Operation,
    attributes: Vec<KeyValue>,
}

impl BatchSpan {
    /// Describes an operation of a messaging system, such as `kafka`, `rabbitmq` or `aws_sqs`:
    /// [`SYSTEM`].
    pub fn new(system: impl Into<StringValue>, operation: Operation) -> Self {
        Self { system: system.into(), operation, attributes: Vec::new() }
    }

    /// Sets the destination of all messages: [`DESTINATION_NAME`]. An empty one is ignored.
    pub fn with_destination(self, name: impl Into<Cow<'static, str>>) -> Self {
        self.with_text(DESTINATION_NAME, name)
    }

    /// Sets the pattern of the destination's name, such as `/customers/{id}`:
    /// [`DESTINATION_TEMPLATE`]. An empty one is ignored.
    ///
    /// ```
    /// use batchlink::{LinkSet, messaging::{BatchSpan, Operation}};
    ///
    /// let batch = LinkSet::builder().build()?.finish();
    /// let receive = BatchSpan::new("rabbitmq", Operation::RECEIVE)
    ///     .with_destination("reply-7f3a")
    ///     .with_destination_template("reply-{id}");
    /// assert_eq!(receive.build(batch, 1).name, "receive reply-{id}");
    /// # Ok::<(), batchlink::ConfigError>(())
    /// ```
    pub fn with_destination_template(self, template: impl Into<Cow<'static, str>>) -> Self {
        self.with_text(DESTINATION_TEMPLATE, template)
    }

    /// Sets the consumer group: [`CONSUMER_GROUP_NAME`]. An empty one is ignored.
    pub fn with_consumer_group(self, name: impl Into<Cow<'static, str>>) -> Self {
        self.with_text(CONSUMER_GROUP_NAME, name)
    }

    /// Sets the client's id: [`CLIENT_ID`]. An empty one is ignored.
    pub fn with_client_id(self, id: impl Into<Cow<'static, str>>) -> Self {
        self.with_text(CLIENT_ID, id)
    }

    /// Sets the broker's address and, if it is known, its port: [`SERVER_ADDRESS`],
    /// [`SERVER_PORT`]. An empty address is ignored.
    ///
    /// ```
    /// use batchlink::{LinkSet, messaging::{BatchSpan, Operation}};
    ///
    /// let batch = LinkSet::builder().build()?.finish();
    /// let receive = BatchSpan::new("nats", Operation::RECEIVE).with_server("broker-1", 4222);
    /// assert_eq!(receive.build(batch, 1).name, "receive broker-1:4222");
    /// # Ok::<(), batchlink::ConfigError>(())
    /// ```
    pub fn with_server(
        self,
        address: impl Into<Cow<'static, str>>,
        port: impl Into<Option<u16>>,
    ) -> Self {
        let address = address.into();
        let port = port.into().filter(|_| !address.is_empty());
        let this = self.with_text(SERVER_ADDRESS, address);
        match port {
            Some(port) => this.with_attribute(KeyValue::new(SERVER_PORT, i64::from(port))),
            None => this,
        }
    }

    /// Sets any other attribute that holds for all messages, such as
    /// `messaging.destination.subscription.name`. The last value of a key counts.
    ///
    /// ```
    /// use batchlink::messaging::{BatchSpan, Operation};
    /// use opentelemetry::KeyValue;
    ///
    /// let receive = BatchSpan::new("gcp_pubsub", Operation::RECEIVE)
    ///     .with_attribute(KeyValue::new("messaging.destination.subscription.name", "billing"));
    /// # drop(receive);
    /// ```
    pub fn with_attribute(mut self, attribute: KeyValue) -> Self {
        set(&mut self.attributes, attribute);
        self
    }

    fn with_text(self, key: &'static str, text: impl Into<Cow<'static, str>>) -> Self {
        match text.into() {
            text if text.is_empty() => self,
            text => self.with_attribute(KeyValue::new(key, text)),
        }
    }

    /// Builds the span of a batch, with its links, these attributes, [`BATCH_MESSAGE_COUNT`], and
    /// the [batch's own attributes](LinkBatch::attributes), except for keys that are already there.
    ///
    /// `messages` counts those without a context too, which [`LinkBatch::received`] does not.
    /// Attributes that were [hoisted](LinkBatch::hoist) go back to the links if there are such
    /// messages. The count is written at 0 and 1, too, but not for [`Operation::CREATE`], which is
    /// of one message always.
    ///
    /// The kind is that of the [operation](Operation), and can be changed by
    /// [`with_kind`](SpanBuilder::with_kind).
    ///
    /// A builder starts one span, in the context that it is given: start it in
    /// [`LinkBatch::parent`] if the policy names one, and with
    /// [`Overflow::Spans`](crate::Overflow) call [`take_pages`](LinkBatch::take_pages) before.
    /// [`start`](Self::start) does both.
    ///
    /// ```
    /// use batchlink::{LinkSet, messaging::{BATCH_MESSAGE_COUNT, BatchSpan, Operation}};
    /// use opentelemetry::KeyValue;
    ///
    /// let batch = LinkSet::builder().build()?.finish(); // no message had a context
    /// let span = BatchSpan::new("kafka", Operation::PROCESS).build(batch, 1);
    /// let attributes = span.attributes.unwrap_or_default();
    /// assert!(attributes.contains(&KeyValue::new(BATCH_MESSAGE_COUNT, 1)));
    /// # Ok::<(), batchlink::ConfigError>(())
    /// ```
    pub fn build(&self, batch: LinkBatch, messages: usize) -> SpanBuilder {
        let attributes = self.batch_attributes(messages);
        self.describe(batch.for_messages(messages, &attributes), attributes)
    }

    /// Starts the span of a batch, as [`build`](Self::build) describes it: as
    /// [`LinkBatch::start`] does, with the [`Parent`](crate::Parent) of the policy, the truncated
    /// contexts in the span's own count of dropped links if the SDK's limit was told, and the spans
    /// of further pages with [`Overflow::Spans`](crate::Overflow). Pages that were
    /// [taken](LinkBatch::take_pages) before are not started.
    ///
    /// The guard ends the span with status and `error.type` if the work fails.
    ///
    /// ```
    /// use batchlink::{LinkPolicy, LinkSet, Overflow};
    /// use batchlink::messaging::{BatchSpan, Operation};
    /// use opentelemetry::global;
    ///
    /// let policy = LinkPolicy::new().with_overflow(Overflow::Spans { max_pages: 8 });
    /// let mut set = LinkSet::builder().with_link_policy(policy).build()?;
    /// // ... a link for each message of a poll ...
    /// let process = BatchSpan::new("kafka", Operation::PROCESS).with_destination("orders");
    /// let span = process.start(&global::tracer("consumer"), set.finish().hoist(), 0);
    /// let _ = span.run(|_cx| Ok::<_, String>(())); // the work
    /// # Ok::<(), batchlink::ConfigError>(())
    /// ```
    pub fn start<T>(&self, tracer: &T, batch: LinkBatch, messages: usize) -> SpanGuard
    where
        T: Tracer,
        T::Span: Send + Sync + 'static,
    {
        let attributes = self.batch_attributes(messages);
        let mut batch = batch.for_messages(messages, &attributes);
        let (parent, pages) = (batch.parent(), batch.take_pages());
        let uncounted = batch.uncounted();
        let span = self.describe(batch, attributes);
        let pages = pages.named(&span.name);
        let guard = SpanGuard::start_in(tracer, span, &parent);
        count_dropped_links(guard.context(), uncounted);
        pages.start(tracer, &guard.span_context());
        guard
    }

    fn batch_attributes(&self, messages: usize) -> Vec<KeyValue> {
        let mut attributes = self.attributes(&self.operation);
        if self.operation.is_batch() {
            set(&mut attributes, KeyValue::new(BATCH_MESSAGE_COUNT, int(messages)));
        }
        attributes
    }

    /// Builds the span of a batch whose own attributes hold for all messages.
    fn describe(&self, batch: LinkBatch, mut attributes: Vec<KeyValue>) -> SpanBuilder {
        let kind = self.operation.span_kind(batch.received() > 0);
        add_new(&mut attributes, batch.attributes());
        let span = batch.span_builder(name(&self.operation, &attributes)).with_kind(kind);
        span.with_attributes(attributes)
    }

    /// Builds the span of this operation on one message, by an API that always takes one. It has
    /// the message's attributes and no [`BATCH_MESSAGE_COUNT`].
    ///
    /// ```
    /// use batchlink::messaging::{BatchSpan, Message, Operation};
    /// use opentelemetry::trace::SpanKind;
    ///
    /// let send = BatchSpan::new("nats", Operation::SEND.named("publish")).with_destination("orders");
    /// let span = send.build_single(&Message::new().with_id("m-1"));
    /// // Its context goes into the message.
    /// assert_eq!((&*span.name, span.span_kind), ("publish orders", Some(SpanKind::Producer)));
    /// ```
    pub fn build_single(&self, message: &Message) -> SpanBuilder {
        self.single(&self.operation, message)
    }

    /// Builds the span of one message's creation, `create {destination}` of kind `PRODUCER`, with
    /// the message's attributes. Write its context into the message, and link the sending span to
    /// it.
    ///
    /// ```
    /// use batchlink::messaging::{BatchSpan, Message, Operation};
    ///
    /// let send = BatchSpan::new("kafka", Operation::SEND).with_destination("orders");
    /// let span = send.create(&Message::new().with_kafka_key("k-7"));
    /// assert_eq!(span.name, "create orders");
    /// ```
    pub fn create(&self, message: &Message) -> SpanBuilder {
        self.single(&Operation::CREATE, message)
    }

    fn single(&self, operation: &Operation, message: &Message) -> SpanBuilder {
        let mut attributes = self.attributes(operation);
        message.attributes.iter().cloned().for_each(|attribute| set(&mut attributes, attribute));
        SpanBuilder::from_name(name(operation, &attributes))
            .with_kind(operation.span_kind(false))
            .with_attributes(attributes)
    }

    fn attributes(&self, operation: &Operation) -> Vec<KeyValue> {
        let mut attributes = vec![
            KeyValue::new(SYSTEM, self.system.clone()),
            KeyValue::new(OPERATION_NAME, operation.name.clone()),
            KeyValue::new(OPERATION_TYPE, operation.type_name()),
        ];
        add_new(&mut attributes, self.attributes.iter().cloned());
        attributes
    }
}

/// `{operation} {destination}`, of which the destination must be one of few.
fn name(operation: &Operation, attributes: &[KeyValue]) -> Cow<'static, str> {
    let text = |key: &str| {
        let found = attributes.iter().find(|attribute| attribute.key.as_str() == key);
        found.map(|attribute| attribute.value.as_str())
    };
    let server = || {
        let address = text(SERVER_ADDRESS)?;
        Some(text(SERVER_PORT).map_or(address.clone(), |port| format!("{address}:{port}").into()))
    };
    match text(DESTINATION_TEMPLATE).or_else(|| text(DESTINATION_NAME)).or_else(server) {
        Some(destination) => format!("{} {destination}", operation.name).into(),
        None => operation.name.clone(),
    }
}
