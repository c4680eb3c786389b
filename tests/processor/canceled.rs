//! Callers that leave before their batch is taken.

use super::common::NEVER;
use super::support::{Text, account, spans, telemetry};
use batchlink::Trigger;
use batchlink::processor::{BatchProcessor, CallError, Submitter};
use opentelemetry_sdk::trace::SdkTracer;
use std::sync::Arc;
use std::task::{self, Poll, Waker};
use std::thread;
use std::time::Duration;

type Pair<T> = (Submitter<T, u64, Text>, BatchProcessor<T, u64, Text>);

fn skipping<T: Send + 'static>(size: usize, tracer: SdkTracer) -> Pair<T> {
    BatchProcessor::builder("batch")
        .with_max_batch_size(size)
        .with_max_delay(NEVER)
        .with_shards(1)
        .with_skip_canceled(true)
        .build(tracer)
        .unwrap()
}

/// Submits by a call, and leaves.
fn leave<T>(submitter: &Submitter<T, u64, Text>, item: T) {
    let left = submitter.call_blocking_timeout(item, Duration::ZERO);
    assert_eq!(left, Err(CallError::Timeout));
}

/// Items whose callers left count for the trigger, and are not in its batch: neither they nor their
/// links.
#[test]
fn left_callers_are_skipped() {
    let (_provider, tracer, exporter) = telemetry();
    let (submitter, mut processor) = skipping(4, tracer);
    leave(&submitter, 1);
    submitter.submit(2).unwrap();
    leave(&submitter, 3);
    let mut call = Box::pin(submitter.call(4));
    let mut cx = task::Context::from_waker(Waker::noop());
    assert!(call.as_mut().poll(&mut cx).is_pending());

    let batch = processor.next_batch_timeout(Duration::ZERO).unwrap().unwrap();
    assert_eq!((batch.trigger(), batch.counts().received), (Trigger::Size, 2));
    assert_eq!(batch.payloads().copied().collect::<Vec<_>>(), [2, 4]);
    let stats = submitter.stats();
    assert_eq!((stats.canceled(), stats.in_flight(), stats.queue().received()), (2, 2, 4));
    batch.succeed_all(|n| *n);
    assert_eq!(call.as_mut().poll(&mut cx), Poll::Ready(Ok(4)));
    let stats = submitter.stats();
    assert_eq!((stats.succeeded(), stats.failed(), stats.canceled()), (2, 0, 2));
    assert_eq!(stats.in_flight(), 0);
    assert_eq!(account(&spans(&exporter, "batch")[0]), "2 0 size_limit 1 2 0 1");
}

/// By default they are processed: a write still happens.
#[test]
fn default_processes_left_callers() {
    let (_provider, tracer, _exporter) = telemetry();
    let (submitter, mut processor) = super::support::of_size(1, tracer);
    leave(&submitter, 1);
    processor.next_batch().unwrap().succeed_all(|n| *n);
    assert_eq!((submitter.stats().succeeded(), submitter.stats().canceled()), (1, 0));
}

/// A batch that all have left is none: whatever waits for a batch goes on waiting.
#[test]
fn wholly_left_batch_is_skipped() {
    let (_provider, tracer, exporter) = telemetry();
    let (submitter, mut processor) = skipping(1, tracer);
    leave(&submitter, 1);
    assert!(processor.try_next().is_none());
    leave(&submitter, 2);
    assert!(processor.next_batch_timeout(Duration::ZERO).is_err());
    leave(&submitter, 3);
    leave(&submitter, 4);
    submitter.submit(5).unwrap();
    let batch = processor.next_batch().unwrap();
    assert_eq!((batch.number(), batch.payloads().next()), (1, Some(&5)));
    batch.succeed_all(|n| *n);
    leave(&submitter, 6);
    submitter.close();
    assert!(processor.next_batch().is_none());
    let stats = processor.stats();
    assert_eq!((stats.canceled(), stats.succeeded(), stats.queue().batches()), (5, 1, 1));
    assert_eq!(spans(&exporter, "batch").len(), 1);
}

/// A flush does not wait for what was dropped.
#[test]
fn flush_passes_left_callers() {
    let (_provider, tracer, _exporter) = telemetry();
    let (submitter, processor) = skipping(8, tracer);
    leave(&submitter, 1);
    submitter.submit(2).unwrap();
    let handle = processor.spawn(|batch| batch.succeed_all(|n| *n)).unwrap();
    let stats = submitter.flush_and_wait(Duration::from_secs(60)).unwrap();
    assert_eq!((stats.succeeded(), stats.canceled(), stats.in_flight()), (1, 1, 0));
    leave(&submitter, 3);
    let stats = submitter.flush_and_wait(Duration::from_secs(60)).unwrap();
    assert_eq!((stats.succeeded(), stats.canceled(), stats.in_flight()), (1, 2, 0));
    handle.shutdown().unwrap();
}

/// A payload's drop is user code.
#[test]
fn panicking_drop_spares_others() {
    struct Payload(#[expect(dead_code)] Arc<()>);
    impl Drop for Payload {
        fn drop(&mut self) {
            super::support::on_purpose();
        }
    }
    let (_provider, tracer, _exporter) = telemetry();
    let (submitter, mut processor) = skipping(2, tracer);
    let held = Arc::new(());
    leave(&submitter, Payload(Arc::clone(&held)));
    leave(&submitter, Payload(Arc::clone(&held)));
    assert!(processor.try_next().is_none());
    assert_eq!((submitter.stats().canceled(), Arc::strong_count(&held)), (2, 1));
}

/// Callers leave at any moment, and every item ends in exactly one way.
#[test]
fn racing_leavers_are_conserved() {
    let (_provider, tracer, _exporter) = telemetry();
    let (submitter, processor) = skipping(4, tracer);
    let handle = processor.spawn(|batch| batch.succeed_all(|n| *n)).unwrap();
    thread::scope(|scope| {
        for thread in 0..4 {
            let submitter = submitter.clone();
            scope.spawn(move || {
                for n in 0..500 {
                    let timeout = Duration::from_micros((n * 7 + thread) % 40);
                    let _ = submitter.call_blocking_timeout(n, timeout);
                }
            });
        }
    });
    handle.shutdown().unwrap();
    let stats = submitter.stats();
    assert_eq!(stats.succeeded() + stats.failed() + stats.canceled(), stats.queue().accepted());
    assert_eq!((stats.failed(), stats.in_flight()), (0, 0));
    let counts = stats.queue().counts();
    assert_eq!(counts.invalid, stats.succeeded()); // no span is active here
}
