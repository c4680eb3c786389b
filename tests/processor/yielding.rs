//! Async loops give other tasks their turn, though a result is always ready.

use super::common::*;
use super::support::*;
use batchlink::processor::{BatchProcessor, Submitter};
use opentelemetry::trace::noop::NoopTracer;
use std::cell::Cell;

/// 256 items: in one batch, or in a batch for each.
fn ready(divided: bool) -> (Submitter<u64, u64, Text>, BatchProcessor<u64, u64, Text>) {
    let builder = BatchProcessor::builder("batch")
        .with_max_batch_size(256)
        .with_shards(1)
        .with_max_delay(NEVER);
    let builder = if divided { builder.with_key(|n| *n) } else { builder };
    let (submitter, processor) = builder.build(NoopTracer::new()).unwrap();
    (0..256).for_each(|n| submitter.submit(n).unwrap());
    submitter.close();
    (submitter, processor)
}

/// Returns how often another task had its turn before `run` was done.
async fn turns(run: impl Future<Output = ()>) -> u32 {
    let turns = Cell::new(0);
    let other = async {
        loop {
            tokio::task::yield_now().await;
            turns.set(turns.get() + 1);
        }
    };
    tokio::select! {
        biased;
        () = run => (),
        () = other => unreachable!("it goes on"),
    }
    turns.get()
}

/// Parts of one divided trigger are batches like others.
#[tokio::test]
async fn divided_batches_yield() {
    let (submitter, mut processor) = ready(true);
    let turns = turns(processor.run_async(|batch| async { batch.succeed_all(|n| *n) })).await;
    assert_eq!(submitter.stats().succeeded(), 256);
    assert!(turns >= 32, "{turns} turns in 256 batches");
}

/// So do the items of one batch.
#[tokio::test]
async fn items_yield() {
    let (submitter, mut processor) = ready(false);
    let turns = turns(processor.run_each_async(|n, _| async move { Ok(n) })).await;
    assert_eq!(submitter.stats().succeeded(), 256);
    assert!(turns >= 4, "{turns} turns in 256 items");
}
