//! `carrier::extract` and `inject` use the process's propagator: one test, since there is one of
//! those.
#![allow(clippy::unwrap_used)] // in the helpers of tests, as in tests

mod common;

use batchlink::carrier::{Headers, HeadersMut, extract, inject};
use common::{context, small_state, with_state};
use opentelemetry::propagation::text_map_propagator::FieldIter;
use opentelemetry::propagation::{Extractor, Injector, TextMapPropagator};
use opentelemetry::trace::{SpanContext, SpanId, TraceContextExt, TraceFlags, TraceId, TraceState};
use opentelemetry::{Context, global};
use opentelemetry_sdk::propagation::TraceContextPropagator;
use std::collections::HashMap;

/// Panics at each call.
#[derive(Debug)]
struct Broken;

impl TextMapPropagator for Broken {
    fn inject_context(&self, _context: &Context, injector: &mut dyn Injector) {
        injector.set("half", "written".to_owned());
        panic!("on purpose")
    }

    fn extract_with_context(&self, _context: &Context, _extractor: &dyn Extractor) -> Context {
        panic!("on purpose")
    }

    fn fields(&self) -> FieldIter<'_> {
        FieldIter::new(&[])
    }
}

/// Made without the SDK: one header with the span id, and no mark that the context is remote.
#[derive(Debug)]
struct Decimal;

impl TextMapPropagator for Decimal {
    fn inject_context(&self, context: &Context, injector: &mut dyn Injector) {
        let span = u64::from_be_bytes(context.span().span_context().span_id().to_bytes());
        injector.set("X-Span", span.to_string());
    }

    fn extract_with_context(&self, context: &Context, extractor: &dyn Extractor) -> Context {
        let Some(span) = extractor.get("x-span").and_then(|text| text.parse::<u64>().ok()) else {
            return context.clone();
        };
        let (trace, flags) = (TraceId::from(0xfeed_u128), TraceFlags::SAMPLED);
        let local = SpanContext::new(trace, SpanId::from(span), flags, false, small_state());
        context.with_remote_span_context(local)
    }

    fn fields(&self) -> FieldIter<'_> {
        FieldIter::new(&[])
    }
}

/// One `traceparent` and these `tracestate`s, of which `get` returns the first.
struct Multi(Vec<&'static str>);

impl Extractor for Multi {
    fn get(&self, key: &str) -> Option<&str> {
        match key {
            "traceparent" => Some("00-0000000000000000000000000000feed-0000000000000007-01"),
            "tracestate" => self.0.first().copied(),
            _ => None,
        }
    }

    fn keys(&self) -> Vec<&str> {
        vec!["traceparent", "tracestate"]
    }

    fn get_all(&self, key: &str) -> Option<Vec<&str>> {
        match key {
            "tracestate" => Some(self.0.clone()).filter(|values| !values.is_empty()),
            _ => self.get(key).map(|value| vec![value]),
        }
    }
}

fn injected(context: &SpanContext) -> Vec<(String, Vec<u8>)> {
    let mut headers = Vec::new();
    inject(context, &mut HeadersMut::new(&mut headers));
    headers
}

#[test]
fn propagator_decides() {
    // An active span, which must play no part in any of this.
    let _active = Context::new().with_remote_span_context(context(99)).attach();

    // None is configured.
    let w3c = [("traceparent", "00-0000000000000000000000000000feed-0000000000000007-01")];
    assert_eq!(extract(&Headers::new(&w3c)), None);
    assert_eq!(injected(&context(7)), []);

    global::set_text_map_propagator(Decimal);
    assert_eq!(extract(&Headers::new(&w3c)), None);
    assert_eq!(injected(&context(7)), [("X-Span".to_owned(), b"7".to_vec())]);
    assert_eq!(
        extract(&Headers::new(&[("X-SPAN", "7")])),
        Some(with_state(7, &small_state())),
        "remote"
    );
    assert_eq!(extract(&Headers::new(&[("X-Span", "0")])), None, "not valid");
    assert_eq!(injected(&SpanContext::NONE), []);

    global::set_text_map_propagator(Broken);
    assert_eq!(extract(&Headers::new(&w3c)), None);
    assert_eq!(injected(&context(7)), [("half".to_owned(), b"written".to_vec())]);

    global::set_text_map_propagator(TraceContextPropagator::new());
    assert_eq!(extract(&Headers::new(&w3c)), Some(with_state(7, &TraceState::NONE)));
    let stateful = with_state(8, &small_state());
    assert_eq!(extract(&Headers::new(&injected(&stateful))).as_ref(), Some(&stateful));
    let mut map = HashMap::new();
    inject(&stateful, &mut map);
    assert_eq!(extract(&map), Some(stateful), "any carrier will do");

    // Any carrier that knows all values of a name: several trace states are one list.
    let states = Multi(vec!["rojo=1", "", "congo=2"]);
    let expected = TraceState::from_key_value([("rojo", "1"), ("congo", "2")]).unwrap();
    assert_eq!(extract(&states), Some(with_state(7, &expected)));
    assert_eq!(extract(&Multi(vec![])), Some(with_state(7, &TraceState::NONE)));

    // No header for a trace state that is empty, and none left of an earlier hop's.
    let stateless = with_state(9, &TraceState::NONE);
    let names = |headers: &[(String, Vec<u8>)]| -> Vec<String> {
        headers.iter().map(|(name, _)| name.clone()).collect()
    };
    assert_eq!(names(&injected(&stateless)), ["traceparent"]);
    let mut forwarded = injected(&with_state(8, &small_state()));
    assert_eq!(names(&forwarded), ["traceparent", "tracestate"]);
    inject(&stateless, &mut HeadersMut::new(&mut forwarded));
    assert_eq!(extract(&Headers::new(&forwarded)), Some(stateless.clone()));
    assert_eq!(names(&forwarded), ["traceparent"]);
    let mut map = HashMap::new();
    inject(&stateless, &mut map);
    assert_eq!(map.keys().collect::<Vec<_>>(), ["traceparent"]);
    assert_eq!(extract(&Headers::<&str, &str>::new(&[])), None);
}
