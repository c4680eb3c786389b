//! Weight as a trigger and a bound.

use super::common::*;
use super::support::*;
use batchlink::{
    FlushError, Trigger,
    processor::{BatchProcessor, Submitter},
};
use opentelemetry_sdk::trace::SdkTracer;
use std::thread;
use std::time::Duration;

/// Batches that weigh 10, of items that weigh what they are.
fn by_weight(
    shards: usize,
    tracer: SdkTracer,
) -> (Submitter<u64, (), Text>, BatchProcessor<u64, (), Text>) {
    BatchProcessor::builder("batch")
        .with_max_batch_size(100)
        .with_max_batch_weight(10, |weight| *weight)
        .with_max_delay(NEVER)
        .with_shards(shards)
        .build(tracer)
        .expect("valid")
}

#[test]
fn weight_triggers_and_bounds() {
    let (_provider, tracer, exporter) = telemetry();
    let (submitter, mut processor) = by_weight(1, tracer);
    let mut due = |weights: &[u64]| {
        weights.iter().for_each(|&weight| submitter.submit(weight).unwrap());
        let batch = processor.next_batch_timeout(Duration::ZERO).ok()?.unwrap();
        assert_eq!(batch.trigger(), Trigger::Weight);
        Some(batch.payloads().copied().collect::<Vec<_>>())
    };
    assert_eq!(due(&[4, 5]), None, "nine are not ten");
    assert_eq!(due(&[1]).unwrap(), [4, 5, 1], "exactly ten");
    assert_eq!(due(&[6]), None);
    assert_eq!(due(&[5]).unwrap(), [6], "five more would be too much");
    assert_eq!(due(&[]), None, "and wait for their own");
    assert_eq!(due(&[u64::MAX, 0]).unwrap(), [5], "the heavy one does not fit");
    assert_eq!(due(&[]).unwrap(), [u64::MAX], "it goes alone");
    assert_eq!(due(&[9]), None);
    submitter.close();
    let rest = processor.next_batch().unwrap();
    assert_eq!(
        (rest.trigger(), rest.payloads().copied().collect()),
        (Trigger::Shutdown, vec![0, 9])
    );
    drop(rest);
    assert!(processor.next_batch().is_none());
    assert!(account(&spans(&exporter, "batch")[0]).starts_with("3 0 weight_limit 1"));
    assert_eq!(submitter.stats().queue().flushes(Trigger::Weight), 4);
}

/// Whatever else is pending, in its shard or another, and however light.
#[test]
fn heavy_item_goes_alone() {
    let (_provider, tracer, _exporter) = telemetry();
    let (submitter, mut processor) = by_weight(2, tracer);
    let mut alone = 0;
    // Threads are spread over the shards, and the shards take turns in being first.
    for _ in 0..64 {
        for weight in [11, 0] {
            thread::scope(|scope| scope.spawn(|| submitter.submit(weight).unwrap()).join())
                .unwrap();
        }
        while let Some(batch) = processor.try_next() {
            let weights: Vec<u64> = batch.payloads().copied().collect();
            assert!(weights == [11] || !weights.contains(&11), "{weights:?}");
            alone += usize::from(weights == [11]);
        }
    }
    assert_eq!(alone, 64);
}

/// The submitter that completes the weight wakes the processor, whatever the others do.
#[test]
fn weight_wakes_processor() {
    let _watchdog = watchdog();
    const EACH: u64 = 5_000;
    let (_provider, tracer, _exporter) = telemetry();
    let (submitter, mut processor) = BatchProcessor::<u64, (), Text>::builder("batch")
        .with_max_batch_size(1 << 10)
        .with_queue_capacity(1 << 14)
        .with_max_batch_weight(7, |weight| *weight)
        .with_max_delay(NEVER)
        .build(tracer)
        .unwrap();
    let threads: Vec<_> = (0..3)
        .map(|_| {
            let submitter = submitter.clone();
            thread::spawn(move || (0..EACH).for_each(|_| submitter.submit_wait(1).unwrap()))
        })
        .collect();
    let mut taken = 0;
    // All but what is left in the end comes by weight alone.
    while taken + 7 <= 3 * EACH {
        let batch = processor.next_batch().unwrap();
        assert!(batch.len() <= 7, "{} items", batch.len());
        taken += batch.len() as u64;
    }
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    assert_eq!(processor.stats().queue().pending(), 3 * EACH - taken);
}

#[test]
fn bad_weight_is_an_error() {
    for weight in [0, (1 << 38) + 1] {
        let (_provider, tracer, _exporter) = telemetry();
        let builder =
            BatchProcessor::<u64, (), Text>::builder("batch").with_max_batch_weight(weight, |_| 1);
        let error = builder.build(tracer).unwrap_err();
        assert_eq!(
            error.to_string(),
            format!("invalid max_batch_weight: {weight} (allowed: 1 to 274877906944)")
        );
    }
    let (_provider, tracer, _exporter) = telemetry();
    let error = BatchProcessor::<u64, (), Text>::builder("batch")
        .with_max_batch_size(0)
        .build(tracer)
        .unwrap_err();
    assert_eq!(error.field(), "max_batch_size");
}

/// A batch that weight cut short has only the items that it took.
#[test]
fn flush_counts_light_batch() {
    let (_provider, tracer, _exporter) = telemetry();
    let (submitter, mut processor) = BatchProcessor::<u64, (), Text>::builder("batch")
        .with_max_batch_size(8)
        .with_max_delay(NEVER)
        .with_shards(1)
        .with_max_batch_weight(2, |_| 1)
        .build(tracer)
        .unwrap();
    (0..5).for_each(|n| submitter.submit(n).unwrap());
    let batch = processor.next_batch().unwrap();
    assert_eq!(batch.len(), 2);
    let missing = FlushError::Timeout { pending: 3, in_flight: 2 };
    assert_eq!(submitter.flush_and_wait(Duration::ZERO), Err(missing));
    batch.succeed_all(|_| ());
}
