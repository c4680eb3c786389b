//! The end: close, last handle, flusher gone.

use batchlink::{PushError, Trigger};
use batchlink_loom_tests::{NEVER, check, collector, cx, ids, spawn};
use loom::thread;

/// Close racing push and drain, two shards: what was accepted is delivered once, the rest refused,
/// and then the flusher ends.
#[test]
fn close_races_push_and_drain() {
    check(2, || {
        let (collector, mut flusher) = collector(4, 4, 2, NEVER);
        let (first, second) = (collector.producer(), collector.producer());
        let one = spawn(first, |first| [1, 2].map(|id| first.push(&cx(id))));
        let two = spawn(second, |second| second.push(&cx(3)));
        collector.close();
        let mut taken = Vec::new();
        while let Some(batch) = flusher.next_batch() {
            assert_eq!(batch.trigger(), Trigger::Shutdown);
            taken.extend(ids(&batch));
        }
        taken.sort_unstable();
        let ([a, b], _) = one.join().unwrap();
        let results = [(1, a), (2, b), (3, two.join().unwrap().0)];
        let accepted: Vec<u64> =
            results.iter().filter(|(_, result)| result.is_ok()).map(|(id, _)| *id).collect();
        assert_eq!(taken, accepted);
        assert!(results.iter().all(|(_, result)| *result != Err(PushError::Full)));
        let stats = collector.stats();
        assert_eq!(
            (stats.pushed(), stats.accepted(), stats.pending()),
            (3, accepted.len() as u64, 0)
        );
        assert_eq!(stats.rejected_closed(), 3 - accepted.len() as u64);
    });
}

/// Close, shard after shard, racing a poll, shard after shard: the flusher ends when every shard is
/// closed and empty, and not before.
#[test]
fn close_races_look() {
    check(3, || {
        let (collector, mut flusher) = collector(2, 2, 2, NEVER);
        let (first, second) = (collector.producer(), collector.producer());
        let closing = spawn((collector, first), |(collector, first)| {
            first.push(&cx(1)).unwrap();
            collector.close();
        });
        let mut taken = 0;
        while let Some(batch) = flusher.next_batch() {
            taken += batch.received();
        }
        assert_eq!(second.push(&cx(2)), Err(PushError::Closed));
        assert_eq!((taken, flusher.stats().pending()), (1, 0));
        closing.join().unwrap();
    });
}

/// Close during a scan that raises limits: the closed word is left alone, no push passes after.
#[test]
fn close_races_a_scan() {
    check(3, || {
        let (collector, flusher) = collector(1, 2, 1, NEVER);
        let other = collector.clone();
        let reporting = spawn(other, |other| other.push(&cx(1)));
        collector.close();
        assert_eq!(collector.push(&cx(2)), Err(PushError::Closed));
        let accepted = u64::from(reporting.join().unwrap().0.is_ok());
        assert_eq!(collector.push(&cx(3)), Err(PushError::Closed));
        assert_eq!(collector.stats().accepted(), accepted);
        drop(flusher);
    });
}

/// After close, the allowance does not count.
#[test]
fn close_revokes_allowance() {
    check(3, || {
        let (collector, mut flusher) = collector(4, 4, 1, NEVER);
        collector.push(&cx(1)).unwrap();
        let other = collector.clone();
        let closing = spawn(other, |other| {
            other.close();
            assert_eq!(other.push(&cx(3)), Err(PushError::Closed));
        });
        let accepted = u64::from(collector.push(&cx(2)).is_ok());
        closing.join().unwrap();
        assert_eq!(collector.push_all(&[4, 5].map(cx)), 0);
        assert_eq!(ids(&flusher.next_batch().unwrap()), Vec::from_iter(1..2 + accepted));
        assert!(flusher.next_batch().is_none());
    });
}

/// The last handle to go closes, and wakes a flusher that sleeps.
#[test]
fn last_handle_closes() {
    check(3, || {
        let (collector, mut flusher) = collector(4, 4, 2, NEVER);
        let (first, second) = (collector.producer(), collector.producer());
        drop(collector);
        let one = thread::spawn(move || first.push(&cx(1)).unwrap());
        let two = thread::spawn(move || drop(second));
        let batch = flusher.next_batch().unwrap();
        assert_eq!((ids(&batch), batch.trigger()), (vec![1], Trigger::Shutdown));
        assert!(flusher.next_batch().is_none());
        assert!(flusher.next_batch().is_none());
        one.join().unwrap();
        two.join().unwrap();
    });
}

/// Nothing was pushed: the last handle still ends a sleeping flusher.
#[test]
fn last_handle_wakes_the_flusher() {
    check(3, || {
        let (collector, mut flusher) = collector(4, 4, 1, NEVER);
        let closing = thread::spawn(move || drop(collector));
        assert!(flusher.next_batch().is_none());
        closing.join().unwrap();
    });
}

/// Without its flusher a collector is closed; what was accepted before stays visible as pending.
#[test]
fn dropped_flusher_closes() {
    check(3, || {
        let (collector, flusher) = collector(1, 2, 1, NEVER);
        let other = collector.clone();
        let pushing = spawn(other, |other| other.push(&cx(1)));
        drop(flusher);
        assert_eq!(collector.push(&cx(2)), Err(PushError::Closed));
        let accepted = u64::from(pushing.join().unwrap().0.is_ok());
        let stats = collector.stats();
        assert_eq!((stats.pending(), stats.rejected_closed()), (accepted, 2 - accepted));
    });
}
