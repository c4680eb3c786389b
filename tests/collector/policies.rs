//! Flush policies on tokio's paused clock: what is due at which moment, and not before.

use super::common::*;
use batchlink::{FlushPolicy, Flusher, LinkCollector, Trigger};
use std::task::{Context, Poll, Waker};
use std::time::Duration;
use tokio::time;

const SECOND: Duration = Duration::from_secs(1);

fn with_policy(policy: FlushPolicy) -> (LinkCollector, Flusher) {
    by_size(4).with_shards(1).with_max_delay(10 * SECOND).with_flush_policy(policy).build().unwrap()
}

/// The size and trigger of the batch that is due now. Polls twice, as the first poll may only have
/// yielded.
async fn due(flusher: &mut Flusher) -> Option<(u64, Trigger)> {
    tokio::task::yield_now().await;
    let cx = &mut Context::from_waker(Waker::noop());
    let first = flusher.poll_next_batch(cx);
    match if first.is_pending() { flusher.poll_next_batch(cx) } else { first } {
        Poll::Ready(batch) => batch.map(|batch| (batch.received(), batch.trigger())),
        Poll::Pending => None,
    }
}

fn push(collector: &LinkCollector, contexts: u64) {
    (1..=contexts).for_each(|number| collector.push(&context(number)).unwrap());
}

/// Size is first under every policy, and a batch holds no more.
#[tokio::test(start_paused = true)]
async fn size_triggers_under_every_policy() {
    for policy in [
        FlushPolicy::Delay,
        FlushPolicy::Immediate,
        FlushPolicy::Balanced { min_size: 3 },
        FlushPolicy::IdleRestart { idle: SECOND },
    ] {
        let (collector, mut flusher) = with_policy(policy);
        assert_eq!(due(&mut flusher).await, None);
        push(&collector, 9);
        assert_eq!(due(&mut flusher).await, Some((4, Trigger::Size)), "{policy:?}");
        assert_eq!(due(&mut flusher).await, Some((4, Trigger::Size)), "{policy:?}");
        collector.close();
        assert_eq!(due(&mut flusher).await, Some((1, Trigger::Shutdown)), "{policy:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn immediate_takes_what_is_there() {
    let (collector, mut flusher) = with_policy(FlushPolicy::Immediate);
    for contexts in [1, 3, 2] {
        push(&collector, contexts);
        assert_eq!(due(&mut flusher).await, Some((contexts, Trigger::Policy)));
        assert_eq!(due(&mut flusher).await, None);
    }
}

/// An idle flusher takes the first context at once; one that finds work when it comes back waits
/// for `min_size`, or for the delay.
#[tokio::test(start_paused = true)]
async fn balanced_waits_under_load() {
    let (collector, mut flusher) = with_policy(FlushPolicy::Balanced { min_size: 3 });
    for _ in 0..3 {
        assert_eq!(due(&mut flusher).await, None);
        push(&collector, 1);
        assert_eq!(due(&mut flusher).await, Some((1, Trigger::Policy)), "idle");
        push(&collector, 2);
        assert_eq!(due(&mut flusher).await, None, "under load");
        time::advance(9 * SECOND).await;
        assert_eq!(due(&mut flusher).await, None);
        push(&collector, 1);
        assert_eq!(due(&mut flusher).await, Some((3, Trigger::Policy)), "enough");
        push(&collector, 2);
        assert_eq!(due(&mut flusher).await, None);
        time::advance(10 * SECOND - Duration::from_nanos(1)).await;
        assert_eq!(due(&mut flusher).await, None);
        time::advance(Duration::from_nanos(1)).await;
        assert_eq!(due(&mut flusher).await, Some((2, Trigger::Timeout)), "the delay");
    }
}

/// Each push that a poll finds starts the idle time again, and the delay is its maximum.
#[tokio::test(start_paused = true)]
async fn idle_restarts_with_each_push() {
    let (collector, mut flusher) = with_policy(FlushPolicy::IdleRestart { idle: 4 * SECOND });
    push(&collector, 1);
    assert_eq!(due(&mut flusher).await, None);
    for (pushed, wait) in [(false, 1), (true, 2), (false, 1), (false, 2)] {
        if pushed {
            push(&collector, 1);
        }
        time::advance(wait * SECOND).await;
        assert_eq!(due(&mut flusher).await, None);
    }
    // The second push was seen 3 seconds ago.
    time::advance(SECOND - Duration::from_nanos(1)).await;
    assert_eq!(due(&mut flusher).await, None);
    time::advance(Duration::from_nanos(1)).await;
    assert_eq!(due(&mut flusher).await, Some((2, Trigger::Policy)));
    // It goes on and on, until the first has waited for `max_delay`.
    for _ in 0..3 {
        push(&collector, 1);
        assert_eq!(due(&mut flusher).await, None);
        time::advance(3 * SECOND).await;
    }
    assert_eq!(due(&mut flusher).await, None);
    time::advance(SECOND).await;
    assert_eq!(due(&mut flusher).await, Some((3, Trigger::Timeout)));
}

/// A push is seen at the next quarter of the idle time, without a wake-up of its own, and starts it
/// again from there.
#[tokio::test(start_paused = true)]
async fn idle_polls_in_quarters() {
    let _watchdog = watchdog();
    let (collector, mut flusher) = with_policy(FlushPolicy::IdleRestart { idle: 4 * SECOND });
    let run = tokio::spawn(async move {
        while let Some(batch) = flusher.next().await {
            assert_eq!((batch.received(), batch.trigger()), (2, Trigger::Policy));
        }
    });
    time::sleep(SECOND).await;
    for wait in [SECOND / 2, 9 * SECOND / 2 - Duration::from_millis(1)] {
        push(&collector, 1);
        time::sleep(wait).await;
    }
    assert_eq!(collector.stats().batches(), 0);
    time::sleep(Duration::from_millis(2)).await;
    assert_eq!(collector.stats().batches(), 1, "five seconds after the first push");
    drop(collector);
    run.await.unwrap();
}

/// Under every policy timers and wake-ups deliver by themselves what is due, and an idle collector
/// is not woken, however long.
#[tokio::test(start_paused = true)]
async fn policies_wake_only_for_work() {
    let _watchdog = watchdog();
    for (policy, batches, trigger) in [
        (FlushPolicy::Delay, 1, Trigger::Timeout),
        (FlushPolicy::Immediate, 2, Trigger::Policy),
        (FlushPolicy::Balanced { min_size: 2 }, 2, Trigger::Policy),
        (FlushPolicy::IdleRestart { idle: 4 * SECOND }, 1, Trigger::Policy),
    ] {
        let (collector, mut flusher) = with_policy(policy);
        let run = tokio::spawn(async move {
            while let Some(batch) = flusher.next().await {
                assert_eq!(batch.trigger(), trigger, "{policy:?}");
            }
        });
        time::sleep(SECOND).await;
        for _ in 0..2 {
            push(&collector, 1);
            time::sleep(SECOND).await;
        }
        time::sleep(20 * SECOND).await;
        let stats = collector.stats();
        assert_eq!((stats.received(), stats.batches()), (2, batches), "{policy:?}");
        // Four polls in the idle time of each push, and one for the first push.
        let most = if policy == (FlushPolicy::IdleRestart { idle: 4 * SECOND }) { 7 } else { 2 };
        assert!(stats.wake_ups() <= most, "{policy:?}: {stats:?}");
        time::sleep(3600 * SECOND).await;
        assert_eq!(collector.stats().wake_ups(), stats.wake_ups(), "{policy:?}");
        drop(collector);
        run.await.unwrap();
    }
}
