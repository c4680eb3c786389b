//! What spans say of items that share an answer.

use super::coalescing::{Item, answer, call};
use super::common::{NEVER, context, number, with_flags};
use super::support::{Text, account, spans, telemetry, text};
use batchlink::processor::{BatchProcessor, BatchProcessorBuilder};
use batchlink::{Invalid, LinkPolicy};
use opentelemetry::baggage::BaggageExt;
use opentelemetry::trace::{
    SpanContext, SpanId, Status, TraceContextExt, TraceFlags, TraceId, TraceState, Tracer,
};
use opentelemetry::{Context, KeyValue};
use opentelemetry_sdk::trace::SpanData;

fn of_size(size: usize) -> BatchProcessorBuilder<Item, u64, Text> {
    BatchProcessor::builder("batch")
        .with_max_batch_size(size)
        .with_max_delay(NEVER)
        .with_shards(1)
        .with_coalescing(|&(key, _)| key)
}

fn linked(span: &SpanData) -> Vec<u64> {
    span.links.iter().map(number).collect()
}

/// An item's span links the requests of all that it stands for, each span once, and has the outcome
/// once.
#[test]
fn item_span_links_whole_key() {
    let (_provider, tracer, exporter) = telemetry();
    let (submitter, mut processor) = of_size(6).build(tracer).unwrap();
    let items = [(7, 1), (8, 2), (7, 3), (7, 1), (8, 4), (9, 5)];
    let calls = items.map(|item| call(&submitter, item, item.1));
    submitter.close();
    processor.run_each(|(key, _), _| if key == 8 { Err("gone") } else { Ok(key) });
    assert_eq!(
        calls.map(|call| answer(call).ok()),
        [7, 0, 7, 7, 0, 9].map(|n| (n > 0).then_some(n))
    );
    let item_spans = spans(&exporter, "process_item");
    let links: Vec<_> = item_spans.iter().map(linked).collect();
    assert_eq!(links, [vec![1, 3], vec![2, 4], vec![5]]);
    let indices = item_spans.iter().map(|span| text(&span.attributes, "item.index").unwrap());
    assert!(indices.eq(["0", "1", "2"]));
    assert_eq!(item_spans[1].status, Status::error("gone"));
    assert_eq!(item_spans[0].events.len(), 1);
    let [batch] = spans(&exporter, "batch").try_into().unwrap();
    assert_eq!(account(&batch), "6 5 size_limit 1 4 2 0.6666666666666666");
    assert_eq!(batch.status, Status::error("2 items failed, first: gone"));
}

/// An item's span has no more links than the batch's may have.
#[test]
fn item_links_are_bounded() {
    let (_provider, tracer, exporter) = telemetry();
    let (submitter, mut processor) = of_size(5).with_max_links(3).build(tracer).unwrap();
    (1..=5).for_each(|n| submitter.submit_with_context((7, n), &context(n)).unwrap());
    submitter.close();
    processor.run_each(|(key, _), _| Ok(key));
    let [item] = spans(&exporter, "process_item").try_into().unwrap();
    assert_eq!(linked(&item), [1, 2, 3]);
}

/// The span of every call leads to the batch, that of a coalesced one too.
#[test]
fn each_call_links_back() {
    let (_provider, tracer, exporter) = telemetry();
    let (submitter, mut processor) =
        of_size(2).with_back_links(true).build(tracer.clone()).unwrap();
    let calls = ["one", "two"].map(|name| {
        let span = tracer.start(name);
        let cx = Context::new().with_span(span);
        let entered = cx.clone().attach();
        let mut call = Box::pin(submitter.call((7, 0)));
        let noop = &mut std::task::Context::from_waker(std::task::Waker::noop());
        assert!(call.as_mut().poll(noop).is_pending());
        drop(entered);
        (call, cx)
    });
    processor.next_batch().unwrap().succeed_all(|item| item.0);
    for (call, cx) in calls {
        assert_eq!(answer(call), Ok(7));
        cx.span().end();
    }
    let [batch] = spans(&exporter, "batch").try_into().unwrap();
    for name in ["one", "two"] {
        let [call] = spans(&exporter, name).try_into().unwrap();
        assert_eq!(call.links[0].span_context, batch.span_context);
    }
}

/// A key has a span if one of its items was not submitted where telemetry is suppressed. It links
/// that one.
#[test]
fn suppressed_first_keeps_span() {
    let (_provider, tracer, exporter) = telemetry();
    let (submitter, mut processor) = of_size(4).build(tracer).unwrap();
    for (key, n) in [(7, 0), (8, 0), (7, 3), (8, 0)] {
        let _suppressed = (n == 0).then(Context::enter_telemetry_suppressed_scope);
        submitter.submit_with_context((key, n), &context(n)).unwrap();
    }
    submitter.close();
    processor.run_each(|(key, _), cx| {
        assert_eq!(cx.is_telemetry_suppressed(), key == 8);
        Ok(key)
    });
    let [item] = spans(&exporter, "process_item").try_into().unwrap();
    assert_eq!(linked(&item), [3]);
}

/// The wait of an item that stands for others is the longest of theirs, so the batch's oldest wait
/// is an item's.
#[test]
fn wait_is_the_longest() {
    let (_provider, tracer, _exporter) = telemetry();
    let builder = of_size(2).with_shards(2).with_wait_times();
    let (submitter, mut processor) = builder.build(tracer).unwrap();
    let shards = [submitter.producer(), submitter.producer()];
    let mut younger_first = 0;
    for older in [0, 0, 1, 1] {
        shards[older].submit((7, 0)).unwrap();
        shards[1 - older].submit((7, 1)).unwrap();
        let batch = processor.next_batch().unwrap();
        assert_eq!(batch.len(), 1);
        assert_eq!(batch.items()[0].wait(), batch.oldest_wait());
        younger_first += batch.items()[0].payload().1;
        batch.succeed_all(|item| item.0);
    }
    // Whichever shard is read first.
    assert!(younger_first > 0);
}

/// The handler's item has its own baggage and not that of the others.
#[test]
fn baggage_is_the_first() {
    let (_provider, tracer, _exporter) = telemetry();
    let (submitter, mut processor) = of_size(3).with_baggage(true).build(tracer).unwrap();
    for (key, tenant) in [(7, "blue"), (8, "red"), (7, "green")] {
        let _cx = Context::new().with_baggage([KeyValue::new("tenant", tenant)]).attach();
        submitter.submit((key, 0)).unwrap();
    }
    submitter.close();
    let mut tenants = Vec::new();
    processor.run_each(|(key, _), cx| {
        tenants.push(cx.baggage().get("tenant").unwrap().to_string());
        Ok(key)
    });
    assert_eq!(tenants, ["blue", "red"]);
}

/// An unsampled context, which is not linked, does not stand for a sampled one of the same span.
/// Contexts without a trace id are not taken for one span.
#[test]
fn unlinked_context_hides_none() {
    let (_provider, tracer, exporter) = telemetry();
    let policy = LinkPolicy::default().with_invalid(Invalid::Keep);
    let builder = of_size(4).with_link_policy(policy);
    let (submitter, mut processor) = builder.build(tracer).unwrap();
    let (unsampled, id) = (with_flags(1, TraceFlags::NOT_SAMPLED), SpanId::from(2));
    let traceless =
        SpanContext::new(TraceId::INVALID, id, TraceFlags::SAMPLED, false, TraceState::NONE);
    for request in [unsampled, context(1), traceless.clone(), traceless] {
        submitter.submit_with_context((7, 0), &request).unwrap();
    }
    submitter.close();
    processor.run_each(|(key, _), _| Ok(key));
    let [item] = spans(&exporter, "process_item").try_into().unwrap();
    assert_eq!(linked(&item), [1, 2, 2]);
    let [batch] = spans(&exporter, "batch").try_into().unwrap();
    assert_eq!(linked(&batch), [1, 2, 2]);
}
