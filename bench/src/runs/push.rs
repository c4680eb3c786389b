//! One thread pushes 512 contexts; then, outside the timing, they are drained.

use crate::contest::{Consumer, Contestant, Producer, Setup};
use crate::results::Results;
use crate::roster::{Group, SEG_QUEUE, bulk, roster};
use crate::rounds::{Effort, Progress, clock_cost, rotate};
use crate::source::{Kind, Source};
use opentelemetry::trace::SpanContext;
use std::hint::black_box;
use std::time::{Duration, Instant};

/// Time for this many batches of the source.
pub type Run = fn(&Source, batches: usize) -> Duration;

pub const BATCH: usize = 512;

fn time<C: Contestant>(
    source: &Source,
    batches: usize,
    push: impl Fn(&mut C::Producer, &[SpanContext]) -> usize,
) -> Duration {
    let (mut producers, mut consumer) = C::open(Setup::single(source.batch));
    let clock = clock_cost();
    let mut total = Duration::ZERO;
    for turn in 0..batches + batches / 8 + 1 {
        let first = turn % source.batches() * source.batch;
        let contexts = &source.contexts[first..first + source.batch];
        let start = Instant::now();
        let taken = push(&mut producers[0], black_box(contexts));
        let elapsed = start.elapsed();
        assert_eq!(taken, source.batch, "there is room for all");
        C::hand_over(&mut producers[0], &mut consumer);
        let batch = consumer.take().expect("a batch");
        assert_eq!(batch.counts.received, source.batch as u64);
        // The first ones warm up.
        if turn > batches / 8 {
            total += elapsed.saturating_sub(clock);
        }
    }
    total
}

/// One by one. Each reference comes out of a black box: in a program, pushes come from different
/// places, and nothing can be carried over from one to the next.
pub fn run<C: Contestant>(source: &Source, batches: usize) -> Duration {
    time::<C>(source, batches, |producer, contexts| {
        contexts.iter().filter(|context| producer.push(black_box(context))).count()
    })
}

/// With the contestant's way to push many at once.
pub fn run_all<C: Contestant>(source: &Source, batches: usize) -> Duration {
    time::<C>(source, batches, |producer, contexts| producer.push_all(contexts))
}

/// Onto a full queue: every push is refused.
pub fn run_full<C: Contestant>(source: &Source, batches: usize) -> Duration {
    let (mut producers, mut consumer) = C::open(Setup::single(source.batch));
    let mut contexts = source.contexts.iter().cycle();
    let mut accepted = 0;
    while contexts.next().is_some_and(|context| producers[0].push(context)) {
        accepted += 1;
    }
    let start = Instant::now();
    for context in contexts.take(batches * source.batch) {
        assert!(!producers[0].push(black_box(context)), "nobody has drained");
    }
    let total = start.elapsed();
    // What was refused is not there, what was accepted is.
    drop(producers);
    let received: u64 =
        std::iter::from_fn(|| consumer.wait()).map(|batch| batch.counts.received).sum();
    assert_eq!(received, accepted);
    total
}

pub fn bench(results: &mut Results, progress: &Progress, effort: Effort) {
    let source = &Source::new(Kind::Plain, BATCH, 0);
    let batches = (effort.contexts / BATCH).max(2);
    let per_context = |time: Duration| time.as_nanos() as f64 / (batches * BATCH) as f64;
    let mut all: Vec<_> =
        roster(Kind::Plain, false).into_iter().map(|entry| (entry, entry.push)).collect();
    all.extend(bulk().into_iter().map(|entry| (entry, entry.push_all)));
    rotate(progress, effort.rounds, &all, "push", |(entry, run)| {
        results.add("push", entry.name, "512", "ns/context", per_context(run(source, batches)));
    });
    let bounded: Vec<_> = roster(Kind::Plain, true)
        .into_iter()
        .filter(|entry| entry.name != SEG_QUEUE && entry.group != Group::Shown)
        .collect();
    rotate(progress, effort.rounds, &bounded, "push, full", |entry| {
        results.add(
            "push",
            entry.name,
            "full",
            "ns/context",
            per_context((entry.refuse)(source, batches)),
        );
    });
}
