//! When the flusher is woken under a policy that waits: `src/queue/rules.rs`, `drain.rs`.

use batchlink::{FlushPolicy, Trigger};
use batchlink_loom_tests::{NEVER, check, cx, ids, sorted, spawn, with_policy};
use std::time::Duration;

/// `Balanced` under load: the flusher found a context when it became free, and sleeps until
/// `min_size` are pending. The push that makes them so many wakes it, on whichever shard.
#[test]
fn min_size_wakes_under_load() {
    for shards in [1, 2] {
        check(2, move || {
            let policy = FlushPolicy::Balanced { min_size: 3 };
            let (collector, mut flusher) = with_policy(policy, 4, 4, shards, NEVER);
            let (first, second) = (collector.producer(), collector.producer());
            first.push(&cx(1)).unwrap();
            let one = spawn(first, |first| first.push(&cx(2)).unwrap());
            let two = spawn(second, |second| second.push(&cx(3)).unwrap());
            let batch = flusher.next_batch().unwrap();
            assert_eq!((sorted(&batch), batch.trigger()), (vec![1, 2, 3], Trigger::Policy));
            let _handles = (one.join().unwrap(), two.join().unwrap());
        });
    }
}

/// An idle flusher is woken by the first push, also after a complete batch: under a policy that
/// acts on one context, that is no time to sleep for a delay.
#[test]
fn first_push_wakes_idle() {
    for policy in
        [FlushPolicy::Balanced { min_size: 2 }, FlushPolicy::IdleRestart { idle: Duration::ZERO }]
    {
        check(3, move || {
            let (collector, mut flusher) = with_policy(policy, 2, 4, 2, NEVER);
            let (first, second) = (collector.producer(), collector.producer());
            let _ = [1, 2].map(|id| first.push(&cx(id)).unwrap());
            assert_eq!(flusher.next_batch().unwrap().trigger(), Trigger::Size);
            assert!(flusher.try_next().is_none());
            let pushing = spawn(second, |second| second.push(&cx(3)).unwrap());
            let batch = flusher.next_batch().unwrap();
            assert_eq!((ids(&batch), batch.trigger()), (vec![3], Trigger::Policy));
            let _handles = (first, pushing.join().unwrap());
        });
    }
}
