//! What a consumer does with a batch, whatever the broker.

use crate::{DESTINATION, GROUP, Journal, Result, Store};
use batchlink::messaging::{BatchSpan, Message, Operation};
use batchlink::patterns::SpanGuard;
use batchlink::{LinkPolicy, LinkSet, Unsampled};
use opentelemetry::trace::SpanContext;
use opentelemetry_sdk::trace::SdkTracer;
use serde::Serialize;

/// A message as it came from the broker.
pub struct Received {
    pub id: String,
    pub body: Vec<u8>,
    /// From the message's headers.
    pub context: Option<SpanContext>,
    /// What the link says of the message.
    pub message: Message,
    /// How many times the message has been delivered, this time included.
    pub delivered: i64,
}

/// Stores batches of messages, with one span per batch that links to each message's context.
pub struct BatchWriter {
    span: BatchSpan,
    links: LinkSet,
    tracer: SdkTracer,
    store: Store,
    journal: Journal,
}

/// A journal line, written before the batch is stored.
#[derive(Serialize)]
struct Started<'a> {
    batch: &'a str,
    /// Id and number of deliveries.
    messages: Vec<(&'a str, i64)>,
    links: usize,
}

impl BatchWriter {
    /// Prepares for batches of at most 128 messages: the SDK's limit of links per span.
    pub fn new(
        system: &'static str,
        name: &str,
        tracer: SdkTracer,
        store: Store,
        journal: Journal,
    ) -> Result<Self> {
        let span = BatchSpan::new(system, Operation::PROCESS)
            .with_destination(DESTINATION)
            .with_consumer_group(GROUP)
            .with_client_id(name.to_owned());
        // Unsampled contexts are linked too, so that their flags can be seen at the receiver.
        let policy = LinkPolicy::new().with_unsampled(Unsampled::Keep);
        let links = LinkSet::builder().with_link_policy(policy).build()?;
        Ok(Self { span, links, tracer, store, journal })
    }

    /// Stores a batch. The messages may be acknowledged if it succeeds, and only then.
    pub fn write(&mut self, received: &[Received]) -> Result {
        for item in received {
            if let Some(context) = &item.context {
                self.links.insert_link(item.message.clone().link(context));
            }
        }
        // What all messages have in common goes on the span.
        let batch = self.links.finish().hoist();
        let links = batch.links().len();
        let span = SpanGuard::start(&self.tracer, self.span.build(batch, received.len()));

        let name = span.span_context().span_id().to_string();
        span.run(|_| {
            let messages = received.iter().map(|item| (&*item.id, item.delivered)).collect();
            self.journal.write(&Started { batch: &name, messages, links })?;
            self.store.insert(&name, received.iter().map(|item| (&*item.id, &*item.body)))
        })?;
        Ok(())
    }
}
