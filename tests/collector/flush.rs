//! `flush_and_wait`: on threads and in tasks, with every way of taking batches.

use super::common::*;
use batchlink::{FlushError, Trigger};
use futures_util::FutureExt;
use std::pin::pin;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

#[test]
fn flush_waits_for_the_handler() {
    let _watchdog = watchdog();
    let (collector, flusher) = by_size(9).with_shards(2).build().unwrap();
    let (handled, received) = mpsc::channel();
    let _handle =
        flusher.spawn(move |batch| handled.send((batch.received(), batch.trigger())).unwrap());
    for round in 1..=100 {
        for number in 1..=round % 4 {
            collector.push(&context(number)).unwrap();
        }
        let stats = collector.flush_and_wait(Duration::MAX).unwrap();
        assert_eq!(stats.pending(), 0);
        let batches: Vec<_> = received.try_iter().collect();
        assert_eq!(batches.iter().map(|(contexts, _)| contexts).sum::<u64>(), round % 4);
        assert!(batches.iter().all(|(_, trigger)| *trigger == Trigger::Manual));
    }
}

/// A batch that the handler has, and those behind it, each by its name.
#[test]
fn flush_timeout_counts_missing() {
    let _watchdog = watchdog();
    let (collector, flusher) = by_size(2).with_shards(1).build().unwrap();
    let (begin, begun) = mpsc::channel();
    let (release, released) = mpsc::channel::<()>();
    let handle = flusher.spawn(move |_batch| {
        let _ = begin.send(());
        let _ = released.recv();
    });
    let handle = handle.unwrap();
    assert_eq!(collector.push_all(&[1, 2, 3].map(context)), 3);
    begun.recv().unwrap();
    let missing = Err(FlushError::Timeout { pending: 1, in_flight: 2 });
    assert_eq!(collector.flush_and_wait(Duration::ZERO), missing);
    assert_eq!(collector.flush_and_wait_async(Duration::ZERO).now_or_never().unwrap(), missing);
    assert_eq!(collector.flush_and_wait_async(Duration::MAX).now_or_never(), None);

    // The second batch is for those before the flush; the third is not waited for.
    let mut flush = pin!(collector.flush_and_wait_async(Duration::MAX));
    assert!(flush.as_mut().now_or_never().is_none());
    release.send(()).unwrap();
    begun.recv().unwrap();
    assert_eq!(collector.push_all(&[4, 5].map(context)), 2);
    assert!(flush.as_mut().now_or_never().is_none());
    release.send(()).unwrap();
    begun.recv().unwrap();
    let stats = flush.now_or_never().expect("the third batch is in flight").unwrap();
    assert_eq!((stats.received(), stats.pending()), (5, 0));
    drop(release);
    handle.shutdown_with_timeout(Duration::MAX).unwrap();
}

/// Taken one by one, a batch is done with when the flusher is asked for another.
#[test]
fn batch_ends_with_next() {
    let (collector, mut flusher) = by_size(9).build().unwrap();
    collector.push(&context(1)).unwrap();
    let batch = flusher.try_next().unwrap();
    let missing = Err(FlushError::Timeout { pending: 0, in_flight: 1 });
    assert_eq!(collector.flush_and_wait(Duration::ZERO), missing);
    drop(batch);
    assert_eq!(collector.flush_and_wait(Duration::ZERO), missing);
    assert!(flusher.next_batch_timeout(Duration::ZERO).is_err());
    collector.flush_and_wait(Duration::ZERO).unwrap();
}

#[test]
fn flush_of_nothing_returns() {
    let (collector, flusher) = by_size(9).build().unwrap();
    collector.flush_and_wait(Duration::ZERO).unwrap();
    drop(flusher);
    collector.flush_and_wait(Duration::MAX).unwrap();
}

/// A flush that waits when the flusher goes, and one that comes later, say what is lost.
#[test]
fn dropped_flusher_ends_the_flush() {
    let _watchdog = watchdog();
    let (collector, mut flusher) = by_size(1).with_shards(1).build().unwrap();
    assert_eq!(collector.push_all(&[1, 2, 3].map(context)), 3);
    let _batch = flusher.next_batch().unwrap();
    let lost = Err(FlushError::Closed { pending: 2 });
    thread::scope(|scope| {
        let waiting = scope.spawn(|| collector.flush_and_wait(Duration::MAX));
        // Asked for, so it waits or is about to.
        while flusher.try_next().is_none() {}
        drop(flusher);
        let ended = waiting.join().unwrap();
        assert!(matches!(ended, Ok(_) | Err(FlushError::Closed { pending: 1 })), "{ended:?}");
    });
    let (collector, flusher) = by_size(9).build().unwrap();
    assert_eq!(collector.push_all(&[1, 2].map(context)), 2);
    drop(flusher);
    assert_eq!(collector.flush_and_wait(Duration::MAX), lost);
}

/// Producers that never stop do not keep a flush from ending.
#[test]
fn flush_ends_under_load() {
    let _watchdog = watchdog();
    let (collector, flusher) = by_size(16).with_shards(2).build().unwrap();
    let _handle = flusher.spawn(drop).unwrap();
    let (stop, stopped) = mpsc::channel::<()>();
    thread::scope(|scope| {
        let collector = &collector;
        scope.spawn(move || {
            while stopped.try_recv() == Err(mpsc::TryRecvError::Empty) {
                let _ = collector.push(&context(1));
            }
        });
        for _ in 0..200 {
            let before = collector.stats().accepted();
            let after = collector.flush_and_wait(Duration::MAX).unwrap();
            assert!(after.received() >= before, "{before} accepted, {after:?}");
        }
        drop(stop);
    });
}

#[cfg(feature = "tokio")]
#[test]
fn async_loop_delivers_a_flush() {
    let _watchdog = watchdog();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let (collector, mut flusher) = by_size(9).build().unwrap();
        let batches = tokio::spawn(async move {
            let mut sizes = Vec::new();
            while let Some(batch) = flusher.next().await {
                sizes.push(batch.received());
            }
            sizes
        });
        for _ in 0..10 {
            collector.push_all(&[1, 2].map(context));
            let stats = collector.flush_and_wait_async(Duration::from_secs(60)).await.unwrap();
            assert_eq!(stats.pending(), 0);
        }
        drop(collector);
        assert_eq!(batches.await.unwrap(), [2; 10]);
    });
}
