//! Batches: their spans, links and keys.

use super::common::*;
use super::support::*;
use batchlink::{
    Invalid, LinkCollector, LinkPolicy, PushError, Timeout, Trigger, Unsampled,
    processor::BatchProcessor,
};
use opentelemetry::Context;
use opentelemetry::trace::{
    SpanContext, SpanId, Status, TraceContextExt, TraceFlags, TraceId, TraceState, Tracer,
};
use std::error::Error;
use std::time::Duration;

#[test]
fn batch_span_has_outcomes() {
    let _watchdog = watchdog();
    let (_provider, tracer, exporter) = telemetry();
    let (submitter, mut processor) = of_size(4, tracer.clone());
    let requests: Vec<SpanContext> = (0..3)
        .map(|n| {
            tracer.in_span("request", |cx| {
                submitter.submit(n).unwrap();
                cx.span().span_context().clone()
            })
        })
        .collect();
    submitter.submit_with_context(3, &requests[0]).unwrap();
    let batch = processor.next_batch().unwrap();
    assert_eq!((batch.len(), batch.number(), batch.trigger()), (4, 1, Trigger::Size));
    assert_eq!((batch.counts().linked, batch.counts().duplicates), (3, 1));
    assert!(batch.payloads().copied().eq(0..4));
    assert_eq!(batch.items()[1].span_context(), &requests[1]);
    assert_eq!(batch.items()[3].index(), 3);
    assert!(batch.context().span().span_context().is_valid());
    assert!(spans(&exporter, "batch").is_empty(), "it ends with the last answer");
    for item in batch {
        match item.index() {
            2 => item.fail("no"),
            _ => item.succeed(0),
        }
    }
    let [batch] = spans(&exporter, "batch").try_into().unwrap();
    assert_eq!(account(&batch), "4 3 size_limit 1 3 1 0.75");
    assert_eq!(batch.status, Status::error("1 item failed: no"));
    assert_eq!(batch.parent_span_id, SpanId::INVALID);
    assert!(batch.links.iter().map(|link| &link.span_context).eq(&requests));
    let stats = submitter.stats();
    assert_eq!((stats.succeeded(), stats.failed(), stats.queue().received()), (3, 1, 4));
}

#[test]
fn items_have_own_spans() {
    let _watchdog = watchdog();
    let (_provider, tracer, exporter) = telemetry();
    let (submitter, mut processor) = of_size(3, tracer.clone());
    let request = tracer.in_span("request", |cx| {
        (0..3).for_each(|n| submitter.submit(n).unwrap());
        cx.span().span_context().clone()
    });
    submitter.close();
    processor.run_each(|n, cx| {
        assert_eq!(Context::current().span().span_context(), cx.span().span_context());
        match n {
            0 => Ok(n),
            1 => Err("out of stock"),
            _ => panic!("number {n}, on purpose"),
        }
    });
    let [batch] = spans(&exporter, "batch").try_into().unwrap();
    assert_eq!(account(&batch), "3 1 size_limit 1 1 2 0.3333333333333333");
    assert_eq!(batch.status, Status::error("2 items failed, first: out of stock"));
    let items = spans(&exporter, "process_item");
    let said = [
        ("item.succeeded", None, Status::Unset),
        ("item.failed", Some("out of stock"), Status::error("out of stock")),
        (
            "item.failed",
            Some("panicked: number 2, on purpose"),
            Status::error("panicked: number 2, on purpose"),
        ),
    ];
    assert_eq!(items.len(), said.len());
    for (index, (item, (event, error, status))) in items.iter().zip(said).enumerate() {
        assert_eq!(item.parent_span_id, batch.span_context.span_id());
        assert_eq!(item.links[0].span_context, request);
        assert_eq!(text(&item.links[0].attributes, "link.type").as_deref(), Some("batch_item"));
        assert_eq!(text(&item.attributes, "item.index"), Some(index.to_string()));
        assert_eq!(item.events[0].name, event);
        assert_eq!(text(&item.events[0].attributes, "error").as_deref(), error);
        assert_eq!(item.status, status);
    }
    assert_eq!(submitter.stats().queue().handler_panics(), 1);
}

/// Whether or not the rest of the context is valid, for the policies that keep what is not.
#[test]
fn long_trace_state_is_cut() {
    let _watchdog = watchdog();
    let request = |trace, bytes| {
        let (trace, span) = (TraceId::from(trace), SpanId::from(7));
        SpanContext::new(trace, span, TraceFlags::SAMPLED, true, state_of(bytes))
    };
    let requests = [request(1, 512), request(2, 513), request(0, 513)];
    for (invalid, links) in
        [(Invalid::Drop, 2), (Invalid::KeepWithAttributes, 3), (Invalid::Keep, 3)]
    {
        let (_provider, tracer, exporter) = telemetry();
        let config =
            LinkCollector::builder().with_link_policy(LinkPolicy::new().with_invalid(invalid));
        let (submitter, mut processor) = BatchProcessor::<u64, u64, Text>::builder("batch")
            .with_config(config.with_max_batch_size(3).with_max_delay(NEVER).with_shards(1))
            .build(tracer)
            .expect("valid");
        for (number, request) in requests.iter().enumerate() {
            submitter.submit_with_context(number as u64, request).unwrap();
        }
        let batch = processor.next_batch().expect("full");
        let lengths: Vec<_> = batch
            .items()
            .iter()
            .map(|item| item.span_context().trace_state().header().len())
            .collect();
        assert_eq!(lengths, [512, 403, 403]);
        assert_eq!((batch.counts().linked, batch.counts().invalid), (links, 3 - links));
        assert_eq!(batch.counts().trace_states_cut, links - 1, "{invalid:?}");
        batch.succeed_all(|number| *number);
        let lengths: Vec<_> = spans(&exporter, "batch")[0]
            .links
            .iter()
            .map(|link| link.span_context.trace_state().header().len())
            .collect();
        assert_eq!(lengths, [512, 403, 403][..links as usize]);
    }
}

/// By the rules of the batch's own links.
#[test]
fn item_links_like_its_batch() {
    let _watchdog = watchdog();
    let request = |trace, flags, bytes| {
        let state = if bytes == 0 { TraceState::NONE } else { state_of(bytes) };
        SpanContext::new(TraceId::from(trace), SpanId::from(7), flags, true, state)
    };
    let (yes, no) = (TraceFlags::SAMPLED, TraceFlags::NOT_SAMPLED);
    let requests = [
        request(1, yes, 0),
        request(2, no, 0),
        request(0, yes, 0),
        request(0, no, 10),
        request(0, yes, 513),
    ];
    for (invalid, unsampled, linked) in [
        (Invalid::Drop, Unsampled::Drop, [true, false, false, false, false]),
        (Invalid::Drop, Unsampled::Keep, [true, true, false, false, false]),
        (Invalid::KeepWithAttributes, Unsampled::Drop, [true, false, false, true, true]),
        (Invalid::Keep, Unsampled::Drop, [true, false, true, true, true]),
    ] {
        let (_provider, tracer, exporter) = telemetry();
        let config = LinkCollector::builder()
            .with_link_policy(LinkPolicy::new().with_invalid(invalid).with_unsampled(unsampled));
        let (submitter, mut processor) = BatchProcessor::<usize, (), Text>::builder("batch")
            .with_config(config.with_max_batch_size(5).with_max_delay(NEVER).with_shards(1))
            .build(tracer)
            .expect("valid");
        for (index, request) in requests.iter().enumerate() {
            submitter.submit_with_context(index, request).unwrap();
        }
        submitter.close();
        processor.run_each(|_, _| Ok(()));
        let items = spans(&exporter, "process_item");
        assert_eq!(items.iter().map(|span| span.links.len() == 1).collect::<Vec<_>>(), linked);
        let of_items: Vec<_> = items.into_iter().flat_map(|span| span.links.links).collect();
        assert_eq!(of_items, spans(&exporter, "batch")[0].links.links);
    }
}

/// Items over the bound of links are processed, and the span says that links are missing.
#[test]
fn links_are_bounded() {
    let (_provider, tracer, exporter) = telemetry();
    let (submitter, mut processor) = BatchProcessor::<u64, (), Text>::builder("batch")
        .with_max_batch_size(5)
        .with_max_links(2)
        .with_shards(1)
        .with_item_span_name("item")
        .build(tracer)
        .unwrap();
    (1..=5).for_each(|n| submitter.submit_with_context(n, &context(n)).unwrap());
    submitter.close();
    let mut seen = Vec::new();
    processor.run_each(|n, _cx| {
        seen.push(n);
        Ok(())
    });
    assert_eq!(seen, [1, 2, 3, 4, 5]);
    let [batch] = spans(&exporter, "batch").try_into().unwrap();
    assert_eq!(account(&batch), "5 2 size_limit 1 5 0 1");
    assert_eq!(text(&batch.attributes, "links.original_count").as_deref(), Some("5"));
    assert_eq!(batch.status, Status::Unset);
    assert_eq!(spans(&exporter, "item").len(), 5);
}

#[test]
fn keys_divide_batches() {
    let (_provider, tracer, exporter) = telemetry();
    let (submitter, mut processor) = BatchProcessor::<u64, (), Text>::builder("deliver")
        .with_max_batch_size(7)
        .with_shards(1)
        .with_key(|n| {
            assert_ne!(*n, 5, "on purpose");
            n % 3
        })
        .build(tracer)
        .unwrap();
    (0..7).for_each(|n| submitter.submit(n).unwrap());
    submitter.close();
    let mut batches = Vec::new();
    processor.run(|batch| {
        batches.push((batch.number(), batch.payloads().copied().collect::<Vec<_>>()));
        batch.succeed_all(|_| ());
    });
    assert_eq!(batches, [(1, vec![0, 3, 6]), (2, vec![1, 4]), (3, vec![2]), (4, vec![5])]);
    let accounts: Vec<String> = spans(&exporter, "deliver").iter().map(account).collect();
    assert_eq!(accounts[0], "3 0 size_limit 1 3 0 1");
    assert_eq!(accounts.len(), 4);
}

#[test]
fn try_next_takes_pending() {
    let (_provider, tracer, _exporter) = telemetry();
    let (submitter, mut processor) = of_size(4, tracer);
    assert!(processor.try_next().is_none());
    for n in 0..3 {
        submitter.submit(n).unwrap();
    }
    let batch = processor.try_next().expect("three items");
    assert_eq!(batch.trigger(), Trigger::Manual);
    for item in batch {
        let result = if *item.payload() == 1 { Err("no") } else { Ok(1) };
        item.complete(result);
    }
    let stats = submitter.stats();
    assert_eq!((stats.succeeded(), stats.failed()), (2, 1));
}

#[test]
fn flush_takes_pending() {
    let _watchdog = watchdog();
    let (_provider, tracer, _exporter) = telemetry();
    let (submitter, mut processor) = of_size(4, tracer);
    submitter.submit(1).unwrap();
    assert_eq!(processor.next_batch_timeout(Duration::ZERO).unwrap_err(), Timeout);
    submitter.flush();
    let batch = processor.next_batch().expect("flushed");
    assert_eq!((batch.trigger(), batch.len()), (Trigger::Manual, 1));
    batch.succeed_all(|n| *n);
}

#[test]
fn debug_texts_show_state() {
    let _watchdog = watchdog();
    let (_provider, tracer, _exporter) = telemetry();
    let builder = BatchProcessor::<u64, u64, Text>::builder("batch").with_max_batch_size(1);
    let text = format!("{builder:?}");
    assert!(text.starts_with("BatchProcessorBuilder { name: \"batch\", queue: "), "{text}");
    assert!(text.ends_with(", max_batch_weight: None, .. }"), "{text}");
    let (submitter, mut processor) = builder.build(tracer).unwrap();
    submitter.submit(7).unwrap();
    let batch = processor.next_batch().unwrap();
    let (text, counts) = (format!("{batch:?}"), batch.counts());
    let start = format!("Batch {{ number: 1, len: 1, trigger: Size, counts: {counts:?}");
    assert!(text.starts_with(&start), "{text}");
    assert_eq!(format!("{:?}", batch.items()), "[BatchItem { index: 0, payload: 7, .. }]");
    batch.succeed_all(|n| *n);
    let stats = submitter.stats();
    assert_eq!(format!("{submitter:?}"), format!("Submitter {{ stats: {stats:?}, .. }}"));
    assert_eq!(format!("{processor:?}"), format!("BatchProcessor {{ stats: {stats:?}, .. }}"));
    submitter.close();
    let refused = submitter.submit(8).unwrap_err();
    assert_eq!(format!("{refused:?}"), "SubmitError { reason: Closed, .. }");
    assert_eq!(refused.source().unwrap().to_string(), PushError::Closed.to_string());
}
