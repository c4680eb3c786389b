//! Contexts with OTLP's names: what is written, what is read, what is refused, and that it comes
//! back.

use super::common::{small_state, with_flags, with_state};
use super::documents::changed;
use batchlink::carrier::json::otlp::{self, Json};
use opentelemetry::trace::{SpanContext, SpanId, TraceFlags, TraceId, TraceState};
use proptest::prelude::*;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Message {
    #[serde(with = "otlp")]
    context: SpanContext,
    causes: Vec<Json>,
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

fn context(flags: u8, remote: bool) -> SpanContext {
    let (trace, span) = (TraceId::from(0xfeed_u128), SpanId::from(0xbeef));
    SpanContext::new(trace, span, TraceFlags::new(flags), remote, TraceState::NONE)
}

#[test]
fn names_and_flags_are_otlps() {
    for (flags, remote, expected) in
        [(1, false, 0x101), (1, true, 0x301), (0, false, 0x100), (0xff, true, 0x3ff)]
    {
        let expected = json!({
            "traceId": "0000000000000000000000000000feed",
            "spanId": "000000000000beef",
            "flags": expected,
        });
        assert_eq!(written(&context(flags, remote)), expected);
    }
    let state = json!("vendor=value");
    assert_eq!(written(&with_state(7, &small_state()))["traceState"], state);
    assert_eq!(written(&SpanContext::NONE), Value::Null);
}

#[test]
fn every_form_is_read() {
    let upper = r#"{"traceId":"0000000000000000000000000000FEED","spanId":"000000000000bEeF"}"#;
    assert_eq!(read(upper).unwrap(), context(0, true), "ids of either case, no flags");
    let flags = |value| read(&with("flags", value)).unwrap().trace_flags().to_u8();
    for (value, expected) in [
        (json!(0), 0),
        (json!(1), 1),
        (json!(0x1ff), 0xff),
        (json!(0x301), 1),
        (json!(u32::MAX), 0xff),
        (Value::Null, 0),
        (json!("removed"), 0),
    ] {
        assert_eq!(flags(value.clone()), expected, "{value}");
    }
    for state in [json!("removed"), json!(""), Value::Null] {
        assert_eq!(*read(&with("traceState", state)).unwrap().trace_state(), TraceState::NONE);
    }
    let found = read(&with("traceState", json!(" vendor=value ,"))).unwrap();
    assert_eq!(found, with_state(7, &small_state()));
    assert_eq!(read("null"), Ok(SpanContext::NONE));
    assert!(read(&written(&context(1, false)).to_string()).unwrap().is_remote());
}

#[test]
fn refused_field_is_named() {
    for (text, said) in [
        (
            with("traceId", json!("feed")),
            r#"invalid traceId: "feed" (allowed: 32 hex digits, not all zero)"#,
        ),
        (with("traceId", json!("0".repeat(32))), "invalid traceId"),
        (with("traceId", json!("1".repeat(33))), "invalid traceId"),
        (with("traceId", json!("é".repeat(16))), "invalid traceId"),
        (with("traceId", json!(7)), "expected traceId: 32 hex digits"),
        (with("traceId", Value::Null), "invalid type: null, expected traceId: "),
        (with("traceId", json!("removed")), "missing field `traceId`"),
        (
            with("spanId", json!("+00000000000000F")),
            r#"invalid spanId: "+00000000000000F" (allowed: 16 hex digits, not all zero)"#,
        ),
        (with("spanId", json!("0".repeat(16))), "invalid spanId"),
        (with("spanId", json!("removed")), "missing field `spanId`"),
        (
            with("flags", json!(u64::from(u32::MAX) + 1)),
            "invalid value: integer `4294967296`, expected flags: a number from 0 to 4294967295",
        ),
        (with("flags", json!("01")), r#"invalid flags: "01" (allowed: a number from 0 to"#),
        (with("flags", json!(-1)), "invalid type: integer `-1`, expected flags: "),
        (with("flags", json!(1.0)), "invalid type: floating point `1.0`, expected flags: "),
        (with("traceState", json!("a")), r#"invalid traceState: "a" (allowed: at most 32 members"#),
        (
            with("trace_state", json!("a=1")),
            r#"invalid field: "trace_state" (allowed: traceId, spanId, flags, traceState)"#,
        ),
        (with("attributes", json!([])), r#"invalid field: "attributes""#),
        (r#"{"flags":1,"flags":1}"#.into(), "duplicate field `flags`"),
        ("7".into(), "expected a span context: an object with traceId"),
    ] {
        let error = read(&text).unwrap_err();
        assert!(error.contains(said), "{text}: {error}");
    }
    let long = with("spanId", json!("x".repeat(1000)));
    assert!(read(&long).unwrap_err().len() < 300, "little is shown of what is long");
}

/// The two modules refuse each other's names.
#[test]
fn names_are_not_mixed() {
    let ours = batchlink::carrier::json::Json(with_flags(7, TraceFlags::SAMPLED));
    let text = serde_json::to_string(&ours).unwrap();
    assert!(read(&text).unwrap_err().contains(r#"invalid field: "trace_id""#));
    let text = serde_json::to_string(&Json(ours.0)).unwrap();
    let error = serde_json::from_str::<batchlink::carrier::json::Json>(&text).unwrap_err();
    assert!(error.to_string().contains(r#"invalid field: "traceId""#), "{error}");
}

proptest! {
    #[test]
    fn written_context_is_read_back(
        trace in 1_u128.., span in 1_u64.., flags: u8, remote: bool,
        members in prop::collection::btree_map("[a-z][a-z0-9_*/-]{0,8}", "[!-+--<>-~]{1,9}", 0..5),
    ) {
        let state = TraceState::from_key_value(members).unwrap();
        let (trace, span) = (TraceId::from(trace), SpanId::from(span));
        let flags = TraceFlags::new(flags);
        let of = |remote| SpanContext::new(trace, span, flags, remote, state.clone());
        let message = Message { context: of(remote), causes: vec![Json(of(remote)); 2] };
        let text = serde_json::to_string(&message).unwrap();
        let expected = Message { context: of(true), causes: vec![Json(of(true)); 2] };
        prop_assert_eq!(serde_json::from_str::<Message>(&text).unwrap(), expected, "{}", text);
    }
}
