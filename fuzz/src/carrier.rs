//! Headers and attributes: read, refused and written as the specifications say, whatever they hold.
//!
//! The input is headers, `name:value` in each line. Values are any bytes but a line break.

use crate::{w3c, xray};
use batchlink::carrier::{
    Attributes, AttributesMut, Headers, HeadersMut, PUBSUB_PREFIX, format_traceparent, format_xray,
    parse_traceparent, parse_tracestate, parse_xray,
};
use opentelemetry::propagation::{Extractor, Injector};
use opentelemetry::trace::{SpanContext, TraceState};
use std::collections::HashMap;

type Header = (String, Vec<u8>);

pub fn carrier(data: &[u8]) {
    let headers: Vec<Header> = data.split(|&byte| byte == b'\n').filter_map(header).collect();
    read_as_listed(&headers);
    write_in_place_of_namesakes(headers.clone());
    attributes(&headers, "");
    attributes(&headers, PUBSUB_PREFIX);
    // Whatever its name: a mutation of the text is more useful than one of the name.
    let state = Headers::new(&headers).get("tracestate").map(str::to_owned);
    for (_, value) in &headers {
        if let Ok(text) = std::str::from_utf8(value) {
            parse(text, state.as_deref());
            parse_root(text);
        }
    }
}

fn header(line: &[u8]) -> Option<Header> {
    let colon = line.iter().position(|&byte| byte == b':')?;
    Some((String::from_utf8_lossy(&line[..colon]).into_owned(), line[colon + 1..].to_vec()))
}

fn texts<'a>(headers: &'a [Header], key: &str) -> Vec<&'a str> {
    let of_key = headers.iter().filter(|(name, _)| name.eq_ignore_ascii_case(key));
    of_key.filter_map(|(_, value)| std::str::from_utf8(value).ok()).collect()
}

fn read_as_listed(headers: &[Header]) {
    let carrier = Headers::new(headers);
    let names = headers.iter().map(|(name, _)| name.as_str());
    for key in names.take(16).chain(["traceparent", "tracestate", ""]) {
        let values = texts(headers, key);
        match key.eq_ignore_ascii_case("tracestate") {
            true => assert_eq!(
                carrier.get(key),
                w3c::tracestates(|name| texts(headers, name)).as_deref()
            ),
            false => assert_eq!(carrier.get(key), values.last().copied()),
        }
        assert_eq!(carrier.get_all(key).unwrap_or_default(), values);
    }
    let readable = headers.iter().filter(|(_, value)| std::str::from_utf8(value).is_ok());
    assert!(carrier.keys().into_iter().eq(readable.map(|(name, _)| name)));
}

fn write_in_place_of_namesakes(mut headers: Vec<Header>) {
    let before = headers.clone();
    HeadersMut::new(&mut headers).set("TraceParent", "new".to_owned());
    let pair =
        |name: &str| ["traceparent", "tracestate"].iter().any(|it| name.eq_ignore_ascii_case(it));
    let (set, others) = headers.split_last().expect("one was set");
    assert_eq!(*set, ("TraceParent".to_owned(), b"new".to_vec()));
    let kept = before.into_iter().filter(|(name, _)| !pair(name));
    assert!(others.iter().eq(kept.collect::<Vec<_>>().iter()));
}

/// The texts as a map: what is read under a prefix, and what a `traceparent` leaves of it.
fn attributes(headers: &[Header], prefix: &str) {
    let text =
        |(name, value): &Header| Some((name.clone(), std::str::from_utf8(value).ok()?.to_owned()));
    let mut map: HashMap<String, String> = headers.iter().filter_map(text).collect();
    let carrier = Attributes::new(&map).with_prefix(prefix);
    let mut names = carrier.keys();
    for name in &names {
        assert_eq!(carrier.get(name), map.get(&format!("{prefix}{name}")).map(String::as_str));
    }
    names.sort_unstable();
    let mut expected: Vec<_> = map.keys().filter_map(|name| name.strip_prefix(prefix)).collect();
    expected.sort_unstable();
    assert_eq!(names, expected);

    let mut left = map.clone();
    left.remove(&format!("{prefix}tracestate"));
    left.insert(format!("{prefix}traceparent"), "new".to_owned());
    let mut carrier = AttributesMut::new(&mut map).with_prefix(prefix);
    carrier.set("traceparent", "new".to_owned());
    carrier.set("tracestate", String::new());
    assert_eq!(map, left);
}

fn parse_root(header: &str) {
    match parse_xray(header) {
        Ok(context) => {
            let (trace, span, flags) = fields(&context);
            assert_eq!(Some((trace, span, flags == 1)), xray::header(header), "{header:?}");
            assert!(flags <= 1 && context.is_remote());
            assert_eq!(*context.trace_state(), TraceState::NONE);
            assert_eq!(parse_xray(&format_xray(&context)), Ok(context));
        }
        Err(error) => {
            assert_eq!(xray::header(header), None, "{header:?}: {error}");
            assert!(header.contains(error.value()) && error.value().len() <= 64);
            assert_shown(&error.to_string());
        }
    }
}

fn parse(traceparent: &str, tracestate: Option<&str>) {
    for state in [tracestate.unwrap_or_default(), traceparent] {
        let found = parse_tracestate(state);
        let members = found.as_ref().ok().map(|state| members(state.into_iter()));
        assert_eq!(members, w3c::tracestate(state), "{state:?}");
        match found {
            Ok(state) => assert_eq!(parse_tracestate(&state.header()).as_ref(), Ok(&state)),
            Err(error) => assert_shown(&error.to_string()),
        }
    }
    match parse_traceparent(traceparent, tracestate) {
        Ok(context) => {
            assert_eq!(Some(fields(&context)), w3c::traceparent(traceparent), "{traceparent:?}");
            assert!(context.is_remote() && context.is_valid());
            let state = context.trace_state();
            let kept = tracestate.and_then(w3c::tracestate).unwrap_or_default();
            assert_eq!(members(state.into_iter()), kept);
            let again = parse_traceparent(&format_traceparent(&context), Some(&state.header()));
            assert_eq!(again.as_ref(), Ok(&context));
        }
        Err(error) => {
            assert_eq!(w3c::traceparent(traceparent), None, "{traceparent:?}: {error}");
            assert!(traceparent.contains(error.value()) && error.value().len() <= 64);
            assert_shown(&error.to_string());
        }
    }
}

fn members<'a>(state: impl Iterator<Item = (&'a str, &'a str)>) -> Vec<(String, String)> {
    state.map(|(key, value)| (key.to_owned(), value.to_owned())).collect()
}

fn fields(context: &SpanContext) -> (u128, u64, u8) {
    let (trace, span) = (context.trace_id().to_bytes(), context.span_id().to_bytes());
    (u128::from_be_bytes(trace), u64::from_be_bytes(span), context.trace_flags().to_u8())
}

/// Fit for a log: one line, and not a long one.
fn assert_shown(error: &str) {
    assert!(!error.contains(char::is_control) && error.len() < 1000, "{error:?}");
}
