//! How long the contexts of a batch waited, on tokio's paused clock: exact values.

use super::common::*;
use batchlink::{Flusher, LinkBatch, LinkCollector, LinkSet};
use opentelemetry::KeyValue;
use std::task::{Context, Waker};
use std::time::Duration;
use tokio::time;

const SECOND: Duration = Duration::from_secs(1);

fn of_three() -> (LinkCollector, Flusher) {
    by_size(3).with_shards(1).with_wait_times().build().unwrap()
}

async fn next(flusher: &mut Flusher) -> LinkBatch {
    flusher.next().await.expect("a batch is due")
}

/// The wait is that of the first push, whatever came later.
#[tokio::test(start_paused = true)]
async fn oldest_wait_begins_with_first() {
    let (collector, mut flusher) = of_three();
    for idle in [0, 7, 100] {
        time::advance(idle * SECOND).await;
        collector.push(&context(1)).unwrap();
        time::advance(2 * SECOND).await;
        collector.push(&context(2)).unwrap();
        time::advance(SECOND).await;
        collector.push(&context(3)).unwrap();
        let batch = next(&mut flusher).await;
        assert_eq!((batch.oldest_wait(), batch.wait_bound()), (Some(3 * SECOND), Some(3 * SECOND)));
        let stated =
            batch.attributes().into_iter().find(|kv| kv.key.as_str() == "batch.oldest_wait");
        assert_eq!(stated, Some(KeyValue::new("batch.oldest_wait", 3.0)));
    }
}

/// Of what a batch leaves, only a bound is known: when it was found pending.
#[tokio::test(start_paused = true)]
async fn leftover_has_bound_only() {
    let (collector, mut flusher) = of_three();
    collector.push(&context(1)).unwrap();
    time::advance(SECOND).await;
    collector.push_all(&[context(2), context(3), context(4)]);
    time::advance(2 * SECOND).await;
    assert_eq!(next(&mut flusher).await.oldest_wait(), Some(3 * SECOND));
    time::advance(4 * SECOND).await;
    collector.flush();
    let batch = next(&mut flusher).await;
    // It waited 6 seconds, and the one before it 7.
    assert_eq!((batch.oldest_wait(), batch.wait_bound()), (None, Some(7 * SECOND)));
    assert!(batch.attributes().iter().all(|kv| kv.key.as_str() != "batch.oldest_wait"));
    // The next one is known again.
    collector.push(&context(5)).unwrap();
    time::advance(SECOND).await;
    assert_eq!(flusher.try_next().unwrap().oldest_wait(), Some(SECOND));
}

/// What is pushed in one shard is not older than what started the delay in another.
#[tokio::test(start_paused = true)]
async fn first_of_all_shards_counts() {
    let builder = by_size(64).with_shards(2).with_queue_capacity(128);
    let (collector, mut flusher) = builder.build().unwrap();
    let producers = [collector.producer(), collector.producer()];
    for first in [0, 1, 1, 0] {
        producers[first].push(&context(1)).unwrap();
        time::advance(SECOND).await;
        assert!(flusher.poll_next_batch(&mut Context::from_waker(Waker::noop())).is_pending());
        time::advance(4 * SECOND).await;
        producers[1 - first].push(&context(2)).unwrap();
        time::advance(SECOND).await;
        collector.flush();
        let batch = next(&mut flusher).await;
        assert_eq!((batch.received(), batch.oldest_wait()), (2, Some(6 * SECOND)));
        assert!(batch.attributes().iter().all(|kv| kv.key.as_str() != "batch.oldest_wait"));
    }
}

/// A link set has no clock.
#[test]
fn link_set_knows_no_wait() {
    let mut set = LinkSet::builder().build().unwrap();
    set.insert(&context(1));
    let batch = set.finish();
    assert_eq!((batch.oldest_wait(), batch.wait_bound()), (None, None));
}
