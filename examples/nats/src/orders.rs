//! What a publisher sends: orders, each with a span of its own.

use crate::{DESTINATION, Journal, Result};
use batchlink::carrier;
use batchlink::messaging::{BatchSpan, Message, Operation};
use opentelemetry::Context;
use opentelemetry::propagation::Injector;
use opentelemetry::trace::{Span, SpanContext, TraceContextExt};
use opentelemetry_sdk::trace::{IdGenerator, RandomIdGenerator, SdkTracer};
use serde::Serialize;
use std::collections::HashMap;

/// The orders of one publisher.
pub struct Orders {
    publisher: String,
    span: BatchSpan,
    tracer: SdkTracer,
    journal: Journal,
}

/// An order to be published, and its span, which ends when the order is dropped.
pub struct Order {
    pub id: String,
    pub body: Vec<u8>,
    span: opentelemetry_sdk::trace::Span,
}

/// What the report compares the links with: the headers as they were sent.
#[derive(Serialize)]
struct Sent<'a> {
    id: &'a str,
    traceparent: Option<&'a String>,
    tracestate: Option<&'a String>,
}

impl Orders {
    /// Describes the orders of the publisher of this name.
    pub fn new(
        system: &'static str,
        publisher: String,
        tracer: SdkTracer,
        journal: Journal,
    ) -> Self {
        let span = BatchSpan::new(system, Operation::SEND.named("publish"))
            .with_destination(DESTINATION)
            .with_client_id(publisher.clone());
        Self { publisher, span, tracer, journal }
    }

    /// Starts the span of order `number`. Every third order comes with a request of another system,
    /// whose `tracestate` and sampling decision the span inherits. The sampler decides on others.
    pub fn order(&self, number: u64) -> Result<Order> {
        let id = format!("{}-{number}", self.publisher);
        let parent = match number % 3 {
            0 => Context::new().with_remote_span_context(self.upstream(number)?),
            _ => Context::new(),
        };
        let span = self.span.build_single(&Message::new().with_id(id.clone()));
        let span = span.start_with_context(&self.tracer, &parent);
        let body = format!(r#"{{"order":"{id}","items":{}}}"#, number % 7 + 1).into_bytes();
        Ok(Order { id, body, span })
    }

    /// Returns the context of an incoming request, as its headers would carry it.
    fn upstream(&self, number: u64) -> Result<SpanContext> {
        let ids = RandomIdGenerator::default();
        let (trace, span, sampled) = (ids.new_trace_id(), ids.new_span_id(), number % 2);
        let state = format!("shop={}-{number},rojo=00f067aa0ba902b7", self.publisher);
        Ok(carrier::parse_traceparent(&format!("00-{trace}-{span}-{sampled:02x}"), Some(&state))?)
    }

    /// Writes the order's context to its headers, and both to the journal.
    pub fn inject(&self, order: &Order, headers: &mut dyn Injector) -> Result {
        let mut written = Copied { headers, copy: HashMap::new() };
        carrier::inject(order.span.span_context(), &mut written);
        let header = |name| written.copy.get(name).filter(|value| !value.is_empty());
        self.journal.write(&Sent {
            id: &order.id,
            traceparent: header("traceparent"),
            tracestate: header("tracestate"),
        })
    }
}

/// Keeps a copy of what is written, for the journal.
struct Copied<'a> {
    headers: &'a mut dyn Injector,
    copy: HashMap<String, String>,
}

impl Injector for Copied<'_> {
    fn set(&mut self, key: &str, value: String) {
        self.copy.insert(key.to_owned(), value.clone());
        self.headers.set(key, value);
    }
}
