//! Metrics of a processor, against its `stats()`, and meters that panic.

use super::common::*;
use super::metrics::{Metered, Values, durations, expected};
use batchlink::processor::{BatchProcessor, BatchProcessorBuilder, ProcessorStats};
use opentelemetry::trace::noop::NoopTracer;
use std::time::Duration;

type Builder = BatchProcessorBuilder<u64, u64, String>;

fn small(metered: &Metered, name: &'static str) -> Builder {
    BatchProcessor::builder("batch")
        .with_max_batch_size(8)
        .with_max_links(2)
        .with_queue_capacity(8)
        .with_shards(1)
        .with_metrics(&metered.meter(), name)
}

/// What a processor of this name must show, without durations.
fn expected_of(name: &str, stats: &ProcessorStats) -> Values {
    let mut all = expected(name, stats.queue());
    for (outcome, count) in [
        ("succeeded", stats.succeeded()),
        ("failed", stats.failed()),
        ("canceled", stats.canceled()),
    ] {
        let key = format!("batchlink.items{{batchlink.name={name},batchlink.outcome={outcome}}}");
        all.insert(key, count as f64);
    }
    let key = format!("batchlink.active_items{{batchlink.name={name}}}");
    all.insert(key, stats.in_flight() as f64);
    all
}

/// Returns the sum of the items that ended and those in flight.
fn items(values: &Values) -> f64 {
    let is_of_items = |key: &str| {
        key.starts_with("batchlink.items{") || key.starts_with("batchlink.active_items{")
    };
    values.iter().filter(|(key, _)| is_of_items(key)).map(|(_, count)| count).sum()
}

/// At every moment metrics say what `stats()` says, items in flight and canceled ones included, and
/// each batch of a key is one. The items that metrics know are those taken from the queue.
#[test]
fn metrics_equal_stats() {
    let metered = Metered::new();
    let builder = small(&metered, "a").with_key(|n| n % 2).with_skip_canceled(true);
    let (submitter, mut processor) = builder.build(NoopTracer::new()).unwrap();
    let (mut taken, mut batched) = (Vec::new(), 0);
    let mut random = Random(11);
    let mut batches = 0;
    for round in 0..300 {
        match random.below(8) {
            0 | 1 => {
                while let Some(batch) = processor.try_next() {
                    batches += 1;
                    batched += batch.len() as u64;
                    taken.extend(batch);
                }
            }
            2 => drop(taken.pop()),
            3 => taken.drain(..).for_each(|item| item.succeed(0)),
            4 if round > 250 => submitter.close(),
            // Its caller leaves at once.
            5 => _ = submitter.call_blocking_timeout(round, Duration::ZERO),
            _ => _ = submitter.submit_with_context(round, &context(1 + random.below(5))),
        }
        let mut values = metered.read();
        let finished = durations(&mut values, "a");
        let stats = submitter.stats();
        assert_eq!(values, expected_of("a", &stats), "round {round}");
        assert_eq!(items(&values), stats.queue().received() as f64);
        let received = batched + stats.canceled();
        assert_eq!((batches, received), (stats.queue().batches(), stats.queue().received()));
        if taken.is_empty() {
            assert_eq!(finished, batches);
        }
    }
    let stats = submitter.stats();
    let refused = stats.queue().rejected_full();
    for reached in [stats.succeeded(), stats.failed(), stats.canceled(), refused] {
        assert!(reached > 0, "{stats:?}");
    }
}

/// A processor closes although it is measured. Its last counters are observed once: when the last
/// answer is given, also after the processor is gone, and with the items that its drop failed.
#[test]
fn final_counts_appear_once() {
    let metered = Metered::new();
    let (submitter, mut processor) = small(&metered, "a").build(NoopTracer::new()).unwrap();
    let handle = submitter.stats_handle();
    (0..3).for_each(|n| submitter.submit(n).unwrap());
    let mut items: Vec<_> = processor.try_next().unwrap().into_iter().collect();
    submitter.submit(3).unwrap();
    drop(submitter);
    drop(processor);
    for left in (0..3).rev() {
        assert!(!handle.is_final());
        let values = metered.read();
        assert_eq!(values["batchlink.active_items{batchlink.name=a}"], f64::from(left + 1));
        items.pop().unwrap().succeed(0);
    }
    assert!(handle.is_final());
    let stats = handle.stats();
    assert_eq!((stats.succeeded(), stats.failed(), stats.in_flight()), (3, 1, 0));
    let mut values = metered.read();
    assert_eq!(durations(&mut values, "a"), 1);
    assert_eq!(values, expected_of("a", &stats));
    let after = metered.read();
    assert!(after.keys().all(|key| key.starts_with("batchlink.batch.")), "{after:?}");
}

/// `run` ends when the last submitter is dropped, and a flush that returns has the durations of its
/// batches recorded.
#[test]
fn measured_processor_ends() {
    let metered = Metered::new();
    let (submitter, processor) = small(&metered, "a").build(NoopTracer::new()).unwrap();
    let handle = processor.spawn(|batch| batch.succeed_all(|n| n * n)).unwrap();
    for n in 1..=5 {
        submitter.submit(n).unwrap();
        let stats = submitter.flush_and_wait(NEVER).unwrap();
        assert_eq!(stats.queue().batches(), n);
        assert_eq!(durations(&mut metered.read(), "a"), n);
    }
    drop(submitter);
    let stats = handle.shutdown_with_timeout(NEVER).unwrap();
    assert_eq!(stats.received(), 5);
}

/// The wait of every item of a batch is recorded, as the item has it, and none of a canceled one.
/// Without the option none is.
#[test]
fn waits_equal_items() {
    let key = |part| format!("batchlink.item.wait:{part}{{batchlink.name=a}}");
    for measured in [true, false] {
        let metered = Metered::new();
        let builder = small(&metered, "a").with_skip_canceled(true).with_key_batches(|n| n % 2);
        let builder = if measured { builder.with_wait_times() } else { builder };
        let (submitter, mut processor) = builder.build(NoopTracer::new()).unwrap();
        let (mut count, mut waited) = (0, 0.0);
        for number in 1..=20 {
            submitter.submit(number).unwrap();
            submitter.submit(number / 2).unwrap();
            let left = submitter.call_blocking_timeout(number, Duration::ZERO);
            assert!(left.is_err());
            while let Some(batch) = processor.try_next() {
                for item in batch {
                    count += 1;
                    waited += item.wait().unwrap().as_secs_f64();
                    item.succeed(0);
                }
            }
        }
        assert_eq!((count, submitter.stats().canceled()), (40, 20));
        let values = metered.read();
        let found = [key("count"), key("sum")].map(|key| values.get(&key).copied());
        if measured {
            let [Some(items), Some(sum)] = found else { panic!("{values:?}") };
            assert_eq!(items, f64::from(count));
            assert!((sum - waited).abs() < 1e-9 && sum > 0.0, "{sum}, {waited}");
        } else {
            assert_eq!(found, [None, None]);
        }
    }
}
