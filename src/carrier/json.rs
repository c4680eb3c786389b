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
//! - What is written can be read: a trace state that [`parse_tracestate`] would refuse is left out.
//!   The API admits some.
//! - All 8 bits of the flags are kept. Contexts that were read are marked remote.

use super::{CarrierError, parse_tracestate, w3c};
use opentelemetry::trace::{SpanContext, SpanId, TraceFlags, TraceId, TraceState};
use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, Unexpected, Visitor};
use serde::ser::{SerializeStruct, Serializer};
use serde::{Deserialize, Serialize};
use std::fmt;

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
    if !context.is_valid() {
        return serializer.serialize_none();
    }
    let state = context.trace_state().header();
    let state = Some(state).filter(|state| !state.is_empty() && parse_tracestate(state).is_ok());
    let mut object =
        serializer.serialize_struct("SpanContext", 3 + usize::from(state.is_some()))?;
    object.serialize_field(TRACE_ID.name, &format_args!("{}", context.trace_id()))?;
    object.serialize_field(SPAN_ID.name, &format_args!("{}", context.span_id()))?;
    object.serialize_field(TRACE_FLAGS.name, &format_args!("{:02x}", context.trace_flags()))?;
    match state {
        Some(state) => object.serialize_field(TRACE_STATE.name, &state)?,
        None => object.skip_field(TRACE_STATE.name)?,
    }
    object.end()
}

/// Reads a context, as the [module](self) says.
///
/// # Errors
///
/// An error of the deserializer that names the field, its value and what is allowed.
pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<SpanContext, D::Error> {
    deserializer.deserialize_any(Object)
}

struct Object;

const OBJECT: &str =
    "an object with trace_id, span_id, trace_flags and perhaps trace_state, or null";

impl<'de> Visitor<'de> for Object {
    type Value = SpanContext;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a span context: {OBJECT}")
    }

    // The default error would show all of it.
    fn visit_str<E: Error>(self, text: &str) -> Result<SpanContext, E> {
        Err(Error::custom(CarrierError::new("span context", text, OBJECT)))
    }

    fn visit_unit<E: Error>(self) -> Result<SpanContext, E> {
        Ok(SpanContext::NONE)
    }

    fn visit_none<E: Error>(self) -> Result<SpanContext, E> {
        Ok(SpanContext::NONE)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<SpanContext, D::Error> {
        deserialize(deserializer)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<SpanContext, A::Error> {
        let (mut trace_id, mut span_id, mut flags, mut state) = (None, None, None, None);
        while let Some(name) = map.next_key_seed(&NAME)? {
            match name {
                "trace_id" => TRACE_ID.fill(&mut trace_id, &mut map)?,
                "span_id" => SPAN_ID.fill(&mut span_id, &mut map)?,
                "trace_flags" => TRACE_FLAGS.fill(&mut flags, &mut map)?,
                _ => TRACE_STATE.fill(&mut state, &mut map)?,
            }
        }
        let (trace_id, span_id) = (TRACE_ID.found(trace_id)?, SPAN_ID.found(span_id)?);
        let flags = TraceFlags::new(TRACE_FLAGS.found(flags)?);
        Ok(SpanContext::new(trace_id, span_id, flags, true, state.unwrap_or_default()))
    }
}

/// One field of the object, and its allowed values.
struct Field<T> {
    name: &'static str,
    allowed: &'static str,
    text: fn(&str) -> Result<T, CarrierError>,
    number: fn(u64) -> Option<T>,
    null: fn() -> Option<T>,
}

const TRACE_ID: Field<TraceId> = Field {
    name: "trace_id",
    allowed: w3c::TRACE_ID,
    text: w3c::parse_trace_id,
    number: |_| None,
    null: || None,
};
const SPAN_ID: Field<SpanId> = Field {
    name: "span_id",
    allowed: w3c::SPAN_ID,
    text: w3c::parse_span_id,
    number: |_| None,
    null: || None,
};
const TRACE_FLAGS: Field<u8> = Field {
    name: "trace_flags",
    allowed: "2 lower-case hex digits, or a number from 0 to 255",
    text: w3c::parse_flags,
    number: |flags| flags.try_into().ok(),
    null: || None,
};
const TRACE_STATE: Field<TraceState> = Field {
    name: "trace_state",
    allowed: w3c::TRACE_STATE,
    text: |text| w3c::parse_state("trace_state", text),
    number: |_| None,
    null: || Some(TraceState::NONE),
};
/// The name of a field.
const NAME: Field<&str> = Field {
    name: "field",
    allowed: "trace_id, span_id, trace_flags, trace_state",
    text: |text| {
        let names = [TRACE_ID.name, SPAN_ID.name, TRACE_FLAGS.name, TRACE_STATE.name];
        let known = names.into_iter().find(|name| *name == text);
        known.ok_or_else(|| CarrierError::new(NAME.name, text, NAME.allowed))
    },
    number: |_| None,
    null: || None,
};

impl<T> Field<T> {
    /// Reads the value, unless there is one already.
    fn fill<'de, A: MapAccess<'de>>(
        &self,
        value: &mut Option<T>,
        map: &mut A,
    ) -> Result<(), A::Error> {
        if value.is_some() {
            return Err(Error::duplicate_field(self.name));
        }
        *value = Some(map.next_value_seed(self)?);
        Ok(())
    }

    fn found<E: Error>(&self, value: Option<T>) -> Result<T, E> {
        value.ok_or_else(|| Error::missing_field(self.name))
    }
}

impl<'de, T> DeserializeSeed<'de> for &Field<T> {
    type Value = T;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<T, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<T> Visitor<'_> for &Field<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.name, self.allowed)
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<T, E> {
        (self.text)(text).map_err(Error::custom)
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<T, E> {
        (self.number)(number)
            .ok_or_else(|| Error::invalid_value(Unexpected::Unsigned(number), &self))
    }

    fn visit_unit<E: Error>(self) -> Result<T, E> {
        (self.null)().ok_or_else(|| Error::invalid_type(Unexpected::Unit, &self))
    }
}
