//! Contexts in JSON: what is written, what is read, what is refused, and that it comes back.

use super::common::{Random, context, small_state, with_flags, with_state};
use super::documents::changed;
use batchlink::carrier::json::{self, Json};
use opentelemetry::trace::{SpanContext, SpanId, TraceFlags, TraceId, TraceState};
use serde::de::value::MapDeserializer;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Message {
    #[serde(with = "json")]
    context: SpanContext,
    cause: Option<Json>,
}

fn written(context: &SpanContext) -> Value {
    serde_json::to_value(Json(context.clone())).unwrap()
}

fn read(text: &str) -> Result<SpanContext, String> {
    serde_json::from_str::<Json>(text).map(|json| json.0).map_err(|error| error.to_string())
}

/// The valid object with one field changed.
fn with(field: &str, value: Value) -> String {
    changed(written(&with_state(7, &small_state())), field, value)
}

#[test]
fn context_is_written_in_hex() {
    let expected = json!({
        "trace_id": "0000000000000000000000000000feed",
        "span_id": "0000000000000007",
        "trace_flags": "01",
    });
    assert_eq!(written(&context(7)), expected);
    let state = json!("vendor=value");
    assert_eq!(written(&with_state(7, &small_state()))["trace_state"], state);
    assert_eq!(written(&with_flags(7, TraceFlags::new(0xa0)))["trace_flags"], "a0");
}

#[test]
fn every_form_is_read() {
    let stateful = with_state(7, &small_state());
    let stateless = with_state(7, &TraceState::NONE);
    for (text, expected) in [
        (with("trace_flags", json!("01")), &stateful),
        (with("trace_flags", json!(1)), &stateful),
        (with("trace_state", json!("removed")), &stateless),
        (with("trace_state", json!("")), &stateless),
        (with("trace_state", Value::Null), &stateless),
        (with("trace_state", json!(" vendor=value ,")), &stateful),
        (r#"{"span_id":"\u0030000000000000007","trace_flags":1,"trace_\u0069d":"0000000000000000000000000000feed"}"#.into(), &stateless),
    ] {
        assert_eq!(read(&text).as_ref(), Ok(expected), "{text}");
        let value: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(&serde_json::from_value::<Json>(value).unwrap().0, expected, "{text}");
        let json: Json = serde_json::from_reader(text.as_bytes()).unwrap();
        assert_eq!(&json.0, expected, "{text}");
    }
    assert_eq!(read(&with("trace_flags", json!(255))).unwrap().trace_flags().to_u8(), 255);
    assert_eq!(read(&with("trace_flags", json!("ff"))).unwrap().trace_flags().to_u8(), 255);
}

#[test]
fn refused_field_is_named() {
    let (capitals, signed) = (json!("0000000000000000000000000000FEED"), json!("+000000000000007"));
    for (text, said) in [
        (
            with("trace_id", capitals),
            r#"invalid trace_id: "0000000000000000000000000000FEED" (allowed: 32 lower"#,
        ),
        (with("trace_id", json!("0".repeat(32))), "invalid trace_id"),
        (with("trace_id", json!("feed")), "invalid trace_id"),
        (with("trace_id", json!("1".repeat(34))), "invalid trace_id"),
        (with("span_id", json!("1".repeat(17))), "invalid span_id"),
        (with("trace_flags", json!("011")), "invalid trace_flags"),
        (
            with("trace_id", json!(7)),
            "invalid value: integer `7`, expected trace_id: 32 lower-case hex digits",
        ),
        (with("trace_id", Value::Null), "invalid type: null, expected trace_id: "),
        (with("trace_id", json!(["a"])), "invalid type: sequence, expected trace_id: "),
        (with("trace_id", json!("removed")), "missing field `trace_id`"),
        (with("span_id", signed), "invalid span_id"),
        (with("span_id", json!("0".repeat(16))), "invalid span_id"),
        (with("span_id", json!("removed")), "missing field `span_id`"),
        (
            with("trace_flags", json!("1")),
            r#"invalid trace_flags: "1" (allowed: 2 lower-case hex digits)"#,
        ),
        (
            with("trace_flags", json!(256)),
            "invalid value: integer `256`, expected trace_flags: 2 lower-case hex \
          digits, or a number from 0 to 255",
        ),
        (with("trace_flags", json!(-1)), "invalid type: integer `-1`, expected trace_flags: "),
        (
            with("trace_flags", json!(1.0)),
            "invalid type: floating point `1.0`, expected trace_flags: ",
        ),
        (with("trace_flags", Value::Null), "invalid type: null, expected trace_flags: "),
        (with("trace_flags", json!("removed")), "missing field `trace_flags`"),
        (
            with("trace_state", json!("a")),
            r#"invalid trace_state: "a" (allowed: at most 32 members"#,
        ),
        (with("trace_state", json!(1)), "expected trace_state: "),
        (
            with("traceState", json!("a=1")),
            r#"invalid field: "traceState" (allowed: trace_id, span_id, trace_flags, trace_state)"#,
        ),
        (with("is_remote", json!(true)), r#"invalid field: "is_remote""#),
        (
            r#"{"span_id":"0000000000000007","span_id":"0000000000000007"}"#.into(),
            "duplicate field `span_id`",
        ),
        (r#"{"trace_state":"","trace_state":"a=1"}"#.into(), "duplicate field `trace_state`"),
        ("[]".into(), "invalid type: sequence, expected a span context: an object with trace_id"),
        ("7".into(), "expected a span context"),
        ("{}".into(), "missing field `trace_id`"),
    ] {
        let error = read(&text).unwrap_err();
        assert!(error.contains(said), "{text}: {error}");
    }
    let long = json!("x".repeat(1000));
    let texts =
        [with(long.as_str().unwrap(), json!(1)), with("span_id", long.clone()), long.to_string()];
    for text in texts {
        let error = read(&text).unwrap_err();
        assert!(
            error.contains(&"x".repeat(64)) && error.len() < 300,
            "little is shown of what is long: {error}"
        );
    }
}

/// Names need not be text in other formats than JSON.
#[test]
fn number_is_no_name() {
    let map: MapDeserializer<'_, _, serde::de::value::Error> =
        MapDeserializer::new([(7, "a")].into_iter());
    let error = json::deserialize(map).unwrap_err().to_string();
    let expected = "invalid type: integer `7`, expected field: trace_id, span_id, trace_flags, ";
    assert!(error.starts_with(expected), "{error}");
}

#[test]
fn missing_context_is_null() {
    for context in [
        SpanContext::NONE,
        SpanContext::new(
            TraceId::from(1_u128),
            SpanId::INVALID,
            TraceFlags::SAMPLED,
            true,
            TraceState::NONE,
        ),
    ] {
        assert_eq!(written(&context), Value::Null);
    }
    let message = Message { context: SpanContext::NONE, cause: None };
    let text = serde_json::to_string(&message).unwrap();
    assert_eq!(text, r#"{"context":null,"cause":null}"#);
    assert_eq!(serde_json::from_str::<Message>(&text).unwrap(), message);
    let error = serde_json::from_str::<Message>("{}").unwrap_err().to_string();
    assert!(error.contains("missing field `context`"), "{error}");
}

#[test]
fn written_context_is_read_back() {
    let mut random = Random(4);
    for _ in 0..2000 {
        let members = (0..random.below(33)).map(|n| (format!("k{n}"), format!("{:x}", n * n)));
        let context = SpanContext::new(
            TraceId::from(u128::from(random.next()) << 64 | 1),
            SpanId::from(random.next() | 1),
            TraceFlags::new(random.next() as u8),
            true,
            TraceState::from_key_value(members.collect::<Vec<_>>()).unwrap(),
        );
        let message = Message { context: context.clone(), cause: Some(Json(context)) };
        let text = serde_json::to_string(&message).unwrap();
        assert_eq!(serde_json::from_str::<Message>(&text).unwrap(), message, "{text}");
    }
}

/// The API admits trace states that no header may have.
#[test]
fn unreadable_trace_state_is_omitted() {
    for member in [("", "v"), ("k", ""), ("k", "line\r\nbreak"), ("k", "é")] {
        let state = TraceState::from_key_value([member]).unwrap();
        let expected = with_state(7, &TraceState::NONE);
        assert_eq!(read(&written(&with_state(7, &state)).to_string()), Ok(expected), "{member:?}");
    }
}
