//! The way from a request's span to the batch that took its item.

use super::common::NEVER;
use super::support::{Text, of_size, spans, telemetry, text};
use batchlink::processor::{BackLink, BatchProcessor, CallError, Submitter};
use opentelemetry::trace::noop::NoopTracer;
use opentelemetry::trace::{Link, SpanContext, TraceContextExt, Tracer};
use opentelemetry::{Context, KeyValue};
use opentelemetry_sdk::trace::{InMemorySpanExporter, SdkTracer};
use std::pin::pin;
use std::task::{self, Poll, Waker};
use std::time::Duration;

type Pair = (Submitter<u64, u64, Text>, BatchProcessor<u64, u64, Text>);

/// Batches of `size`; calls are linked to them.
fn linking(size: usize, tracer: SdkTracer) -> Pair {
    BatchProcessor::builder("batch")
        .with_max_batch_size(size)
        .with_max_delay(NEVER)
        .with_shards(1)
        .with_back_links(true)
        .build(tracer)
        .unwrap()
}

fn to(batch: &SpanContext) -> Link {
    Link::new(batch.clone(), vec![KeyValue::new("link.type", "batch")], 0)
}

/// The links of the one span of this name.
fn links(exporter: &InMemorySpanExporter, name: &str) -> Vec<Link> {
    let [span] = &spans(exporter, name)[..] else { panic!("one span of the name {name}") };
    span.links.links.clone()
}

fn poll<F: Future>(future: std::pin::Pin<&mut F>) -> Poll<F::Output> {
    future.poll(&mut task::Context::from_waker(Waker::noop()))
}

/// Blocking or not, the span of the call leads to the batch and the batch to the span.
#[test]
fn call_links_its_batch() {
    let (_provider, tracer, exporter) = telemetry();
    let (submitter, processor) = linking(1, tracer.clone());
    let handle = processor.spawn(|batch| batch.succeed_all(|n| n * n)).unwrap();
    tracer.in_span("blocking", |_| assert_eq!(submitter.call_blocking(2), Ok(4)));
    tracer.in_span("task", |_| {
        let mut call = pin!(submitter.call(3));
        while poll(call.as_mut()).is_pending() {}
    });
    tracer.in_span("wait", |_| {
        let mut call = pin!(submitter.call_wait(3));
        while poll(call.as_mut()).is_pending() {}
    });
    handle.shutdown().unwrap();
    let batches = spans(&exporter, "batch");
    for (name, batch) in ["blocking", "task", "wait"].into_iter().zip(&batches) {
        assert_eq!(links(&exporter, name), [to(&batch.span_context)]);
        assert_eq!(batch.links[0].span_context, spans(&exporter, name)[0].span_context);
    }
}

/// A future takes the span of its first poll if there was none before.
#[test]
fn first_poll_gives_the_span() {
    let (_provider, tracer, exporter) = telemetry();
    let (submitter, mut processor) = linking(1, tracer.clone());
    let mut call = Box::pin(submitter.call(1));
    tracer.in_span("request", |_| {
        assert!(poll(call.as_mut()).is_pending());
        processor.try_next().unwrap().succeed_all(|n| *n);
    });
    // The call holds the span, which is open until it returns.
    assert!(spans(&exporter, "request").is_empty());
    assert_eq!(poll(call.as_mut()), Poll::Ready(Ok(1)));
    assert_eq!(links(&exporter, "request"), [to(&spans(&exporter, "batch")[0].span_context)]);
}

/// A caller that leaves before its answer still learns which batch has its item, and one that
/// leaves before there is a batch learns nothing.
#[test]
fn early_leaver_is_linked() {
    let (_provider, tracer, exporter) = telemetry();
    let (submitter, mut processor) = linking(1, tracer.clone());
    let mut taken = Vec::new();
    tracer.in_span("dropped", |_| {
        let mut call = Box::pin(submitter.call(1));
        assert!(poll(call.as_mut()).is_pending());
        taken.extend(processor.try_next());
    });
    tracer.in_span("queued", |_| {
        let timed_out = submitter.call_blocking_timeout(2, Duration::ZERO);
        assert_eq!(timed_out, Err(CallError::Timeout));
    });
    let batch = taken[0].context().span().span_context().clone();
    assert_eq!(links(&exporter, "dropped"), [to(&batch)]);
    assert_eq!(links(&exporter, "queued"), []);
}

/// By default nothing is added to a caller's span.
#[test]
fn default_adds_no_link() {
    let (_provider, tracer, exporter) = telemetry();
    let (submitter, processor) = of_size(1, tracer.clone());
    let handle = processor.spawn(|batch| batch.succeed_all(|n| n * n)).unwrap();
    tracer.in_span("request", |_| assert_eq!(submitter.call_blocking(2), Ok(4)));
    handle.shutdown().unwrap();
    assert_eq!(links(&exporter, "request"), []);
}

/// The current span is linked only if it is the request's.
#[test]
fn other_span_is_not_linked() {
    let (_provider, tracer, exporter) = telemetry();
    let (submitter, processor) = linking(1, tracer.clone());
    let handle = processor.spawn(|batch| batch.succeed_all(|n| *n)).unwrap();
    let named = |name: &str, context: SpanContext| {
        tracer.in_span(name.to_owned(), |_| {
            let mut call = pin!(submitter.call_with_context(1, &context));
            while poll(call.as_mut()).is_pending() {}
        });
    };
    named("other", super::common::context(7));
    tracer.in_span("own", |cx| {
        let mut call = pin!(submitter.call_with_context(1, cx.span().span_context()));
        while poll(call.as_mut()).is_pending() {}
    });
    handle.shutdown().unwrap();
    assert_eq!((links(&exporter, "other").len(), links(&exporter, "own").len()), (0, 1));
}

/// Where telemetry is suppressed nothing is linked, in a batch with a span either.
#[test]
fn suppressed_call_is_not_linked() {
    let (_provider, tracer, exporter) = telemetry();
    let (submitter, mut processor) = linking(2, tracer.clone());
    tracer.in_span("request", |cx| {
        let back = BackLink::new(cx);
        {
            let _suppressed = Context::enter_telemetry_suppressed_scope();
            submitter.with_back_link(&back).submit(1).unwrap();
            let mut call = Box::pin(submitter.call(1));
            assert!(poll(call.as_mut()).is_pending());
            processor.try_next().unwrap().succeed_all(|n| *n);
            submitter.with_back_link(&back).submit(2).unwrap();
        }
        submitter.submit(3).unwrap();
        processor.try_next().unwrap().succeed_all(|n| *n);
        assert_eq!(back.batch(), None);
    });
    assert_eq!(spans(&exporter, "batch").len(), 1);
    assert_eq!(links(&exporter, "request"), []);
}

/// A tracer without a provider gives its parent's context for the batch's: that is no batch.
#[test]
fn missing_batch_span_is_skipped() {
    let (_provider, tracer, exporter) = telemetry();
    let (submitter, mut processor) = BatchProcessor::<u64, u64, Text>::builder("batch")
        .with_back_links(true)
        .build(NoopTracer::new())
        .unwrap();
    tracer.in_span("request", |cx| {
        let back = BackLink::new(cx);
        submitter.with_back_link(&back).submit(1).unwrap();
        tracer.in_span("worker", |_| processor.try_next().unwrap().succeed_all(|n| *n));
        assert_eq!(back.batch(), None);
    });
    assert_eq!((links(&exporter, "request"), links(&exporter, "worker")), (vec![], vec![]));
}

/// One back link for many items: a link for each batch, once, also if it is linked in between.
#[test]
fn back_link_serves_many_items() {
    let (_provider, tracer, exporter) = telemetry();
    let (submitter, mut processor) = of_size(2, tracer.clone());
    tracer.in_span("request", |cx| {
        let back = BackLink::new(cx);
        let linked = submitter.with_back_link(&back);
        for round in 0..3 {
            [1, 2].into_iter().for_each(|item| linked.submit(item).unwrap());
            let batch = processor.try_next().unwrap();
            assert_eq!(back.batch(), Some(batch.context().span().span_context().clone()));
            if round == 1 {
                back.link();
            }
            batch.succeed_all(|n| *n);
        }
        linked.submit(3).unwrap(); // waits: it is in no batch yet
    });
    let batches: Vec<Link> =
        spans(&exporter, "batch").iter().map(|batch| to(&batch.span_context)).collect();
    assert_eq!((batches.len(), links(&exporter, "request")), (3, batches));
}

/// What is kept of batches is bounded, and the span says that some are missing.
#[test]
fn excess_batches_are_counted() {
    let (_provider, tracer, exporter) = telemetry();
    let (submitter, mut processor) = of_size(1, tracer.clone());
    for (name, batches) in [("full", 128), ("over", 131)] {
        tracer.in_span(name, |cx| {
            let back = BackLink::new(cx);
            let linked = submitter.with_back_link(&back);
            let mut last = None;
            for item in 0..batches {
                linked.submit(item).unwrap();
                let batch = processor.try_next().unwrap();
                last = Some(batch.context().span().span_context().clone());
                batch.succeed_all(|n| *n);
            }
            assert_eq!(back.batch(), last);
        });
    }
    for (name, truncated, count) in [("full", None, None), ("over", Some("true"), Some("131"))] {
        let span = &spans(&exporter, name)[0];
        assert_eq!((span.links.len(), span.links.dropped_count), (128, 0));
        assert_eq!(text(&span.attributes, "links.truncated").as_deref(), truncated);
        assert_eq!(text(&span.attributes, "links.original_count").as_deref(), count);
    }
}

/// An item in the queue holds no span: that of its request ends when the caller drops it.
#[test]
fn queued_item_holds_no_span() {
    let (_provider, tracer, exporter) = telemetry();
    let (submitter, mut processor) = linking(1, tracer.clone());
    {
        let cx = Context::current_with_span(tracer.start("request"));
        let back = BackLink::new(cx.clone());
        let _current = cx.attach();
        submitter.with_back_link(&back).submit(1).unwrap();
        submitter.submit(2).unwrap();
        let mut call = Box::pin(submitter.call(3));
        assert!(poll(call.as_mut()).is_pending());
    }
    assert_eq!(links(&exporter, "request"), []);
    while let Some(batch) = processor.try_next() {
        batch.succeed_all(|n| *n);
    }
    assert_eq!(submitter.stats().succeeded(), 3);
}
