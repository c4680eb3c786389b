//! Shutting a flusher down: on threads, in tasks, more than once, and by dropping its handle.

use super::common::*;
use batchlink::{FlusherHandle, LinkBatch, LinkCollector, PushError, ShutdownError};
use futures_util::FutureExt;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

/// A flusher whose handler says that it has a batch, and keeps it until it is released.
struct Held {
    collector: LinkCollector,
    handle: FlusherHandle,
    begun: mpsc::Receiver<u64>,
    release: mpsc::Sender<()>,
}

impl Held {
    /// Batches of `size` contexts.
    fn new(size: usize) -> Self {
        let (collector, flusher) = by_size(size).with_shards(1).build().unwrap();
        let (begin, begun) = mpsc::channel();
        let (release, released) = mpsc::channel::<()>();
        let handler = move |batch: LinkBatch| {
            let _ = begin.send(batch.received());
            let _ = released.recv();
        };
        Self { collector, handle: flusher.spawn(handler).unwrap(), begun, release }
    }
}

/// What the handler has is counted beside what is queued.
#[test]
fn timeout_counts_queue_and_handler() {
    let _watchdog = watchdog();
    let held = Held::new(2);
    assert_eq!(held.collector.push_all(&[1, 2, 3, 4, 5].map(context)), 5);
    assert_eq!(held.begun.recv(), Ok(2));
    let expected = Err(ShutdownError::Timeout { pending: 3, in_flight: 2 });
    assert_eq!(held.handle.shutdown_with_timeout(Duration::ZERO), expected);
}

/// Each wait is a new one, until one has returned how the thread ended.
#[test]
fn shutdown_can_be_repeated() {
    let _watchdog = watchdog();
    let held = Held::new(1);
    held.collector.push(&context(1)).unwrap();
    held.begun.recv().unwrap();
    let late = Err(ShutdownError::Timeout { pending: 0, in_flight: 1 });
    for _ in 0..2 {
        assert_eq!(held.handle.shutdown_with_timeout(Duration::ZERO), late);
        assert_eq!(held.handle.shutdown_async(Duration::ZERO).now_or_never().unwrap(), late);
        // Cancelled: nothing is lost by it.
        assert_eq!(held.handle.shutdown_async(Duration::MAX).now_or_never(), None);
        assert!(!held.handle.is_finished());
    }
    assert_eq!(held.collector.push(&context(2)), Err(PushError::Closed));
    drop(held.release);
    let stats = held.handle.shutdown_with_timeout(Duration::MAX).unwrap();
    assert_stats(&stats, 1, 0, 1, 0);
    assert!(held.handle.is_finished());
    let again = held.handle.shutdown_async(Duration::MAX).now_or_never().unwrap();
    assert_eq!(again, Err(ShutdownError::AlreadyShutdown));
}

/// One of many waits returns how the thread ended; the others say so.
#[test]
fn concurrent_shutdowns_all_return() {
    let _watchdog = watchdog();
    let held = Held::new(1);
    held.collector.push(&context(1)).unwrap();
    held.begun.recv().unwrap();
    let ended: Vec<_> = thread::scope(|scope| {
        let wait = || held.handle.shutdown_with_timeout(Duration::MAX);
        let threads: Vec<_> = (0..4).map(|_| scope.spawn(wait)).collect();
        drop(held.release);
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert_eq!(ended.iter().filter(|end| end.is_ok()).count(), 1);
    assert_eq!(ended.iter().filter(|end| **end == Err(ShutdownError::AlreadyShutdown)).count(), 3);
}

/// The text that rustc shows names what to do. (It suggests `let _ =`, which closes at once.)
#[test]
fn must_use_names_the_ways() {
    let source = include_str!("../../src/collector/handle.rs");
    let (_, message) = source.split_once("#[must_use = ").unwrap();
    let (message, _) = message.split_once(")]").unwrap();
    assert!(message.contains("bind it to a variable, such as `let handle`"), "{message}");
    assert!(message.contains("call `detach("), "{message}");
}

#[cfg(feature = "tokio")]
mod tokio {
    use super::*;
    use ::tokio::runtime::{Builder, Handle};

    /// The handler waits for the only thread of the runtime: a shutdown that blocks it would time
    /// out.
    #[test]
    fn async_shutdown_frees_its_runtime() {
        let _watchdog = watchdog();
        let runtime = Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let (collector, flusher) = by_size(8).build().unwrap();
            let driver = Handle::current();
            let handle = flusher.spawn(move |_batch| {
                let task =
                    driver.spawn(async { ::tokio::time::sleep(Duration::from_millis(1)).await });
                while !task.is_finished() {
                    thread::yield_now();
                }
            });
            let handle = handle.unwrap();
            collector.push(&context(1)).unwrap();
            let stats = handle.shutdown_async(Duration::MAX).await.unwrap();
            assert_eq!((stats.received(), stats.handler_panics()), (1, 0));
        });
    }

    /// It closes, and what was accepted is delivered after it. (That it does not wait is a unit
    /// test of the handle, for a drop that waits differs by its time only.)
    #[test]
    fn drop_inside_runtime_delivers() {
        let _watchdog = watchdog();
        let runtime = Builder::new_current_thread().enable_all().build().unwrap();
        let held = Held::new(8);
        held.collector.push(&context(1)).unwrap();
        runtime.block_on(async { drop(held.handle) });
        assert_eq!(held.collector.push(&context(2)), Err(PushError::Closed));
        assert_eq!(held.begun.recv(), Ok(1), "it was delivered nevertheless");
        assert_eq!(held.release.send(()), Ok(()), "the handler waits still");
    }

    /// In a runtime without timers, and with a waker that changes between polls.
    #[test]
    fn async_timeout_needs_no_timer() {
        let _watchdog = watchdog();
        let runtime = Builder::new_current_thread().build().unwrap();
        let held = Held::new(1);
        held.collector.push(&context(1)).unwrap();
        held.begun.recv().unwrap();
        let ended = runtime.block_on(async {
            let mut shutdown = Box::pin(held.handle.shutdown_async(Duration::from_millis(20)));
            assert!((&mut shutdown).now_or_never().is_none(), "20 ms in one poll");
            ::tokio::spawn(async {}).await.unwrap();
            shutdown.await
        });
        assert_eq!(ended, Err(ShutdownError::Timeout { pending: 0, in_flight: 1 }));
    }
}
