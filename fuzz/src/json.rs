//! Contexts in JSON: what is read, what is refused, and that it comes back.
//!
//! The input is a JSON document. What is allowed is said here once more, on the document as
//! `serde_json` reads it.

use crate::w3c;
use batchlink::carrier::json::{Json, otlp};
use opentelemetry::trace::SpanContext;
use serde::de::{Deserialize, DeserializeOwned, Deserializer, MapAccess, Visitor};
use serde::ser::Serialize;
use serde_json::Value;
use std::fmt::{self, Debug};

pub fn json(data: &[u8]) {
    check(data, expected(data, &NAMES), |Json(context)| context, Json);
    check(data, expected(data, &OTLP_NAMES), |otlp::Json(context)| context, otlp::Json);
}

fn check<J: Serialize + DeserializeOwned + Debug>(
    data: &[u8],
    expected: Option<Shown>,
    inner: fn(J) -> SpanContext,
    outer: fn(SpanContext) -> J,
) {
    match (serde_json::from_slice(data).map(inner), expected) {
        (Ok(context), Some(expected)) => {
            assert_eq!(shown(&context), expected);
            assert!(context.is_remote() || context == SpanContext::NONE);
            let text =
                serde_json::to_string(&outer(context.clone())).expect("a context can be written");
            let read = |text| serde_json::from_str::<Option<J>>(text).expect("and read");
            assert_eq!(read(&text).map(inner).unwrap_or(SpanContext::NONE), context, "{text}");
            assert_eq!(read(&text).is_none(), text == "null");
        }
        (Err(error), None) => assert!(error.to_string().len() < 1000, "{error}"),
        (found, expected) => panic!("{found:?}, expected {expected:?}"),
    }
}

/// Names of ids, flags and trace state.
const NAMES: [&str; 4] = ["trace_id", "span_id", "trace_flags", "trace_state"];
const OTLP_NAMES: [&str; 4] = ["traceId", "spanId", "flags", "traceState"];

/// Ids, flags and trace state; all zero for none.
type Shown = (u128, u64, u8, Vec<(String, String)>);

fn shown(context: &SpanContext) -> Shown {
    let (trace, span) = (context.trace_id().to_bytes(), context.span_id().to_bytes());
    let state =
        context.trace_state().into_iter().map(|(key, value)| (key.to_owned(), value.to_owned()));
    (
        u128::from_be_bytes(trace),
        u64::from_be_bytes(span),
        context.trace_flags().to_u8(),
        state.collect(),
    )
}

fn expected(data: &[u8], names: &[&str; 4]) -> Option<Shown> {
    if serde_json::from_slice::<Value>(data).ok()? == Value::Null {
        return Some((0, 0, 0, vec![]));
    }
    let Pairs(pairs) = serde_json::from_slice(data).ok()?;
    let count = |name: &str| pairs.iter().filter(|(key, _)| key == name).count();
    if pairs.iter().any(|(key, _)| !names.contains(&key.as_str()))
        || names.iter().any(|name| count(name) > 1)
    {
        return None;
    }
    let field = |at: usize| pairs.iter().find(|(key, _)| key == names[at]).map(|(_, value)| value);
    let flags = if *names == OTLP_NAMES {
        match field(2) {
            None | Some(Value::Null) => 0,
            Some(number) => number.as_u64().filter(|&flags| flags >> 32 == 0)? as u8,
        }
    } else {
        match field(2)? {
            Value::String(hex) => w3c::traceparent(&format!("00-{:032}-{:016}-{hex}", 1, 1))
                .and_then(|_| u8::from_str_radix(hex, 16).ok())?,
            number => number.as_u64()?.try_into().ok()?,
        }
    };
    let (mut trace, mut span) = (field(0)?.as_str()?.to_owned(), field(1)?.as_str()?.to_owned());
    if *names == OTLP_NAMES {
        trace.make_ascii_lowercase();
        span.make_ascii_lowercase();
    }
    // The one rule for ids is that of a header.
    let (trace, span, _) = w3c::traceparent(&format!("00-{trace}-{span}-00"))?;
    let state = match field(3) {
        None | Some(Value::Null) => vec![],
        Some(state) => w3c::tracestate(state.as_str()?)?,
    };
    Some((trace, span, flags, state))
}

/// An object with the fields that are there twice.
struct Pairs(Vec<(String, Value)>);

impl<'de> Deserialize<'de> for Pairs {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Object;

        impl<'de> Visitor<'de> for Object {
            type Value = Pairs;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Pairs, A::Error> {
                let mut pairs = Vec::new();
                while let Some(pair) = map.next_entry()? {
                    pairs.push(pair);
                }
                Ok(Pairs(pairs))
            }
        }

        deserializer.deserialize_map(Object)
    }
}
