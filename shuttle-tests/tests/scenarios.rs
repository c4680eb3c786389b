//! Scenarios on the public interface. See `src/lib.rs` of this package.
#![cfg(batchlink_shuttle)]

use batchlink::{LinkBatch, LinkCollector, ShutdownError, Trigger};
use batchlink_shuttle_tests::common::{NEVER, Random};
use batchlink_shuttle_tests::{Case, Consumer, Lane, Totals, check, pause};
use shuttle::thread::{self, JoinHandle};
use std::sync::{Arc, Mutex};
use std::time::Duration;

fn join(threads: Vec<JoinHandle<()>>) {
    threads.into_iter().for_each(|thread| thread.join().expect("no panic"));
}

/// Batches from `consumer` until they hold `contexts`; waits for them.
fn receive(consumer: &Consumer, contexts: usize) -> Vec<LinkBatch> {
    let (mut batches, mut received) = (Vec::new(), 0);
    while received < contexts {
        let batch =
            consumer.batches.recv().expect("the consumer goes on until the collector is closed");
        received += batch.received() as usize;
        batches.push(batch);
    }
    batches
}

/// Producers push and go quiet: every batch that is complete then is delivered, and nothing more.
#[test]
fn quiet_threads_fire_size() {
    fn scenario(random: &mut Random) -> Totals {
        let (case, collector, flusher) = Case::choose(random, NEVER);
        let consumer = Consumer::start(flusher, random);
        join(case.producers(&collector, random));
        let rest = case.accepted() % case.size;
        let mut batches = receive(&consumer, case.accepted() - rest);
        assert!(batches.iter().all(|batch| batch.trigger() == Trigger::Size));
        collector.close();
        let last: Vec<_> = consumer.batches.iter().collect();
        assert_eq!(last.iter().map(|batch| batch.received() as usize).sum::<usize>(), rest);
        assert!(last.iter().all(|batch| batch.trigger() == Trigger::Shutdown));
        batches.extend(last);
        finish(case, collector, consumer, batches, &[Trigger::Size, Trigger::Shutdown])
    }
    check(scenario, |totals| totals.batches(Trigger::Size) > 0 && totals.full > 0);
}

/// Round after round, as many threads as make a batch push once each: the batch comes without
/// another push, before the next round begins.
#[test]
fn every_round_fires_size() {
    fn scenario(random: &mut Random) -> Totals {
        let (case, collector, flusher) = Case::choose(random, NEVER);
        let consumer = Consumer::start(flusher, random);
        let mut batches = Vec::new();
        for _ in 0..8 {
            let threads = (0..case.size).map(|_| {
                let mut lane = Lane::new(&case, &collector, random);
                thread::spawn(move || lane.push_accepted())
            });
            let threads = threads.collect();
            batches.extend(receive(&consumer, case.size));
            join(threads);
        }
        collector.close();
        assert_eq!(consumer.batches.iter().count(), 0);
        finish(case, collector, consumer, batches, &[Trigger::Size])
    }
    check(scenario, |totals| totals.batches(Trigger::Size) == 8 * totals.schedules);
}

/// Drops everything that is left, then checks the account.
fn finish(
    case: Arc<Case>,
    collector: LinkCollector,
    consumer: Consumer,
    batches: Vec<LinkBatch>,
    allowed: &[Trigger],
) -> Totals {
    let flusher = consumer.join();
    let stats = collector.stats();
    assert_eq!((stats, stats.pending()), (flusher.stats(), 0));
    drop((collector, flusher));
    case.settle(batches, stats, allowed)
}

/// Whatever is pushed is delivered by a delay that is over, and then every thread sleeps.
#[test]
fn timeout_delivers_everything() {
    fn scenario(random: &mut Random) -> Totals {
        let (case, collector, flusher) = Case::choose(random, Duration::ZERO);
        let consumer = Consumer::start(flusher, random);
        join(case.producers(&collector, random));
        let batches = receive(&consumer, case.accepted());
        collector.close();
        assert_eq!(consumer.batches.iter().count(), 0);
        finish(case, collector, consumer, batches, &[Trigger::Size, Trigger::Timeout])
    }
    check(scenario, |totals| totals.batches(Trigger::Timeout) > 0);
}

/// A flush delivers what was pushed before it, while others flush and push.
#[test]
fn flush_delivers_earlier_pushes() {
    fn scenario(random: &mut Random) -> Totals {
        let (case, collector, flusher) = Case::choose(random, NEVER);
        let consumer = Consumer::start(flusher, random);
        let producers = case.producers(&collector, random);
        let flushing = (0..1 + random.below(3)).map(|_| {
            let (collector, mut random) = (collector.clone(), Random(random.next()));
            thread::spawn(move || {
                for _ in 0..3 {
                    pause(&mut random, 80);
                    collector.flush();
                }
            })
        });
        join(flushing.chain(producers).collect());
        collector.flush();
        let batches = receive(&consumer, case.accepted());
        collector.close();
        assert_eq!(consumer.batches.iter().count(), 0);
        finish(case, collector, consumer, batches, &[Trigger::Size, Trigger::Manual])
    }
    check(scenario, |totals| totals.batches(Trigger::Manual) > 0);
}

/// Close, by one or two threads, while others push: what was accepted is delivered, and after it
/// nothing is accepted.
#[test]
fn close_lets_nothing_slip_through() {
    fn scenario(random: &mut Random) -> Totals {
        let (case, collector, flusher) = Case::choose(random, NEVER);
        let consumer = Consumer::start(flusher, random);
        let producers = case.producers(&collector, random);
        let closing = (0..1 + random.below(2)).map(|_| {
            let collector = collector.clone();
            let mut lane = Lane::new(&case, &collector, random);
            thread::spawn(move || {
                pause(&mut lane.random, 80);
                collector.close();
                (0..2).for_each(|_| lane.push());
                assert_eq!(lane.accepted(), 0, "after close");
            })
        });
        join(closing.chain(producers).collect());
        let batches = consumer.batches.iter().collect();
        finish(case, collector, consumer, batches, &[Trigger::Size, Trigger::Shutdown])
    }
    check(scenario, |totals| totals.closed > 0 && totals.batches(Trigger::Shutdown) > 0);
}

/// Threads are born and go while others push; handles are cloned and dropped; no call closes. The
/// flusher ends with the last handle, and not before.
#[test]
fn last_handle_ends_flusher() {
    fn live(case: Arc<Case>, collector: LinkCollector, mut random: Random, children: u64) {
        let mut lane = Lane::new(&case, &collector, &mut random);
        (0..random.below(3)).for_each(|_| lane.push());
        let child = (random.below(3) < children).then(|| {
            let (case, collector, random) =
                (Arc::clone(&case), collector.clone(), Random(random.next()));
            thread::spawn(move || live(case, collector, random, children - 1))
        });
        match random.below(2) {
            0 => drop(collector),
            _ => drop((collector.clone(), collector)),
        }
        (0..random.below(3)).for_each(|_| lane.push());
        drop(lane);
        join(child.into_iter().collect());
    }
    fn scenario(random: &mut Random) -> Totals {
        let (case, collector, flusher) = Case::choose(random, NEVER);
        let consumer = Consumer::start(flusher, random);
        let families = (0..4 + random.below(5)).map(|_| {
            let (case, collector, random) =
                (Arc::clone(&case), collector.clone(), Random(random.next()));
            thread::spawn(move || live(case, collector, random, 3))
        });
        let families = families.collect();
        drop(collector);
        let batches = consumer.batches.iter().collect();
        let flusher = consumer.join();
        join(families);
        let stats = flusher.stats();
        drop(flusher);
        assert_eq!((stats.pending(), stats.rejected_closed()), (0, 0));
        case.settle(batches, stats, &[Trigger::Size, Trigger::Shutdown])
    }
    check(scenario, |totals| totals.lanes > 12 * totals.schedules && totals.accepted > 0);
}

/// `shutdown` returns when the handler has had everything that was accepted, and pushes are refused
/// from then on; dropping the handle does the same.
#[test]
fn shutdown_waits_for_everything_accepted() {
    fn scenario(random: &mut Random) -> Totals {
        let delay = [Duration::ZERO, NEVER][random.below(2) as usize];
        let (case, collector, flusher) = Case::choose(random, delay);
        let batches = Arc::new(Mutex::new(Vec::new()));
        let (handled, mut slowness) = (Arc::clone(&batches), Random(random.next()));
        let handle = flusher.spawn(move |batch| {
            pause(&mut slowness, 20);
            handled.lock().unwrap().push(batch);
        });
        let handle = handle.expect("a thread");
        let producers = case.producers(&collector, random);
        pause(random, 80);
        if random.below(2) == 0 {
            handle.shutdown_with_timeout(Duration::MAX).expect("nothing to time out");
            assert_eq!(handle.shutdown(), Err(ShutdownError::AlreadyShutdown));
        }
        drop(handle);
        let batches = std::mem::take(&mut *batches.lock().unwrap());
        assert_eq!(collector.stats().pending(), 0);
        join(producers);
        let stats = collector.stats();
        drop(collector);
        case.settle(batches, stats, &[Trigger::Size, Trigger::Timeout, Trigger::Shutdown])
    }
    check(scenario, |totals| totals.closed > 0 && totals.accepted > 0);
}

/// A flusher that goes while others push closes the collector; what it left is pending, and goes
/// with the last.
#[test]
fn dropped_flusher_leaves_pending() {
    fn scenario(random: &mut Random) -> Totals {
        let (case, collector, mut flusher) = Case::choose(random, NEVER);
        let producers = case.producers(&collector, random);
        let mut batches = Vec::new();
        for _ in 0..random.below(6) {
            pause(random, 80);
            match random.below(2) {
                0 => batches.extend(flusher.try_next()),
                _ => batches.extend(flusher.next_batch_timeout(Duration::ZERO).ok().flatten()),
            }
        }
        drop(flusher);
        join(producers);
        let stats = collector.stats();
        drop(collector);
        case.settle(batches, stats, &[Trigger::Size, Trigger::Manual])
    }
    check(scenario, |totals| {
        totals.pending > 0 && totals.closed > 0 && totals.accepted > totals.pending
    });
}
