//! Contexts in JSON, for `#[serde(with = "batchlink::carrier::json")]` (feature `serde`).
//!
//! The fields are named and written as OpenTelemetry's [trace context in
//! logs](https://opentelemetry.io/docs/specs/otel/compatibility/logging_trace_context/):
//!
//! ```
//! use batchlink::carrier::{json::Json, parse_traceparent};
//! # use opentelemetry::trace::SpanContext;
//! use serde::{Deserialize, Serialize};
//!
//! #[derive(Serialize, Deserialize)]
//! struct Order {
//!     id: u64,
//!     #[serde(with = "batchlink::carrier::json")]
//!     context: SpanContext,
//!     /// `Json` is the same as a type, for use inside of others.
//!     earlier: Vec<Json>,
//! }
//!
//! let header = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
//! let context = parse_traceparent(header, Some("congo=2"))?;
//! let order = Order { id: 7, context: context.clone(), earlier: vec![] };
//! let text = serde_json::to_string(&order)?;
//! assert_eq!(
//!     text,
//!     r#"{"id":7,"context":{"trace_id":"0af7651916cd43dd8448eb211c80319c","#.to_owned()
//!         + r#""span_id":"b7ad6b7169203331","trace_flags":"01","trace_state":"congo=2"},"earlier":[]}"#,
//! );
//! assert_eq!(serde_json::from_str::<Order>(&text)?.context, context);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! | field | written | read |
//! |---|---|---|
//! | `trace_id` | 32 lower-case hex digits | the same; not all zero |
//! | `span_id` | 16 lower-case hex digits | the same; not all zero |
//! | `trace_flags` | 2 lower-case hex digits | the same, or 0 to 255 as in OTLP/JSON |
//! | `trace_state` | as in a header, unless empty | the same; may be missing, `null` or empty |
//!
//! - Reading is strict: a field that is missing, unknown, doubled or wrong is an error that names
//!   it. An unknown field is mostly a misspelt one (`traceState`), whose value would be lost.
//! - A wrong `trace_state` is refused, too, unlike in headers: a program of yours wrote this
//!   document.
//! - A context that is not valid, such as [`SpanContext::NONE`], is written as `null`, and `null`
//!   is read as `SpanContext::NONE`: a message need not have a context.
//! - What is written can be read: a trace state that [`parse_tracestate`](super::parse_tracestate)
//!   would refuse is left out. The API admits some.
//! - [`otlp`] has the same with the names of OTLP's JSON: `traceId`, `spanId`, `flags`.
//! - All 8 bits of the flags are kept. Contexts that were read are marked remote.

mod object;
pub mod otlp;

use super::w3c;
use object::{Field, Format};
use opentelemetry::trace::{SpanContext, TraceState};
use serde::de::Deserializer;
use serde::ser::Serializer;
use serde::{Deserialize, Serialize};

/// A context that is JSON by itself: for `Option<Json>`, `Vec<Json>`, values of maps.
///
/// ```
/// use batchlink::carrier::json::Json;
/// use opentelemetry::trace::SpanContext;
///
/// let causes = [Json(SpanContext::NONE)];
/// assert_eq!(serde_json::to_string(&causes)?, "[null]");
/// let error = serde_json::from_str::<Json>(r#"{"trace_id":"7"}"#).unwrap_err();
/// assert!(error.to_string().starts_with("invalid trace_id: \"7\" (allowed: 32 lower-case"));
/// # Ok::<(), serde_json::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Json(pub SpanContext);

impl Serialize for Json {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serialize(&self.0, serializer)
    }
}

impl<'de> Deserialize<'de> for Json {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserialize(deserializer).map(Self)
    }
}

/// Writes a context, as the [module](self) says.
///
/// # Errors
///
/// Those of the serializer.
pub fn serialize<S: Serializer>(context: &SpanContext, serializer: S) -> Result<S::Ok, S::Error> {
    object::write_object(
        &FORMAT,
        context,
        &format_args!("{:02x}", context.trace_flags()),
        serializer,
    )
}

/// Reads a context, as the [module](self) says.
///
/// # Errors
///
/// An error of the deserializer that names the field, its value and what is allowed.
pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<SpanContext, D::Error> {
    deserializer.deserialize_any(&FORMAT)
}

const FORMAT: Format = Format {
    object: "an object with trace_id, span_id, trace_flags and perhaps trace_state, or null",
    names: "trace_id, span_id, trace_flags, trace_state",
    trace_id: Field {
        name: "trace_id",
        allowed: w3c::TRACE_ID,
        text: w3c::parse_trace_id,
        number: |_| None,
        absent: || None,
    },
    span_id: Field {
        name: "span_id",
        allowed: w3c::SPAN_ID,
        text: w3c::parse_span_id,
        number: |_| None,
        absent: || None,
    },
    flags: Field {
        name: "trace_flags",
        allowed: "2 lower-case hex digits, or a number from 0 to 255",
        text: w3c::parse_flags,
        number: |flags| flags.try_into().ok(),
        absent: || None,
    },
    state: Field {
        name: "trace_state",
        allowed: w3c::TRACE_STATE,
        text: |text| w3c::parse_state("trace_state", text),
        number: |_| None,
        absent: || Some(TraceState::NONE),
    },
};
