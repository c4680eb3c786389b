//! Attribute maps, as of Pub/Sub: what is read and written under which names.

use batchlink::carrier::{
    Attributes, AttributesMut, PUBSUB_PREFIX, format_traceparent, parse_traceparent,
};
use opentelemetry::Context;
use opentelemetry::propagation::{Extractor, Injector, TextMapPropagator};
use opentelemetry::trace::{SpanContext, SpanId, TraceContextExt, TraceFlags, TraceId, TraceState};
use opentelemetry_sdk::propagation::TraceContextPropagator;
use proptest::prelude::*;
use std::collections::HashMap;

fn of(attributes: &[(&str, &str)]) -> HashMap<String, String> {
    attributes.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

#[test]
fn only_prefixed_attributes_are_read() {
    let message = of(&[
        ("traceparent", "plain"),
        ("googclient_traceparent", "prefixed"),
        ("googclient_", "bare"),
        ("Googclient_tracestate", "other case"),
    ]);
    let prefixed = Attributes::new(&message).with_prefix(PUBSUB_PREFIX);
    assert_eq!(prefixed.get("traceparent"), Some("prefixed"));
    assert_eq!(prefixed.get_all("traceparent"), Some(vec!["prefixed"]));
    assert_eq!(prefixed.get("tracestate"), None);
    assert_eq!(prefixed.get("Traceparent"), None, "names are compared as they are");
    assert_eq!(prefixed.get(""), Some("bare"));
    let mut names = prefixed.keys();
    names.sort_unstable();
    assert_eq!(names, ["", "traceparent"]);

    let plain = Attributes::new(&message);
    assert_eq!(plain.get("traceparent"), Some("plain"));
    assert_eq!(plain.get("googclient_traceparent"), Some("prefixed"));
    assert_eq!(plain.keys().len(), 4);
}

/// A trace state belongs to its `traceparent`; an empty one is not written.
#[test]
fn new_traceparent_removes_tracestate() {
    let old = [("traceparent", "1"), ("tracestate", "a=1"), ("id", "7")];
    type Sets<'a> = &'a [(&'a str, &'a str)];
    for (sets, expected) in [
        (&[("traceparent", "5")] as Sets<'_>, &[("id", "7"), ("traceparent", "5")] as Sets<'_>),
        (&[("traceparent", "5"), ("tracestate", "")], &[("id", "7"), ("traceparent", "5")]),
        (&[("tracestate", " "), ("traceparent", "5")], &[("id", "7"), ("traceparent", "5")]),
        (
            &[("tracestate", "d=4"), ("traceparent", "5")],
            &[("id", "7"), ("tracestate", "d=4"), ("traceparent", "5")],
        ),
        (
            &[("traceparent", "5"), ("tracestate", "d=4")],
            &[("id", "7"), ("traceparent", "5"), ("tracestate", "d=4")],
        ),
        (&[("tracestate", "")], &[("traceparent", "1"), ("id", "7")]),
        (&[("id", "")], &[("traceparent", "1"), ("tracestate", "a=1"), ("id", "")]),
    ] {
        for prefix in ["", PUBSUB_PREFIX] {
            let with = |attributes: Sets<'_>| -> HashMap<String, String> {
                let named = |(name, value)| (format!("{prefix}{name}"), String::from(value));
                attributes.iter().copied().map(named).collect()
            };
            let mut message = with(&old);
            let mut attributes = AttributesMut::new(&mut message).with_prefix(prefix);
            sets.iter().for_each(|(name, value)| attributes.set(name, (*value).to_owned()));
            assert_eq!(message, with(expected), "{sets:?}");
        }
    }
}

/// Attributes of the application, which have no prefix, stay.
#[test]
fn unprefixed_tracestate_stays() {
    let mut message = of(&[("tracestate", "a=1"), ("googclient_tracestate", "b=2")]);
    let mut attributes = AttributesMut::new(&mut message).with_prefix(PUBSUB_PREFIX);
    attributes.reserve(100);
    attributes.set("traceparent", "5".to_owned());
    assert!(message.capacity() >= 102);
    assert_eq!(message, of(&[("tracestate", "a=1"), ("googclient_traceparent", "5")]));
}

proptest! {
    /// Through W3C's propagator, as Google's clients write it, and by hand.
    #[test]
    fn written_context_is_read_back(
        trace in 1_u128.., span in 1_u64.., sampled: bool,
        members in prop::collection::btree_map("[a-z][a-z0-9_*/-]{0,8}", "[!-+--<>-~]{1,9}", 0..5),
        prefix in prop_oneof![Just(""), Just(PUBSUB_PREFIX)],
    ) {
        let state = TraceState::from_key_value(members).unwrap();
        let (trace, span) = (TraceId::from(trace), SpanId::from(span));
        let flags = TraceFlags::default().with_sampled(sampled);
        let context = SpanContext::new(trace, span, flags, true, state);

        let propagator = TraceContextPropagator::new();
        let mut message = of(&[("tracestate", "of=another"), ("googclient_tracestate", "old=1")]);
        let mut writer = AttributesMut::new(&mut message).with_prefix(prefix);
        propagator.inject_context(
            &Context::new().with_remote_span_context(context.clone()), &mut writer);

        let reader = Attributes::new(&message).with_prefix(prefix);
        let found = propagator.extract_with_context(&Context::new(), &reader);
        prop_assert_eq!(&found.span().span_context().clone(), &context);
        let header = reader.get("traceparent").unwrap();
        prop_assert_eq!(header, format_traceparent(&context));
        prop_assert_eq!(parse_traceparent(header, reader.get("tracestate")), Ok(context));
    }
}
