//! When the flusher is woken: `src/queue/trigger.rs`.

use batchlink::{Timeout, Trigger};
use batchlink_loom_tests::{Alarm, NEVER, check, collector, cx, ids, sorted, spawn};
use loom::thread::yield_now;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

/// Exact trigger: whichever of two producers on one shard completes the batch, the flusher hears
/// of it.
#[test]
fn two_producers_complete_a_batch() {
    check(2, || {
        let (collector, mut flusher) = collector(2, 2, 1, NEVER);
        let (first, second) = (collector.producer(), collector.producer());
        let one = spawn(first, |first| first.push(&cx(1)));
        let two = spawn(second, |second| second.push(&cx(2)));
        let batch = flusher.next_batch().unwrap();
        assert_eq!((batch.received(), batch.trigger()), (2, Trigger::Size));
        assert_eq!(sorted(&batch), [1, 2]);
        one.join().unwrap().0.unwrap();
        two.join().unwrap().0.unwrap();
    });
}

/// Exact trigger: three producers on three shards race to complete a batch while the flusher, which
/// knows that something is pending, sleeps; one of them wakes it.
#[test]
fn three_producers_complete_a_batch() {
    check(2, || three_producers(4, true));
}

/// Three producers that together stay one short of a batch leave the flusher alone.
#[test]
fn three_producers_below_the_threshold() {
    check(2, || three_producers(5, false));
}

fn three_producers(size: usize, wakes: bool) {
    let (collector, mut flusher) = collector(size, size, 3, NEVER);
    let (first, second, third) = (collector.producer(), collector.producer(), collector.producer());
    let alarm = Alarm::new();
    let waker = Arc::clone(&alarm).into();
    first.push(&cx(1)).unwrap();
    assert!(flusher.poll_next_batch(&mut Context::from_waker(&waker)).is_pending());
    let one = spawn(first, |first| first.push(&cx(2)).unwrap());
    let two = spawn(second, |second| second.push(&cx(3)).unwrap());
    third.push(&cx(4)).unwrap();
    let _handles = (one.join().unwrap(), two.join().unwrap());
    assert_eq!(alarm.rung(), wakes);
    match flusher.poll_next_batch(&mut Context::from_waker(&waker)) {
        Poll::Ready(batch) => {
            assert_eq!((sorted(&batch.unwrap()), wakes), (vec![1, 2, 3, 4], true))
        }
        Poll::Pending => assert!(!wakes),
    }
}

/// The timed sleep after a complete batch ends (with this delay at once) while a producer pushes:
/// its context is found before the flusher sleeps without an end, or wakes it.
#[test]
fn timed_sleep_ends() {
    for shards in [1, 2] {
        check(3, move || {
            let (collector, mut flusher) = collector(2, 4, shards, Duration::ZERO);
            let (first, second) = (collector.producer(), collector.producer());
            drop(collector);
            let _ = [1, 2].map(|id| first.push(&cx(id)).unwrap());
            let pushing = spawn(second, |second| second.push(&cx(3)).unwrap());
            let mut received = vec![];
            while received.len() < 3 {
                received.extend(sorted(&flusher.next_batch().unwrap()));
            }
            received.sort();
            assert_eq!(received, [1, 2, 3]);
            let _handles = (first, pushing.join().unwrap());
        });
    }
}

/// A producer that coordinates while the flusher reports a batch below the threshold does not take
/// the timed sleep before it for one to come: the next context wakes the flusher.
#[test]
fn intent_precedes_its_flag() {
    check(2, || {
        let (collector, mut flusher) = collector(2, 4, 1, Duration::ZERO);
        let (first, second) = (collector.producer(), collector.producer());
        drop(collector);
        let _ = [1, 2].map(|id| first.push(&cx(id)).unwrap());
        assert_eq!(sorted(&flusher.next_batch().unwrap()), [1, 2]);
        let pushing = spawn(second, |second| second.push(&cx(3)).unwrap());
        // Lets the push begin without a preemption.
        yield_now();
        assert_eq!(sorted(&flusher.next_batch().unwrap()), [3]);
        let _second = pushing.join().unwrap();
        let alarm = Alarm::new();
        let waker = Arc::clone(&alarm).into();
        assert!(flusher.poll_next_batch(&mut Context::from_waker(&waker)).is_pending());
        first.push(&cx(4)).unwrap();
        assert!(alarm.rung());
    });
}

/// Pending flags: a report that finds a coordinator at work is handled by it before it leaves,
/// although it came after that coordinator's scan.
#[test]
fn coordinator_handles_flags() {
    check(3, || {
        let (collector, mut flusher) = collector(2, 2, 2, NEVER);
        let (first, second) = (collector.producer(), collector.producer());
        let one = spawn(first, |first| first.push(&cx(1)));
        second.push(&cx(2)).unwrap();
        let batch = flusher.next_batch().unwrap();
        assert_eq!((batch.received(), batch.trigger()), (2, Trigger::Size));
        one.join().unwrap().0.unwrap();
    });
}

/// Scan: while one producer's scan hands out limits, another passes under its old one. The scan
/// finds its tail past the new limit, starts over, and wakes the flusher, which knows of the first
/// context and sleeps.
#[test]
fn scan_finds_unreported_pass() {
    check(3, || {
        let (collector, mut flusher) = collector(4, 4, 2, NEVER);
        let (first, second) = (collector.producer(), collector.producer());
        let alarm = Alarm::new();
        let waker = Arc::clone(&alarm).into();
        // Leaves all of the allowance, two contexts, with the first shard.
        first.push(&cx(1)).unwrap();
        assert!(flusher.poll_next_batch(&mut Context::from_waker(&waker)).is_pending());
        let producer = spawn(first, |first| [2, 3].map(|id| first.push(&cx(id)).unwrap()));
        second.push(&cx(4)).unwrap();
        let _handle = producer.join().unwrap();
        assert!(alarm.rung());
        let batch = flusher.next_batch().unwrap();
        assert_eq!((batch.received(), batch.trigger()), (4, Trigger::Size));
    });
}

/// Allowances: pushes that are not reported stay one short of a batch, so the one that completes it
/// reports; with two producers on one shard and one on the other.
#[test]
fn last_of_a_batch_reports() {
    check(2, || {
        let (collector, mut flusher) = collector(3, 4, 1, NEVER);
        collector.push(&cx(1)).unwrap();
        // The flusher knows of the first, and sleeps.
        assert_eq!(flusher.next_batch_timeout(Duration::ZERO).unwrap_err(), Timeout);
        let producer =
            spawn(collector, |collector| [2, 3].map(|id| collector.push(&cx(id)).unwrap()));
        let batch = flusher.next_batch().unwrap();
        assert_eq!((ids(&batch), batch.trigger()), (vec![1, 2, 3], Trigger::Size));
        producer.join().unwrap();
    });
}

/// Below the threshold nothing fires, neither while others push nor after.
#[test]
fn below_the_threshold_nothing_fires() {
    check(3, || {
        let (collector, mut flusher) = collector(3, 4, 2, NEVER);
        let (first, second) = (collector.producer(), collector.producer());
        let one = spawn(first, |first| first.push(&cx(1)));
        assert_eq!(flusher.next_batch_timeout(Duration::ZERO).unwrap_err(), Timeout);
        second.push(&cx(2)).unwrap();
        assert_eq!(flusher.next_batch_timeout(Duration::ZERO).unwrap_err(), Timeout);
        one.join().unwrap().0.unwrap();
        assert_eq!(flusher.next_batch_timeout(Duration::ZERO).unwrap_err(), Timeout);
        second.push(&cx(3)).unwrap();
        let batch = flusher.next_batch_timeout(Duration::ZERO).unwrap().unwrap();
        assert_eq!((batch.received(), batch.trigger()), (3, Trigger::Size));
    });
}

/// Re-arm racing push: the flusher drains while the next context comes; whatever the scan that
/// follows the drain has seen of it, the next batch is announced.
#[test]
fn rearm_races_push() {
    check(3, || {
        let (collector, mut flusher) = collector(1, 2, 1, NEVER);
        let producer =
            spawn(collector, |collector| [1, 2].map(|id| collector.push(&cx(id)).unwrap()));
        for id in [1, 2] {
            let batch = flusher.next_batch().unwrap();
            assert_eq!((ids(&batch), batch.trigger()), (vec![id], Trigger::Size));
        }
        producer.join().unwrap();
    });
}

/// As before, with two shards and a batch of two: a whole batch comes while the last is taken.
#[test]
fn rearm_races_a_batch() {
    check(2, || {
        let (collector, mut flusher) = collector(2, 4, 2, NEVER);
        let (first, second) = (collector.producer(), collector.producer());
        first.push(&cx(1)).unwrap();
        second.push(&cx(2)).unwrap();
        let producer = spawn((first, second), |(first, second)| {
            second.push(&cx(3)).unwrap();
            first.push(&cx(4)).unwrap();
        });
        // Either batch may hold the third or fourth context instead of the second.
        for _ in 0..2 {
            let batch = flusher.next_batch().unwrap();
            assert_eq!((batch.received(), batch.trigger()), (2, Trigger::Size));
        }
        producer.join().unwrap();
    });
}

/// A coordinator that was suspended while the flusher took what it had announced finds the
/// *drained* flag and lowers the level: the next batch, on another shard, wakes the flusher again.
#[test]
fn drained_flag_lowers_level() {
    check(2, || {
        let (collector, mut flusher) = collector(1, 2, 2, NEVER);
        let (first, second) = (collector.producer(), collector.producer());
        let producer = spawn((first, second), |(first, second)| {
            first.push(&cx(1)).unwrap();
            second.push(&cx(2)).unwrap();
        });
        for _ in 0..2 {
            assert_eq!(flusher.next_batch().unwrap().received(), 1);
        }
        producer.join().unwrap();
    });
}

/// Timeout: the first context, far from a batch, wakes a sleeping flusher so that it sets its
/// timer; and so does the first after a batch.
#[test]
fn first_context_arms_the_timer() {
    check(3, || {
        let (collector, mut flusher) = collector(4, 4, 1, Duration::ZERO);
        let producer =
            spawn(collector, |collector| [1, 2].map(|id| collector.push(&cx(id)).unwrap()));
        let mut received = 0;
        while received < 2 {
            let batch = flusher.next_batch().unwrap();
            assert_eq!(batch.trigger(), Trigger::Timeout);
            received += batch.received();
        }
        producer.join().unwrap();
    });
}

/// Timeout racing size: both announce; every context is delivered once and by the right one.
#[test]
fn timeout_races_size() {
    check(2, || {
        let (collector, mut flusher) = collector(2, 2, 2, Duration::ZERO);
        let (first, second) = (collector.producer(), collector.producer());
        let producer = spawn(first, |first| first.push(&cx(1)).unwrap());
        second.push(&cx(2)).unwrap();
        let mut received = Vec::new();
        while received.len() < 2 {
            let batch = flusher.next_batch().unwrap();
            let trigger = if batch.received() == 2 { Trigger::Size } else { Trigger::Timeout };
            assert_eq!(batch.trigger(), trigger);
            received.extend(ids(&batch));
        }
        received.sort_unstable();
        assert_eq!(received, [1, 2]);
        producer.join().unwrap();
    });
}
