//! An object with the fields of a context, whatever they are called.

use crate::carrier::{CarrierError, parse_tracestate};
use opentelemetry::trace::{SpanContext, SpanId, TraceFlags, TraceId, TraceState};
use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, Unexpected, Visitor};
use serde::ser::{Serialize, SerializeStruct, Serializer};
use std::fmt;

/// The fields, their names and their allowed values.
pub(super) struct Format {
    /// What the whole is.
    pub(super) object: &'static str,
    /// The names of all fields.
    pub(super) names: &'static str,
    pub(super) trace_id: Field<TraceId>,
    pub(super) span_id: Field<SpanId>,
    pub(super) flags: Field<u8>,
    pub(super) state: Field<TraceState>,
}

/// One field of the object, and its allowed values.
pub(super) struct Field<T> {
    pub(super) name: &'static str,
    pub(super) allowed: &'static str,
    pub(super) text: fn(&str) -> Result<T, CarrierError>,
    pub(super) number: fn(u64) -> Option<T>,
    /// What `null` stands for, and a field that is not there.
    pub(super) absent: fn() -> Option<T>,
}

/// Writes a context, its flags as given.
pub(super) fn write_object<S: Serializer>(
    format: &Format,
    context: &SpanContext,
    flags: &impl Serialize,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    if !context.is_valid() {
        return serializer.serialize_none();
    }
    let state = context.trace_state().header();
    let state = Some(state).filter(|state| !state.is_empty() && parse_tracestate(state).is_ok());
    let mut object =
        serializer.serialize_struct("SpanContext", 3 + usize::from(state.is_some()))?;
    object.serialize_field(format.trace_id.name, &format_args!("{}", context.trace_id()))?;
    object.serialize_field(format.span_id.name, &format_args!("{}", context.span_id()))?;
    object.serialize_field(format.flags.name, flags)?;
    match state {
        Some(state) => object.serialize_field(format.state.name, &state)?,
        None => object.skip_field(format.state.name)?,
    }
    object.end()
}

impl<'de> Visitor<'de> for &Format {
    type Value = SpanContext;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a span context: {}", self.object)
    }

    // The default error would show all of it.
    fn visit_str<E: Error>(self, text: &str) -> Result<SpanContext, E> {
        Err(Error::custom(CarrierError::new("span context", text, self.object)))
    }

    fn visit_unit<E: Error>(self) -> Result<SpanContext, E> {
        Ok(SpanContext::NONE)
    }

    fn visit_none<E: Error>(self) -> Result<SpanContext, E> {
        Ok(SpanContext::NONE)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<SpanContext, D::Error> {
        deserializer.deserialize_any(self)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<SpanContext, A::Error> {
        let (mut trace_id, mut span_id, mut flags, mut state) = (None, None, None, None);
        while let Some(name) = map.next_key_seed(Name(self))? {
            match name {
                _ if name == self.trace_id.name => self.trace_id.fill(&mut trace_id, &mut map)?,
                _ if name == self.span_id.name => self.span_id.fill(&mut span_id, &mut map)?,
                _ if name == self.flags.name => self.flags.fill(&mut flags, &mut map)?,
                _ => self.state.fill(&mut state, &mut map)?,
            }
        }
        let (trace_id, span_id) = (self.trace_id.found(trace_id)?, self.span_id.found(span_id)?);
        let flags = TraceFlags::new(self.flags.found(flags)?);
        Ok(SpanContext::new(trace_id, span_id, flags, true, self.state.found(state)?))
    }
}

/// The name of a field.
struct Name<'a>(&'a Format);

impl<'de> DeserializeSeed<'de> for Name<'_> {
    type Value = &'static str;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<&'static str, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl Visitor<'_> for Name<'_> {
    type Value = &'static str;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "field: {}", self.0.names)
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<&'static str, E> {
        let Format { trace_id, span_id, flags, state, .. } = self.0;
        let known = [trace_id.name, span_id.name, flags.name, state.name];
        let known = known.into_iter().find(|name| *name == text);
        known.ok_or_else(|| Error::custom(CarrierError::new("field", text, self.0.names)))
    }
}

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
        value.or_else(self.absent).ok_or_else(|| Error::missing_field(self.name))
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
        (self.absent)().ok_or_else(|| Error::invalid_type(Unexpected::Unit, &self))
    }
}
