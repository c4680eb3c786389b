//! The answers of callers.

use super::common::*;
use super::support::*;
use batchlink::{
    ShutdownError, Timeout,
    processor::{Batch, BatchProcessor, CallError},
};
use opentelemetry::trace::Status;
use std::error::Error;
use std::thread;
use std::time::Duration;

#[test]
fn callers_get_own_results() {
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
fn batch_answers_all_callers() {
    let _watchdog = watchdog();
    let (_provider, tracer, exporter) = telemetry();
    let (submitter, mut processor) = of_size(3, tracer);
    let ask = |handle: fn(Batch<u64, u64, Text>),
               processor: &mut BatchProcessor<u64, u64, Text>| {
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
    let mut results: Vec<_> =
        ask(|batch| batch.complete([Ok(7), Err("no"), Ok(7)]), &mut processor)
            .into_iter()
            .map(|(_, result)| result)
            .collect();
    results.sort_by_key(|result| format!("{result:?}"));
    assert_eq!(results, [Err(CallError::Failed("no")), Ok(7), Ok(7)]);
    let accounts: Vec<String> = spans(&exporter, "batch").iter().map(account).collect();
    // Submitted outside of any span: nothing to link.
    let tails = ["1 3 0 1", "2 0 3 0", "3 0 3 0", "4 2 1 0.6666666666666666"];
    assert!(
        accounts
            .iter()
            .zip(tails)
            .all(|(account, tail)| *account == format!("3 0 size_limit {tail}")),
        "{accounts:?}"
    );
}

#[test]
fn handler_panic_spares_next_batch() {
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
    let statuses: Vec<Status> =
        spans(&exporter, "batch").into_iter().map(|span| span.status).collect();
    assert_eq!(statuses, [Status::error("1 item failed: panicked: on purpose"), Status::Unset]);
}

#[test]
fn failed_call_says_why() {
    let why = |error: CallError<ShutdownError>| {
        (error.to_string(), error.source().map(ToString::to_string))
    };
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
fn dropped_processor_answers_callers() {
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
