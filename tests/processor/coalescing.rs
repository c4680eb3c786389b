//! Items of one batch with the same key: one piece of work, an answer and a link for each.

use super::common::{NEVER, context, number, watchdog};
use super::support::{Text, account, spans, telemetry, text};
use batchlink::Trigger;
use batchlink::processor::{BatchProcessor, BatchProcessorBuilder, CallError, Submitter};
use opentelemetry::trace::Status;
use opentelemetry_sdk::trace::{InMemorySpanExporter, SpanData};
use std::collections::HashSet;
use std::pin::Pin;
use std::task::{self, Poll, Waker};
use std::thread;
use std::time::Duration;

/// The key, and a number.
pub(super) type Item = (u64, u64);
type Builder = BatchProcessorBuilder<Item, String, Text>;
type Pair = (Submitter<Item, String, Text>, BatchProcessor<Item, String, Text>);
pub(super) type Call<'a, R, E> = Pin<Box<dyn Future<Output = Result<R, CallError<E>>> + 'a>>;

/// Batches of `size`, not yet coalesced.
fn of_size(size: usize) -> Builder {
    BatchProcessor::builder("batch").with_max_batch_size(size).with_max_delay(NEVER).with_shards(1)
}

/// Batches of `size`, coalesced by key.
fn coalescing(size: usize) -> (Pair, InMemorySpanExporter) {
    let (_provider, tracer, exporter) = telemetry();
    (of_size(size).with_coalescing(|&(key, _)| key).build(tracer).unwrap(), exporter)
}

fn poll<R, E>(call: &mut Call<'_, R, E>) -> Poll<Result<R, CallError<E>>> {
    call.as_mut().poll(&mut task::Context::from_waker(Waker::noop()))
}

/// Calls with the item, in the span of its number, and submits it.
pub(super) fn call<T: Copy, R, E>(
    submitter: &Submitter<T, R, E>,
    item: T,
    span: u64,
) -> Call<'_, R, E> {
    let context = context(span);
    let mut call: Call<'_, R, E> =
        Box::pin(async move { submitter.call_with_context(item, &context).await });
    assert!(poll(&mut call).is_pending());
    call
}

/// The answer, which must be there.
pub(super) fn answer<R, E>(mut call: Call<'_, R, E>) -> Result<R, CallError<E>> {
    let Poll::Ready(answer) = poll(&mut call) else { panic!("no answer") };
    answer
}

fn load(&(key, n): &Item) -> String {
    format!("row {key}, asked by {n}")
}

fn linked(span: &SpanData) -> Vec<u64> {
    span.links.iter().map(number).collect()
}

/// The handler gets the first item of each key, and each caller the answer of its own key. The
/// batch links every caller, and counts every item.
#[test]
fn same_keys_share_answer() {
    let ((submitter, mut processor), exporter) = coalescing(6);
    let items = [(7, 0), (8, 1), (7, 2), (9, 3), (8, 4), (7, 5)];
    let calls: Vec<_> = items.iter().map(|&item| call(&submitter, item, item.1 + 1)).collect();
    let batch = processor.next_batch().unwrap();
    assert_eq!((batch.len(), batch.trigger()), (3, Trigger::Size));
    assert!(batch.payloads().eq(&[(7, 0), (8, 1), (9, 3)]));
    assert!(batch.items().iter().map(|item| item.index()).eq(0..3));
    assert!(batch.items().iter().all(|item| item.is_awaited()));
    assert!(batch.items()[0].span_contexts().eq(&[1, 3, 6].map(context)));
    assert!(batch.items()[2].span_contexts().eq([batch.items()[2].span_context()]));
    assert_eq!((batch.counts().received, batch.counts().linked), (6, 6));
    assert_eq!((submitter.stats().in_flight(), submitter.stats().coalesced()), (6, 3));
    batch.succeed_all(load);
    for (call, asked) in calls.into_iter().zip([(7, 0), (8, 1), (7, 0), (9, 3), (8, 1), (7, 0)]) {
        assert_eq!(answer(call), Ok(load(&asked)));
    }
    let [span] = spans(&exporter, "batch").try_into().unwrap();
    assert_eq!(account(&span), "6 6 size_limit 1 6 0 1");
    assert_eq!(text(&span.attributes, "batch.coalesced").unwrap(), "3");
    assert_eq!(linked(&span), [1, 2, 3, 4, 5, 6]);
    let stats = submitter.stats();
    assert_eq!((stats.succeeded(), stats.failed(), stats.in_flight()), (6, 0, 0));
    assert_eq!((stats.queue().received(), stats.queue().accepted()), (6, 6));
}

/// A batch of distinct keys is one without coalescing, and says nothing of it.
#[test]
fn distinct_keys_stay_apart() {
    let ((submitter, mut processor), exporter) = coalescing(3);
    let calls = [1, 2, 3].map(|key| call(&submitter, (key, key), key));
    processor.next_batch().unwrap().succeed_all(load);
    for (call, key) in calls.into_iter().zip(1..) {
        assert_eq!(answer(call), Ok(load(&(key, key))));
    }
    assert_eq!(submitter.stats().coalesced(), 0);
    let [span] = spans(&exporter, "batch").try_into().unwrap();
    assert_eq!(text(&span.attributes, "batch.coalesced"), None);
}

/// Items are coalesced within a batch: the next one asks again, whether or not the last has its
/// answers.
#[test]
fn batches_do_not_share() {
    let ((submitter, mut processor), _exporter) = coalescing(2);
    let first = [0, 1].map(|n| call(&submitter, (7, n), 1));
    let early = processor.next_batch().unwrap();
    let second = [2, 3].map(|n| call(&submitter, (7, n), 1));
    let late = processor.next_batch().unwrap();
    assert!(late.payloads().eq(&[(7, 2)]));
    late.succeed_all(load);
    second.into_iter().for_each(|call| assert_eq!(answer(call), Ok(load(&(7, 2)))));
    early.succeed_all(load);
    first.into_iter().for_each(|call| assert_eq!(answer(call), Ok(load(&(7, 0)))));
    assert_eq!(submitter.stats().coalesced(), 2);
}

/// An error of the handler reaches every caller of the key and no other. Each of their items has
/// failed, with the text once.
#[test]
fn error_reaches_whole_key() {
    let ((submitter, mut processor), exporter) = coalescing(4);
    let calls = [(7, 0), (8, 1), (7, 2)].map(|item| call(&submitter, item, 1));
    submitter.submit((7, 3)).unwrap();
    for item in processor.next_batch().unwrap() {
        match item.payload().0 {
            7 => item.fail("gone"),
            _ => item.succeed("here".into()),
        }
    }
    let gone = Err(CallError::Failed("gone"));
    let [first, other, last] = calls.map(answer);
    assert_eq!((first, other, last), (gone.clone(), Ok("here".into()), gone));
    assert_eq!((submitter.stats().succeeded(), submitter.stats().failed()), (1, 3));
    let [span] = spans(&exporter, "batch").try_into().unwrap();
    assert_eq!(account(&span), "4 1 size_limit 1 1 3 0.25");
    assert_eq!(span.status, Status::error("3 items failed, first: gone"));
    assert_eq!(span.events.len(), 1);
}

/// Results are counted against the items that the handler got.
#[test]
fn results_are_per_key() {
    let ((submitter, mut processor), _exporter) = coalescing(3);
    for results in [2, 3] {
        let calls = [(7, 0), (8, 1), (7, 2)].map(|item| call(&submitter, item, 1));
        let given = (0..results).map(|n| Ok(n.to_string()));
        processor.next_batch().unwrap().complete(given);
        let count = CallError::ResultCount { items: 2, results };
        let expected = match results {
            2 => [Ok("0".into()), Ok("1".into()), Ok("0".into())],
            _ => [Err(count), Err(count), Err(count)],
        };
        assert_eq!(calls.map(answer), expected);
    }
}

/// An item that gets no answer, or an answer that is moved away and dropped, fails for every caller
/// of its key.
#[test]
fn lost_answer_reaches_whole_key() {
    let ((submitter, mut processor), _exporter) = coalescing(4);
    let calls = [(7, 0), (8, 1), (7, 2), (8, 3)].map(|item| call(&submitter, item, 1));
    let mut items = processor.next_batch().unwrap().into_iter();
    let (_, kept) = items.next().unwrap().into_parts();
    drop(items);
    assert_eq!(submitter.stats().failed(), 2);
    assert!(kept.is_awaited());
    thread::spawn(move || drop(kept)).join().unwrap();
    assert_eq!(calls.map(answer), [const { Err(CallError::Unanswered) }; 4]);
    assert_eq!((submitter.stats().failed(), submitter.stats().in_flight()), (4, 0));
}

/// A processor that is dropped answers every caller of what it has not handed out.
#[test]
fn dropped_processor_answers_each() {
    let ((submitter, processor), _exporter) = coalescing(8);
    let calls = [0, 1, 2].map(|n| call(&submitter, (7, n), 1));
    drop(processor);
    assert_eq!(calls.map(answer), [const { Err(CallError::Closed) }; 3]);
    assert_eq!((submitter.stats().failed(), submitter.stats().coalesced()), (3, 0));
}

/// Keys that divide batches come first: items are coalesced within the part.
#[test]
fn parts_are_coalesced_apart() {
    let divided = |builder: Builder| builder.with_key(|&(_, n)| n % 2);
    let filled = |builder: Builder| builder.with_key_batches(|&(_, n)| n % 2);
    for divide in [divided, filled] {
        let (_provider, tracer, _exporter) = telemetry();
        let builder = divide(of_size(6)).with_coalescing(|&(key, _)| key);
        let (submitter, mut processor) = builder.build(tracer).unwrap();
        let items = [(7, 0), (7, 1), (7, 2), (8, 3), (8, 4), (7, 5)];
        let calls = items.map(|item| call(&submitter, item, 1));
        let mut next = || {
            let batch = processor.try_next().unwrap();
            let payloads: Vec<_> = batch.payloads().copied().collect();
            batch.succeed_all(load);
            payloads
        };
        assert_eq!((next(), next()), (vec![(7, 0), (8, 4)], vec![(7, 1), (8, 3)]));
        let expected = [(7, 0), (7, 1), (7, 0), (8, 3), (8, 4), (7, 1)];
        assert_eq!(calls.map(answer), expected.map(|item| Ok(load(&item))));
        assert_eq!(submitter.stats().coalesced(), 2);
    }
}

/// Size and weight are those of all items, as they wait.
#[test]
fn triggers_count_every_item() {
    let (_provider, tracer, _exporter) = telemetry();
    let builder = of_size(8).with_max_batch_weight(5, |&(_, n)| n).with_coalescing(|item| item.0);
    let (submitter, mut processor) = builder.build(tracer).unwrap();
    [3, 2, 5].into_iter().for_each(|weight| submitter.submit((7, weight)).unwrap());
    let batch = processor.next_batch().unwrap();
    assert_eq!((batch.trigger(), batch.len()), (Trigger::Weight, 1));
    assert_eq!(batch.counts().received, 2);
    assert_eq!(submitter.stats().queue().pending(), 1);
    drop(batch);
}

/// Handlers get one item of each key, and every caller the answer of its key.
#[test]
fn handlers_run_once_a_key() {
    run_closed(|mut processor| processor.run(|batch| batch.succeed_all(load)));
    run_closed(|mut processor| processor.run_each(|item, _| Ok(load(&item))));
}

#[cfg(feature = "tokio")]
#[test]
fn tasks_run_once_a_key() {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    run_closed(|mut processor| {
        runtime.block_on(processor.run_async(async |batch| batch.succeed_all(load)));
    });
    run_closed(|mut processor| {
        runtime.block_on(processor.run_each_async(async |item, _| Ok(load(&item))));
    });
}

/// Two batches that `run` is to handle.
fn run_closed(run: impl FnOnce(BatchProcessor<Item, String, Text>)) {
    let _watchdog = watchdog();
    let ((submitter, processor), _exporter) = coalescing(4);
    let items = [(7, 0), (8, 1), (7, 2), (8, 3), (8, 4)];
    let calls = items.map(|item| call(&submitter, item, 1));
    submitter.close();
    run(processor);
    let expected = [(7, 0), (8, 1), (7, 0), (8, 1), (8, 4)];
    assert_eq!(calls.map(answer), expected.map(|item| Ok(load(&item))));
    assert_eq!((submitter.stats().succeeded(), submitter.stats().coalesced()), (5, 2));
}

/// Threads that call with few keys at once, and leave at any moment, get the answer of their own
/// key. Every item ends in one way.
#[test]
fn racing_callers_are_conserved() {
    let _watchdog = watchdog();
    let (_provider, tracer, _exporter) = telemetry();
    let builder = of_size(8).with_max_delay(Duration::ZERO).with_skip_canceled(true);
    let builder = builder.with_coalescing(|&(key, _)| key);
    let (submitter, processor) = builder.build(tracer).unwrap();
    let handle = processor
        .spawn(|batch| {
            let keys: HashSet<u64> = batch.payloads().map(|item| item.0).collect();
            assert_eq!(keys.len(), batch.len());
            batch.succeed_all(|item| item.0.to_string());
        })
        .unwrap();
    thread::scope(|scope| {
        for thread in 0..4 {
            let submitter = submitter.clone();
            scope.spawn(move || {
                for n in 0..500 {
                    let key = n % 3;
                    let timeout = Duration::from_micros((n * 7 + thread) % 80);
                    match submitter.call_blocking_timeout((key, n), timeout) {
                        Ok(answer) => assert_eq!(answer, key.to_string()),
                        Err(error) => assert!(matches!(error, CallError::Timeout), "{error}"),
                    }
                    assert_eq!(submitter.call_blocking((key, n)), Ok(key.to_string()));
                }
            });
        }
    });
    handle.shutdown().unwrap();
    let stats = submitter.stats();
    assert_eq!(stats.succeeded() + stats.canceled(), 4000);
    assert_eq!((stats.failed(), stats.in_flight()), (0, 0));
    assert!(stats.succeeded() >= 2000 && stats.coalesced() < stats.succeeded());
}
