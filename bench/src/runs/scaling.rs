//! What cannot be timed on a small machine is counted: per context, the read-modify-writes on
//! lines that all threads share, the slow paths and the notifications.

pub const SHARDS: [usize; 8] = [1, 2, 4, 8, 16, 32, 64, 128];
pub const BATCHES: [usize; 7] = [16, 64, 256, 512, 1024, 8192, 65536];
/// What everything is compared with: a design in which every push adds to one counter.
pub const ONE_COUNTER: &str = "one shared counter";

/// Which producer pushes next. All run on one thread, interleaved one push at a time, so that the
/// counts are the same in every run; one producer per shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pattern {
    /// Each in turn.
    Balanced,
    /// Any of them, at random.
    Random,
    /// One producer does all the work.
    Hot,
    /// The busiest producer changes with every batch, so that what was learnt is wrong.
    Moving,
}

pub const PATTERNS: [Pattern; 4] =
    [Pattern::Balanced, Pattern::Random, Pattern::Hot, Pattern::Moving];

impl Pattern {
    pub fn name(self) -> &'static str {
        match self {
            Self::Balanced => "balanced",
            Self::Random => "random",
            Self::Hot => "one hot producer",
            Self::Moving => "hot producer moves",
        }
    }
}

pub const HOW: &str = "the counters are not compiled in; run it as\n\n    \
    RUSTFLAGS=\"--cfg batchlink_count\" cargo run --release -p batchlink-bench \
    --target-dir target/count -- --scaling\n";

/// False: not compiled in.
#[cfg(not(batchlink_count))]
pub fn bench(
    _results: &mut crate::results::Results,
    _: &crate::rounds::Progress,
    _smoke: bool,
) -> bool {
    false
}

#[cfg(batchlink_count)]
pub use counted::bench;

#[cfg(batchlink_count)]
mod counted {
    use super::{BATCHES, ONE_COUNTER, PATTERNS, Pattern, SHARDS};
    use crate::results::Results;
    use crate::rounds::{Progress, rotate};
    use crate::source::{Kind, Random, Source};
    use batchlink::{LinkCollector, LinkPolicy, StepCounts, Trigger, take_step_counts};
    use opentelemetry::trace::SpanContext;
    use std::time::Duration;

    pub fn bench(results: &mut Results, progress: &Progress, smoke: bool) -> bool {
        let contexts = Source::new(Kind::Plain, 1024, 0).contexts;
        let (shards, batches) =
            if smoke { (&SHARDS[..3], &BATCHES[..2]) } else { (&SHARDS[..], &BATCHES[..]) };
        let cases: Vec<(usize, usize)> = batches
            .iter()
            .flat_map(|&batch| shards.iter().map(move |&shards| (batch, shards)))
            .collect();
        for pattern in PATTERNS {
            rotate(progress, 1, &cases, pattern.name(), |(batch, shards)| {
                let turns = if smoke { 4 } else { (1 << 18) / batch }.max(4);
                let counts = count(&contexts, pattern, shards, batch, turns);
                let param = format!("{shards} shards, batch {batch}");
                let pushed = (batch * turns) as f64;
                let mut add = |unit, steps: u64, per: f64| {
                    results.add("scaling", pattern.name(), &param, unit, steps as f64 / per);
                };
                let shared = counts.coordinations + counts.limits;
                add("shared-line RMWs/context", shared, pushed);
                add("slow paths/context", counts.slow_paths, pushed);
                add("scans/batch", counts.scans, turns as f64);
                add("notifications/batch", counts.notifications, turns as f64);
            });
        }
        for (batch, shards) in cases {
            let param = format!("{shards} shards, batch {batch}");
            results.add("scaling", ONE_COUNTER, &param, "shared-line RMWs/context", 1.0);
        }
        true
    }

    fn count(
        contexts: &[SpanContext],
        pattern: Pattern,
        shards: usize,
        batch: usize,
        turns: usize,
    ) -> StepCounts {
        let (collector, mut flusher) = LinkCollector::builder()
            .with_max_batch_size(batch)
            .with_queue_capacity(batch)
            .with_shards(shards)
            .with_max_delay(Duration::from_secs(3600))
            .with_link_policy(LinkPolicy::new().without_link_type())
            .build()
            .expect("a valid configuration");
        let producers: Vec<_> = (0..shards).map(|_| collector.producer()).collect();
        let mut random = Random(1);
        // The first batches teach the trigger which shards are busy.
        let warm_up = 2;
        for turn in 0..turns + warm_up {
            if turn == warm_up {
                take_step_counts();
            }
            for index in 0..batch {
                let producer = match pattern {
                    Pattern::Balanced => index % shards,
                    Pattern::Random => random.below(shards),
                    Pattern::Hot => 0,
                    // Three quarters of the batch.
                    Pattern::Moving if random.below(4) > 0 => turn % shards,
                    Pattern::Moving => random.below(shards),
                };
                producers[producer].push(&contexts[index % contexts.len()]).expect("there is room");
            }
            let due = flusher
                .next_batch_timeout(Duration::ZERO)
                .expect("due: exactly full")
                .expect("open");
            assert_eq!((due.trigger(), due.received()), (Trigger::Size, batch as u64));
        }
        take_step_counts()
    }
}
