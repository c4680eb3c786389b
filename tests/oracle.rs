//! Promises 1, 2 and 6 once more: random calls in one thread, and after every one of them the
//! collector must look exactly as a model of plain queues says.

mod common;

use batchlink::{Flusher, LinkCollector, Producer, PushError, Timeout, Trigger};
use common::*;
use opentelemetry::trace::SpanContext;
use std::collections::VecDeque;
use std::time::Duration;

/// What a collector with a delay of an hour does, without any of its machinery.
struct Model {
    size: usize,
    slots: usize,
    shards: Vec<VecDeque<u64>>,
    /// Per shard, how many of its contexts a flush was asked for.
    asked: Vec<usize>,
    flush: bool,
    closed: bool,
    accepted: u64,
    full: u64,
    refused_closed: u64,
    invalid: u64,
}

impl Model {
    fn pending(&self) -> usize {
        self.shards.iter().map(VecDeque::len).sum()
    }

    fn push(&mut self, shard: usize, number: u64) -> Result<(), PushError> {
        if self.closed {
            self.refused_closed += 1;
            return Err(PushError::Closed);
        }
        if self.shards[shard].len() == self.slots {
            self.full += 1;
            return Err(PushError::Full);
        }
        self.shards[shard].push_back(number);
        self.accepted += 1;
        Ok(())
    }

    /// The flusher looks: a flush that was asked for is for what it finds now.
    fn look(&mut self) {
        if std::mem::take(&mut self.flush) {
            self.asked = self.shards.iter().map(VecDeque::len).collect();
        }
    }

    /// What `next_batch_timeout(0)` finds.
    fn due(&mut self) -> Result<Option<Trigger>, Timeout> {
        self.look();
        match self.pending() {
            0 if self.closed => Ok(None),
            0 => Err(Timeout),
            pending if pending >= self.size => Ok(Some(Trigger::Size)),
            _ if self.closed => Ok(Some(Trigger::Shutdown)),
            _ if self.asked.iter().any(|&asked| asked > 0) => Ok(Some(Trigger::Manual)),
            _ => Err(Timeout),
        }
    }

    /// A batch of this size was taken: each shard's part must be its oldest, in order.
    fn take(&mut self, batch: &[u64]) {
        assert_eq!(batch.len(), self.pending().min(self.size));
        for &number in batch {
            let shard = (number >> 32) as usize - 1;
            assert_eq!(self.shards[shard].pop_front(), Some(number));
            self.asked[shard] = self.asked[shard].saturating_sub(1);
        }
    }
}

fn check(model: &Model, collector: &LinkCollector) {
    let stats = collector.stats();
    assert_eq!(stats.pending(), model.pending() as u64);
    assert_stats(&stats, model.accepted, model.full, model.refused_closed, model.invalid);
}

fn run(seed: u64) {
    let mut random = Random(seed);
    let size = 1 + random.below(20) as usize;
    let shards = 1 + random.below(4) as usize;
    // A multiple of the shards, so that there is nothing to round.
    let capacity = (size + random.below(20) as usize).next_multiple_of(shards);
    let builder = by_size(size).with_shards(shards).with_queue_capacity(capacity);
    let (collector, mut flusher): (_, Flusher) = builder.build().expect("valid");
    let producers: Vec<Producer> = (0..shards).map(|_| collector.producer()).collect();
    let mut model = Model {
        size,
        slots: (capacity / shards).max(size).next_power_of_two(),
        shards: vec![VecDeque::new(); shards],
        asked: vec![0; shards],
        flush: false,
        closed: false,
        accepted: 0,
        full: 0,
        refused_closed: 0,
        invalid: 0,
    };
    let state = small_state();
    let mut last = 0;
    for step in 0..400 {
        let shard = random.below(shards as u64) as usize;
        let mut fresh = || {
            last += 1;
            ((shard as u64 + 1) << 32) + last
        };
        match random.below(16) {
            0..6 => {
                let number = fresh();
                let real = producers[shard].push(&context(number));
                assert_eq!(real, model.push(shard, number), "seed {seed} step {step}");
            }
            6 => {
                let number = fresh();
                let real = producers[shard].push(&with_state(number, &state));
                assert_eq!(real, model.push(shard, number), "seed {seed} step {step}");
            }
            7..10 => {
                let run: Vec<u64> = (0..random.below(2 * size as u64 + 1)).map(|_| fresh()).collect();
                let contexts: Vec<SpanContext> = run.iter().map(|&number| context(number)).collect();
                let taken = producers[shard].push_all(&contexts);
                let model_taken = run.iter().filter(|&&number| model.push(shard, number).is_ok()).count();
                assert_eq!(taken, model_taken, "seed {seed} step {step}");
            }
            10 => {
                producers[shard].push(&SpanContext::NONE).expect("counted");
                model.invalid += 1;
            }
            11 => {
                collector.flush();
                model.flush = true;
            }
            12 => {
                let batch = flusher.try_next();
                model.look();
                assert_eq!(batch.is_some(), model.pending() > 0);
                model.take(&batch.map(|batch| numbers(&batch)).unwrap_or_default());
            }
            13 if random.below(20) == 0 => {
                collector.close();
                model.closed = true;
            }
            _ => {
                let batch = flusher.next_batch_timeout(Duration::ZERO);
                let found = batch.as_ref().map(|batch| batch.as_ref().map(|batch| batch.trigger()));
                assert_eq!(found.map_err(|timeout| *timeout), model.due(), "seed {seed} step {step}");
                if let Ok(Some(batch)) = batch {
                    model.take(&numbers(&batch));
                }
            }
        }
        check(&model, &collector);
    }
}

#[test]
fn random_calls_do_what_the_model_does() {
    for seed in 0..1000 {
        run(seed);
    }
}
