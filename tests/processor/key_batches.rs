//! A batch for each key, with a trigger of its own.

use super::common::{NEVER, by_size, watchdog};
use super::exported::Exporter;
use batchlink::processor::{Batch, BatchProcessor, BatchProcessorBuilder, CallError, Submitter};
use batchlink::{FlushError, FlushPolicy, Trigger};
use futures_util::FutureExt;
use std::time::Duration;
use tokio::time;

const SECOND: Duration = Duration::from_secs(1);

/// The key, and a number.
type Item = (u64, u64);
type Processor = BatchProcessor<Item, u64, String>;

/// Batches of three of each key, up to 8 items in the queue and 8 held.
fn of_three() -> BatchProcessorBuilder<Item, u64, String> {
    let config = by_size(3).with_shards(1).with_queue_capacity(8).with_max_delay(10 * SECOND);
    BatchProcessor::builder("batch").with_config(config).with_key_batches(|&(key, _)| key)
}

fn submit(submitter: &Submitter<Item, u64, String>, items: &[Item]) {
    items.iter().for_each(|&item| submitter.submit(item).unwrap());
}

/// What is due now. Polls twice, as the first poll may only have yielded.
async fn due(processor: &mut Processor) -> Option<(Trigger, Vec<Item>)> {
    tokio::task::yield_now().await;
    let first = processor.next().now_or_never().flatten();
    let batch = first.or_else(|| processor.next().now_or_never().flatten())?;
    let due = (batch.trigger(), batch.payloads().copied().collect());
    batch.succeed_all(|item| item.1);
    Some(due)
}

/// A key's batch is due with its own third item, whatever others wait; items held are pending.
#[tokio::test(start_paused = true)]
async fn keys_fill_own_batches() {
    let (submitter, mut processor) = of_three().build(Exporter::default().tracer()).unwrap();
    submit(&submitter, &[(1, 1), (2, 1), (1, 2), (2, 2), (3, 1)]);
    assert_eq!(due(&mut processor).await, None);
    let stats = submitter.stats();
    assert_eq!((stats.queue().pending(), stats.queue().received(), stats.in_flight()), (5, 0, 0));
    submit(&submitter, &[(2, 3)]);
    assert_eq!(due(&mut processor).await, Some((Trigger::Size, vec![(2, 1), (2, 2), (2, 3)])));
    assert_eq!(due(&mut processor).await, None);
    // Seven of one key are two batches, and one waits with the two of another.
    submit(&submitter, &[(4, 1), (4, 2), (4, 3), (4, 4), (4, 5), (4, 6), (4, 7)]);
    assert_eq!(due(&mut processor).await, Some((Trigger::Size, vec![(4, 1), (4, 2), (4, 3)])));
    assert_eq!(due(&mut processor).await, Some((Trigger::Size, vec![(4, 4), (4, 5), (4, 6)])));
    assert_eq!(due(&mut processor).await, None);
    assert_eq!(submitter.stats().queue().pending(), 4);
    submitter.close();
    assert_eq!(due(&mut processor).await, Some((Trigger::Shutdown, vec![(1, 1), (1, 2)])));
    assert_eq!(due(&mut processor).await, Some((Trigger::Shutdown, vec![(3, 1)])));
    assert_eq!(due(&mut processor).await, Some((Trigger::Shutdown, vec![(4, 7)])));
    assert_eq!(processor.next().now_or_never().map(|batch| batch.is_none()), Some(true));
    let stats = submitter.stats();
    assert_eq!((stats.queue().pending(), stats.succeeded(), stats.in_flight()), (0, 13, 0));
}

/// The delay of each key counts from its own oldest item, to the nanosecond.
#[tokio::test(start_paused = true)]
async fn keys_have_own_delays() {
    let (submitter, mut processor) = of_three().build(Exporter::default().tracer()).unwrap();
    for key in [1, 2, 3] {
        submit(&submitter, &[(key, 1)]);
        assert_eq!(due(&mut processor).await, None);
        time::advance(SECOND).await;
    }
    submit(&submitter, &[(1, 2)]);
    assert_eq!(due(&mut processor).await, None);
    time::advance(7 * SECOND - Duration::from_nanos(1)).await;
    assert_eq!(due(&mut processor).await, None);
    time::advance(Duration::from_nanos(1)).await;
    assert_eq!(due(&mut processor).await, Some((Trigger::Timeout, vec![(1, 1), (1, 2)])));
    for key in [2, 3] {
        assert_eq!(due(&mut processor).await, None);
        time::advance(SECOND).await;
        assert_eq!(due(&mut processor).await, Some((Trigger::Timeout, vec![(key, 1)])));
    }
}

/// The delay counts from the oldest item of a key, also if its shard is read after another's.
#[tokio::test(start_paused = true)]
async fn delay_spans_shards() {
    for first in [0, 1] {
        let builder = of_three().with_shards(2).with_queue_capacity(16);
        let (submitter, mut processor) = builder.build(Exporter::default().tracer()).unwrap();
        let shards = [submitter.producer(), submitter.producer()];
        submit(&shards[first], &[(1, 1)]);
        time::advance(4 * SECOND).await;
        submit(&shards[1 - first], &[(1, 2)]);
        assert_eq!(due(&mut processor).await, None);
        time::advance(6 * SECOND - Duration::from_nanos(1)).await;
        assert_eq!(due(&mut processor).await, None);
        time::advance(Duration::from_nanos(1)).await;
        let (trigger, items) = due(&mut processor).await.expect("its oldest item waited for long");
        assert_eq!((trigger, items.len()), (Trigger::Timeout, 2));
    }
}

/// What a complete batch leaves of its key has the delay of its own oldest item.
#[tokio::test(start_paused = true)]
async fn leftover_keeps_own_delay() {
    let (submitter, mut processor) = of_three().build(Exporter::default().tracer()).unwrap();
    submit(&submitter, &[(1, 1)]);
    assert_eq!(due(&mut processor).await, None);
    time::advance(4 * SECOND).await;
    submit(&submitter, &[(1, 2), (1, 3), (1, 4)]);
    assert_eq!(due(&mut processor).await, Some((Trigger::Size, vec![(1, 1), (1, 2), (1, 3)])));
    time::advance(10 * SECOND - Duration::from_nanos(1)).await;
    assert_eq!(due(&mut processor).await, None);
    time::advance(Duration::from_nanos(1)).await;
    assert_eq!(due(&mut processor).await, Some((Trigger::Timeout, vec![(1, 4)])));
}

/// A caller that leaves while its item is held by key is skipped when the key's batch is due: its
/// item counted for the trigger of its key, and is counted as canceled once.
#[tokio::test(start_paused = true)]
async fn held_leavers_are_skipped() {
    let exporter = Exporter::default();
    let builder = of_three().with_skip_canceled(true).with_max_batch_size(2);
    let (submitter, mut processor) = builder.build(exporter.tracer()).unwrap();
    let counts = |submitter: &Submitter<Item, u64, String>| {
        let stats = submitter.stats();
        let (received, ended) = (stats.queue().received(), stats.succeeded() + stats.failed());
        assert_eq!(received, ended + stats.canceled() + stats.in_flight());
        (stats.queue().pending(), stats.succeeded(), stats.canceled())
    };
    let mut calls: Vec<_> =
        [(1, 1), (2, 1), (3, 1)].map(|item| Box::pin(submitter.call(item))).into_iter().collect();
    calls.iter_mut().for_each(|call| assert!(call.now_or_never().is_none()));
    assert_eq!(due(&mut processor).await, None);
    drop(calls);
    // They are held until their keys are due.
    assert_eq!(due(&mut processor).await, None);
    assert_eq!(counts(&submitter), (3, 0, 0));
    submit(&submitter, &[(1, 2)]);
    assert_eq!(due(&mut processor).await, Some((Trigger::Size, vec![(1, 2)])));
    assert_eq!(counts(&submitter), (2, 1, 1));
    // One leaves before it is held, and all of the key have left: there is no batch.
    let mut late = Box::pin(submitter.call((2, 2)));
    assert!((&mut late).now_or_never().is_none());
    drop(late);
    assert_eq!(due(&mut processor).await, None);
    assert_eq!(counts(&submitter), (1, 1, 3));
    assert_eq!(processor.try_next().map(|batch| batch.len()), None);
    assert_eq!(counts(&submitter), (0, 1, 4));
    assert_eq!(exporter.spans().len(), 1);
    let stats = submitter.flush_and_wait_async(Duration::ZERO).await.unwrap();
    assert_eq!((stats.canceled(), stats.in_flight()), (4, 0));
}

/// Timers deliver what is held, in a task that only waits.
#[tokio::test(start_paused = true)]
async fn held_items_wake_by_timer() {
    let _watchdog = watchdog();
    let (submitter, mut processor) = of_three().build(Exporter::default().tracer()).unwrap();
    let run = tokio::spawn(async move {
        processor.run_async(async |batch| batch.succeed_all(|item| item.0)).await;
    });
    let (one, two) = tokio::join!(submitter.call((1, 1)), submitter.call((2, 1)));
    assert_eq!((one, two), (Ok(1), Ok(2)));
    drop(submitter);
    run.await.unwrap();
}

/// A thread that waits delivers what is held, too.
#[test]
fn held_items_wake_thread() {
    let _watchdog = watchdog();
    let config = by_size(3).with_shards(1).with_max_delay(Duration::from_millis(5));
    let (submitter, processor) = BatchProcessor::<Item, u64, String>::builder("batch")
        .with_config(config)
        .with_key_batches(|&(key, _)| key)
        .build(Exporter::default().tracer())
        .unwrap();
    let handle = processor.spawn(|batch| batch.succeed_all(|item| item.0)).unwrap();
    assert_eq!(submitter.call_blocking((1, 1)), Ok(1));
    handle.shutdown_with_timeout(NEVER).unwrap();
}

/// A flush takes what is held, and waits until it has ended.
#[tokio::test(start_paused = true)]
async fn flush_covers_held_items() {
    let _watchdog = watchdog();
    let (submitter, mut processor) = of_three().build(Exporter::default().tracer()).unwrap();
    submit(&submitter, &[(1, 1), (2, 1)]);
    assert_eq!(due(&mut processor).await, None);
    submit(&submitter, &[(2, 2)]);
    let missing = submitter.flush_and_wait(Duration::ZERO);
    assert_eq!(missing, Err(FlushError::Timeout { pending: 1, in_flight: 2 }));
    assert_eq!(due(&mut processor).await, Some((Trigger::Manual, vec![(1, 1)])));
    assert!(submitter.flush_and_wait(Duration::ZERO).is_err());
    assert_eq!(due(&mut processor).await, Some((Trigger::Manual, vec![(2, 1), (2, 2)])));
    submitter.flush_and_wait(Duration::ZERO).unwrap();
    // This poll takes the last request.
    assert_eq!(due(&mut processor).await, None);
    // An item that was taken after others of its key is covered by their ticket.
    submit(&submitter, &[(1, 3)]);
    assert_eq!(due(&mut processor).await, None);
    submit(&submitter, &[(1, 4)]);
    assert_eq!(due(&mut processor).await, None);
    let missing = submitter.flush_and_wait(Duration::ZERO);
    assert_eq!(missing, Err(FlushError::Timeout { pending: 0, in_flight: 2 }));
    let batch = processor.try_next().unwrap();
    assert!(submitter.flush_and_wait(Duration::ZERO).is_err());
    batch.succeed_all(|item| item.1);
    submitter.flush_and_wait(Duration::ZERO).unwrap();
}

/// Of more keys than the queue has slots, the oldest go early: memory is bounded.
#[tokio::test(start_paused = true)]
async fn many_keys_are_bounded() {
    let (submitter, mut processor) = of_three().build(Exporter::default().tracer()).unwrap();
    submit(&submitter, &[1, 2, 3, 4, 5, 6, 7].map(|key| (key, 1)));
    assert_eq!(due(&mut processor).await, None);
    submit(&submitter, &[8, 9, 10].map(|key| (key, 1)));
    assert_eq!(due(&mut processor).await, Some((Trigger::Policy, vec![(1, 1)])));
    assert_eq!(due(&mut processor).await, Some((Trigger::Policy, vec![(2, 1)])));
    assert_eq!(due(&mut processor).await, None);
    assert_eq!(submitter.stats().queue().pending(), 8);
    // A key that is gone begins anew.
    submit(&submitter, &[(1, 2), (1, 3), (1, 4)]);
    assert_eq!(due(&mut processor).await, Some((Trigger::Size, vec![(1, 2), (1, 3), (1, 4)])));
}

/// A processor that is dropped answers the callers of what it holds.
#[test]
fn dropped_processor_answers_held() {
    let (submitter, mut processor) = of_three().build(Exporter::default().tracer()).unwrap();
    let mut call = Box::pin(submitter.call((1, 1)));
    assert!(call.as_mut().now_or_never().is_none());
    assert!(processor.next().now_or_never().is_none());
    drop(processor);
    assert_eq!(call.now_or_never(), Some(Err(CallError::Closed)));
    let stats = submitter.stats();
    assert_eq!((stats.queue().pending(), stats.failed(), stats.in_flight()), (0, 1, 0));
}

/// An item whose key panics waits by itself, and takes nothing from the others.
#[tokio::test]
async fn panicking_key_stands_alone() {
    let config = by_size(2).with_shards(1).with_queue_capacity(8);
    let key = |&(key, _): &Item| if key == 0 { panic!("on purpose") } else { key };
    let (submitter, mut processor) = BatchProcessor::<Item, u64, String>::builder("batch")
        .with_config(config)
        .with_key_batches(key)
        .build(Exporter::default().tracer())
        .unwrap();
    submit(&submitter, &[(0, 1), (1, 1), (0, 2), (1, 2)]);
    assert_eq!(due(&mut processor).await, Some((Trigger::Size, vec![(1, 1), (1, 2)])));
    assert_eq!(due(&mut processor).await, None);
    let rest: Vec<_> = std::iter::from_fn(|| processor.try_next()).collect();
    assert_eq!(rest.iter().map(Batch::len).collect::<Vec<_>>(), [1, 1]);
}

/// Each item starts the idle time of its own key again, whichever shard it is in, and the delay
/// counts from the key's first: to the nanosecond, and without a poll between.
#[tokio::test(start_paused = true)]
async fn keys_restart_own_idle() {
    let policy = FlushPolicy::IdleRestart { idle: 4 * SECOND };
    let builder = of_three().with_shards(2).with_max_batch_size(4).with_queue_capacity(16);
    let builder = builder.with_flush_policy(policy);
    let (submitter, mut processor) = builder.build(Exporter::default().tracer()).unwrap();
    let shards = [submitter.producer(), submitter.producer()];
    submit(&shards[0], &[(1, 1), (2, 1)]);
    assert_eq!(due(&mut processor).await, None);
    time::advance(3 * SECOND).await;
    // Seen after a while, in the order of the shards.
    submit(&shards[1], &[(2, 2)]);
    time::advance(SECOND - Duration::from_nanos(1)).await;
    assert_eq!(due(&mut processor).await, None);
    time::advance(Duration::from_nanos(1)).await;
    assert_eq!(due(&mut processor).await, Some((Trigger::Policy, vec![(1, 1)])));
    time::advance(3 * SECOND - Duration::from_nanos(1)).await;
    assert_eq!(due(&mut processor).await, None);
    time::advance(Duration::from_nanos(1)).await;
    assert_eq!(due(&mut processor).await, Some((Trigger::Policy, vec![(2, 1), (2, 2)])));
    // One that is submitted in time and found too late restarts it, too; the delay ends it.
    submit(&submitter, &[(3, 1)]);
    assert_eq!(due(&mut processor).await, None);
    time::advance(4 * SECOND - Duration::from_nanos(1)).await;
    submit(&submitter, &[(3, 2)]);
    time::advance(Duration::from_nanos(1)).await;
    assert_eq!(due(&mut processor).await, None);
    time::advance(4 * SECOND - Duration::from_nanos(2)).await;
    assert_eq!(due(&mut processor).await, None);
    time::advance(Duration::from_nanos(1)).await;
    assert_eq!(due(&mut processor).await, Some((Trigger::Policy, vec![(3, 1), (3, 2)])));
    // It goes on and on, until the first has waited for `max_delay`.
    for number in 1..=2 {
        submit(&submitter, &[(4, number)]);
        assert_eq!(due(&mut processor).await, None);
        time::advance(7 * SECOND / 2).await;
        assert_eq!(due(&mut processor).await, None);
    }
    submit(&submitter, &[(4, 3)]);
    time::advance(3 * SECOND - Duration::from_nanos(1)).await;
    assert_eq!(due(&mut processor).await, None);
    time::advance(Duration::from_nanos(1)).await;
    let (trigger, items) = due(&mut processor).await.unwrap();
    assert_eq!((trigger, items.len()), (Trigger::Timeout, 3));
}

/// `Balanced` goes by the load, which is that of all keys together.
#[test]
fn load_policy_is_refused() {
    for (policy, accepted) in [
        (FlushPolicy::Delay, true),
        (FlushPolicy::Immediate, true),
        (FlushPolicy::IdleRestart { idle: SECOND }, true),
        (FlushPolicy::Balanced { min_size: 1 }, true), // needs no load
        (FlushPolicy::Balanced { min_size: 2 }, false),
    ] {
        let built = of_three().with_flush_policy(policy).build(Exporter::default().tracer());
        match built {
            Ok(_) => assert!(accepted, "{policy:?}"),
            Err(error) => {
                assert!(!accepted, "{policy:?}");
                let text = format!(
                    "invalid flush_policy: {policy:?} (allowed: Delay, Immediate or IdleRestart \
                     with batches by key, as the load is that of all keys together)"
                );
                assert_eq!(error.to_string(), text);
            }
        }
    }
}

/// Keys that a dropped processor holds are user code, too.
#[test]
fn panicking_key_drop_is_caught() {
    #[derive(PartialEq, Eq, Hash)]
    struct Key(u64);
    impl Drop for Key {
        fn drop(&mut self) {
            super::support::on_purpose();
        }
    }
    let builder = of_three().with_key_batches(|&(key, _)| Key(key));
    let (submitter, mut processor) = builder.build(Exporter::default().tracer()).unwrap();
    submit(&submitter, &[(1, 1), (2, 1)]);
    assert!(processor.next().now_or_never().is_none());
    drop(processor);
    let stats = submitter.stats();
    assert_eq!((stats.queue().pending(), stats.failed(), stats.in_flight()), (0, 2, 0));
}
