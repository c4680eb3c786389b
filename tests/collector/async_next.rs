//! The flusher in async code: with tokio in all its forms, and without it.

use super::common::*;
use batchlink::{Flusher, LinkCollector, Trigger};
use futures_util::StreamExt;
use opentelemetry::trace::{SpanContext, TraceContextExt};
use std::future::Future;
use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, mpsc};
use std::task::{Context, Poll, RawWaker, RawWakerVTable, Wake, Waker};
use std::thread::{self, Thread};
use std::time::Duration;
use tokio::runtime::Builder;

/// Wakes a thread, and counts.
struct Unpark(Thread, AtomicU64);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.1.fetch_add(1, Ordering::Relaxed);
        self.0.unpark();
    }
}

fn unpark() -> Arc<Unpark> {
    Arc::new(Unpark(thread::current(), AtomicU64::new(0)))
}

/// The smallest executor.
fn block_on<F: Future>(future: F) -> F::Output {
    let waker = Waker::from(unpark());
    let mut future = pin!(future);
    loop {
        match future.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(output) => return output,
            Poll::Pending => thread::park(),
        }
    }
}

/// Polls once.
fn poll(flusher: &mut Flusher, waker: &Waker) -> Poll<Option<batchlink::LinkBatch>> {
    flusher.poll_next_batch(&mut Context::from_waker(waker))
}

/// 4 threads; batches that only size can trigger; every one is full.
async fn exact_trigger_from_many_producers() {
    const BATCHES: u64 = 400;
    for (size, shards) in [(1, 2), (3, 4), (64, 2)] {
        let (collector, mut flusher) = by_size(size).with_shards(shards).build().unwrap();
        let threads: Vec<_> = (0..4_u64)
            .map(|thread| {
                let collector = collector.clone();
                thread::spawn(move || {
                    for number in 0..size as u64 * BATCHES / 4 {
                        while collector.push(&context(((thread + 1) << 32) + number)).is_err() {
                            thread::yield_now();
                        }
                    }
                })
            })
            .collect();
        for _ in 0..BATCHES {
            let batch = flusher.next().await.unwrap();
            assert_eq!((batch.linked(), batch.trigger()), (size as u64, Trigger::Size));
        }
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        assert_eq!(collector.stats().pending(), 0);
    }
}

/// The size trigger is exact on any executor.
#[test]
fn trigger_is_exact() {
    let _watchdog = watchdog();
    block_on(exact_trigger_from_many_producers());
    let current = Builder::new_current_thread().enable_all().build().unwrap();
    current.block_on(exact_trigger_from_many_producers());
    let many = Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    many.block_on(async { tokio::spawn(exact_trigger_from_many_producers()).await.unwrap() });
}

/// A timeout is delivered, more than once, and so is a batch that is full before its timeout.
async fn timeouts() {
    let builder = by_size(3).with_max_delay(Duration::from_millis(5));
    let (collector, mut flusher) = builder.with_shards(1).build().unwrap();
    for _ in 0..5 {
        collector.push(&context(1)).unwrap();
        let batch = flusher.next().await.unwrap();
        assert_eq!((batch.received(), batch.trigger()), (1, Trigger::Timeout));
        assert_eq!(collector.push_all(&[1, 2, 3].map(context)), 3);
        assert_eq!(flusher.next().await.unwrap().trigger(), Trigger::Size);
    }
    drop(collector);
    assert!(flusher.next().await.is_none());
    assert!(flusher.next().await.is_none(), "and again");
}

#[test]
fn timeouts_on_any_executor() {
    let _watchdog = watchdog();
    block_on(timeouts());
    Builder::new_current_thread().enable_time().build().unwrap().block_on(timeouts());
    Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap()
        .block_on(timeouts());
}

#[test]
fn timeouts_without_tokio_time() {
    let _watchdog = watchdog();
    Builder::new_current_thread().build().unwrap().block_on(timeouts());
}

/// tokio's paused clock jumps over the hour.
#[tokio::test(start_paused = true)]
async fn paused_clock_is_followed() {
    let _watchdog = watchdog();
    let (collector, mut flusher) = by_size(9).build().unwrap();
    for number in 1..=3 {
        collector.push(&context(number)).unwrap();
        let batch = flusher.next().await.unwrap();
        assert_eq!((numbers(&batch), batch.trigger()), (vec![number], Trigger::Timeout));
    }
}

/// As does one on which the flusher was not polled at first.
#[test]
fn later_paused_clock_is_followed() {
    let _watchdog = watchdog();
    let (collector, mut flusher) = by_size(9).build().unwrap();
    collector.push(&context(1)).unwrap();
    assert!(poll(&mut flusher, &Waker::from(unpark())).is_pending());
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    let batch = runtime.unwrap().block_on(flusher.next()).unwrap();
    assert_eq!(batch.trigger(), Trigger::Timeout);
}

/// The timer of a batch that was full in time does not end the wait for the next one: the clock is
/// set between the two deadlines, which are 50 ms apart or more.
#[tokio::test(start_paused = true)]
async fn each_wait_has_a_timer() {
    let _watchdog = watchdog();
    let (collector, mut flusher) = by_size(2).with_shards(1).build().unwrap();
    let waker = Waker::from(unpark());
    collector.push(&context(1)).unwrap();
    assert!(poll(&mut flusher, &waker).is_pending());
    collector.push(&context(2)).unwrap();
    assert!(poll(&mut flusher, &waker).is_ready());
    tokio::time::advance(Duration::from_millis(50)).await;
    collector.push(&context(3)).unwrap();
    assert!(poll(&mut flusher, &waker).is_pending());
    tokio::time::advance(NEVER - Duration::from_millis(25)).await;
    assert!(poll(&mut flusher, &waker).is_pending());
    assert_eq!(flusher.next().await.unwrap().trigger(), Trigger::Timeout);
}

/// `next` is cancelled again and again, at its first poll and at later ones; nothing is lost.
#[tokio::test]
async fn cancelled_wait_loses_nothing() {
    let _watchdog = watchdog();
    let builder = by_size(5).with_max_delay(Duration::from_micros(200)).with_shards(2);
    let (collector, mut flusher) = builder.build().unwrap();
    let (cancelled, first_cancelled) = mpsc::channel();
    let producer = thread::spawn(move || {
        // Before the first push there is nothing that could keep a wait from being cancelled.
        first_cancelled.recv().unwrap();
        for number in 1..=5000 {
            while collector.push(&context(number)).is_err() {
                thread::yield_now();
            }
        }
    });
    let mut delivered = Vec::new();
    loop {
        let next = tokio::select! {
            biased;
            next = flusher.next() => next,
            () = tokio::task::yield_now() => {
                let _ = cancelled.send(());
                continue;
            }
        };
        match next {
            Some(batch) => delivered.extend(numbers(&batch)),
            None => break,
        }
    }
    producer.join().unwrap();
    assert_eq!(delivered, (1..=5000).collect::<Vec<_>>());
}

#[tokio::test]
async fn flusher_is_a_stream() {
    let _watchdog = watchdog();
    let (collector, flusher) = by_size(2).with_shards(1).build().unwrap();
    assert_eq!(collector.push_all(&[1, 2, 3, 4, 5].map(context)), 5);
    drop(collector);
    let batches: Vec<_> = flusher.map(|batch| (numbers(&batch), batch.trigger())).collect().await;
    let expected =
        [(vec![1, 2], Trigger::Size), (vec![3, 4], Trigger::Size), (vec![5], Trigger::Shutdown)];
    assert_eq!(batches, expected);
}

/// Polled by hand, with a waker that counts: no call for invalid contexts, one to arm the timer,
/// none on the way to the size, one at it, none for the next context, as the timer runs after a
/// complete batch, one for a flush and one for the end.
#[test]
fn wakes_have_a_reason() {
    let counter = unpark();
    let (waker, wakes) =
        (Waker::from(Arc::clone(&counter)), || counter.1.swap(0, Ordering::Relaxed));
    let (collector, mut flusher) = by_size(10).with_shards(2).build().unwrap();
    assert!(poll(&mut flusher, &waker).is_pending());
    collector.push(&SpanContext::NONE).unwrap();
    assert_eq!((wakes(), collector.stats().wake_ups()), (0, 0));
    collector.push(&context(1)).unwrap();
    assert_eq!(wakes(), 1);
    assert!(poll(&mut flusher, &waker).is_pending());
    for number in 2..10 {
        collector.producer().push(&context(number)).unwrap();
    }
    assert_eq!(wakes(), 0);
    collector.push(&context(10)).unwrap();
    assert_eq!(wakes(), 1);
    assert!(
        matches!(poll(&mut flusher, &waker), Poll::Ready(Some(batch)) if batch.received() == 10)
    );

    assert!(poll(&mut flusher, &waker).is_pending());
    collector.push(&context(11)).unwrap();
    assert_eq!(wakes(), 0);
    assert!(poll(&mut flusher, &waker).is_pending());
    collector.flush();
    assert_eq!(wakes(), 1);
    let Poll::Ready(Some(batch)) = poll(&mut flusher, &waker) else { panic!("a batch is due") };
    assert_eq!(batch.trigger(), Trigger::Manual);
    assert!(poll(&mut flusher, &waker).is_pending());
    drop(collector);
    assert_eq!(wakes(), 1);
    assert!(matches!(poll(&mut flusher, &waker), Poll::Ready(None)));
    assert_eq!(flusher.stats().wake_ups(), 5);
}

/// The wait uses the waker of its latest poll.
#[test]
fn latest_waker_is_woken() {
    let (old, new) = (unpark(), unpark());
    let (collector, mut flusher) = by_size(1).build().unwrap();
    assert!(poll(&mut flusher, &Waker::from(Arc::clone(&old))).is_pending());
    assert!(poll(&mut flusher, &Waker::from(Arc::clone(&new))).is_pending());
    collector.push(&context(1)).unwrap();
    assert_eq!([old, new].map(|waker| waker.1.load(Ordering::Relaxed)), [0, 1]);
}

/// A wait with a timer on a runtime that stands still, or is gone, and then one on another runtime.
fn from_one_runtime_to_another(keep_the_first: bool) {
    let _watchdog = watchdog();
    let runtime = || Builder::new_current_thread().enable_all().build().unwrap();
    let builder = by_size(9).with_max_delay(Duration::from_millis(50));
    let (collector, mut flusher) = builder.build().unwrap();
    collector.push(&context(1)).unwrap();
    let first = runtime();
    first.block_on(async {
        tokio::select! {
            biased;
            _ = flusher.next() => {}
            () = tokio::task::yield_now() => {}
        }
    });
    let first = keep_the_first.then_some(first);
    // If the machine is so slow that the first one came already, there is still this one.
    collector.push(&context(2)).unwrap();
    assert_eq!(runtime().block_on(flusher.next()).unwrap().trigger(), Trigger::Timeout);
    drop(first);
}

#[test]
fn flusher_leaves_stalled_runtime() {
    from_one_runtime_to_another(true);
}

#[test]
fn flusher_leaves_dropped_runtime() {
    from_one_runtime_to_another(false);
}

/// Without tokio a thread keeps the time. It must not take one more for every batch.
#[test]
#[cfg(target_os = "linux")]
fn timer_threads_do_not_accumulate() {
    let waker = Waker::from(unpark());
    let (collector, mut flusher) = by_size(2).with_shards(1).build().unwrap();
    for _ in 0..200 {
        collector.push(&context(1)).unwrap();
        assert!(poll(&mut flusher, &waker).is_pending());
        collector.push(&context(2)).unwrap();
        // Not always ready at once: a loop that never waits yields now and then.
        while poll(&mut flusher, &waker).is_pending() {}
    }
    let tasks = std::fs::read_dir("/proc/self/task").unwrap();
    let names =
        tasks.filter_map(|task| std::fs::read_to_string(task.ok()?.path().join("comm")).ok());
    let timers = names.filter(|name| name.trim() == "batchlink-timer").count();
    assert!(timers <= 20, "{timers} timer threads after 200 batches");
}

/// Wakes by panicking, as a broken executor might.
struct Panicking;

impl Wake for Panicking {
    fn wake(self: Arc<Self>) {
        std::panic::resume_unwind(Box::new("woken"));
    }
}

#[test]
fn panicking_waker_is_contained() {
    const BATCHES: u64 = 10;
    let _watchdog = watchdog();
    let (collector, mut flusher) = by_size(4).with_shards(1).build().unwrap();
    assert!(poll(&mut flusher, &Waker::from(Arc::new(Panicking))).is_pending());
    let push = || collector.push(&context(1));
    let _panicked_or_not = std::panic::catch_unwind(std::panic::AssertUnwindSafe(push));
    let thread = thread::spawn(move || {
        for _ in 0..BATCHES {
            assert_eq!(block_on(flusher.next()).map(|batch| batch.received()), Some(4));
        }
    });
    for number in 1..4 * BATCHES {
        thread::sleep(Duration::from_millis(2));
        collector.push(&context(1 + number)).unwrap();
    }
    thread.join().unwrap();
}

/// Whatever of a waker panics, the flusher is woken by the next one: it would sleep for ever if the
/// panic had left the registration half done.
#[test]
fn unclonable_waker_is_contained() {
    struct Dropping;
    impl Wake for Dropping {
        fn wake(self: Arc<Self>) {}
    }
    impl Drop for Dropping {
        fn drop(&mut self) {
            std::panic::resume_unwind(Box::new("dropped"));
        }
    }

    let _watchdog = watchdog();
    for broken in [unclonable(), Waker::from(Arc::new(Dropping))] {
        let (collector, mut flusher) = by_size(4).with_shards(1).build().unwrap();
        let polled = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            poll(&mut flusher, &broken).is_pending()
        }));
        assert!(polled.unwrap_or(true));
        drop(broken);
        let thread = thread::spawn(move || block_on(flusher.next()).map(|batch| batch.received()));
        for number in 1..=4 {
            thread::sleep(Duration::from_millis(2));
            collector.push(&context(number)).unwrap();
        }
        assert_eq!(thread.join().unwrap(), Some(4));
    }
}

#[allow(unsafe_code)] // A waker made of an `Arc` cannot panic when it is cloned.
fn unclonable() -> Waker {
    const TABLE: RawWakerVTable = RawWakerVTable::new(
        |_| std::panic::resume_unwind(Box::new("cloned")),
        |_| {},
        |_| {},
        |_| {},
    );
    // SAFETY: the table's functions use no data.
    unsafe { Waker::from_raw(RawWaker::new(std::ptr::null(), &TABLE)) }
}

/// An idle flusher has no timer: a paused clock goes on to the next timer there is, however far
/// away.
#[tokio::test(start_paused = true)]
async fn idle_flusher_has_no_timer() {
    let (collector, mut flusher) =
        LinkCollector::builder().with_max_delay(Duration::from_millis(50)).build().unwrap();
    let began = tokio::time::Instant::now();
    collector.push(&context(1)).unwrap();
    let _ = flusher.next().await.unwrap();
    // From elsewhere, once the runtime has nothing to do.
    let elsewhere = thread::spawn(move || {
        thread::sleep(Duration::from_millis(20));
        collector.push(&context(2)).unwrap();
    });
    let _ = flusher.next().await.unwrap();
    elsewhere.join().unwrap();
    assert!(began.elapsed() < Duration::from_secs(60), "{:?}", began.elapsed());
}

/// The waker of a flusher's task may enter a context: no push holds on to the current one.
#[test]
fn waker_may_attach_a_context() {
    struct Entering(AtomicU64);
    impl Wake for Entering {
        fn wake(self: Arc<Self>) {
            let _entered = opentelemetry::Context::new().attach();
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    let (collector, mut flusher) = by_size(1).with_shards(1).build().unwrap();
    let entering = Arc::new(Entering(AtomicU64::new(0)));
    assert!(poll(&mut flusher, &Waker::from(Arc::clone(&entering))).is_pending());
    let active = opentelemetry::Context::new().with_remote_span_context(context(1));
    let _entered = active.attach();
    collector.push_current().unwrap();
    assert_eq!(entering.0.load(Ordering::Relaxed), 1);
}

/// A batch that was taken otherwise leaves no timer behind.
#[tokio::test(start_paused = true)]
async fn old_timer_wakes_nothing() {
    let (collector, mut flusher) =
        LinkCollector::builder().with_max_delay(Duration::from_secs(60)).build().unwrap();
    let counter = unpark();
    let waker = Waker::from(Arc::clone(&counter));
    assert!(poll(&mut flusher, &waker).is_pending());
    collector.push(&context(1)).unwrap();
    assert!(poll(&mut flusher, &waker).is_pending());
    assert_eq!(flusher.try_next().map(|batch| batch.received()), Some(1));
    assert!(poll(&mut flusher, &waker).is_pending());
    counter.1.store(0, Ordering::Relaxed);
    tokio::time::sleep(Duration::from_secs(3600)).await;
    assert_eq!(counter.1.load(Ordering::Relaxed), 0);
}
