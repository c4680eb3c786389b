//! Promise 4: a producer that is frozen in the middle of a push delays its own shard's later
//! entries and nothing else; a frozen flusher delays no producer.
//!
//! Frozen between claim and publish, by the hook `Producer::push_stalled`. Run by
//! `ci/starvation.sh`.
#![cfg(batchlink_hooks)]
#![allow(clippy::unwrap_used)] // in the helpers of tests, as in tests

mod common;

use batchlink::{
    Flusher, LinkBatch, LinkCollector, Producer, PushError, ShutdownError, StalledPush, Timeout,
    Trigger,
};
use common::*;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

const SHARDS: usize = 3;
/// How many entries of its shard are before the frozen one: it claims past the limit, or below it.
const BEFORE: [u64; 3] = [0, 1, 3];

/// The frozen entry's number. Entries before it in its shard are 1, 2, …, those after it 11, 12, …;
/// those of other shards have three digits.
const FROZEN: u64 = 10;

/// A collector with one producer in each shard.
fn shards(builder: batchlink::LinkCollectorBuilder) -> (LinkCollector, Vec<Producer>, Flusher) {
    let (collector, flusher) = builder.with_shards(SHARDS).build().unwrap();
    let producers = (0..SHARDS).map(|_| collector.producer()).collect();
    (collector, producers, flusher)
}

/// Pushes `before` entries, the frozen one and two after it to the victim's shard, and two to each
/// other shard. Returns the numbers that can be delivered, sorted.
fn freeze(producers: &[Producer], victim: usize, before: u64) -> (StalledPush<'_>, Vec<u64>) {
    let push = |shard: usize, number: u64| producers[shard].push(&context(number)).unwrap();
    (1..=before).for_each(|number| push(victim, number));
    let stalled = producers[victim].push_stalled(&context(FROZEN)).unwrap();
    (11..=12).for_each(|number| push(victim, number));
    let mut free: Vec<u64> = (1..=before).collect();
    for shard in (0..SHARDS).filter(|&shard| shard != victim) {
        for number in [100, 101].map(|number| number + 10 * shard as u64) {
            push(shard, number);
            free.push(number);
        }
    }
    (stalled, free)
}

fn sorted(batch: &LinkBatch) -> Vec<u64> {
    assert_account(batch);
    let mut numbers = numbers(batch);
    numbers.sort_unstable();
    numbers
}

fn for_each_shard(test: impl Fn(usize, u64)) {
    let _watchdog = watchdog();
    for victim in 0..SHARDS {
        for before in BEFORE {
            test(victim, before);
        }
    }
}

#[test]
fn frozen_entry_delays_own_shard() {
    for_each_shard(|victim, before| {
        let (collector, producers, mut flusher) = shards(by_size(64));
        let (stalled, free) = freeze(&producers, victim, before);
        assert_eq!(sorted(&flusher.try_next().unwrap()), free);
        assert!(flusher.try_next().is_none(), "its own shard's later entries wait");
        assert_eq!(collector.stats().pending(), 3);
        stalled.resume();
        assert_eq!(numbers(&flusher.try_next().unwrap()), [FROZEN, 11, 12]);
        assert_stats(&collector.stats(), 7 + before, 0, 0, 0);
    });
}

/// A frozen claim counts as pending, so the flusher is woken early; it must neither deliver a short
/// batch nor miss the full one.
#[test]
fn full_batch_passes_frozen_entry() {
    for_each_shard(|victim, before| {
        let (collector, producers, mut flusher) = shards(by_size(10));
        let (stalled, _) = freeze(&producers, victim, before);
        let other = &producers[(victim + 1) % SHARDS];
        let mut number = 200;
        // Ten are claimed, and then thirteen, but three of them cannot be taken.
        while collector.stats().pending() < 10 + 3 {
            assert_eq!(flusher.next_batch_timeout(Duration::from_millis(3)).unwrap_err(), Timeout);
            number += 1;
            other.push(&context(number)).unwrap();
        }
        let batch = flusher.next_batch_timeout(Duration::ZERO).unwrap().unwrap();
        assert_eq!((batch.received(), batch.trigger()), (10, Trigger::Size));
        stalled.resume();
        assert_eq!(numbers(&flusher.try_next().unwrap()), [FROZEN, 11, 12]);
        assert_stats(&collector.stats(), 13, 0, 0, 0);
    });
}

#[test]
fn timeout_passes_frozen_entry() {
    for_each_shard(|victim, before| {
        let (collector, producers, mut flusher) =
            shards(by_size(64).with_max_delay(Duration::from_millis(5)));
        let (stalled, free) = freeze(&producers, victim, before);
        let batch = flusher.next_batch().unwrap();
        assert_eq!((sorted(&batch), batch.trigger()), (free, Trigger::Timeout));
        assert_eq!(flusher.next_batch_timeout(Duration::from_millis(20)).unwrap_err(), Timeout);
        stalled.resume();
        assert_eq!(numbers(&flusher.next_batch().unwrap()), [FROZEN, 11, 12]);
        assert_stats(&collector.stats(), 7 + before, 0, 0, 0);
    });
}

#[test]
fn flush_passes_frozen_entry() {
    for_each_shard(|victim, before| {
        let (collector, producers, mut flusher) = shards(by_size(64));
        let (stalled, free) = freeze(&producers, victim, before);
        collector.flush();
        let batch = flusher.next_batch().unwrap();
        assert_eq!((sorted(&batch), batch.trigger()), (free, Trigger::Manual));
        let waiting = thread::spawn(move || flusher.next_batch().unwrap());
        thread::sleep(Duration::from_millis(3)); // it waits now, most likely
        stalled.resume();
        let batch = waiting.join().unwrap();
        assert_eq!((numbers(&batch), batch.trigger()), (vec![FROZEN, 11, 12], Trigger::Manual));
    });
}

/// What comes after the flush is collected into batches as always, though the frozen entry, which
/// was pushed before it, is still owed.
#[test]
fn owed_flush_shrinks_no_batch() {
    for_each_shard(|victim, before| {
        let (collector, producers, mut flusher) = shards(by_size(64));
        let (stalled, free) = freeze(&producers, victim, before);
        collector.flush();
        assert_eq!(sorted(&flusher.next_batch().unwrap()), free);
        for number in 200..210 {
            producers[(victim + 1) % SHARDS].push(&context(number)).unwrap();
            assert_eq!(flusher.next_batch_timeout(Duration::ZERO).unwrap_err(), Timeout);
        }
        stalled.resume();
        assert_eq!(flusher.next_batch().unwrap().received(), 13);
    });
}

/// The same for an entry whose delay was over while it was frozen.
#[test]
fn overdue_entry_shrinks_no_batch() {
    for_each_shard(|victim, before| {
        let (collector, producers, mut flusher) = shards(by_size(64));
        let (stalled, free) = freeze(&producers, victim, before);
        collector.jump_clock(2 * NEVER);
        let batch = flusher.next_batch().unwrap();
        assert_eq!((sorted(&batch), batch.trigger()), (free, Trigger::Timeout));
        for number in 200..210 {
            producers[(victim + 1) % SHARDS].push(&context(number)).unwrap();
            assert_eq!(flusher.next_batch_timeout(Duration::ZERO).unwrap_err(), Timeout);
        }
        stalled.resume();
        // Everything has its deadline all the same.
        collector.jump_clock(2 * NEVER);
        let batch = flusher.next_batch().unwrap();
        assert_eq!((batch.received(), batch.trigger()), (13, Trigger::Timeout));
    });
}

#[cfg(feature = "tokio")]
#[test]
fn async_flusher_passes_frozen_entry() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    for_each_shard(|victim, before| {
        let (collector, producers, mut flusher) =
            shards(by_size(64).with_max_delay(Duration::from_millis(5)));
        let (stalled, free) = freeze(&producers, victim, before);
        runtime.block_on(async {
            let batch = flusher.next().await.unwrap();
            assert_eq!((sorted(&batch), batch.trigger()), (free, Trigger::Timeout));
            let next = tokio::time::timeout(Duration::from_millis(20), flusher.next());
            assert!(next.await.is_err(), "nothing can be delivered");
            stalled.resume();
            assert_eq!(numbers(&flusher.next().await.unwrap()), [FROZEN, 11, 12]);
        });
        assert_stats(&collector.stats(), 7 + before, 0, 0, 0);
    });
}

/// As the blocking one after a flush: it polls again by itself, since no wake-up comes.
#[cfg(feature = "tokio")]
#[test]
fn async_flusher_awaits_frozen_entry() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    for_each_shard(|victim, before| {
        let (collector, producers, mut flusher) = shards(by_size(64));
        let (stalled, free) = freeze(&producers, victim, before);
        collector.flush();
        assert_eq!(sorted(&runtime.block_on(flusher.next()).unwrap()), free);
        thread::scope(|scope| {
            scope.spawn(|| {
                thread::sleep(Duration::from_millis(10)); // it waits now, most likely
                stalled.resume();
            });
            let batch = runtime.block_on(flusher.next()).unwrap();
            assert_eq!((numbers(&batch), batch.trigger()), (vec![FROZEN, 11, 12], Trigger::Manual));
        });
    });
}

/// A reporter that is suspended before its scan does not make later entries older than they are:
/// the one that comes at the end of a long batch has its whole delay.
#[test]
fn suspended_report_ages_no_entry() {
    let _watchdog = watchdog();
    let (collector, producers, mut flusher) = shards(by_size(64));
    let stalled = producers[0].push_report_stalled(&context(1)).unwrap().unwrap();
    assert_eq!(numbers(&flusher.try_next().unwrap()), [1]);
    // The batch takes most of a delay, and its handler's last act is a push.
    collector.jump_clock(NEVER / 4 * 3);
    producers[1].push(&context(2)).unwrap();
    assert_eq!(flusher.next_batch_timeout(Duration::ZERO).unwrap_err(), Timeout);
    collector.jump_clock(NEVER / 2);
    assert_eq!(
        flusher.next_batch_timeout(Duration::ZERO).unwrap_err(),
        Timeout,
        "half its delay is over"
    );
    collector.jump_clock(NEVER / 2);
    let batch = flusher.next_batch().unwrap();
    assert_eq!((numbers(&batch), batch.trigger()), (vec![2], Trigger::Timeout));
    stalled.resume();
}

/// A shutdown that times out says how much is missing, which still comes when the producer goes on.
#[test]
fn shutdown_reports_missing_entries() {
    for_each_shard(|victim, before| {
        let (collector, producers, flusher) = shards(by_size(64));
        let (batches, delivered) = mpsc::channel();
        let handle = flusher.spawn(move |batch| batches.send(batch).unwrap()).unwrap();
        let (stalled, free) = freeze(&producers, victim, before);
        collector.close();
        let batch = delivered.recv().unwrap();
        assert_eq!((sorted(&batch), batch.trigger()), (free, Trigger::Shutdown));
        // The producer is frozen until this has returned: if it waited for it, the watchdog would
        // bite.
        let ended = handle.shutdown_with_timeout(Duration::from_millis(10));
        assert_eq!(ended, Err(ShutdownError::Timeout { pending: 3, in_flight: 0 }));
        assert_eq!(producers[0].push(&context(99)), Err(PushError::Closed));
        stalled.resume();
        assert_eq!(numbers(&delivered.recv().unwrap()), [FROZEN, 11, 12]);
        assert!(delivered.recv().is_err(), "the flusher's thread ends");
        assert_stats(&collector.stats(), 7 + before, 0, 1, 0);
    });
}

/// Shards fill up behind a frozen entry in each of them. Refusals are counted, nothing is lost.
#[test]
fn frozen_shards_refuse_when_full() {
    let _watchdog = watchdog();
    let (collector, producers, mut flusher) = shards(by_size(8).with_queue_capacity(8 * SHARDS));
    let stalled: Vec<_> =
        producers.iter().map(|producer| producer.push_stalled(&context(FROZEN)).unwrap()).collect();
    thread::scope(|scope| {
        for (shard, producer) in (1_u64..).zip(&producers) {
            scope.spawn(move || {
                let pushes = (1..=20).map(|number| producer.push(&context(100 * shard + number)));
                assert_eq!(pushes.filter(|push| *push == Err(PushError::Full)).count(), 20 - 7);
            });
        }
    });
    assert!(flusher.try_next().is_none());
    stalled.into_iter().for_each(StalledPush::resume);
    collector.close();
    let received: u64 =
        std::iter::from_fn(|| flusher.next_batch()).map(|batch| batch.received()).sum();
    assert_eq!(received, 8 * SHARDS as u64);
    assert_stats(&collector.stats(), 24, 39, 0, 0);
}

/// Steps are counted for the whole process, so this file's other tests must not run meanwhile.
#[cfg(batchlink_count)]
mod steps {
    use super::*;
    use batchlink::{FlusherHandle, StepCounts, take_step_counts};
    use std::sync::mpsc::{Receiver, Sender};

    const SIZE: usize = 16;
    const THREADS: u64 = 4;
    const PUSHES: u64 = 5000;

    /// Returns a flusher whose handler has begun and waits for a message.
    fn frozen_flusher() -> (LinkCollector, FlusherHandle, Sender<()>, Receiver<LinkBatch>) {
        let (collector, flusher) =
            by_size(SIZE).with_shards(SHARDS).with_queue_capacity(256).build().unwrap();
        let (go_on, may_go_on) = mpsc::channel();
        let (batches, delivered) = mpsc::channel();
        let handle = flusher
            .spawn(move |batch| {
                batches.send(batch).unwrap();
                let _ = may_go_on.recv();
            })
            .unwrap();
        (1..=SIZE as u64).for_each(|number| collector.push(&context(number)).unwrap());
        assert_eq!(delivered.recv().unwrap().received(), SIZE as u64);
        (collector, handle, go_on, delivered)
    }

    fn add(sum: &mut StepCounts, more: StepCounts) {
        sum.claims += more.claims;
        sum.slow_paths += more.slow_paths;
        sum.scans += more.scans;
        sum.limits += more.limits;
        sum.coordinations += more.coordinations;
    }

    /// Run alone by `ci/starvation.sh`.
    #[test]
    #[ignore = "counts the steps of the whole process: ci/starvation.sh runs it alone"]
    fn frozen_flusher_costs_no_steps() {
        let _watchdog = watchdog();
        let (collector, handle, go_on, delivered) = frozen_flusher();
        let producers: Vec<_> = (0..SHARDS).map(|_| collector.producer()).collect();
        take_step_counts();

        // Alone, push by push: what DESIGN.md says, to the step.
        let mut all = StepCounts::default();
        let (mut accepted, mut full) = (SIZE as u64, 0);
        for number in 0..PUSHES {
            let answer = producers[number as usize % SHARDS].push(&context(100 + number));
            let steps = take_step_counts();
            add(&mut all, steps);
            match answer {
                Ok(()) => {
                    accepted += 1;
                    assert_eq!(steps.claims, 1, "{steps:?}");
                    let scans = steps.slow_paths;
                    assert!(scans <= 1 && steps.scans == scans, "{steps:?}");
                    // The report, and one exchange before and one after the scan. The first report
                    // finds the level idle and notes the time.
                    let first = u64::from(scans == 1 && all.scans == 1);
                    assert_eq!(steps.coordinations, 3 * scans + first, "{steps:?}");
                    assert!(steps.limits <= SHARDS as u64 * scans, "{steps:?}");
                }
                Err(_) => {
                    full += 1;
                    assert_eq!(steps, StepCounts { slow_paths: 1, ..StepCounts::default() });
                }
            }
        }
        assert!(accepted > SIZE as u64 && full > 0);

        // Together: everything is full, so each push is one load and no write at all.
        thread::scope(|scope| {
            for producer in (0..THREADS).map(|_| collector.producer()) {
                scope.spawn(move || {
                    for number in 0..PUSHES {
                        assert_eq!(producer.push(&context(1 + number)), Err(PushError::Full));
                    }
                });
            }
        });
        full += THREADS * PUSHES;
        let expected = StepCounts { slow_paths: THREADS * PUSHES, ..StepCounts::default() };
        assert_eq!(take_step_counts(), expected);
        assert_stats_while_busy(&collector, accepted, full);

        // Nothing is lost when it wakes.
        drop(go_on);
        handle.shutdown_with_timeout(Duration::MAX).unwrap();
        let rest: u64 = delivered.iter().map(|batch| batch.received()).sum();
        assert_eq!(rest, accepted - SIZE as u64);
        assert_stats(&collector.stats(), accepted, full, 0, 0);
    }

    fn assert_stats_while_busy(collector: &LinkCollector, accepted: u64, full: u64) {
        let stats = collector.stats();
        assert_eq!((stats.accepted(), stats.rejected_full()), (accepted, full), "{stats:?}");
    }
}
