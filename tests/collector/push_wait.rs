//! Promise 4, the other half: a push that waits for a free slot is woken by one, and by the close.

use super::common::*;
use batchlink::{Flusher, LinkCollector, Producer, PushError};
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt, StreamExt};
use opentelemetry::trace::SpanContext;
use std::future::poll_fn;
use std::mem::ManuallyDrop;
use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Barrier, Mutex, mpsc};
use std::task::{Context, Poll, RawWaker, RawWakerVTable, Wake, Waker};
use std::thread;
use std::time::Duration;

/// One shard of four slots, full.
fn full() -> (LinkCollector, Flusher) {
    let (collector, flusher) =
        by_size(4).with_shards(1).with_queue_capacity(4).build().expect("valid");
    (1..=4).for_each(|n| collector.push(&context(n)).expect("four free slots"));
    (collector, flusher)
}

/// A waiting push that finds a free slot is a push.
#[test]
fn free_slot_needs_no_wait() {
    let (collector, mut flusher) = by_size(4).with_shards(1).build().unwrap();
    collector.push_wait(&context(1)).unwrap();
    collector.push_wait_timeout(&context(2), Duration::ZERO).unwrap();
    collector.push_wait_async(&context(3)).now_or_never().unwrap().unwrap();
    collector.producer().push_wait(&with_state(4, &small_state())).unwrap();
    let batch = flusher.next_batch().unwrap();
    assert_eq!(numbers(&batch), [1, 2, 3, 4]);
    assert_eq!(batch.links()[3].span_context.trace_state(), &small_state());
    for invalid in [
        collector.push_wait(&SpanContext::NONE),
        collector.push_wait_timeout(&SpanContext::NONE, NEVER),
    ] {
        invalid.unwrap();
    }
    assert_stats(&collector.stats(), 4, 0, 0, 2);
}

/// A producer waits as the collector does.
#[test]
fn producer_waits_each_way() {
    let (collector, mut flusher) = full();
    let producer = collector.producer();
    assert_eq!(producer.push_wait_timeout(&context(5), Duration::ZERO), Err(PushError::Full));
    assert!(producer.push_wait_async(&context(5)).now_or_never().is_none());
    assert_eq!(numbers(&flusher.next_batch().unwrap()), [1, 2, 3, 4]);
    producer.push_wait_timeout(&context(6), Duration::ZERO).unwrap();
    producer.push_wait_async(&context(7)).now_or_never().unwrap().unwrap();
    producer.push_wait(&context(8)).unwrap();
    assert_eq!(numbers(&flusher.try_next().unwrap()), [6, 7, 8]);
}

/// A push that timed out is counted once.
#[test]
fn timed_out_push_counts_once() {
    let (collector, flusher) = full();
    for timeout in [Duration::ZERO, Duration::from_millis(5)] {
        assert_eq!(collector.push_wait_timeout(&context(5), timeout), Err(PushError::Full));
    }
    assert_stats(&flusher.stats(), 4, 2, 0, 0);
}

/// Threads wait until the flusher has freed slots.
#[test]
fn threads_wait_for_slots() {
    let _watchdog = watchdog();
    let (collector, mut flusher) = full();
    let (sender, receiver) = mpsc::channel();
    for n in 5..=8 {
        let (collector, sender) = (collector.clone(), sender.clone());
        thread::spawn(move || sender.send(collector.push_wait(&context(n))).unwrap());
    }
    // No push succeeds before the flusher takes.
    assert!(receiver.recv_timeout(Duration::from_millis(20)).is_err());
    assert_eq!(numbers(&flusher.next_batch().unwrap()), [1, 2, 3, 4]);
    (0..4).for_each(|_| receiver.recv().unwrap().unwrap());
    let mut late = numbers(&flusher.next_batch().unwrap());
    late.sort_unstable();
    assert_eq!(late, [5, 6, 7, 8]);
    assert_stats(&collector.stats(), 8, 0, 0, 0);
}

#[test]
fn close_ends_the_wait() {
    let _watchdog = watchdog();
    for by_hand in [true, false] {
        let (collector, flusher) = full();
        let waits: Vec<_> = (0..3)
            .map(|n| {
                let collector = collector.clone();
                thread::spawn(move || collector.push_wait(&context(10 + n)))
            })
            .collect();
        // Some of them wait by now, others come after the close: the result is the same.
        thread::sleep(Duration::from_millis(2));
        if by_hand {
            collector.close();
        } else {
            drop(flusher);
        }
        for wait in waits {
            assert_eq!(wait.join().unwrap(), Err(PushError::Closed));
        }
        assert_eq!(
            collector.push_wait_async(&context(20)).now_or_never(),
            Some(Err(PushError::Closed))
        );
        assert_stats(&collector.stats(), 4, 0, 4, 0);
    }
}

/// A task that gives up is neither woken nor kept.
#[test]
fn abandoned_wait_is_forgotten() {
    let _watchdog = watchdog();
    let (collector, mut flusher) = full();
    let (rung, given_up) = (Arc::new(Bell::default()), Arc::new(Bell::default()));
    let (waker, other) = (Waker::from(Arc::clone(&rung)), Waker::from(Arc::clone(&given_up)));
    let (five, six) = (context(5), context(6));
    let mut waits = Box::pin(collector.push_wait_async(&five));
    let mut gives_up = Box::pin(collector.push_wait_async(&six));
    for _ in 0..3 {
        assert!(waits.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
        assert!(gives_up.as_mut().poll(&mut Context::from_waker(&other)).is_pending());
    }
    drop(gives_up);
    assert_eq!(Arc::strong_count(&given_up), 2, "no waker is kept");
    drop(flusher.next_batch().unwrap());
    assert_eq!((rung.0.load(Ordering::SeqCst), given_up.0.load(Ordering::SeqCst)), (1, 0));
    assert!(waits.as_mut().poll(&mut Context::from_waker(&waker)).is_ready());
    assert_eq!(numbers(&flusher.try_next().unwrap()), [5]);
    assert_stats(&collector.stats(), 5, 0, 0, 0);
}

/// One wake-up for each freed slot, in the order in which the waiters came.
#[test]
fn waiters_wake_in_order() {
    let (collector, mut flusher) =
        by_size(1).with_shards(1).with_queue_capacity(2).build().unwrap();
    (1..=2).for_each(|n| collector.push(&context(n)).unwrap());
    let contexts = [3, 4, 5].map(context);
    let bells = [(); 3].map(|()| Arc::new(Bell::default()));
    let mut waits: Vec<_> =
        contexts.iter().map(|cx| collector.push_wait_async(cx).boxed()).collect();
    let poll = |waits: &mut [BoxFuture<'_, _>], index: usize| {
        let waker = Waker::from(Arc::clone(&bells[index]));
        waits[index].poll_unpin(&mut Context::from_waker(&waker)).is_ready()
    };
    let rung = || bells.each_ref().map(|bell| bell.0.load(Ordering::SeqCst));
    (0..3).for_each(|index| assert!(!poll(&mut waits, index)));
    assert_eq!(numbers(&flusher.try_next().unwrap()), [1]);
    assert_eq!(rung(), [1, 0, 0]);
    // A push that overtakes the woken one leaves it its turn.
    collector.push(&context(6)).unwrap();
    assert!(!poll(&mut waits, 0));
    assert_eq!(numbers(&flusher.try_next().unwrap()), [2]);
    assert_eq!(rung(), [2, 0, 0]);
    assert!(poll(&mut waits, 0));
    assert_eq!(numbers(&flusher.try_next().unwrap()), [6]);
    assert_eq!(rung(), [2, 1, 0]);
    // Woken and dropped: the next one is woken for the slot.
    drop(waits.remove(1));
    assert_eq!(rung(), [2, 1, 1]);
    waits.insert(1, collector.push_wait_async(&contexts[1]).boxed());
    assert!(poll(&mut waits, 2));
    assert_eq!(numbers(&flusher.try_next().unwrap()), [3]);
}

/// A waiter is woken for a slot of its own shard.
#[test]
fn other_shard_wakes_no_waiter() {
    let (collector, mut flusher) =
        by_size(1).with_shards(2).with_queue_capacity(2).build().unwrap();
    let producers = [collector.producer(), collector.producer()];
    for (producer, n) in producers.iter().zip(1..) {
        producer.push(&context(n)).unwrap();
    }
    let contexts = [3, 4].map(context);
    let bells = [(); 2].map(|()| Arc::new(Bell::default()));
    let mut waits: Vec<_> =
        producers.iter().zip(&contexts).map(|(p, cx)| Box::pin(p.push_wait_async(cx))).collect();
    for (wait, bell) in waits.iter_mut().zip(&bells).rev() {
        let waker = Waker::from(Arc::clone(bell));
        assert!(wait.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
    }
    let taken = number(&flusher.try_next().unwrap().links()[0]) as usize - 1;
    let rung = bells.map(|bell| bell.0.load(Ordering::SeqCst));
    assert_eq!((rung[taken], rung[1 - taken]), (1, 0));
}

/// Many tasks wait for one shard: each is polled once to wait and about once to push.
#[test]
fn polls_grow_with_tasks() {
    const TASKS: u64 = 4000;
    let _watchdog = watchdog();
    let (collector, mut flusher) =
        by_size(128).with_shards(1).with_queue_capacity(128).build().unwrap();
    let polls = AtomicU64::new(0);
    let contexts: Vec<_> = (1..=TASKS).map(context).collect();
    let mut tasks: FuturesUnordered<_> = contexts
        .iter()
        .map(|cx| {
            let mut wait = Box::pin(collector.push_wait_async(cx));
            let polls = &polls;
            poll_fn(move |cx| {
                polls.fetch_add(1, Ordering::Relaxed);
                wait.poll_unpin(cx)
            })
        })
        .collect();
    let bell = Arc::new(Bell::default());
    let waker = Waker::from(Arc::clone(&bell));
    let mut taken = 0;
    while taken < TASKS {
        // Until no task is woken any more.
        loop {
            let before = bell.0.load(Ordering::SeqCst);
            while let Poll::Ready(Some(pushed)) =
                tasks.poll_next_unpin(&mut Context::from_waker(&waker))
            {
                pushed.unwrap();
            }
            if bell.0.load(Ordering::SeqCst) == before {
                break;
            }
        }
        taken += flusher.try_next().unwrap().received();
    }
    let polls = polls.load(Ordering::Relaxed);
    assert!(polls <= 2 * TASKS + TASKS / 16, "{polls} polls of {TASKS} tasks");
}

/// Counts how often it is woken.
#[derive(Default)]
struct Bell(AtomicU64);

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

/// The waiters after a waker that panics are woken.
#[test]
fn panicking_waker_wakes_others() {
    let _watchdog = watchdog();
    struct Bomb;
    impl Wake for Bomb {
        fn wake(self: Arc<Self>) {
            panic!("a waker's panic, on purpose");
        }
    }
    let (collector, mut flusher) = full();
    let five = context(5);
    let mut bomb = Box::pin(collector.push_wait_async(&five));
    assert!(bomb.as_mut().poll(&mut Context::from_waker(&Arc::new(Bomb).into())).is_pending());
    let waits = {
        let collector = collector.clone();
        thread::spawn(move || collector.push_wait(&context(6)))
    };
    thread::sleep(Duration::from_millis(2));
    assert_eq!(flusher.next_batch().unwrap().received(), 4);
    waits.join().unwrap().unwrap();
    assert_eq!(numbers(&flusher.try_next().unwrap()), [6]);
}

/// Producers that wait lose nothing, are refused nothing, and keep their order.
#[test]
fn back_pressure_loses_nothing() {
    const EACH: u64 = 20_000;
    let _watchdog = watchdog();
    let (collector, mut flusher) =
        by_size(8).with_shards(2).with_queue_capacity(16).build().unwrap();
    let start = Arc::new(Barrier::new(4));
    let threads: Vec<_> = (0..4_u64)
        .map(|thread| {
            let (producer, start): (Producer, _) = (collector.producer(), Arc::clone(&start));
            thread::spawn(move || {
                start.wait();
                for n in 0..EACH {
                    producer.push_wait(&context((thread << 32) + n + 1)).unwrap();
                }
            })
        })
        .collect();
    drop(collector);
    let mut next = [1_u64; 4];
    while let Some(batch) = flusher.next_batch() {
        assert_account(&batch);
        for number in numbers(&batch) {
            let thread = (number >> 32) as usize;
            assert_eq!(number & 0xffff_ffff, next[thread]);
            next[thread] += 1;
        }
    }
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    assert_eq!(next, [EACH + 1; 4]);
    assert_stats(&flusher.stats(), 4 * EACH, 0, 0, 0);
}

#[cfg(feature = "tokio")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn task_back_pressure_loses_nothing() {
    const EACH: u64 = 500;
    let _watchdog = watchdog();
    let (collector, mut flusher) =
        by_size(4).with_shards(1).with_queue_capacity(4).build().unwrap();
    let tasks = (0..50_u64).map(|task| {
        let collector = collector.clone();
        tokio::spawn(async move {
            for n in 0..EACH {
                collector.push_wait_async(&context(task * EACH + n + 1)).await.unwrap();
            }
        })
    });
    let tasks = futures_util::future::join_all(tasks.collect::<Vec<_>>());
    drop(collector);
    let taken = async {
        let mut taken = Vec::new();
        while let Some(batch) = flusher.next().await {
            taken.extend(numbers(&batch));
        }
        taken
    };
    let (mut taken, tasks) = tokio::join!(taken, tasks);
    tasks.into_iter().for_each(|task| task.unwrap());
    taken.sort_unstable();
    assert!(taken.into_iter().eq(1..=50 * EACH));
}

/// A waiter is removed after its push is published: otherwise a panic of the waker's drop would
/// leave a claim that is never published, which holds up its shard for ever.
#[test]
#[allow(unsafe_code)] // A waker made of an `Arc` has no code that runs when it is cloned.
fn panicking_waker_drop_holds_nothing() {
    /// Frees slots when it is cloned: after the first attempt, before the second.
    static FLUSHER: Mutex<Option<Flusher>> = Mutex::new(None);
    static TABLE: RawWakerVTable = RawWakerVTable::new(
        |_| {
            let taken = FLUSHER.lock().unwrap().as_mut().and_then(Flusher::try_next);
            assert_eq!(taken.map(|batch| batch.received()), Some(4));
            RawWaker::new(std::ptr::null(), &TABLE)
        },
        |_| {},
        |_| {},
        |_| std::panic::resume_unwind(Box::new("dropped")),
    );

    let _watchdog = watchdog();
    let (collector, flusher) = full();
    *FLUSHER.lock().unwrap() = Some(flusher);
    // SAFETY: the table's functions use no data.
    let waker =
        ManuallyDrop::new(unsafe { Waker::from_raw(RawWaker::new(std::ptr::null(), &TABLE)) });
    let next = context(5);
    let mut pushed = Box::pin(collector.push_wait_async(&next));
    let poll = std::panic::catch_unwind(AssertUnwindSafe(|| {
        pushed.poll_unpin(&mut Context::from_waker(&waker))
    }));
    assert!(matches!(poll, Ok(Poll::Ready(Ok(())))));
    let mut flusher = FLUSHER.lock().unwrap().take().unwrap();
    (6..=8).for_each(|n| collector.push(&context(n)).unwrap());
    assert_eq!(numbers(&flusher.next_batch().unwrap()), [5, 6, 7, 8]);
}
