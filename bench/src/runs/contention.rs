//! Several producers with fixed work, and one live consumer.

use crate::contest::{Consumer, Contestant, Counts, MAX_LINKS, Producer, Setup};
use crate::results::Results;
use crate::roster::{Group, SEG_QUEUE, roster};
use crate::rounds::{Effort, Progress, rotate};
use crate::source::{Kind, Random, Source};
use std::sync::Barrier;
use std::thread;
use std::time::{Duration, Instant};

pub const PRODUCERS: [usize; 5] = [1, 2, 4, 8, 16];
pub const BATCH: usize = 512;

#[derive(Debug)]
pub struct Outcome {
    /// From the first producer's start to the last batch.
    pub time: Duration,
    pub counts: Counts,
    pub refused: u64,
    pub batches: u64,
    pub wake_ups: Option<u64>,
}

/// `retry`: a refused context is offered again, after giving way; otherwise it is dropped and
/// counted.
pub type Run = fn(sources: &[Source], setup: Setup, each: usize, retry: bool) -> Outcome;

/// For every producer contexts that no other has, more of them than a batch: all are unique within
/// any batch, so that all results are the same, whatever the interleaving.
pub fn sources(producers: usize) -> Vec<Source> {
    let mut random = Random(7);
    let source = |_| {
        let mut source = Source::new(Kind::Plain, 2 * BATCH, 0);
        for context in &mut source.contexts {
            let trace = u128::from(random.next_u64()) << 64 | u128::from(random.next_u64());
            *context = opentelemetry::trace::SpanContext::new(
                trace.into(),
                random.next_u64().into(),
                context.trace_flags(),
                true,
                context.trace_state().clone(),
            );
        }
        source
    };
    (0..producers).map(source).collect()
}

pub fn run<C: Contestant>(sources: &[Source], setup: Setup, each: usize, retry: bool) -> Outcome {
    let (producers, mut consumer) = C::open(setup);
    let barrier = &Barrier::new(producers.len() + 1);
    thread::scope(|scope| {
        let mut threads = Vec::new();
        for (mut producer, source) in producers.into_iter().zip(sources) {
            threads.push(scope.spawn(move || {
                let mut refused = 0;
                barrier.wait();
                let start = Instant::now();
                for context in source.contexts.iter().cycle().take(each) {
                    while !producer.push(context) {
                        if !retry {
                            refused += 1;
                            break;
                        }
                        thread::yield_now();
                    }
                }
                (start, refused)
            }));
        }
        barrier.wait();
        let (mut counts, mut batches) = (Counts::default(), 0);
        while let Some(batch) = consumer.wait() {
            counts += batch.counts;
            batches += 1;
        }
        let end = Instant::now();
        let ended: Vec<_> =
            threads.into_iter().map(|thread| thread.join().expect("no panic")).collect();
        let start = ended.iter().map(|(start, _)| *start).min().unwrap_or(end);
        Outcome {
            time: end.saturating_duration_since(start),
            counts,
            refused: ended.iter().map(|(_, refused)| refused).sum(),
            batches,
            wake_ups: consumer.wake_ups(),
        }
    })
}

pub fn bench(results: &mut Results, progress: &Progress, effort: Effort) {
    for retry in [true, false] {
        for producers in PRODUCERS {
            compare(results, progress, effort, producers, retry);
        }
    }
}

pub fn param(producers: usize, retry: bool) -> String {
    format!("{producers} producers{}", if retry { "" } else { ", drops" })
}

fn compare(
    results: &mut Results,
    progress: &Progress,
    effort: Effort,
    producers: usize,
    retry: bool,
) {
    let sources = &sources(producers);
    let param = param(producers, retry);
    let capacity = if retry { 16 * BATCH } else { 4 * BATCH };
    let setup = Setup { batch: BATCH, capacity, producers };
    let mut all = roster(Kind::Plain, true);
    all.retain(|entry| retry || entry.name != SEG_QUEUE);
    rotate(progress, effort.rounds, &all, &format!("contention {param}"), |entry| {
        // Whole batches only.
        let each = entry.part_of(effort.contended / producers).next_multiple_of(BATCH);
        let offered = (each * producers) as u64;
        let outcome = (entry.contend)(sources, setup, each, retry);
        check(&outcome, offered, retry, entry.name);
        let mut add = |unit, value| results.add("contention", entry.name, &param, unit, value);
        add("contexts/s", outcome.counts.received as f64 / outcome.time.as_secs_f64());
        if !retry {
            add("% refused", 100.0 * outcome.refused as f64 / offered as f64);
        }
        if let (Group::Ours, Some(wake_ups)) = (entry.group, outcome.wake_ups) {
            add("wake-ups/batch", wake_ups as f64 / outcome.batches as f64);
        }
    });
}

/// Nothing is lost or doubled, and every batch is full and has its links.
pub fn check(outcome: &Outcome, offered: u64, retry: bool, name: &str) {
    let Outcome { counts, refused, batches, .. } = *outcome;
    assert_eq!(counts.received + refused, offered, "{name} lost or doubled contexts");
    assert_eq!(counts.linked + counts.duplicates + counts.truncated, counts.received, "{name}");
    if retry {
        assert_eq!(batches, offered / BATCH as u64, "{name} made other batches");
        assert_eq!(counts.linked, batches * MAX_LINKS as u64, "{name} made other links");
    }
}
