//! Payloads: refused, spread over shards, large, and bad at being dropped.

use super::common::*;
use super::support::*;
use batchlink::{
    PushError,
    processor::{BatchProcessor, CallError},
};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

#[test]
fn refused_item_comes_back() {
    let (_provider, tracer, _exporter) = telemetry();
    let (submitter, processor) = room_for_two::<String>(tracer);
    let text = |n: u64| format!("item {n}");
    submitter.submit_wait(text(1)).unwrap();
    submitter.submit_wait_timeout(text(2), Duration::ZERO).unwrap();
    for refused in [
        submitter.submit(text(3)),
        submitter.submit_wait_timeout(text(3), Duration::from_millis(1)),
    ] {
        let refused = refused.unwrap_err();
        assert_eq!(refused.reason(), PushError::Full);
        assert_eq!(
            refused.to_string(),
            "item not accepted: the shard's queue is full: the flusher is behind"
        );
        assert_eq!(refused.into_item(), "item 3");
    }
    assert_eq!(submitter.call_blocking(text(4)), Err(CallError::Full));
    drop(processor);
    let refused = submitter.submit_wait(text(5)).unwrap_err();
    assert_eq!((refused.reason(), refused.into_item()), (PushError::Closed, text(5)));
    let stats = submitter.stats();
    let queue = stats.queue();
    assert_eq!((queue.accepted(), queue.rejected_full(), queue.rejected_closed()), (2, 3, 1));
}

/// More is accepted from many threads than one shard has slots.
#[test]
fn threads_use_different_shards() {
    const SLOTS: u64 = 256;
    let (_provider, tracer, _exporter) = telemetry();
    let (submitter, _processor) = BatchProcessor::<u64, (), Text>::builder("batch")
        .with_max_delay(NEVER)
        .with_queue_capacity(2 * SLOTS as usize)
        .with_shards(2)
        .build(tracer)
        .unwrap();
    thread::scope(|scope| {
        for _ in 0..64 {
            scope.spawn(|| (0..6).for_each(|n| drop(submitter.submit(n))));
        }
    });
    let accepted = submitter.stats().queue().accepted();
    assert!(accepted > SLOTS, "{accepted}");
}

/// A payload whose drop panics takes nothing with it.
#[test]
fn payload_drop_may_panic() {
    struct Bomb(#[expect(dead_code)] mpsc::Sender<()>);
    impl Drop for Bomb {
        fn drop(&mut self) {
            panic!("a payload's drop, on purpose");
        }
    }
    let (_provider, tracer, _exporter) = telemetry();
    let builder =
        BatchProcessor::<Bomb, (), Text>::builder("batch").with_max_batch_size(8).with_shards(1);
    let (submitter, processor) = builder.build(tracer).unwrap();
    let (alive, gone) = mpsc::channel();
    for _ in 0..3 {
        submitter.submit(Bomb(alive.clone())).unwrap();
    }
    drop(alive);
    drop(processor);
    assert_eq!(gone.recv(), Err(mpsc::RecvError), "all three were dropped");
    let refused = submitter.submit(Bomb(mpsc::channel().0)).unwrap_err();
    let dropped = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| drop(refused)));
    assert!(dropped.is_err(), "it came back whole");
}

/// Nothing but the payload itself is ever on the stack: not a slot for each, nor the ring.
#[test]
fn large_payloads_need_little_stack() {
    type Large = [u8; 100_000];
    let run = || {
        let (_provider, tracer, _exporter) = telemetry();
        let (submitter, mut processor) = BatchProcessor::<Large, (), Text>::builder("batch")
            .with_max_batch_size(64)
            .with_shards(1)
            .with_queue_capacity(64)
            .build(tracer)
            .unwrap();
        (0..64).for_each(|n| submitter.submit([n; 100_000]).unwrap());
        let batch = processor.next_batch().unwrap();
        assert!(batch.payloads().map(|payload| payload[99_999]).eq(0..64));
    };
    // Half of what the payloads take together.
    thread::Builder::new().stack_size(3 << 20).spawn(run).unwrap().join().unwrap();
}
