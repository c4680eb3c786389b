//! Keys, clones and payloads of items that share an answer are user code. Callers may have left.

use super::coalescing::{answer, call};
use super::common::NEVER;
use super::support::{Text, account, on_purpose, spans, telemetry, text};
use batchlink::processor::{Batch, BatchProcessor, BatchProcessorBuilder, CallError};
use opentelemetry::trace::Status;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

fn of_size<T: Send + 'static, R: Send + 'static>(size: usize) -> BatchProcessorBuilder<T, R, Text> {
    BatchProcessor::builder("batch").with_max_batch_size(size).with_max_delay(NEVER).with_shards(1)
}

/// A result that counts its clones, of which the n-th may panic.
struct Counted {
    clones: Arc<AtomicUsize>,
    panics_at: usize,
}

impl Clone for Counted {
    fn clone(&self) -> Self {
        let (clones, panics_at) = (Arc::clone(&self.clones), self.panics_at);
        if clones.fetch_add(1, Ordering::Relaxed) == panics_at {
            on_purpose();
        }
        Self { clones, panics_at }
    }
}

/// One clone for each caller that waits but the last: none for items that were only submitted, and
/// for callers that left.
#[test]
fn only_waiting_callers_get_clones() {
    let (_provider, tracer, _exporter) = telemetry();
    let builder = of_size::<u64, Counted>(6).with_coalescing(|key| *key);
    let (submitter, mut processor) = builder.build(tracer).unwrap();
    for (left, clones) in [(0, 3), (1, 2), (3, 0), (4, 0)] {
        let mut calls: Vec<_> = (0..4).map(|_| call(&submitter, 7, 1)).collect();
        (0..2).for_each(|_| submitter.submit(7).unwrap());
        let [item] =
            <[_; 1]>::try_from(processor.next_batch().unwrap().into_iter().collect::<Vec<_>>())
                .unwrap();
        // Those at the end, so that the last to wait is another one.
        calls.truncate(4 - left);
        assert_eq!(item.is_awaited(), left < 4);
        let counter = Arc::new(AtomicUsize::new(0));
        item.succeed(Counted { clones: Arc::clone(&counter), panics_at: usize::MAX });
        for call in calls {
            assert!(answer(call).is_ok());
        }
        assert_eq!(counter.load(Ordering::Relaxed), clones);
        assert_eq!(Arc::strong_count(&counter), 1);
    }
    assert_eq!((submitter.stats().succeeded(), submitter.stats().failed()), (24, 0));
}

/// A clone that panics costs its own caller the answer, and no other.
#[test]
fn panicking_clone_fails_one() {
    let (_provider, tracer, exporter) = telemetry();
    let builder = of_size::<u64, Counted>(4).with_coalescing(|key| *key);
    let (submitter, mut processor) = builder.build(tracer).unwrap();
    let calls = [1, 2, 3, 4].map(|span| call(&submitter, 7, span));
    let clones = Arc::new(AtomicUsize::new(0));
    let result = || Counted { clones: Arc::clone(&clones), panics_at: 1 };
    processor.next_batch().unwrap().succeed_all(|_| result());
    let answers = calls.map(|call| answer(call).map(drop));
    assert_eq!(answers, [Ok(()), Err(CallError::ClonePanicked), Ok(()), Ok(())]);
    assert_eq!((submitter.stats().succeeded(), submitter.stats().failed()), (3, 1));
    let [span] = spans(&exporter, "batch").try_into().unwrap();
    assert_eq!(account(&span), "4 4 size_limit 1 3 1 0.75");
    let why = CallError::<Text>::ClonePanicked.to_string();
    assert_eq!(span.status, Status::error(format!("1 item failed: {why}")));
    assert_eq!(text(&span.attributes, "error.type").unwrap(), "clone_panicked");
}

/// An item that the handler failed has failed for that reason, whatever its clone does.
#[test]
fn panicking_error_clone_keeps_text() {
    struct Gone;
    impl Clone for Gone {
        fn clone(&self) -> Self {
            on_purpose();
            Self
        }
    }
    impl fmt::Display for Gone {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("gone")
        }
    }
    let (_provider, tracer, exporter) = telemetry();
    let (submitter, mut processor) = BatchProcessor::<u64, u64, Gone>::builder("batch")
        .with_max_batch_size(3)
        .with_shards(1)
        .with_coalescing(|key| *key)
        .build(tracer)
        .unwrap();
    let calls = [7, 7, 7].map(|item| call(&submitter, item, 1));
    processor.next_batch().unwrap().fail_all(|_| Gone);
    let [one, two, last] = calls.map(|call| answer(call).unwrap_err());
    assert!(matches!((one, two), (CallError::ClonePanicked, CallError::ClonePanicked)));
    assert!(matches!(last, CallError::Failed(Gone)));
    let [span] = spans(&exporter, "batch").try_into().unwrap();
    assert_eq!(span.status, Status::error("3 items failed, first: gone"));
    assert_eq!(text(&span.attributes, "error.type").unwrap(), "_OTHER");
}

/// A handler that panics answers every caller of every key.
#[test]
fn handler_panic_reaches_all() {
    let (_provider, tracer, exporter) = telemetry();
    let builder = of_size::<u64, u64>(3).with_coalescing(|key| *key);
    let (submitter, mut processor) = builder.build(tracer).unwrap();
    let calls = [7, 8, 7].map(|item| call(&submitter, item, 1));
    submitter.close();
    processor.run(|batch: Batch<u64, u64, Text>| {
        let _unanswered = batch;
        on_purpose();
    });
    assert_eq!(calls.map(answer), [const { Err(CallError::Panicked) }; 3]);
    assert_eq!((submitter.stats().failed(), submitter.stats().in_flight()), (3, 0));
    let [span] = spans(&exporter, "batch").try_into().unwrap();
    assert_eq!(account(&span), "3 1 size_limit 1 0 3 0");
}

/// A key whose hash or drop panics on demand.
#[derive(PartialEq, Eq)]
struct Key {
    n: u64,
    hash_panics: bool,
    drop_panics: bool,
}

impl Hash for Key {
    fn hash<H: Hasher>(&self, state: &mut H) {
        if self.hash_panics {
            on_purpose();
        }
        self.n.hash(state);
    }
}

impl Drop for Key {
    fn drop(&mut self) {
        if self.drop_panics && !std::thread::panicking() {
            on_purpose();
        }
    }
}

/// An item for which the key, or its hash, panics stands alone, and takes nothing from the others.
#[test]
fn panicking_key_stands_alone() {
    let (_provider, tracer, _exporter) = telemetry();
    let key = |&n: &u64| {
        if n == 0 {
            on_purpose();
        }
        Key { n, hash_panics: n == 1, drop_panics: false }
    };
    let builder = of_size::<u64, u64>(8).with_coalescing(key);
    let (submitter, mut processor) = builder.build(tracer).unwrap();
    let items = [0, 7, 1, 7, 0, 1, 8, 7];
    let calls = items.map(|item| call(&submitter, item, 1));
    let batch = processor.next_batch().unwrap();
    assert!(batch.payloads().eq(&[0, 7, 1, 0, 1, 8]));
    batch.succeed_all(|n| n * 10);
    assert_eq!(calls.map(answer), items.map(|n| Ok(n * 10)));
}

/// A key whose drop panics when its batch has been made leaves nothing behind that a later batch
/// could take for its own.
#[test]
fn panicking_key_drop_is_forgotten() {
    let (_provider, tracer, _exporter) = telemetry();
    let key = |&n: &u64| Key { n, hash_panics: false, drop_panics: n % 2 == 1 };
    let builder = of_size::<u64, u64>(8).with_coalescing(key);
    let (submitter, mut processor) = builder.build(tracer).unwrap();
    for round in 0..20 {
        let items: [u64; 8] = std::array::from_fn(|n| ((n + round) % 5) as u64);
        let calls = items.map(|item| call(&submitter, item, 1));
        processor.next_batch().unwrap().succeed_all(|n| *n);
        assert_eq!(calls.map(answer), items.map(Ok));
    }
}

/// The payloads that no handler gets are dropped before the batch is handed out, each guarded.
#[test]
fn panicking_payload_drop_is_caught() {
    struct Payload(#[expect(dead_code)] Arc<()>);
    impl Drop for Payload {
        fn drop(&mut self) {
            on_purpose();
        }
    }
    let (_provider, tracer, _exporter) = telemetry();
    let builder = of_size::<Payload, u64>(4).with_coalescing(|_| 7);
    let (submitter, mut processor) = builder.build(tracer).unwrap();
    let held = Arc::new(());
    for _ in 0..4 {
        submitter.submit(Payload(Arc::clone(&held))).map_err(|error| error.reason()).unwrap();
    }
    let batch = processor.next_batch().unwrap();
    assert_eq!((batch.len(), Arc::strong_count(&held)), (1, 2));
    batch.succeed_all(|_| 1);
    assert_eq!((submitter.stats().succeeded(), Arc::strong_count(&held)), (4, 1));
}

/// Where left callers are skipped, the first item whose caller waits stands for the others. A key
/// that all have left is not handled.
#[test]
fn left_first_is_replaced() {
    let (_provider, tracer, _exporter) = telemetry();
    let builder = of_size::<(u64, u64), u64>(6).with_skip_canceled(true);
    let builder = builder.with_coalescing(|&(key, _)| key);
    let (submitter, mut processor) = builder.build(tracer).unwrap();
    let items = [(7, 0), (8, 1), (7, 2), (7, 3), (8, 4), (9, 5)];
    let mut calls = items.map(|item| Some(call(&submitter, item, 1)));
    [0, 1, 4].into_iter().for_each(|left: usize| calls[left] = None);
    let batch = processor.next_batch().unwrap();
    assert!(batch.payloads().eq(&[(7, 2), (9, 5)]));
    batch.succeed_all(|item| item.1);
    let answers: Vec<_> = calls.into_iter().flatten().map(answer).collect();
    assert_eq!(answers, [Ok(2), Ok(2), Ok(5)]);
    let stats = submitter.stats();
    assert_eq!((stats.succeeded(), stats.canceled(), stats.coalesced()), (3, 3, 1));
    assert_eq!(stats.in_flight(), 0);
}

/// By default the first item is handled though its caller left, for the callers that wait.
#[test]
fn left_first_is_handled() {
    let (_provider, tracer, _exporter) = telemetry();
    let builder = of_size::<(u64, u64), u64>(2).with_coalescing(|&(key, _)| key);
    let (submitter, mut processor) = builder.build(tracer).unwrap();
    drop(call(&submitter, (7, 0), 1));
    let waiting = call(&submitter, (7, 1), 2);
    let batch = processor.next_batch().unwrap();
    assert!(batch.payloads().eq(&[(7, 0)]));
    assert!(batch.items()[0].is_awaited());
    batch.succeed_all(|item| item.1);
    assert_eq!(answer(waiting), Ok(0));
    assert_eq!((submitter.stats().succeeded(), submitter.stats().canceled()), (2, 0));
}
