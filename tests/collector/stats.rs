//! How statistics read.

use super::common::*;
use batchlink::Trigger;

/// No number contradicts another, and triggers have their names.
#[test]
fn debug_output_adds_up() {
    let (collector, mut flusher) = by_size(4).with_max_links(2).with_shards(1).build().unwrap();
    assert_eq!(collector.push_all(&[1, 2, 2, 3, 4].map(context)), 5);
    assert!(flusher.next_batch().is_some());
    let text = format!("{:?}", collector.stats());
    for part in [
        "Stats { pushed: 5, accepted: 5, pending: 1, ",
        "Counts { received: 4, linked: 2, duplicates: 1, truncated: 1, invalid: 0, ",
        "flushes: {Size: 1, Weight: 0, Timeout: 0, Manual: 0, Shutdown: 0, Policy: 0}",
    ] {
        assert!(text.contains(part), "{part} is not in {text}");
    }
    let flushes = Trigger::ALL.iter().map(|&trigger| collector.stats().flushes(trigger));
    assert_eq!(flushes.sum::<u64>(), collector.stats().batches());
}

/// The capacity is that of all shards together.
#[test]
fn capacity_sums_shards() {
    let (collector, _flusher) = by_size(8).with_queue_capacity(64).with_shards(4).build().unwrap();
    let stats = collector.stats();
    assert_eq!((stats.shard_capacity(), stats.capacity()), (16, 64));
}
