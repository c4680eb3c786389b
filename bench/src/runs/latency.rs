//! Single pushes under 8 producers, and the way from the last push of a batch to its handler.

use crate::contest::{Consumer, Contestant, Producer, Setup};
use crate::results::Results;
use crate::roster::{Group, POLLING, roster};
use crate::rounds::{Effort, Progress, rotate};
use crate::runs::contention::sources;
use crate::source::{Kind, Source};
use hdrhistogram::Histogram;
use std::hint::black_box;
use std::sync::{Barrier, mpsc};
use std::thread;
use std::time::{Duration, Instant};

pub const PRODUCERS: usize = 8;
pub const PERCENTILES: [(&str, f64); 5] =
    [("p50", 50.0), ("p99", 99.0), ("p99.9", 99.9), ("p99.99", 99.99), ("max", 100.0)];
const BATCH: usize = 512;
pub const CLOCK: &str = "clock alone";
/// Turns of a loop that stands for a request's own work, about a microsecond.
const WORK: u32 = 1000;

/// Nanoseconds of every push that was accepted, and how many were refused.
pub type Run = fn(sources: &[Source], each: usize, work: bool) -> (Histogram<u64>, u64);
/// Nanoseconds from before the push that completes a batch to the handler's first line, and
/// wake-ups per batch.
pub type TriggerRun = fn(source: &Source, batches: usize) -> (Histogram<u64>, Option<f64>);

pub fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, 60_000_000_000, 3).expect("valid bounds")
}

pub fn nanos(time: Duration) -> u64 {
    time.as_nanos() as u64
}

fn work() {
    (0..WORK).for_each(|turn| {
        black_box(turn);
    });
}

pub fn run<C: Contestant>(sources: &[Source], each: usize, working: bool) -> (Histogram<u64>, u64) {
    let setup = Setup { batch: BATCH, capacity: 16 * BATCH, producers: sources.len() };
    let (producers, mut consumer) = C::open(setup);
    let barrier = &Barrier::new(producers.len());
    thread::scope(|scope| {
        let mut threads = Vec::new();
        for (mut producer, source) in producers.into_iter().zip(sources) {
            threads.push(scope.spawn(move || {
                let (mut times, mut refused) = (histogram(), 0);
                barrier.wait();
                for context in source.contexts.iter().cycle().take(each) {
                    if working {
                        work();
                    }
                    loop {
                        let start = Instant::now();
                        let taken = producer.push(context);
                        let time = start.elapsed();
                        if taken {
                            times.saturating_record(nanos(time));
                            break;
                        }
                        refused += 1;
                        thread::yield_now();
                    }
                }
                (times, refused)
            }));
        }
        let mut received = 0;
        while let Some(batch) = consumer.wait() {
            received += batch.counts.received;
        }
        assert_eq!(received, (each * sources.len()) as u64, "lost or doubled");
        threads.into_iter().map(|thread| thread.join().expect("no panic")).fold(
            (histogram(), 0),
            |(mut all, count), (times, refused)| {
                all.add(times).expect("the same range");
                (all, count + refused)
            },
        )
    })
}

pub fn run_trigger<C: Contestant>(
    source: &Source,
    batches: usize,
) -> (Histogram<u64>, Option<f64>) {
    let setup = Setup::single(source.batch);
    let (mut producers, mut consumer) = C::open(setup);
    let mut producer = producers.remove(0);
    let (arrived, arrivals) = mpsc::channel();
    thread::scope(|scope| {
        let consumer = scope.spawn(move || {
            let mut wake_ups = None;
            while let Some(batch) = consumer.wait() {
                let now = Instant::now();
                // The wake-up by which it ends does not belong to any batch.
                wake_ups = consumer.wake_ups();
                if arrived.send((now, batch.counts.received)).is_err() {
                    break;
                }
            }
            wake_ups
        });
        let mut times = histogram();
        for _ in 0..batches {
            let (last, first) = source.contexts[..source.batch].split_last().expect("not empty");
            first.iter().for_each(|context| assert!(producer.push(context)));
            // The consumer comes to rest.
            thread::sleep(Duration::from_micros(500));
            let start = Instant::now();
            producer.push(last);
            let (arrival, received) = arrivals.recv().expect("a batch");
            assert_eq!(received, source.batch as u64);
            times.saturating_record(nanos(arrival.saturating_duration_since(start)));
            thread::sleep(Duration::from_micros(200));
        }
        drop(producer);
        let wake_ups = consumer.join().expect("no panic");
        (times, wake_ups.map(|count| count as f64 / batches as f64))
    })
}

fn add(results: &mut Results, times: &Histogram<u64>, name: &str, param: &str) {
    for (label, percentile) in PERCENTILES {
        let value = times.value_at_percentile(percentile);
        results.add("latency", name, &format!("{param}, {label}"), "ns", value as f64);
    }
}

pub fn bench(results: &mut Results, progress: &Progress, effort: Effort) {
    let sources = &sources(PRODUCERS);
    let each = effort.contended / PRODUCERS / 2;
    for (working, param) in [(false, "push, flat out"), (true, "push, 1 us of work between")] {
        let mut all = roster(Kind::Plain, true);
        all.retain(|entry| entry.group != Group::Shown);
        rotate(progress, effort.rounds, &all, &format!("latency {param}"), |entry| {
            let (times, refused) = (entry.latency)(sources, entry.part_of(each).max(1), working);
            add(results, &times, entry.name, param);
            let pushes = (refused + times.len()) as f64;
            results.add("latency", entry.name, param, "% refused", 100.0 * refused as f64 / pushes);
        });
        rotate(progress, effort.rounds, &[CLOCK], "latency", |name| {
            let mut times = histogram();
            (0..each).for_each(|_| times.saturating_record(nanos(Instant::now().elapsed())));
            add(results, &times, name, param);
        });
    }
    let source = &Source::new(Kind::Plain, 128, 0);
    let mut all = roster(Kind::Plain, true);
    all.retain(|entry| !POLLING.contains(&entry.name) && entry.group != Group::Shown);
    rotate(progress, effort.rounds, &all, "latency, trigger to handler", |entry| {
        let (times, wake_ups) = (entry.trigger)(source, effort.waits);
        add(results, &times, entry.name, "last push to handler");
        if let Some(wake_ups) = wake_ups {
            results.add("latency", entry.name, "last push to handler", "wake-ups/batch", wake_ups);
        }
    });
}
