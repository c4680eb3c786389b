//! Promise 7: no public call panics, and what a user's callback does leaves the collector usable.

use super::common::*;
use batchlink::{
    Flusher, FlusherHandle, LinkCollector, Producer, PushError, ShutdownError, Trigger,
};
use std::any::Any;
use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind, panic_any, resume_unwind};
use std::sync::{Arc, Mutex, OnceLock, mpsc};
use std::thread;
use std::time::Duration;

/// Panics once more when it is dropped, and then again.
struct Explosive;

impl Drop for Explosive {
    fn drop(&mut self) {
        panic_any(Explosive)
    }
}

#[test]
fn panicking_handler_loses_one_batch() {
    let _watchdog = watchdog();
    let (collector, flusher) = by_size(2).with_shards(1).build().unwrap();
    let (batches, received) = mpsc::channel();
    let mut calls = 0;
    let handle = flusher
        .spawn(move |batch| {
            calls += 1;
            match calls {
                1 => panic!("the first batch is bad luck, and meant to be"),
                2 => resume_unwind(Box::new(Explosive)),
                _ => batches.send(batch).unwrap(),
            }
        })
        .unwrap();
    for number in 1..=7 {
        collector.push(&context(number)).unwrap();
    }
    assert_eq!(numbers(&received.recv().unwrap()), [5, 6]);
    assert_eq!(collector.stats().handler_panics(), 2);
    handle.shutdown_with_timeout(Duration::MAX).unwrap();
    assert_eq!(numbers(&received.recv().unwrap()), [7]);
    assert_stats(&handle.stats(), 7, 0, 0, 0);
    assert_eq!(handle.stats().batches(), 4);
}

#[test]
fn second_shutdown_is_an_error() {
    let _watchdog = watchdog();
    let (collector, flusher) = by_size(2).build().unwrap();
    let handle = flusher.spawn(drop).unwrap();
    assert_eq!(handle.shutdown().unwrap(), collector.stats());
    for _ in 0..2 {
        assert_eq!(
            handle.shutdown_with_timeout(Duration::MAX),
            Err(ShutdownError::AlreadyShutdown)
        );
    }
    assert_eq!(collector.push(&context(1)), Err(PushError::Closed));
}

#[test]
fn handler_may_shut_down() {
    let _watchdog = watchdog();
    let (collector, flusher) = by_size(1).with_shards(1).build().unwrap();
    let own = Arc::new(OnceLock::<FlusherHandle>::new());
    let (answers, answer) = mpsc::channel();
    let handler_own = Arc::clone(&own);
    let handle = flusher
        .spawn(move |_batch| {
            answers.send(handler_own.wait_for().shutdown_with_timeout(Duration::MAX)).unwrap()
        })
        .unwrap();
    own.set(handle).unwrap();
    assert_eq!(collector.push_all(&[context(1), context(2), context(3)]), 3);
    let first = answer.recv().unwrap();
    assert!(
        matches!(first, Err(ShutdownError::Timeout { pending: 0..=2, in_flight: 1 })),
        "{first:?}"
    );
    assert_eq!(collector.push(&context(4)), Err(PushError::Closed));
    // What was accepted is delivered nevertheless, and a shutdown that timed out can be repeated.
    for left in [1, 0] {
        let expected = ShutdownError::Timeout { pending: left, in_flight: 1 };
        assert_eq!(answer.recv().unwrap(), Err(expected));
    }
}

/// `OnceLock::wait` is younger than our minimum Rust.
trait WaitFor<T> {
    fn wait_for(&self) -> &T;
}

impl<T> WaitFor<T> for OnceLock<T> {
    fn wait_for(&self) -> &T {
        loop {
            match self.get() {
                Some(value) => return value,
                None => thread::yield_now(),
            }
        }
    }
}

#[test]
fn handler_may_drop_its_handle() {
    let _watchdog = watchdog();
    let (collector, flusher) = by_size(1).build().unwrap();
    let own = Arc::new(Mutex::new(None::<FlusherHandle>));
    let handler_own = Arc::clone(&own);
    let (done, is_done) = mpsc::channel();
    let mut guard = own.lock().unwrap();
    *guard = Some(
        flusher
            .spawn(move |_batch| {
                drop(handler_own.lock().unwrap().take());
                done.send(()).unwrap();
            })
            .unwrap(),
    );
    drop(guard);
    collector.push(&context(1)).unwrap();
    is_done.recv().unwrap();
    assert_eq!(collector.push(&context(2)), Err(PushError::Closed));
}

#[test]
fn handler_may_push() {
    let _watchdog = watchdog();
    let (collector, flusher) = by_size(1).build().unwrap();
    let (done, is_done) = mpsc::channel();
    let again = collector.clone();
    let _handle = flusher
        .spawn(move |batch| match numbers(&batch)[0] {
            5 => done.send(()).unwrap(),
            number => again.push(&context(number + 1)).unwrap(),
        })
        .unwrap();
    collector.push(&context(1)).unwrap();
    is_done.recv().unwrap();
}

/// Dies with the handler, however the handler ends.
struct OnDrop<F: FnMut()>(F);

impl<F: FnMut()> Drop for OnDrop<F> {
    fn drop(&mut self) {
        (self.0)()
    }
}

#[test]
fn handler_drop_panic_is_reported() {
    let _watchdog = watchdog();
    let (collector, flusher) = by_size(9).build().unwrap();
    let explosive = OnDrop(|| resume_unwind(Box::new(Explosive)));
    let handle = flusher.spawn(move |_batch| _ = &explosive).unwrap();
    collector.push(&context(1)).unwrap();
    let ended = handle.shutdown_with_timeout(Duration::MAX);
    assert_eq!(ended, Err(ShutdownError::Panicked { pending: 0 }));
    assert_eq!(handle.shutdown(), Err(ShutdownError::AlreadyShutdown));
}

#[test]
fn timed_out_shutdown_counts() {
    let _watchdog = watchdog();
    let (collector, flusher) = by_size(1).with_queue_capacity(8).build().unwrap();
    let (release, released) = mpsc::channel::<()>();
    let (busy, begun) = mpsc::channel();
    let handle = flusher.spawn(move |_batch| {
        _ = busy.send(());
        _ = released.recv();
    });
    let handle = handle.unwrap();
    collector.push(&context(1)).unwrap();
    begun.recv().unwrap();
    assert_eq!(collector.push_all(&[context(2), context(3)]), 2);
    let ended = handle.shutdown_with_timeout(Duration::from_millis(10));
    assert_eq!(ended, Err(ShutdownError::Timeout { pending: 2, in_flight: 1 }));
    drop(release);
}

/// The timeout holds whatever the thread is busy with, its handler's `Drop` included.
#[test]
fn slow_handler_drop_times_out() {
    let _watchdog = watchdog();
    let (_collector, flusher) = by_size(9).build().unwrap();
    let (release, released) = mpsc::channel::<()>();
    let slow = OnDrop(move || _ = released.recv());
    let handle = flusher.spawn(move |_batch| _ = &slow).unwrap();
    let ended = handle.shutdown_with_timeout(Duration::from_millis(10));
    assert_eq!(ended, Err(ShutdownError::Timeout { pending: 0, in_flight: 0 }));
    drop(release);
}

#[test]
fn longest_durations_work() {
    let _watchdog = watchdog();
    let (collector, mut flusher) = by_size(2).with_max_delay(Duration::MAX).build().unwrap();
    collector.push(&context(1)).unwrap();
    assert!(flusher.next_batch_timeout(Duration::ZERO).is_err());
    let waiting = thread::spawn(move || {
        let batch = flusher.next_batch_timeout(Duration::MAX).unwrap().unwrap();
        (batch.received(), flusher)
    });
    thread::sleep(Duration::from_millis(20));
    collector.push(&context(2)).unwrap();
    let (received, flusher) = waiting.join().unwrap();
    assert_eq!(received, 2);
    assert_eq!(
        flusher.spawn(drop).unwrap().shutdown_with_timeout(Duration::MAX).unwrap().received(),
        2
    );
}

#[test]
fn extreme_configurations_work() {
    for (size, shards) in [(1, 1), (1, 128), (3, 128), (4096, 1)] {
        let (collector, mut flusher) = by_size(size).with_shards(shards).build().unwrap();
        let producers: Vec<_> = (0..shards).map(|_| collector.producer()).collect();
        for number in 0..2 * size {
            producers[number % shards].push(&context(1 + number as u64)).unwrap();
        }
        let batches = [flusher.next_batch(), flusher.next_batch()].map(Option::unwrap);
        assert!(batches.iter().all(|batch| batch.trigger() == Trigger::Size), "{size} × {shards}");
    }
}

/// All orders in which four things can be dropped.
fn permutations() -> Vec<[usize; 4]> {
    let orders = (0..256_usize).map(|n| [n & 3, n >> 2 & 3, n >> 4 & 3, n >> 6]);
    orders.filter(|order| (0..4).all(|part| order.contains(&part))).collect()
}

/// Drops a collector, a clone, a producer and the flusher's side in every order, with contexts
/// pending (one of them boxed); after each drop everything that is left is used.
fn drop_in_every_order<F: 'static>(flusher_side: impl Fn(Flusher) -> F) {
    let _watchdog = watchdog();
    assert_eq!(permutations().len(), 24);
    for order in permutations() {
        let (collector, flusher) = by_size(10).with_shards(2).build().unwrap();
        let (clone, producer) = (collector.clone(), collector.producer());
        let mut parts: [Option<Box<dyn Any>>; 4] = [
            Some(Box::new(collector)),
            Some(Box::new(clone)),
            Some(Box::new(producer)),
            Some(Box::new(flusher_side(flusher))),
        ];
        let mut closed = false;
        for dropped in [None].into_iter().chain(order.map(Some)) {
            if let Some(index) = dropped {
                parts[index] = None;
                closed |= index == 3;
            }
            let expected = if closed { Err(PushError::Closed) } else { Ok(()) };
            for part in parts.iter().flatten() {
                if let Some(collector) = part.downcast_ref::<LinkCollector>() {
                    assert_eq!(
                        collector.push(&context(1)),
                        expected,
                        "{order:?} after {dropped:?}"
                    );
                    assert_eq!(collector.producer().push(&context(2)), expected);
                    collector.flush();
                    assert!(
                        format!("{collector:?}").contains("accepted")
                            || collector.stats().pushed() > 0
                    );
                }
                if let Some(producer) = part.downcast_ref::<Producer>() {
                    assert_eq!(producer.push(&with_state(3, &small_state())), expected);
                }
            }
        }
    }
}

#[test]
fn flusher_drops_in_any_order() {
    drop_in_every_order(|flusher| flusher);
}

#[test]
fn handle_drops_in_any_order() {
    drop_in_every_order(|flusher| flusher.spawn(drop).unwrap());
}

#[test]
fn detached_flusher_runs_until_close() {
    let _watchdog = watchdog();
    let (collector, flusher) = by_size(2).build().unwrap();
    let (batches, received) = mpsc::channel();
    flusher.spawn(move |batch| batches.send(batch.trigger()).unwrap()).unwrap().detach();
    collector.push_all(&[context(1), context(2), context(3)]);
    assert_eq!(received.recv(), Ok(Trigger::Size));
    drop(collector);
    assert_eq!(received.recv(), Ok(Trigger::Shutdown));
    assert!(received.recv().is_err(), "the thread is gone, and the handler with it");
}

/// Pushes when its thread has lost most of its locals already.
struct AtThreadEnd(LinkCollector, mpsc::Sender<bool>, fn(&LinkCollector) -> Result<(), PushError>);

impl Drop for AtThreadEnd {
    fn drop(&mut self) {
        let Self(collector, panicked, push) = self;
        panicked.send(catch_unwind(AssertUnwindSafe(|| push(collector))).is_err()).unwrap();
    }
}

/// The last thing a thread does is to push; whether that panicked.
fn panics_at_thread_end(push: fn(&LinkCollector) -> Result<(), PushError>) -> bool {
    thread_local!(static LAST: RefCell<Option<AtThreadEnd>> = const { RefCell::new(None) });
    let (collector, _flusher) = by_size(9).build().unwrap();
    let (panicked, has_panicked) = mpsc::channel();
    thread::spawn(move || {
        // Locals go in reverse order of their first use: ours is used first, then OpenTelemetry's.
        LAST.set(Some(AtThreadEnd(collector.clone(), panicked, push)));
        push(&collector)
    })
    .join()
    .unwrap()
    .unwrap();
    has_panicked.recv().unwrap()
}

#[test]
fn ending_thread_may_push() {
    assert!(!panics_at_thread_end(|collector| collector.push(&context(1))));
}

#[test]
fn ending_thread_may_push_current() {
    assert!(!panics_at_thread_end(LinkCollector::push_current));
}
