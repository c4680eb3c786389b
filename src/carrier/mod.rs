//! How contexts come in with messages and requests, and go out with them.
//!
//! A batch's items seldom arrive with a span of their own: the trace that caused them is named in a
//! header, in a field of a JSON document or in a column of a table. This module turns each of these
//! into a [`SpanContext`] to be linked, and back:
//!
//! | the context is in … | reading | writing |
//! |---|---|---|
//! | headers, in the format of the configured propagator | [`extract`] | [`inject`] |
//! | message headers whose values are bytes (Kafka, NATS, AMQP) | [`Headers`] with `extract` | [`HeadersMut`] with `inject` |
//! | a `traceparent` and perhaps a `tracestate` | [`parse_traceparent`] | [`format_traceparent`] |
//! | JSON (feature `serde`) | `json` | `json` |
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
//! - What this module writes it can read again, with the same ids, flags and trace state; the exceptions
//!   are named where they are.
//! - Input is untrusted: no panic, nothing that grows with it but a trace state of at most 32
//!   members, and error texts show at most 64 bytes of it, escaped.

mod error;
mod headers;
#[cfg(feature = "serde")]
#[cfg_attr(docsrs, doc(cfg(feature = "serde")))]
pub mod json;
mod w3c;

pub use error::CarrierError;
pub use headers::{Headers, HeadersMut};
pub use w3c::{format_traceparent, parse_traceparent, parse_tracestate};

use opentelemetry::propagation::{Extractor, Injector};
use opentelemetry::trace::{SpanContext, TraceContextExt};
use opentelemetry::{Context, global};

/// Reads a context in the format of the propagator that the process has configured
/// ([`global::set_text_map_propagator`]).
///
/// `None` if the carrier has none, if it is not valid, or if no propagator was configured: the API's
/// default reads nothing. The active span plays no part. Never blocks, unless somebody is configuring a
/// propagator just now; allocates a few times.
pub fn extract(carrier: &dyn Extractor) -> Option<SpanContext> {
    // A propagator that finds nothing returns the context it was given; the API's default returns the
    // current one, whatever it was given. So both are empty, or the active span would be found.
    let empty = Context::new();
    let _current = empty.clone().attach();
    let found = global::get_text_map_propagator(|it| it.extract_with_context(&empty, carrier));
    let span = found.span();
    let context = span.span_context();
    context.is_valid().then(|| remote(context))
}

/// Writes a context in the format of the configured propagator. A context that is not valid is not
/// written, and without a configured propagator nothing is. Costs as [`extract`].
pub fn inject(context: &SpanContext, carrier: &mut dyn Injector) {
    if context.is_valid() {
        let context = Context::new().with_remote_span_context(context.clone());
        global::get_text_map_propagator(|it| it.inject_context(&context, carrier));
    }
}

/// The context as seen from here. A propagator should have marked it, but need not.
fn remote(context: &SpanContext) -> SpanContext {
    let state = context.trace_state().clone();
    SpanContext::new(context.trace_id(), context.span_id(), context.trace_flags(), true, state)
}
