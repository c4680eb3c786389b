//! Many callers at once, of which some give up: one answer each.

use super::common::*;
use super::support::*;
use batchlink::processor::{BatchProcessor, CallError, Submitter};
use opentelemetry::Context;
use opentelemetry::trace::TracerProvider;
use opentelemetry::trace::noop::NoopTracer;
use opentelemetry_sdk::trace::{SdkTracerProvider, SpanData};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

/// 8 submitters, random failures, panics and callers that give up: one answer each, and every count
/// adds up. In release it is a million items.
#[test]
fn every_caller_gets_one_answer() {
    const SUBMITTERS: u64 = 8;
    const EACH: u64 = if cfg!(debug_assertions) { 10_000 } else { 125_000 };
    let _watchdog = watchdog();
    silence_panics();
    let tally = Arc::new(Tally::default());
    let provider =
        SdkTracerProvider::builder().with_span_processor(Tallying(Arc::clone(&tally))).build();
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
    // Callers that gave up did so before they knew.
    assert!(stats.succeeded() >= succeeded && stats.failed() >= failed + panicked + unanswered);
    assert_eq!(
        stats.succeeded() - succeeded + stats.failed() - failed - panicked - unanswered,
        timeout
    );
    assert_eq!(tally.batches.load(Ordering::Relaxed), queue.batches());
    assert_eq!(tally.links.load(Ordering::Relaxed), queue.counts().linked);
    assert_eq!(
        queue.counts().linked
            + queue.counts().duplicates
            + queue.counts().truncated
            + queue.counts().unsampled,
        queue.received()
    );
    println!(
        "{calls} calls: {sum:?}, {} batches, {} panics",
        queue.batches(),
        queue.handler_panics()
    );
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

/// Callers that were polled go in the very moment in which they are answered: nothing is used after
/// it was freed (the sanitizers look, too), no answer and no waker is lost.
#[test]
fn callers_leave_while_answered() {
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
    let rounds = if cfg!(debug_assertions) { 5_000 } else { 100_000 };
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
