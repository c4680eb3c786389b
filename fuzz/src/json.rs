//! Contexts in JSON: what is read, what is refused, and that it comes back.
//!
//! The input is a JSON document. What is allowed is said here once more, on the document as
//! `serde_json` reads it.

use crate::w3c;
use batchlink::carrier::json::Json;
use opentelemetry::trace::SpanContext;
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::Value;
use std::fmt;

pub fn json(data: &[u8]) {
    let expected = expected(data);
    let found = serde_json::from_slice::<Json>(data);
    match (found, expected) {
        (Ok(Json(context)), Some(expected)) => {
            assert_eq!(shown(&context), expected);
            assert!(context.is_remote() || context == SpanContext::NONE);
            let text =
                serde_json::to_string(&Json(context.clone())).expect("a context can be written");
            assert_eq!(serde_json::from_str::<Json>(&text).expect("and read").0, context, "{text}");
            assert_eq!(
                serde_json::from_str::<Option<Json>>(&text).expect("so, too").is_none(),
                text == "null"
            );
        }
        (Err(error), None) => assert!(error.to_string().len() < 1000, "{error}"),
        (found, expected) => panic!("{found:?}, expected {expected:?}"),
    }
}

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

fn expected(data: &[u8]) -> Option<Shown> {
    if serde_json::from_slice::<Value>(data).ok()? == Value::Null {
        return Some((0, 0, 0, vec![]));
    }
    let Pairs(pairs) = serde_json::from_slice(data).ok()?;
    let known = ["trace_id", "span_id", "trace_flags", "trace_state"];
    let count = |name: &str| pairs.iter().filter(|(key, _)| key == name).count();
    if pairs.iter().any(|(key, _)| !known.contains(&key.as_str()))
        || known.iter().any(|name| count(name) > 1)
    {
        return None;
    }
    let field = |name: &str| pairs.iter().find(|(key, _)| key == name).map(|(_, value)| value);
    let flags = match field("trace_flags")? {
        Value::String(hex) => hex.clone(),
        number => format!("{:02x}", number.as_u64().filter(|&flags| flags < 256)?),
    };
    let (trace, span) = (field("trace_id")?.as_str()?, field("span_id")?.as_str()?);
    // The one rule for ids and flags is that of a header; only, all flags are kept.
    let (trace, span, _) = w3c::traceparent(&format!("00-{trace}-{span}-{flags}"))?;
    let state = match field("trace_state") {
        None | Some(Value::Null) => vec![],
        Some(state) => w3c::tracestate(state.as_str()?)?,
    };
    Some((trace, span, u8::from_str_radix(&flags, 16).ok()?, state))
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
