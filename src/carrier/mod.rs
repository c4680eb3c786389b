//! Reads span contexts from messages and requests, and writes them there.
//!
//! The items of a batch seldom arrive with a span of their own. The trace that caused them is named
//! in a header, in a field of a JSON document or in a column of a table. This module turns each of
//! these into a [`SpanContext`] to be linked, and back:
//!
//! | the context is in … | reading | writing |
//! |---|---|---|
//! | headers, in the format of the configured propagator | [`extract`] | [`inject`] |
//! | headers whose values are bytes (Kafka, NATS, AMQP) | … of [`Headers`] | … of [`HeadersMut`] |
//! | attributes: a map of text (Pub/Sub) | … of [`Attributes`] | … of [`AttributesMut`] |
//! | a `traceparent` and perhaps a `tracestate` | [`parse_traceparent`] | [`format_traceparent`] |
//! | an `AWSTraceHeader` (SQS, X-Ray) | [`parse_xray`] | [`format_xray`] |
//! | JSON (feature `serde`), also with OTLP's names | `json`, `json::otlp` | the same |
//!
//! ```
//! use batchlink::{LinkSet, Outcome, carrier};
//!
//! // A poll of a broker: headers as name and bytes.
//! let polled = [
//!     vec![("traceparent", b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".as_slice())],
//!     vec![("content-type", b"text/plain".as_slice())],
//! ];
//! let mut set = LinkSet::builder().build()?;
//! for message in &polled {
//!     // As the process configured it: `global::set_text_map_propagator`.
//!     if let Some(context) = carrier::extract(&carrier::Headers::new(message)) {
//!         set.insert(&context);
//!     }
//! }
//!
//! // The same without a propagator, and so without the SDK.
//! let context = carrier::parse_traceparent("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", None)?;
//! assert!(context.is_remote());
//! assert_eq!(set.insert(&context), Outcome::Linked);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Guarantees
//!
//! - A context that was read is valid (neither id is zero) and marked remote, whatever its source.
//! - What this module writes it can read again, with the same ids, flags and trace state.
//!   Exceptions are named at the functions.
//! - Input is untrusted. Nothing panics, and nothing grows with it but a trace state of at most 32
//!   members. Error texts show at most 64 bytes of it, escaped.
//! - Several `tracestate` headers are one list, and an empty one is not written.

mod attributes;
mod error;
mod headers;
#[cfg(feature = "serde")]
#[cfg_attr(docsrs, doc(cfg(feature = "serde")))]
pub mod json;
mod w3c;
mod xray;

pub use attributes::{Attributes, AttributesMut, PUBSUB_PREFIX};
pub use error::CarrierError;
pub use headers::{Headers, HeadersMut};
pub use w3c::{format_traceparent, parse_traceparent, parse_tracestate};
pub use xray::{AWS_TRACE_HEADER, format_xray, parse_xray};

use crate::panic::caught;
use opentelemetry::propagation::{Extractor, Injector};
use opentelemetry::trace::{SpanContext, TraceContextExt};
use opentelemetry::{Context, global};

const TRACEPARENT: &str = "traceparent";
const TRACESTATE: &str = "tracestate";

/// Reads a context in the format of the propagator that the process has configured
/// ([`global::set_text_map_propagator`]).
///
/// Returns `None` if the carrier has no context, if it is not valid, or if no propagator is
/// configured: the API's default reads nothing. The active span plays no part. Several `tracestate`
/// headers are one list, for every carrier with a true [`get_all`](Extractor::get_all). A
/// propagator that panics reads nothing.
///
/// Waits only while another thread configures a propagator. Allocates a few times.
///
/// ```
/// use batchlink::carrier;
/// use opentelemetry::global;
/// # use opentelemetry_sdk::propagation::TraceContextPropagator;
///
/// global::set_text_map_propagator(TraceContextPropagator::new());
/// let headers = [("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")];
/// let context = carrier::extract(&carrier::Headers::new(&headers)).expect("there is one");
/// assert_eq!(context.span_id().to_string(), "b7ad6b7169203331");
/// assert_eq!(carrier::extract(&carrier::Headers::new(&[("traceparent", "none")])), None);
/// ```
pub fn extract(carrier: &dyn Extractor) -> Option<SpanContext> {
    // Carriers and propagators are user code.
    let tracestate =
        caught(|| one_list(|name| carrier.get_all(name).unwrap_or_default().into_iter()))?;
    let carrier = OneList { carrier, tracestate };
    // A propagator that finds nothing returns the context it was given; the API's default returns
    // the current one, whatever it was given. So both are empty, or the active span would be found.
    let empty = Context::new();
    let _current = empty.clone().attach();
    let extract =
        || global::get_text_map_propagator(|it| it.extract_with_context(&empty, &carrier));
    let found = caught(extract)?;
    let span = found.span();
    let context = span.span_context();
    context.is_valid().then(|| remote(context))
}

/// Writes a context in the format of the configured propagator.
///
/// A context that is not valid is not written, and without a configured propagator nothing is. An
/// empty `tracestate` is not written. [`HeadersMut`] and [`AttributesMut`] remove that of an
/// earlier hop; any other carrier keeps what is in it, so clear it first. Of a propagator that
/// panics, what it has written stays.
///
/// Costs as [`extract`].
///
/// ```
/// use batchlink::carrier;
/// use opentelemetry::global;
/// # use opentelemetry_sdk::propagation::TraceContextPropagator;
///
/// global::set_text_map_propagator(TraceContextPropagator::new());
/// let header = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
/// let mut headers: Vec<(String, Vec<u8>)> = Vec::new();
/// let context = carrier::parse_traceparent(header, None)?;
/// carrier::inject(&context, &mut carrier::HeadersMut::new(&mut headers));
/// assert_eq!(headers, [("traceparent".to_owned(), header.as_bytes().to_vec())]);
/// # Ok::<(), carrier::CarrierError>(())
/// ```
pub fn inject(context: &SpanContext, carrier: &mut dyn Injector) {
    if context.is_valid() {
        let context = Context::new().with_remote_span_context(context.clone());
        let carrier = &mut NoEmptyState(carrier);
        let _ =
            caught(|| global::get_text_map_propagator(|it| it.inject_context(&context, carrier)));
    }
}

/// Joins several `tracestate`s, in order. Returns `None` if there is nothing to join.
fn one_list<'a, I: Iterator<Item = &'a str>>(values: impl Fn(&'static str) -> I) -> Option<String> {
    if values(TRACESTATE).nth(1).is_none() || values(TRACEPARENT).nth(1).is_some() {
        return None;
    }
    let lists: Vec<_> = values(TRACESTATE).filter(|list| !list.trim().is_empty()).collect();
    Some(lists.join(","))
}

/// Whether this is a `tracestate` that says nothing.
fn is_empty_state(key: &str, value: &str) -> bool {
    key.eq_ignore_ascii_case(TRACESTATE) && value.trim().is_empty()
}

/// A carrier with its `tracestate`s joined.
struct OneList<'a> {
    carrier: &'a dyn Extractor,
    tracestate: Option<String>,
}

impl Extractor for OneList<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        match &self.tracestate {
            Some(list) if key.eq_ignore_ascii_case(TRACESTATE) => Some(list),
            _ => self.carrier.get(key),
        }
    }

    fn keys(&self) -> Vec<&str> {
        self.carrier.keys()
    }

    fn get_all(&self, key: &str) -> Option<Vec<&str>> {
        self.carrier.get_all(key)
    }
}

/// A carrier that is not given an empty `tracestate`.
struct NoEmptyState<'a>(&'a mut dyn Injector);

impl Injector for NoEmptyState<'_> {
    fn set(&mut self, key: &str, value: String) {
        if !is_empty_state(key, &value) {
            self.0.set(key, value);
        }
    }

    fn reserve(&mut self, additional: usize) {
        self.0.reserve(additional);
    }
}

/// Marks the context as remote. A propagator should have done that, but need not.
fn remote(context: &SpanContext) -> SpanContext {
    let state = context.trace_state().clone();
    SpanContext::new(context.trace_id(), context.span_id(), context.trace_flags(), true, state)
}
