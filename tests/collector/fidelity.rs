//! Promise 9: what was pushed arrives at an exporter as it was, through the OpenTelemetry SDK.

use super::common::*;
use batchlink::{LinkBatch, LinkCollector, LinkPolicy, LinkSet, PushError, Trigger, Unsampled};
use opentelemetry::trace::{
    Link, Span, SpanContext, SpanKind, TraceContextExt, TraceFlags, TraceId,
};
use opentelemetry::trace::{TraceState, Tracer, TracerProvider, mark_span_as_active};
use opentelemetry::{Context, Key, KeyValue, Value};
use opentelemetry_sdk::trace::{InMemorySpanExporter, SdkTracerProvider, ShouldSample, SpanData};
use opentelemetry_sdk::trace::{SamplingDecision, SamplingResult};
use std::sync::{Arc, Mutex};

/// Starts and ends the batch's span; what the exporter got.
fn export(batch: LinkBatch) -> SpanData {
    let exporter = InMemorySpanExporter::default();
    let provider = SdkTracerProvider::builder().with_simple_exporter(exporter.clone()).build();
    drop(batch.start(&provider.tracer("test"), "batch"));
    exporter.get_finished_spans().unwrap().remove(0)
}

fn attribute(attributes: &[KeyValue], key: &str) -> Option<Value> {
    attributes
        .iter()
        .find(|attribute| attribute.key == Key::from(key.to_owned()))
        .map(|a| a.value.clone())
}

/// A context with something in every field.
fn remote(number: u64, flags: u8, state: TraceState) -> SpanContext {
    let mut bytes = [0; 16];
    bytes[0] = 0xab;
    bytes[15] = number as u8;
    let span = opentelemetry::trace::SpanId::from(number << 40 | 0x1234);
    SpanContext::new(TraceId::from_bytes(bytes), span, TraceFlags::new(flags), true, state)
}

#[test]
fn every_field_arrives() {
    let builder = LinkCollector::builder()
        .with_max_batch_size(20)
        .with_link_policy(LinkPolicy::new().with_unsampled(Unsampled::Keep));
    let (collector, mut flusher) = builder.with_shards(1).build().unwrap();
    let state = TraceState::from_key_value([("one", "1"), ("two@vendor", "2 2")]).unwrap();
    let contexts = [
        remote(1, 0b01, TraceState::NONE),
        remote(2, 0b11, state.clone()),
        remote(3, 0b00, state.clone()),
        remote(4, 0xfe, TraceState::NONE),
        context(5),
        with_state(6, &state),
    ];
    for context in &contexts {
        collector.push(context).unwrap();
    }
    let linked = remote(7, 0b01, state);
    let attributes = vec![KeyValue::new("messaging.message.id", "m-7"), KeyValue::new("n", 7)];
    collector.push_link(Link::new(linked.clone(), attributes.clone(), 3)).unwrap();
    collector.push_link(Link::with_context(remote(8, 1, TraceState::NONE))).unwrap();

    let batch = flusher.try_next().unwrap();
    // Asked here because the SDK counts anew.
    assert_eq!(batch.links()[6].dropped_attributes_count, 3);
    let span = export(batch);
    let links = &span.links.links;
    for (link, context) in links.iter().zip(&contexts) {
        assert_eq!(&link.span_context, context);
        assert_eq!(link.attributes, [KeyValue::new("link.type", "batch_item")]);
        assert_eq!(link.dropped_attributes_count, 0);
    }
    assert_eq!(links[6].span_context, linked);
    assert_eq!(links[6].attributes[..2], attributes);
    assert_eq!(links[6].attributes[2..], [KeyValue::new("link.type", "batch_item")]);
    assert_eq!(links[7].span_context, remote(8, 1, TraceState::NONE));
    assert_eq!(links.len(), 8);
}

#[test]
fn push_current_links_active_span() {
    let (collector, mut flusher) = LinkCollector::builder().build().unwrap();
    let provider = SdkTracerProvider::builder().build();
    let expected = provider.tracer("test").in_span("request", |cx| {
        collector.push_current().unwrap();
        collector.producer().push_current().unwrap();
        cx.span().span_context().clone()
    });
    let batch = flusher.try_next().unwrap();
    assert_eq!((batch.links()[0].span_context.clone(), batch.duplicates()), (expected, 1));
}

#[test]
fn batch_span_states_counts() {
    let (collector, mut flusher) = by_size(5).with_max_links(3).with_shards(1).build().unwrap();
    let spans = [Trigger::Size, Trigger::Manual].map(|trigger| {
        let contexts = if trigger == Trigger::Size { [1, 1, 2, 3, 4] } else { [1, 1, 2, 2, 3] };
        for number in &contexts[..5 - usize::from(trigger == Trigger::Manual)] {
            collector.push(&context(*number)).unwrap();
        }
        collector.flush();
        export(flusher.next_batch().unwrap())
    });
    let of = |span: &SpanData, key: &str| attribute(&span.attributes, key);
    assert_eq!(spans[0].name, "batch");
    assert_eq!(of(&spans[0], "batch.size"), Some(Value::I64(5)));
    assert_eq!(of(&spans[0], "batch.links"), Some(Value::I64(3)));
    assert_eq!(of(&spans[0], "batch.trigger"), Some("size_limit".into()));
    assert_eq!(of(&spans[0], "links.truncated"), Some(Value::Bool(true)));
    assert_eq!(of(&spans[0], "links.original_count"), Some(Value::I64(4)));
    assert_eq!(of(&spans[0], "links.duplicates"), Some(Value::I64(1)));
    assert_eq!(spans[0].attributes.len(), 6);
    // Nothing was cut here: a duplicate is no loss.
    assert_eq!(of(&spans[1], "batch.size"), Some(Value::I64(4)));
    assert_eq!(of(&spans[1], "batch.links"), Some(Value::I64(2)));
    assert_eq!(of(&spans[1], "batch.trigger"), Some("manual".into()));
    assert_eq!(of(&spans[1], "links.duplicates"), Some(Value::I64(2)));
    assert_eq!(spans[1].attributes.len(), 4);
}

#[test]
fn parent_is_current_context() {
    let exporter = InMemorySpanExporter::default();
    let provider = SdkTracerProvider::builder().with_simple_exporter(exporter.clone()).build();
    let tracer = provider.tracer("test");
    let mut set = LinkSet::builder().build().unwrap();
    let parent = Context::new().with_remote_span_context(context(77));
    {
        let _current = parent.attach();
        drop(set.finish().start(&tracer, "child"));
    }
    drop(set.finish().span_builder("root").with_kind(SpanKind::Consumer).start(&tracer));
    let spans = exporter.get_finished_spans().unwrap();
    assert_eq!(spans[0].parent_span_id, context(77).span_id());
    assert_eq!(spans[0].span_context.trace_id(), context(77).trace_id());
    assert_eq!(spans[1].parent_span_id, opentelemetry::trace::SpanId::INVALID);
    assert_eq!(spans[1].span_kind, SpanKind::Consumer);
}

/// The flusher chooses the type of a link that has none.
#[test]
fn own_link_type_is_kept() {
    let own = Link::new(context(2), vec![KeyValue::new("link.type", "own")], 0);
    let types = |builder: batchlink::LinkCollectorBuilder| {
        let (collector, mut flusher) = builder.with_shards(1).build().unwrap();
        collector.push(&context(1)).unwrap();
        collector.push_link(own.clone()).unwrap();
        let links = export(flusher.try_next().unwrap()).links.links;
        links.into_iter().map(|link| link.attributes).collect::<Vec<_>>()
    };
    let of_type = |kind: &'static str| vec![KeyValue::new("link.type", kind)];
    assert_eq!(types(LinkCollector::builder()), [of_type("batch_item"), of_type("own")]);
    let named = LinkCollector::builder()
        .with_link_policy(LinkPolicy::new().with_link_type(String::from("row")));
    assert_eq!(types(named), [of_type("row"), of_type("own")]);
    assert_eq!(
        types(LinkCollector::builder().with_link_policy(LinkPolicy::new().without_link_type())),
        [vec![], of_type("own")]
    );

    let mut set = LinkSet::builder()
        .with_link_policy(LinkPolicy::new().with_link_type("row"))
        .build()
        .unwrap();
    set.insert(&context(1));
    set.insert_link(own.clone());
    let links = set.finish().into_links();
    assert_eq!([&links[0].attributes, &links[1].attributes], [&of_type("row"), &of_type("own")]);
}

/// Notes what it is shown, and samples nothing.
#[derive(Clone, Debug, Default)]
struct Observer(Arc<Mutex<Vec<(usize, usize)>>>);

impl ShouldSample for Observer {
    fn should_sample(
        &self,
        _parent: Option<&Context>,
        _trace: TraceId,
        _name: &str,
        _kind: &SpanKind,
        attributes: &[KeyValue],
        links: &[Link],
    ) -> SamplingResult {
        self.0.lock().unwrap().push((links.len(), attributes.len()));
        let trace_state = TraceState::NONE;
        SamplingResult { decision: SamplingDecision::Drop, attributes: vec![], trace_state }
    }
}

#[test]
fn sampler_sees_links() {
    let observer = Observer::default();
    let provider = SdkTracerProvider::builder().with_sampler(observer.clone()).build();
    let (collector, mut flusher) = LinkCollector::builder().build().unwrap();
    for number in 1..=3 {
        collector.push(&context(number)).unwrap();
    }
    let span = flusher.try_next().unwrap().start(&provider.tracer("test"), "batch");
    assert!(!span.span_context().is_sampled());
    assert_eq!(*observer.0.lock().unwrap(), [(3, 3)]);
}

/// By every way into a batch: which members are left of a state over 512 bytes.
#[test]
fn long_trace_state_loses_members() {
    // A member of so many bytes.
    let of = |key: &str, bytes: usize| (key.to_owned(), "v".repeat(bytes - key.len() - 1));
    let members = |list: &[(&str, usize)]| {
        TraceState::from_key_value(list.iter().map(|&(key, bytes)| of(key, bytes))).unwrap()
    };
    // Members, and the keys that are left.
    type Case<'a> = (&'a [(&'a str, usize)], &'a [&'a str]);
    let cases: [Case<'_>; 9] = [
        // 512 bytes with the commas.
        (&[("a", 127), ("b", 127), ("c", 127), ("d", 128)], &["a", "b", "c", "d"]),
        // From the right.
        (&[("a", 127), ("b", 127), ("c", 127), ("d", 120), ("e", 9)], &["a", "b", "c", "d"]),
        (&[("a", 128), ("b", 128), ("c", 128), ("d", 128), ("e", 128)], &["a", "b", "c"]),
        // Those over 128 characters first, of these the rightmost.
        (&[("a", 100), ("b", 129), ("c", 100), ("d", 100), ("e", 100)], &["a", "c", "d", "e"]),
        (&[("a", 100), ("b", 200), ("c", 200), ("d", 100)], &["a", "b", "d"]),
        // The leftmost and OpenTelemetry's own stay as long as they can.
        (&[("a", 250), ("b", 128), ("c", 128), ("ot", 200)], &["a", "ot"]),
        (&[("a", 250), ("b", 20), ("c", 20), ("d", 250), ("ot", 200)], &["a", "b", "c", "ot"]),
        (&[("a", 258), ("b", 9), ("ot", 258)], &["a"]),
        (&[("ot", 250), ("b", 20), ("c", 258)], &["ot", "b"]),
    ];
    let (collector, mut flusher) = LinkCollector::builder().with_shards(1).build().unwrap();
    let mut set = LinkSet::builder().build().unwrap();
    for (list, left) in cases {
        let state = members(list);
        let kept: Vec<_> = list.iter().copied().filter(|(key, _)| left.contains(key)).collect();
        let expected = members(&kept);
        let cut = u64::from(kept.len() < list.len());
        let contexts = [1, 2, 3].map(|number| with_state(number, &state));
        collector.push(&contexts[0]).unwrap();
        collector.push_link(Link::with_context(contexts[1].clone())).unwrap();
        collector.push_all(&contexts[2..]);
        set.insert(&contexts[0]);
        set.insert_link(Link::with_context(contexts[1].clone()));
        for (batch, ways) in [(flusher.try_next().unwrap(), 3), (set.finish(), 2)] {
            assert_eq!(batch.counts().trace_states_cut, cut * ways, "{list:?}");
            for link in export(batch).links.iter() {
                assert_eq!(link.span_context.trace_state(), &expected, "{list:?}");
                assert!(link.span_context.is_remote(), "nothing else is lost with it");
            }
        }
    }
    assert_eq!(collector.stats().counts().trace_states_cut, 3 * 8);
}

/// One member that does not fit leaves none.
#[test]
fn unfit_member_empties_trace_state() {
    let key = "k".repeat(256);
    let state = TraceState::from_key_value([(key, "v".repeat(256))]).unwrap();
    let mut set = LinkSet::builder().build().unwrap();
    set.insert(&with_state(1, &state));
    let batch = set.finish();
    assert_eq!(batch.links()[0].span_context, with_state(1, &TraceState::NONE));
    assert_eq!(batch.counts().trace_states_cut, 1);
}

/// Each length there is, on both sides of the limit.
#[test]
fn every_trace_state_fits() {
    let mut set = LinkSet::builder().build().unwrap();
    let (collector, mut flusher) = by_size(1).with_shards(1).build().unwrap();
    for bytes in 4..=1100 {
        let state = state_of(bytes);
        collector.push(&with_state(1, &state)).unwrap();
        set.insert(&with_state(1, &state));
        for batch in [flusher.try_next().unwrap(), set.finish()] {
            let left = batch.links()[0].span_context.trace_state().header();
            // Of members of up to 200 bytes, so nothing is lost needlessly.
            assert!(
                left.len() <= 512 && (left.len() > 312 || bytes <= 512),
                "{} of {bytes}",
                left.len()
            );
            let expected = (bytes <= 512, u64::from(bytes > 512));
            assert_eq!(
                (left == state.header(), batch.counts().trace_states_cut),
                expected,
                "{bytes} bytes"
            );
        }
    }
}

#[test]
fn refused_link_is_returned() {
    let attributes = || vec![KeyValue::new("a", 1), KeyValue::new("b", "two")];
    let links = [
        Link::with_context(context(1)),
        Link::new(with_flags(2, TraceFlags::new(0xa2)), attributes(), 0),
        Link::new(context(3), vec![], 9),
        Link::with_context(with_state(4, &state_of(512))),
        Link::with_context(with_state(5, &state_of(513))),
        Link::new(with_state(6, &state_of(900)), attributes(), 4),
    ];
    let (collector, flusher) = by_size(1).with_queue_capacity(1).with_shards(1).build().unwrap();
    collector.push(&context(1)).unwrap();
    for reason in [PushError::Full, PushError::Closed] {
        for link in &links {
            let refused = collector.push_link(link.clone()).unwrap_err();
            assert_eq!(refused.reason(), reason);
            assert_eq!(refused.to_string(), format!("link not accepted: {reason}"));
            assert_eq!(&refused.into_link(), link);
        }
        collector.close();
    }
    drop(flusher);
}

/// As the docs of `spawn` show: what the handler starts is a child of the batch span if that is
/// attached, and a root if not.
#[test]
fn attached_batch_span_is_parent() {
    let exporter = InMemorySpanExporter::default();
    let provider = SdkTracerProvider::builder().with_simple_exporter(exporter.clone()).build();
    let tracer = provider.tracer("test");
    for attach in [true, false] {
        let tracer = tracer.clone();
        let (collector, flusher) = by_size(1).build().unwrap();
        let handle = flusher.spawn(move |batch| {
            let span = batch.start(&tracer, "batch");
            if attach {
                let _current = mark_span_as_active(span);
                drop(tracer.start("query"));
            } else {
                drop(tracer.start("query"));
            }
        });
        let handle = handle.unwrap();
        collector.push(&context(1)).unwrap();
        handle.shutdown_with_timeout(std::time::Duration::MAX).unwrap();
    }
    let spans = exporter.get_finished_spans().unwrap();
    let names: Vec<_> = spans.iter().map(|span| &*span.name).collect();
    assert_eq!(names, ["query", "batch", "query", "batch"]);
    assert_eq!(spans[0].parent_span_id, spans[1].span_context.span_id());
    assert_eq!(spans[2].parent_span_id, opentelemetry::trace::SpanId::INVALID);
}
