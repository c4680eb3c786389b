//! `BatchProcessor`: what reaches the exporter, and that every caller gets exactly one answer.

use super::common::*;
use super::support::*;
use batchlink::{
    Invalid, LinkCollector, LinkPolicy, PushError, ShutdownError, Timeout, Trigger, Unsampled,
    processor::{Batch, BatchProcessor, BatchProcessorBuilder, CallError, Submitter},
};
use opentelemetry::Context;
use opentelemetry::trace::noop::NoopTracer;
use opentelemetry::trace::{
    SpanContext, SpanId, Status, TraceContextExt, TraceFlags, TraceId, TraceState, Tracer, TracerProvider,
};
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{SdkTracer, SdkTracerProvider, Span, SpanData, SpanProcessor};
use std::error::Error;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

/// Whether or not the rest of the context is valid, for the policies that keep what is not.
#[test]
fn a_trace_state_that_is_too_long_does_not_wait_and_is_counted() {
    let _watchdog = watchdog();
    let request = |trace, bytes| {
        let (trace, span) = (TraceId::from(trace), SpanId::from(7));
        SpanContext::new(trace, span, TraceFlags::SAMPLED, true, state_of(bytes))
    };
    let requests = [request(1, 512), request(2, 513), request(0, 513)];
    for (invalid, links) in [(Invalid::Drop, 2), (Invalid::KeepWithAttributes, 3), (Invalid::Keep, 3)] {
        let (_provider, tracer, exporter) = telemetry();
        let config = LinkCollector::builder().with_link_policy(LinkPolicy::new().with_invalid(invalid));
        let (submitter, mut processor) = BatchProcessor::<u64, u64, Text>::builder("batch")
            .with_config(config.with_max_batch_size(3).with_max_delay(NEVER).with_shards(1))
            .build(tracer)
            .expect("valid");
        for (number, request) in requests.iter().enumerate() {
            submitter.submit_with_context(number as u64, request).unwrap();
        }
        let batch = processor.next_batch().expect("full");
        let lengths: Vec<_> =
            batch.items().iter().map(|item| item.span_context().trace_state().header().len()).collect();
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

#[test]
fn a_batch_has_a_span_with_links_and_outcomes() {
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
fn every_item_has_a_span_of_its_own() {
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

/// By the rules of the batch's own links.
#[test]
fn an_item_links_what_its_batch_would() {
    let _watchdog = watchdog();
    let request = |trace, flags, bytes| {
        let state = if bytes == 0 { TraceState::NONE } else { state_of(bytes) };
        SpanContext::new(TraceId::from(trace), SpanId::from(7), flags, true, state)
    };
    let (yes, no) = (TraceFlags::SAMPLED, TraceFlags::NOT_SAMPLED);
    let requests =
        [request(1, yes, 0), request(2, no, 0), request(0, yes, 0), request(0, no, 10), request(0, yes, 513)];
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

#[test]
fn callers_get_their_own_results() {
    let _watchdog = watchdog();
    let (_provider, tracer, _exporter) = telemetry();
    let (submitter, processor) = of_size(4, tracer);
    let handle = processor
        .spawn_each(|n, _cx| match n {
            1 => Err("no"),
            2 => panic!("on purpose"),
            n => Ok(n * 10),
        })
        .unwrap();
    let calls: Vec<_> = (0..4)
        .map(|n| {
            let submitter = submitter.clone();
            thread::spawn(move || submitter.call_blocking(n))
        })
        .collect();
    let results: Vec<_> = calls.into_iter().map(|call| call.join().unwrap()).collect();
    assert_eq!(results, [Ok(0), Err(CallError::Failed("no")), Err(CallError::Panicked), Ok(30)]);
    assert_eq!(submitter.call_blocking_timeout(9, Duration::ZERO), Err(CallError::Timeout));
    handle.shutdown_with_timeout(NEVER).unwrap();
    assert_eq!(submitter.call_blocking(5), Err(CallError::Closed));
    let stats = submitter.stats();
    assert_eq!((stats.succeeded(), stats.failed()), (3, 2));
    assert_eq!(stats.queue().rejected_closed(), 1);
}

#[test]
fn a_batch_can_be_answered_at_once_or_not_at_all() {
    let _watchdog = watchdog();
    let (_provider, tracer, exporter) = telemetry();
    let (submitter, mut processor) = of_size(3, tracer);
    let ask = |handle: fn(Batch<u64, u64, Text>), processor: &mut BatchProcessor<u64, u64, Text>| {
        let calls: Vec<_> = (0..3)
            .map(|n| {
                let submitter = submitter.clone();
                thread::spawn(move || (n, submitter.call_blocking(n)))
            })
            .collect();
        handle(processor.next_batch().unwrap());
        let results = calls.into_iter().map(|call| call.join().unwrap());
        results.collect::<Vec<_>>()
    };
    for (n, result) in ask(|batch| batch.succeed_all(|n| n + 1), &mut processor) {
        assert_eq!(result, Ok(n + 1));
    }
    for (_, result) in ask(|batch| batch.fail_all(|_| "rolled back"), &mut processor) {
        assert_eq!(result, Err(CallError::Failed("rolled back")));
    }
    for (_, result) in ask(drop, &mut processor) {
        assert_eq!(result, Err(CallError::Unanswered));
    }
    // By position.
    let mut results: Vec<_> = ask(|batch| batch.complete([Ok(7), Err("no"), Ok(7)]), &mut processor)
        .into_iter()
        .map(|(_, result)| result)
        .collect();
    results.sort_by_key(|result| format!("{result:?}"));
    assert_eq!(results, [Err(CallError::Failed("no")), Ok(7), Ok(7)]);
    let accounts: Vec<String> = spans(&exporter, "batch").iter().map(account).collect();
    // Submitted outside of any span: nothing to link.
    let tails = ["1 3 0 1", "2 0 3 0", "3 0 3 0", "4 2 1 0.6666666666666666"];
    assert!(
        accounts.iter().zip(tails).all(|(account, tail)| *account == format!("3 0 size_limit {tail}")),
        "{accounts:?}"
    );
}

#[test]
fn a_panic_of_the_handler_fails_what_it_had_and_nothing_else() {
    let _watchdog = watchdog();
    let (_provider, tracer, exporter) = telemetry();
    let (submitter, processor) = of_size(2, tracer);
    let handle = processor
        .spawn(|batch| {
            let number = batch.number();
            for item in batch {
                assert!(number > 1 || item.index() == 0, "on purpose");
                item.succeed(1);
            }
        })
        .unwrap();
    let call = |n: u64| {
        let submitter = submitter.clone();
        thread::spawn(move || submitter.call_blocking(n))
    };
    for batch in [[Err(CallError::Panicked), Ok(1)], [Ok(1), Ok(1)]] {
        let calls = [call(1), call(2)];
        let mut results = calls.map(|call| call.join().unwrap());
        results.sort_by_key(Result::is_ok);
        assert_eq!(results, batch);
    }
    assert_eq!(handle.stats().handler_panics(), 1);
    handle.shutdown_with_timeout(NEVER).unwrap();
    assert_eq!(handle.shutdown(), Err(ShutdownError::AlreadyShutdown));
    let statuses: Vec<Status> = spans(&exporter, "batch").into_iter().map(|span| span.status).collect();
    assert_eq!(statuses, [Status::error("1 item failed: panicked: on purpose"), Status::Unset]);
}

#[test]
fn what_is_refused_comes_back() {
    let (_provider, tracer, _exporter) = telemetry();
    let (submitter, processor) = room_for_two::<String>(tracer);
    let text = |n: u64| format!("item {n}");
    submitter.submit_wait(text(1)).unwrap();
    submitter.submit_wait_timeout(text(2), Duration::ZERO).unwrap();
    for refused in
        [submitter.submit(text(3)), submitter.submit_wait_timeout(text(3), Duration::from_millis(1))]
    {
        let refused = refused.unwrap_err();
        assert_eq!(refused.reason(), PushError::Full);
        assert_eq!(
            refused.to_string(),
            "item not accepted: the shard's queue is full: the flusher is behind"
        );
        assert_eq!(refused.into_item(), "item 3");
    }
    assert_eq!(submitter.call_blocking(text(4)), Err(CallError::Full));
    drop(processor);
    let refused = submitter.submit_wait(text(5)).unwrap_err();
    assert_eq!((refused.reason(), refused.into_item()), (PushError::Closed, text(5)));
    let stats = submitter.stats();
    let queue = stats.queue();
    assert_eq!((queue.accepted(), queue.rejected_full(), queue.rejected_closed()), (2, 3, 1));
}

#[test]
fn what_is_there_can_be_taken_without_waiting() {
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
fn a_flush_takes_what_is_pending() {
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

/// More is accepted from many threads than one shard has slots.
#[test]
fn threads_submit_to_different_shards() {
    const SLOTS: u64 = 256;
    let (_provider, tracer, _exporter) = telemetry();
    let (submitter, _processor) = BatchProcessor::<u64, (), Text>::builder("batch")
        .with_max_delay(NEVER)
        .with_queue_capacity(2 * SLOTS as usize)
        .with_shards(2)
        .build(tracer)
        .unwrap();
    thread::scope(|scope| {
        for _ in 0..64 {
            scope.spawn(|| (0..6).for_each(|n| drop(submitter.submit(n))));
        }
    });
    let accepted = submitter.stats().queue().accepted();
    assert!(accepted > SLOTS, "{accepted}");
}

#[test]
fn debug_texts_say_where_things_stand() {
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

#[test]
fn a_failed_call_says_why() {
    let why = |error: CallError<ShutdownError>| (error.to_string(), error.source().map(ToString::to_string));
    let failed = ShutdownError::AlreadyShutdown.to_string();
    assert_eq!(
        why(CallError::Failed(ShutdownError::AlreadyShutdown)),
        (format!("the item failed: {failed}"), Some(failed))
    );
    for (error, words) in [
        (CallError::Full, "the shard's queue is full"),
        (CallError::Closed, "the batch processor is closed"),
        (CallError::Panicked, "the handler panicked"),
        (CallError::Unanswered, "gave no answer"),
        (CallError::Timeout, "within the given time"),
    ] {
        let (text, source) = why(error);
        assert!(text.contains(words), "{text}");
        assert_eq!(source, None);
    }
}

#[test]
fn a_processor_that_goes_answers_those_who_wait() {
    let _watchdog = watchdog();
    let (_provider, tracer, _exporter) = telemetry();
    let (submitter, mut processor) = of_size(2, tracer.clone());
    let call = |n: u64| {
        let submitter = submitter.clone();
        thread::spawn(move || submitter.call_blocking(n))
    };
    let waits = call(1);
    while submitter.stats().queue().pending() == 0 {
        thread::yield_now();
    }
    assert_eq!(processor.next_batch_timeout(Duration::ZERO).unwrap_err(), Timeout);
    drop(processor);
    assert_eq!(waits.join().unwrap(), Err(CallError::Closed));
    assert_eq!(submitter.stats().queue().pending(), 0);
}

/// Batches that weigh 10, of items that weigh what they are.
fn by_weight(shards: usize, tracer: SdkTracer) -> (Submitter<u64, (), Text>, BatchProcessor<u64, (), Text>) {
    BatchProcessor::builder("batch")
        .with_max_batch_size(100)
        .with_max_batch_weight(10, |weight| *weight)
        .with_max_delay(NEVER)
        .with_shards(shards)
        .build(tracer)
        .expect("valid")
}

#[test]
fn weight_is_a_trigger_and_a_bound() {
    let (_provider, tracer, exporter) = telemetry();
    let (submitter, mut processor) = by_weight(1, tracer);
    let mut due = |weights: &[u64]| {
        weights.iter().for_each(|&weight| submitter.submit(weight).unwrap());
        let batch = processor.next_batch_timeout(Duration::ZERO).ok()?.unwrap();
        assert_eq!(batch.trigger(), Trigger::Weight);
        Some(batch.payloads().copied().collect::<Vec<_>>())
    };
    assert_eq!(due(&[4, 5]), None, "nine are not ten");
    assert_eq!(due(&[1]).unwrap(), [4, 5, 1], "exactly ten");
    assert_eq!(due(&[6]), None);
    assert_eq!(due(&[5]).unwrap(), [6], "five more would be too much");
    assert_eq!(due(&[]), None, "and wait for their own");
    assert_eq!(due(&[u64::MAX, 0]).unwrap(), [5], "the heavy one does not fit");
    assert_eq!(due(&[]).unwrap(), [u64::MAX], "it goes alone");
    assert_eq!(due(&[9]), None);
    submitter.close();
    let rest = processor.next_batch().unwrap();
    assert_eq!((rest.trigger(), rest.payloads().copied().collect()), (Trigger::Shutdown, vec![0, 9]));
    drop(rest);
    assert!(processor.next_batch().is_none());
    assert!(account(&spans(&exporter, "batch")[0]).starts_with("3 0 weight_limit 1"));
    assert_eq!(submitter.stats().queue().flushes(Trigger::Weight), 4);
}

/// Whatever else is pending, in its shard or another, and however light.
#[test]
fn an_item_that_is_too_heavy_goes_alone() {
    let (_provider, tracer, _exporter) = telemetry();
    let (submitter, mut processor) = by_weight(2, tracer);
    let mut alone = 0;
    // Threads are spread over the shards, and the shards take turns in being first.
    for _ in 0..64 {
        for weight in [11, 0] {
            thread::scope(|scope| scope.spawn(|| submitter.submit(weight).unwrap()).join()).unwrap();
        }
        while let Some(batch) = processor.try_next() {
            let weights: Vec<u64> = batch.payloads().copied().collect();
            assert!(weights == [11] || !weights.contains(&11), "{weights:?}");
            alone += usize::from(weights == [11]);
        }
    }
    assert_eq!(alone, 64);
}

/// Whoever completes the weight wakes the processor, whatever the others do.
#[test]
fn weight_wakes_the_processor() {
    let _watchdog = watchdog();
    const EACH: u64 = 5_000;
    let (_provider, tracer, _exporter) = telemetry();
    let (submitter, mut processor) = BatchProcessor::<u64, (), Text>::builder("batch")
        .with_max_batch_size(1 << 10)
        .with_queue_capacity(1 << 14)
        .with_max_batch_weight(7, |weight| *weight)
        .with_max_delay(NEVER)
        .build(tracer)
        .unwrap();
    let threads: Vec<_> = (0..3)
        .map(|_| {
            let submitter = submitter.clone();
            thread::spawn(move || (0..EACH).for_each(|_| submitter.submit_wait(1).unwrap()))
        })
        .collect();
    let mut taken = 0;
    // All but what is left in the end comes by weight alone.
    while taken + 7 <= 3 * EACH {
        let batch = processor.next_batch().unwrap();
        assert!(batch.len() <= 7, "{} items", batch.len());
        taken += batch.len() as u64;
    }
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    assert_eq!(processor.stats().queue().pending(), 3 * EACH - taken);
}

#[test]
fn a_weight_that_makes_no_sense_is_an_error() {
    for weight in [0, (1 << 38) + 1] {
        let (_provider, tracer, _exporter) = telemetry();
        let builder = BatchProcessor::<u64, (), Text>::builder("batch").with_max_batch_weight(weight, |_| 1);
        let error = builder.build(tracer).unwrap_err();
        assert_eq!(
            error.to_string(),
            format!("invalid max_batch_weight: {weight} (allowed: 1 to 274877906944)")
        );
    }
    let (_provider, tracer, _exporter) = telemetry();
    let error =
        BatchProcessor::<u64, (), Text>::builder("batch").with_max_batch_size(0).build(tracer).unwrap_err();
    assert_eq!(error.field(), "max_batch_size");
}

#[test]
fn one_batch_per_key() {
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

/// Items over the bound of links are processed, and the span says that links are missing.
#[test]
fn links_are_bounded_items_are_not() {
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

/// A payload whose drop panics takes nothing with it.
#[test]
fn a_payload_may_panic_when_it_is_dropped() {
    struct Bomb(#[expect(dead_code)] mpsc::Sender<()>);
    impl Drop for Bomb {
        fn drop(&mut self) {
            panic!("a payload's drop, on purpose");
        }
    }
    let (_provider, tracer, _exporter) = telemetry();
    let builder = BatchProcessor::<Bomb, (), Text>::builder("batch").with_max_batch_size(8).with_shards(1);
    let (submitter, processor) = builder.build(tracer).unwrap();
    let (alive, gone) = mpsc::channel();
    for _ in 0..3 {
        submitter.submit(Bomb(alive.clone())).unwrap();
    }
    drop(alive);
    drop(processor);
    assert_eq!(gone.recv(), Err(mpsc::RecvError), "all three were dropped");
    let refused = submitter.submit(Bomb(mpsc::channel().0)).unwrap_err();
    let dropped = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| drop(refused)));
    assert!(dropped.is_err(), "it came back whole");
}

/// Nothing but the payload itself is ever on the stack: not a slot for each, nor the ring.
#[test]
fn large_payloads_need_no_large_stack() {
    type Large = [u8; 100_000];
    let run = || {
        let (_provider, tracer, _exporter) = telemetry();
        let (submitter, mut processor) = BatchProcessor::<Large, (), Text>::builder("batch")
            .with_max_batch_size(64)
            .with_shards(1)
            .with_queue_capacity(64)
            .build(tracer)
            .unwrap();
        (0..64).for_each(|n| submitter.submit([n; 100_000]).unwrap());
        let batch = processor.next_batch().unwrap();
        assert!(batch.payloads().map(|payload| payload[99_999]).eq(0..64));
    };
    // Half of what the payloads take together.
    thread::Builder::new().stack_size(3 << 20).spawn(run).unwrap().join().unwrap();
}

/// 8 submitters, random failures, panics and callers who give up: one answer each, and every count
/// adds up. In release it is a million items.
#[test]
fn every_caller_gets_exactly_one_answer() {
    const SUBMITTERS: u64 = 8;
    const EACH: u64 = if cfg!(debug_assertions) { 10_000 } else { 125_000 };
    let _watchdog = watchdog();
    silence_panics();
    let tally = Arc::new(Tally::default());
    let provider = SdkTracerProvider::builder().with_span_processor(Tallying(Arc::clone(&tally))).build();
    let (submitter, processor) = BatchProcessor::<u64, u64, u64>::builder("batch")
        .with_max_batch_size(64)
        .with_max_delay(Duration::from_micros(200))
        .with_queue_capacity(256)
        .build(provider.tracer("test"))
        .unwrap();
    // What an item wants to happen to it is in its number.
    let handle = processor
        .spawn(|batch| {
            for item in batch {
                match *item.payload() % 16 {
                    0..12 => {
                        let n = *item.payload();
                        item.succeed(n);
                    }
                    12 | 13 => {
                        let n = *item.payload();
                        item.fail(n);
                    }
                    14 => drop(item),
                    _ if item.payload() % 512 == 511 => panic!("on purpose"),
                    _ => item.succeed(0),
                }
            }
        })
        .unwrap();
    let threads: Vec<_> = (0..SUBMITTERS)
        .map(|thread| {
            let submitter = submitter.clone();
            thread::spawn(move || callers(&submitter, thread * EACH, EACH))
        })
        .collect();
    let mut sum = [0_u64; 8];
    for thread in threads {
        let counts = thread.join().unwrap();
        sum.iter_mut().zip(counts).for_each(|(sum, count)| *sum += count);
    }
    handle.shutdown_with_timeout(Duration::from_secs(60)).unwrap();
    let [succeeded, failed, panicked, unanswered, closed, full, timeout, calls] = sum;
    assert_eq!(calls, SUBMITTERS * EACH);
    assert_eq!(succeeded + failed + panicked + unanswered + closed + full + timeout, calls);
    let stats = submitter.stats();
    let queue = stats.queue();
    assert_eq!((closed, queue.rejected_closed(), queue.pending()), (0, 0, 0));
    assert_eq!(queue.rejected_full(), full);
    assert_eq!(queue.accepted(), calls - full);
    assert_eq!(stats.succeeded() + stats.failed(), calls - full);
    assert_eq!(stats.succeeded() + stats.failed(), queue.received());
    // Those who gave up did so before they knew.
    assert!(stats.succeeded() >= succeeded && stats.failed() >= failed + panicked + unanswered);
    assert_eq!(stats.succeeded() - succeeded + stats.failed() - failed - panicked - unanswered, timeout);
    assert_eq!(tally.batches.load(Ordering::Relaxed), queue.batches());
    assert_eq!(tally.links.load(Ordering::Relaxed), queue.counts().linked);
    assert_eq!(
        queue.counts().linked
            + queue.counts().duplicates
            + queue.counts().truncated
            + queue.counts().unsampled,
        queue.received()
    );
    println!("{calls} calls: {sum:?}, {} batches, {} panics", queue.batches(), queue.handler_panics());
}

/// Callers who were polled go in the very moment in which they are answered: nothing is used after it
/// was freed (the sanitizers look, too), no answer and no waker is lost.
#[test]
fn callers_leave_while_they_are_answered() {
    struct Counted(Arc<AtomicU64>);
    impl Drop for Counted {
        fn drop(&mut self) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }
    struct Nothing;
    impl std::task::Wake for Nothing {
        fn wake(self: Arc<Self>) {}
    }

    let _watchdog = watchdog();
    let (submitter, mut processor) = BatchProcessor::<u64, Counted, Text>::builder("batch")
        .with_max_batch_size(1)
        .with_shards(1)
        .build(NoopTracer::new())
        .unwrap();
    let (asked, answered) = (AtomicU64::new(0), AtomicU64::new(0));
    let dropped = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&dropped);
    let rounds = if cfg!(debug_assertions) { 20_000 } else { 100_000 };
    let nothing = Arc::new(Nothing);
    thread::scope(|scope| {
        scope.spawn(|| {
            for round in 1..=rounds {
                while asked.load(Ordering::Acquire) < round {
                    thread::yield_now();
                }
                let batch = processor.try_next().expect("it was asked");
                batch.succeed_all(|_| Counted(Arc::clone(&counted)));
                answered.store(round, Ordering::Release);
            }
        });
        let waker = std::task::Waker::from(Arc::clone(&nothing));
        let mut random = Random(1);
        for round in 1..=rounds {
            let mut call = Box::pin(submitter.call(round));
            assert!(call.as_mut().poll(&mut std::task::Context::from_waker(&waker)).is_pending());
            asked.store(round, Ordering::Release);
            (0..random.below(3000)).for_each(|_| std::hint::spin_loop());
            drop(call);
            while answered.load(Ordering::Acquire) < round {
                thread::yield_now();
            }
        }
    });
    assert_eq!((submitter.stats().succeeded(), dropped.load(Ordering::Relaxed)), (rounds, rounds));
    assert_eq!(Arc::strong_count(&nothing), 1, "wakers are left");
}

fn callers(submitter: &Submitter<u64, u64, u64>, first: u64, count: u64) -> [u64; 8] {
    use futures_util::FutureExt;
    use futures_util::stream::{FuturesUnordered, StreamExt};
    let mut random = Random(first);
    let mut counts = [0; 8];
    let mut tell = |n: u64, result: Result<u64, CallError<u64>>| {
        counts[7] += 1;
        counts[match result {
            Ok(result) => {
                assert!(result == n || n % 16 == 15, "{n} got {result}");
                0
            }
            Err(CallError::Failed(error)) => {
                assert_eq!(error, n);
                1
            }
            Err(CallError::Panicked) => 2,
            Err(CallError::Unanswered) => 3,
            Err(CallError::Closed) => 4,
            Err(CallError::Full) => 5,
            Err(CallError::Timeout) => 6,
            Err(other) => panic!("{other:?}"),
        }] += 1;
    };
    let mut n = first;
    while n < first + count {
        // A group of calls at once; some are polled once and then given up.
        let mut calls = FuturesUnordered::new();
        for _ in 0..(1 + random.below(32)).min(first + count - n) {
            let item = n;
            n += 1;
            let mut call = Box::pin(async move {
                let context = context(item / 2 + 1);
                submitter.call_with_context(item, &context).await
            });
            match random.below(8) {
                0 => match call.as_mut().now_or_never() {
                    Some(result) => tell(item, result),
                    None => tell(item, Err(CallError::Timeout)),
                },
                _ => calls.push(call.map(move |result| (item, result))),
            }
        }
        while let Some((item, result)) = block_on(calls.next()) {
            tell(item, result);
        }
    }
    counts
}

/// A small executor: parks the thread.
fn block_on<F: Future>(future: F) -> F::Output {
    struct Unpark(thread::Thread);
    impl std::task::Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = Arc::new(Unpark(thread::current())).into();
    let mut cx = std::task::Context::from_waker(&waker);
    let mut future = std::pin::pin!(future);
    loop {
        if let std::task::Poll::Ready(output) = future.as_mut().poll(&mut cx) {
            return output;
        }
        thread::park();
    }
}

/// Panics on purpose, by the thousand, are not worth reading.
/// Panics, without a word.
fn on_purpose() {
    std::panic::resume_unwind(Box::new("on purpose"));
}

fn silence_panics() {
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        if panic.payload().downcast_ref() != Some(&"on purpose") {
            hook(panic);
        }
    }));
}

/// Counts spans and links as they are exported.
#[derive(Debug)]
struct Tallying(Arc<Tally>);

#[derive(Debug, Default)]
struct Tally {
    batches: AtomicU64,
    links: AtomicU64,
}

impl opentelemetry_sdk::trace::SpanProcessor for Tallying {
    fn on_start(&self, _span: &mut opentelemetry_sdk::trace::Span, _cx: &Context) {}

    fn on_end(&self, span: SpanData) {
        self.0.batches.fetch_add(1, Ordering::Relaxed);
        self.0.links.fetch_add(span.links.len() as u64, Ordering::Relaxed);
    }

    fn force_flush(&self) -> opentelemetry_sdk::error::OTelSdkResult {
        Ok(())
    }

    fn shutdown_with_timeout(&self, _timeout: Duration) -> opentelemetry_sdk::error::OTelSdkResult {
        Ok(())
    }
}

#[cfg(feature = "tokio")]
mod tasks {
    use super::*;
    use futures_util::StreamExt;

    #[tokio::test]
    async fn batches_run_in_a_task() {
        let (_provider, tracer, exporter) = telemetry();
        let (submitter, mut processor) = of_size(2, tracer);
        let run = tokio::spawn(async move {
            processor
                .run_async(|batch| async move {
                    tokio::task::yield_now().await;
                    assert!(batch.payloads().all(|n| *n != 3), "on purpose");
                    batch.succeed_all(|n| n * 2);
                })
                .await;
        });
        let (one, two) = tokio::join!(submitter.call(1), submitter.call(2));
        assert_eq!((one, two), (Ok(2), Ok(4)));
        let (three, four) = tokio::join!(submitter.call(3), submitter.call_wait(4));
        assert_eq!((three, four), (Err(CallError::Panicked), Err(CallError::Panicked)));
        submitter.close();
        run.await.unwrap();
        assert_eq!(spans(&exporter, "batch").len(), 2);
        assert_eq!(submitter.stats().queue().handler_panics(), 1);
    }

    #[tokio::test]
    async fn items_run_in_a_task() {
        let (_provider, tracer, exporter) = telemetry();
        let (submitter, mut processor) = of_size(3, tracer.clone());
        let run = tokio::spawn(async move {
            processor
                .run_each_async(|n, cx| async move {
                    tokio::task::yield_now().await;
                    // The item's span is current after an await, too.
                    assert_eq!(Context::current().span().span_context(), cx.span().span_context());
                    match n {
                        1 => Err("no"),
                        2 => panic!("on purpose"),
                        n => Ok(n),
                    }
                })
                .await;
        });
        let results = tokio::join!(submitter.call(0), submitter.call(1), submitter.call(2));
        assert_eq!(results, (Ok(0), Err(CallError::Failed("no")), Err(CallError::Panicked)));
        drop(submitter);
        run.await.unwrap();
        let statuses: Vec<Status> =
            spans(&exporter, "process_item").into_iter().map(|span| span.status).collect();
        assert_eq!(statuses, [Status::Unset, Status::error("no"), Status::error("panicked: on purpose")]);
    }

    /// Which is a stream of batches, that ends when it is closed and empty.
    #[tokio::test]
    async fn a_task_waits_for_room_that_the_processor_makes() {
        let _watchdog = watchdog();
        let (_provider, tracer, _exporter) = telemetry();
        let (submitter, processor) = room_for_two::<u64>(tracer);
        let submit = async {
            for n in 1..=6 {
                submitter.submit_wait_async(n).await.unwrap();
            }
            submitter.close();
            submitter.submit_wait_async(7).await.unwrap_err().into_item()
        };
        let served = processor.map(|batch| batch.payloads().copied().collect::<Vec<_>>()).collect::<Vec<_>>();
        let (refused, served) = tokio::join!(submit, served);
        assert_eq!((refused, served), (7, vec![vec![1, 2], vec![3, 4], vec![5, 6]]));
    }

    #[tokio::test]
    async fn items_can_be_answered_from_other_tasks() {
        let (_provider, tracer, exporter) = telemetry();
        let (submitter, mut processor) = of_size(3, tracer);
        let calls = async { tokio::join!(submitter.call(1), submitter.call(2), submitter.call(3)) };
        let serve = async {
            for item in processor.next().await.unwrap() {
                tokio::spawn(async move {
                    tokio::task::yield_now().await;
                    let (payload, answer) = item.into_parts();
                    assert!(answer.is_awaited());
                    assert_eq!(format!("{answer:?}"), "Answer { is_awaited: true, .. }");
                    answer.succeed(payload);
                });
            }
        };
        let (results, ()) = tokio::join!(calls, serve);
        assert_eq!(results, (Ok(1), Ok(2), Ok(3)));
        tokio::task::yield_now().await;
        assert_eq!(spans(&exporter, "batch").len(), 1);
    }

    #[tokio::test]
    async fn a_caller_who_leaves_does_not_touch_the_batch() {
        let (_provider, tracer, _exporter) = telemetry();
        let (submitter, mut processor) = of_size(2, tracer);
        let stays = submitter.call(2);
        let leaves = tokio::time::timeout(Duration::from_millis(1), submitter.call(1));
        assert!(leaves.await.is_err());
        let serve = async {
            let batch = processor.next().await.unwrap();
            let awaited: Vec<bool> = batch.items().iter().map(|item| item.is_awaited()).collect();
            assert_eq!(awaited, [false, true]);
            batch.succeed_all(|n| *n);
        };
        let (stays, ()) = tokio::join!(stays, serve);
        assert_eq!(stays, Ok(2));
        assert_eq!(submitter.stats().succeeded(), 2);
    }
}

/// What a processor calls besides the handler is the user's code, too: where it panics, that costs the one
/// item or nothing, and the processor goes on.
#[test]
fn panics_around_the_handler_cost_nobody_else_an_answer() {
    /// Panics when it is dropped, hashed or shown, if it is 1.
    #[derive(Clone, Debug, PartialEq, Eq)]
    struct Bad(u64);
    impl Bad {
        fn panic_if_one(&self) {
            if self.0 == 1 && !thread::panicking() {
                on_purpose();
            }
        }
    }
    impl std::hash::Hash for Bad {
        fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
            self.panic_if_one();
            self.0.hash(state);
        }
    }
    impl std::fmt::Display for Bad {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            self.panic_if_one();
            write!(f, "{}", self.0)
        }
    }
    struct BadDrop(u64);
    impl std::fmt::Display for BadDrop {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            write!(f, "{}", self.0)
        }
    }
    impl Drop for BadDrop {
        fn drop(&mut self) {
            Bad(self.0).panic_if_one();
        }
    }

    let _watchdog = watchdog();
    let (_provider, tracer, exporter) = telemetry();
    fn build<R: Send + 'static, E: Send + 'static>() -> BatchProcessorBuilder<u64, R, E> {
        BatchProcessor::builder("batch").with_max_batch_size(1).with_max_delay(NEVER)
    }

    // The text of an error.
    let (submitter, processor) = build().build(tracer.clone()).unwrap();
    let handle = processor.spawn_each(|n: u64, _| Err::<(), _>(Bad(n))).unwrap();
    for n in [1, 2] {
        assert_eq!(submitter.call_blocking(n), Err(CallError::Failed(Bad(n))));
    }
    handle.shutdown().unwrap();
    let texts: Vec<_> = spans(&exporter, "process_item").into_iter().map(|span| span.status).collect();
    assert_eq!(texts, [Status::error("(its text panicked)"), Status::error("2")]);

    // The hash of a key.
    let (submitter, processor) = build().with_key(|n: &u64| Bad(*n)).build(tracer.clone()).unwrap();
    let handle = processor.spawn_each(|n: u64, _| Ok::<_, Text>(n)).unwrap();
    for n in [1, 2] {
        assert_eq!(submitter.call_blocking(n), Ok(n));
    }
    handle.shutdown().unwrap();

    // The drop of a result, or of an error, that nobody waits for any more.
    for fails in [false, true] {
        let (submitter, processor) = build().build(tracer.clone()).unwrap();
        let (go, gone) = mpsc::channel();
        let handle = processor
            .spawn_each(move |n: u64, _| {
                gone.recv().unwrap();
                if fails { Err(BadDrop(n)) } else { Ok(BadDrop(n)) }
            })
            .unwrap();
        let submit = |n| {
            let call = submitter.call_blocking_timeout(n, Duration::from_millis(1));
            assert!(matches!(call, Err(CallError::Timeout)), "nobody answers before the caller gives up");
            go.send(()).unwrap();
        };
        [1, 2].into_iter().for_each(submit);
        handle.shutdown().unwrap();
        let stats = submitter.stats();
        assert_eq!((stats.succeeded(), stats.failed()), if fails { (0, 2) } else { (2, 0) });
    }
}

/// Of payloads that were divided and not given out, as of those in the rings.
#[test]
fn a_processor_that_goes_counts_and_drops_what_it_divided() {
    struct Payload(Arc<AtomicU64>);
    impl Drop for Payload {
        fn drop(&mut self) {
            self.0.fetch_add(1, Ordering::Relaxed);
            on_purpose();
        }
    }

    let (_provider, tracer, _exporter) = telemetry();
    let mut key = 0;
    let (submitter, mut processor) = BatchProcessor::<Payload, (), Text>::builder("batch")
        .with_max_batch_size(3)
        .with_shards(1)
        .with_key(move |_| {
            key += 1;
            key
        })
        .build(tracer)
        .unwrap();
    let dropped = Arc::new(AtomicU64::new(0));
    (0..5).for_each(|_| submitter.submit(Payload(Arc::clone(&dropped))).unwrap());
    let mut batch = processor.next_batch().unwrap().into_iter();
    let (payload, answer) = batch.next().unwrap().into_parts();
    answer.succeed(());
    drop(batch);
    let _ = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| drop(payload)));
    drop(processor);
    assert_eq!(dropped.load(Ordering::Relaxed), 5);
    let stats = submitter.stats();
    assert_eq!((stats.queue().received(), stats.succeeded(), stats.failed()), (5, 1, 4));
}

/// A sampler or span processor that panics costs spans, not items, nor the process while a handler unwinds.
#[test]
fn telemetry_that_panics_costs_spans_only() {
    #[derive(Clone, Copy, Debug, PartialEq)]
    enum Panics {
        Start,
        End,
    }
    #[derive(Debug)]
    struct Broken(Panics);
    impl SpanProcessor for Broken {
        fn on_start(&self, _: &mut Span, _: &Context) {
            if self.0 == Panics::Start {
                on_purpose();
            }
        }
        fn on_end(&self, _: SpanData) {
            if self.0 == Panics::End {
                on_purpose();
            }
        }
        fn force_flush(&self) -> OTelSdkResult {
            Ok(())
        }
        fn shutdown_with_timeout(&self, _: Duration) -> OTelSdkResult {
            Ok(())
        }
    }

    let _watchdog = watchdog();
    for panics in [Panics::Start, Panics::End] {
        let provider = SdkTracerProvider::builder().with_span_processor(Broken(panics)).build();
        let (submitter, processor) = of_size(1, provider.tracer("test"));
        let handle = processor
            .spawn(|batch| {
                if batch.payloads().next() == Some(&1) {
                    on_purpose();
                }
                batch.succeed_all(|n| n + 1);
            })
            .unwrap();
        assert_eq!(submitter.call_blocking(1), Err(CallError::Panicked));
        assert_eq!(submitter.call_blocking(2), Ok(3));
        handle.shutdown().unwrap();
        let (submitter, processor) = of_size(1, provider.tracer("test"));
        let handle = processor.spawn_each(|n, _| Ok(n + 1)).unwrap();
        assert_eq!([1, 2].map(|n| submitter.call_blocking(n)), [Ok(2), Ok(3)]);
        handle.shutdown().unwrap();
    }
}
