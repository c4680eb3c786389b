//! Flushes on request, and pushes that stop halfway.

use batchlink::{FlushError, Trigger};
use batchlink_loom_tests::{NEVER, check, collector, cx, drain, ids, spawn};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Manual flush: everything pushed before it is delivered, also if the flusher is just looking.
#[test]
fn flush_follows_push() {
    check(3, || {
        let (collector, mut flusher) = collector(4, 4, 1, NEVER);
        let producer = spawn(collector, |collector| {
            collector.push(&cx(1)).unwrap();
            collector.flush();
        });
        let batch = flusher.next_batch().unwrap();
        assert_eq!((ids(&batch), batch.trigger()), (vec![1], Trigger::Manual));
        let ((), collector) = producer.join().unwrap();
        // It was for what was there, not for what comes later.
        collector.push(&cx(2)).unwrap();
        assert!(flusher.next_batch_timeout(Duration::ZERO).is_err());
    });
}

/// Manual flush racing the push of another: that one comes along, or stays until the next flush.
#[test]
fn flush_races_push() {
    check(2, || {
        let (collector, mut flusher) = collector(4, 4, 2, NEVER);
        let (first, second) = (collector.producer(), collector.producer());
        let other = spawn(second, |second| second.push(&cx(2)).unwrap());
        first.push(&cx(1)).unwrap();
        collector.flush();
        let batch = flusher.next_batch().unwrap();
        assert_eq!(batch.trigger(), Trigger::Manual);
        let mut taken = ids(&batch);
        assert!(taken.contains(&1));
        other.join().unwrap();
        taken.extend(drain(&mut flusher));
        taken.sort_unstable();
        assert_eq!(taken, [1, 2]);
    });
}

/// A flush that waits returns once its batch is done with: not before, and not never.
#[test]
fn flush_waits_for_batch() {
    check(2, || {
        let (collector, mut flusher) = collector(4, 4, 1, NEVER);
        // Not shown to loom: it is set before, and read after, what the model is about.
        let done = Arc::new(AtomicBool::new(false));
        let is_done = Arc::clone(&done);
        let asks = spawn(collector, move |collector| {
            collector.push(&cx(1)).unwrap();
            collector.flush_and_wait(Duration::MAX).unwrap();
            assert!(is_done.load(Ordering::Relaxed), "the batch is still in hand");
        });
        assert_eq!(ids(&flusher.next_batch().unwrap()), [1]);
        done.store(true, Ordering::Relaxed);
        assert!(flusher.next_batch_timeout(Duration::ZERO).is_err());
        asks.join().unwrap();
    });
}

/// A flusher that is dropped ends a flush, whatever it left.
#[test]
fn dropped_flusher_ends_flush() {
    check(2, || {
        let (collector, mut flusher) = collector(4, 4, 1, NEVER);
        let asks = spawn(collector, |collector| {
            let pushed = collector.push(&cx(1)).is_ok();
            (pushed, collector.flush_and_wait(Duration::MAX).map(drop))
        });
        let taken = flusher.try_next().is_some();
        drop(flusher);
        let ((pushed, flushed), _collector) = asks.join().unwrap();
        let left = if pushed && !taken { Err(FlushError::Closed { pending: 1 }) } else { Ok(()) };
        assert_eq!(flushed, left);
    });
}

/// A producer stopped between claim and publish: a flush delivers what the other shard has, and
/// the stopped one, resumed, exactly once.
#[test]
fn stalled_push_delays_own_shard() {
    check(3, || {
        let (collector, mut flusher) = collector(4, 4, 2, NEVER);
        let (first, second) = (collector.producer(), collector.producer());
        let stalled = first.push_stalled(&cx(1)).unwrap();
        let asking = spawn((second, collector), |(second, collector)| {
            second.push(&cx(2)).unwrap();
            collector.flush();
        });
        let batch = flusher.next_batch().unwrap();
        assert_eq!((ids(&batch), batch.trigger()), (vec![2], Trigger::Manual));
        asking.join().unwrap();
        stalled.resume();
        // The flush had found it claimed.
        let batch = flusher.next_batch().unwrap();
        assert_eq!((ids(&batch), batch.trigger()), (vec![1], Trigger::Manual));
        assert!(flusher.try_next().is_none());
    });
}

/// A flush that finds a claim and nothing published waits for the publication, which no wake-up
/// announces.
#[test]
fn flush_waits_for_a_claim() {
    check(3, || {
        let (collector, mut flusher) = collector(4, 4, 1, NEVER);
        let producer = collector.producer();
        collector.push(&cx(1)).unwrap();
        assert_eq!(drain(&mut flusher), [1]);
        collector.push(&cx(2)).unwrap();
        let stalling = spawn((producer, collector), |(producer, collector)| {
            // Under the limit: no report.
            let stalled = producer.push_stalled(&cx(3)).unwrap();
            collector.flush();
            stalled.resume();
        });
        let mut taken = Vec::new();
        while taken.len() < 2 {
            let batch = flusher.next_batch().unwrap();
            assert_eq!(batch.trigger(), Trigger::Manual);
            taken.extend(ids(&batch));
        }
        assert_eq!(taken, [2, 3]);
        stalling.join().unwrap();
    });
}

/// A batch is complete when it is published: the context that completes it may announce it while
/// an earlier claim is still being written, and no wake-up announces that one.
#[test]
fn batch_waits_for_a_claim() {
    check(3, || {
        let (collector, mut flusher) = collector(3, 4, 2, NEVER);
        let (first, second) = (collector.producer(), collector.producer());
        first.push(&cx(1)).unwrap();
        let stalling = spawn((first, second), |(first, second)| {
            // Under the limit: no report.
            let stalled = first.push_stalled(&cx(2)).unwrap();
            second.push(&cx(3)).unwrap();
            stalled.resume();
        });
        let batch = flusher.next_batch().unwrap();
        assert_eq!((batch.received(), batch.trigger()), (3, Trigger::Size));
        stalling.join().unwrap();
    });
}

/// Two requests at once: the second must not hide from the flusher what was pushed before the
/// first.
#[test]
fn two_flushes_cover_all_pushes() {
    check(3, || {
        let (collector, mut flusher) = collector(4, 4, 1, NEVER);
        let other = spawn(collector.clone(), |other| other.flush());
        let one = spawn(collector, |collector| {
            collector.push(&cx(1)).unwrap();
            collector.flush();
        });
        let batch = flusher.next_batch().unwrap();
        assert_eq!((ids(&batch), batch.trigger()), (vec![1], Trigger::Manual));
        one.join().unwrap();
        other.join().unwrap();
    });
}
