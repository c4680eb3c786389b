//! Contexts in JSON with the names of OTLP, for
//! `#[serde(with = "batchlink::carrier::json::otlp")]`.
//!
//! Names and values are those that OTLP's
//! [JSON](https://opentelemetry.io/docs/specs/otlp/#json-protobuf-encoding) gives a link, so that
//! what was exported can be copied into a document and read from it:
//!
//! ```
//! use batchlink::carrier::json::otlp;
//!
//! let text = r#"{"traceId":"0af7651916cd43dd8448eb211c80319c","spanId":"b7ad6b7169203331","#
//!     .to_owned() + r#""flags":769,"traceState":"congo=2"}"#;
//! let context: otlp::Json = serde_json::from_str(&text)?;
//! assert!(context.0.is_sampled() && context.0.is_remote());
//! assert_eq!(serde_json::to_string(&context)?, text);
//! # Ok::<(), serde_json::Error>(())
//! ```
//!
//! | field | written | read |
//! |---|---|---|
//! | `traceId` | 32 lower-case hex digits | 32 hex digits of either case; not all zero |
//! | `spanId` | 16 lower-case hex digits | 16 hex digits of either case; not all zero |
//! | `flags` | a number | 0 to 4294967295; may be missing or `null`, which is 0 |
//! | `traceState` | as in a header, unless empty | the same; may be missing, `null` or empty |
//!
//! - The lowest 8 bits of `flags` are those of the context. Bit 8 (256) says that bit 9 is known,
//!   and bit 9 (512) that the context is remote: both are written as OpenTelemetry's exporters do.
//!   In reading, bits from 8 on are ignored, and the context is marked remote.
//! - Everything else is as in the [module above](super): strict, with `null` for no context. A
//!   whole link, which has attributes too, is refused.

use super::object::{self, Field, Format};
use crate::carrier::{CarrierError, w3c};
use arrayvec::ArrayString;
use opentelemetry::trace::{SpanContext, TraceState};
use serde::de::Deserializer;
use serde::ser::Serializer;
use serde::{Deserialize, Serialize};

/// A context that is JSON by itself: for `Option<Json>`, `Vec<Json>`, values of maps.
///
/// ```
/// use batchlink::carrier::json::otlp::Json;
///
/// let causes: Vec<Json> = serde_json::from_str("[null]")?;
/// assert!(!causes[0].0.is_valid());
/// let error = serde_json::from_str::<Json>(r#"{"trace_id":"7"}"#).unwrap_err();
/// assert!(error.to_string().starts_with("invalid field: \"trace_id\" (allowed: traceId, spanId"));
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
    // Bit 8: it is known whether the context is remote. Bit 9: it is.
    let remote = if context.is_remote() { 0b11 } else { 0b01 };
    let flags = u32::from_le_bytes([context.trace_flags().to_u8(), remote, 0, 0]);
    object::write_object(&FORMAT, context, &flags, serializer)
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
    object: "an object with traceId, spanId and perhaps flags and traceState, or null",
    names: "traceId, spanId, flags, traceState",
    trace_id: Field {
        name: "traceId",
        allowed: TRACE_ID,
        text: |text| {
            w3c::parse_trace_id(&lower_case::<32>(text))
                .map_err(|_| CarrierError::new("traceId", text, TRACE_ID))
        },
        number: |_| None,
        absent: || None,
    },
    span_id: Field {
        name: "spanId",
        allowed: SPAN_ID,
        text: |text| {
            w3c::parse_span_id(&lower_case::<16>(text))
                .map_err(|_| CarrierError::new("spanId", text, SPAN_ID))
        },
        number: |_| None,
        absent: || None,
    },
    flags: Field {
        name: "flags",
        allowed: FLAGS,
        text: |text| Err(CarrierError::new("flags", text, FLAGS)),
        number: |flags| u32::try_from(flags).ok().map(|flags| flags as u8),
        absent: || Some(0),
    },
    state: Field {
        name: "traceState",
        allowed: w3c::TRACE_STATE,
        text: |text| w3c::parse_state("traceState", text),
        number: |_| None,
        absent: || Some(TraceState::NONE),
    },
};

const TRACE_ID: &str = "32 hex digits, not all zero";
const SPAN_ID: &str = "16 hex digits, not all zero";
const FLAGS: &str = "a number from 0 to 4294967295";

/// The digits in lower case; none if there are more than `N`.
fn lower_case<const N: usize>(text: &str) -> ArrayString<N> {
    let mut digits = ArrayString::from(text).unwrap_or_default();
    digits.make_ascii_lowercase();
    digits
}
