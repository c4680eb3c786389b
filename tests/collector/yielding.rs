//! Async loops that are always ready yield to the other tasks of their thread.

use super::common::*;
use futures_util::{FutureExt, StreamExt};
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;
use tokio::runtime::Builder;

const ROUNDS: u64 = 256;

/// Runs `always_ready` as a task of a current_thread runtime and returns how often another task,
/// which is always ready to run, was polled meanwhile.
fn polls_of_another(always_ready: impl Future<Output = ()> + Send + 'static) -> u64 {
    let _watchdog = watchdog();
    let runtime = Builder::new_current_thread().enable_time().build().unwrap();
    runtime.block_on(async {
        let loops = tokio::spawn(always_ready);
        let mut polls = 0;
        while !loops.is_finished() {
            polls += 1;
            tokio::task::yield_now().await;
        }
        polls
    })
}

/// A flusher's loop whose handler completes the next batch.
async fn next_loop(stream: bool) {
    let (collector, mut flusher) = by_size(2).with_shards(1).build().unwrap();
    for _ in 0..ROUNDS {
        assert_eq!(collector.push_all(&[1, 2].map(context)), 2);
        let batch = if stream { StreamExt::next(&mut flusher).await } else { flusher.next().await };
        assert_eq!(batch.unwrap().received(), 2);
    }
}

async fn push_loop() {
    let (collector, mut flusher) = by_size(2).with_shards(1).build().unwrap();
    for number in 1..=ROUNDS {
        collector.push_wait_async(&context(number)).await.unwrap();
        drop(flusher.try_next().unwrap());
    }
}

/// Every few batches, by `next` and as a `Stream`.
#[test]
fn ready_batches_yield() {
    for stream in [false, true] {
        let polls = polls_of_another(next_loop(stream));
        assert!(polls >= ROUNDS / 8, "{polls} polls during {ROUNDS} batches");
    }
}

/// Waiting pushes that find a free slot at once.
#[test]
fn ready_pushes_yield() {
    let polls = polls_of_another(push_loop());
    assert!(polls >= ROUNDS / 64, "{polls} polls during {ROUNDS} pushes");
}

/// A timer beside a loop that is always ready fires: otherwise this test does not end.
#[test]
fn timer_fires_beside_ready_loop() {
    let _watchdog = watchdog();
    let runtime = Builder::new_current_thread().enable_time().build().unwrap();
    runtime.block_on(async {
        let sleep = tokio::spawn(tokio::time::sleep(Duration::from_millis(10)));
        let (collector, mut flusher) = by_size(2).with_shards(1).build().unwrap();
        while !sleep.is_finished() {
            assert_eq!(collector.push_all(&[1, 2].map(context)), 2);
            drop(flusher.next().await.unwrap());
        }
    });
}

struct CountWakes(AtomicU64);

impl Wake for CountWakes {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

/// The same on an executor of one's own, which sees `Pending` and a wake-up.
#[test]
fn ready_loops_yield_elsewhere() {
    for always_ready in
        [next_loop(false).boxed_local(), next_loop(true).boxed_local(), push_loop().boxed_local()]
    {
        let wakes = Arc::new(CountWakes(AtomicU64::new(0)));
        let waker = Waker::from(Arc::clone(&wakes));
        let mut always_ready = always_ready;
        let mut polls = 0;
        while always_ready.as_mut().poll(&mut Context::from_waker(&waker)).is_pending() {
            polls += 1;
            assert!(wakes.0.load(Ordering::Relaxed) >= polls, "a yield wakes");
        }
        assert!(polls >= ROUNDS / 64, "{polls} yields in {ROUNDS} rounds");
    }
}

/// A yield takes nothing: the batch comes with the next poll.
#[test]
fn yield_loses_nothing() {
    let (collector, mut flusher) = by_size(1).with_shards(1).build().unwrap();
    let mut yields = 0;
    for number in 1..=ROUNDS {
        collector.push(&context(number)).unwrap();
        let mut next = pin!(flusher.next());
        let batch = loop {
            match next.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
                Poll::Ready(batch) => break batch.unwrap(),
                Poll::Pending => yields += 1,
            }
        };
        assert_eq!(numbers(&batch), [number]);
    }
    assert!(yields > 0);
    assert!(poll_fn(|cx| flusher.poll_next_batch(cx)).now_or_never().is_none());
}

/// A waiting push that was woken, yields before it tries again, and is dropped then: the next one
/// gets the slot.
#[test]
fn yielding_waiter_passes_on() {
    let builder = by_size(1).with_shards(1).with_queue_capacity(1);
    let (collector, mut flusher) = builder.build().unwrap();
    collector.push(&context(1)).unwrap();
    let runtime = Builder::new_current_thread().build().unwrap();
    runtime.block_on(async {
        let (two, three) = (context(2), context(3));
        let [mut yields, mut waits] =
            [&two, &three].map(|cx| Box::pin(collector.push_wait_async(cx)));
        let [first, second] = [(); 2].map(|()| Arc::new(CountWakes(AtomicU64::new(0))));
        let (first_waker, second_waker) = (Arc::clone(&first).into(), Arc::clone(&second).into());
        assert!(yields.as_mut().poll(&mut Context::from_waker(&first_waker)).is_pending());
        assert!(waits.as_mut().poll(&mut Context::from_waker(&second_waker)).is_pending());
        assert_eq!(numbers(&flusher.try_next().unwrap()), [1]);
        let wakes = || (first.0.load(Ordering::Relaxed), second.0.load(Ordering::Relaxed));
        assert_eq!(wakes(), (1, 0));
        while tokio::task::consume_budget().now_or_never().is_some() {}
        assert!(yields.as_mut().poll(&mut Context::from_waker(&first_waker)).is_pending());
        drop(yields);
        assert_eq!(wakes().1, 1);
        tokio::task::yield_now().await;
        waits.await.unwrap();
    });
    assert_eq!(numbers(&flusher.try_next().unwrap()), [3]);
}
