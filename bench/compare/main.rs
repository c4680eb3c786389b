//! See run.sh. Nanoseconds per context: the median and the lowest tenth of all batches.

use opentelemetry::trace::{SpanContext, SpanId, TraceFlags, TraceId, TraceState};
use std::hint::black_box;
use std::sync::Barrier;
use std::thread;
use std::time::{Duration, Instant};

const BATCH: usize = 512;
const SHARDS: usize = 8;
const TURNS: usize = 4000;
/// Threads that push with work of about a microsecond in between.
const THREADS: usize = 8;
const PUSHES: usize = 30_000;

trait Version {
    /// Pushes one by one, and returns how long that took.
    fn push(&mut self, contexts: &[SpanContext]) -> Duration;
    fn drain(&mut self) -> Duration;
}

macro_rules! version {
    ($module:ident, $krate:ident, $producer:ty, $make:expr) => {
        mod $module {
            use super::*;
            use ::$krate as batchlink;

            struct Open {
                producer: $producer,
                flusher: batchlink::Flusher,
                _collector: batchlink::LinkCollector,
            }

            fn build() -> (batchlink::LinkCollector, batchlink::Flusher) {
                let builder = batchlink::LinkCollector::builder().with_max_batch_size(BATCH);
                let builder = builder.with_queue_capacity(16 * BATCH).with_shards(SHARDS);
                builder.with_max_delay(Duration::from_secs(3600)).build().expect("valid")
            }

            pub fn open() -> Box<dyn Version> {
                let (collector, flusher) = build();
                Box::new(Open { producer: $make(&collector), flusher, _collector: collector })
            }

            impl Version for Open {
                #[inline(never)]
                fn push(&mut self, contexts: &[SpanContext]) -> Duration {
                    let start = Instant::now();
                    for context in contexts {
                        self.producer.push(black_box(context)).expect("a free slot");
                    }
                    start.elapsed()
                }

                #[inline(never)]
                fn drain(&mut self) -> Duration {
                    let start = Instant::now();
                    let batch = self.flusher.try_next().expect("a batch");
                    let time = start.elapsed();
                    assert_eq!(batch.received(), BATCH as u64);
                    time
                }
            }

            /// The time of each push that was accepted, of threads that work in between.
            #[allow(dead_code)] // of producers
            pub fn latency(contexts: &[SpanContext]) -> Vec<Duration> {
                let (collector, mut flusher) = build();
                let producers: Vec<_> = (0..THREADS).map(|_| $make(&collector)).collect();
                drop(collector);
                let barrier = &Barrier::new(THREADS);
                thread::scope(|scope| {
                    let pushing = |producer: $producer| {
                        barrier.wait();
                        let push = |context| loop {
                            let start = Instant::now();
                            if producer.push(context).is_ok() {
                                break start.elapsed();
                            }
                            thread::yield_now();
                        };
                        let worked = |context| {
                            (0..1000).for_each(|turn| _ = black_box(turn));
                            push(context)
                        };
                        contexts.iter().cycle().take(PUSHES).map(worked).collect::<Vec<_>>()
                    };
                    let threads: Vec<_> = producers
                        .into_iter()
                        .map(|producer| scope.spawn(move || pushing(producer)))
                        .collect();
                    let received: u64 =
                        std::iter::from_fn(|| flusher.next_batch()).map(|it| it.received()).sum();
                    assert_eq!(received, (THREADS * PUSHES) as u64, "lost or doubled");
                    threads.into_iter().flat_map(|it| it.join().expect("no panic")).collect()
                })
            }
        }
    };
}
version!(base_shared, base, batchlink::LinkCollector, batchlink::LinkCollector::clone);
version!(this_shared, this, batchlink::LinkCollector, batchlink::LinkCollector::clone);
version!(base_producer, base, batchlink::Producer, batchlink::LinkCollector::producer);
version!(this_producer, this, batchlink::Producer, batchlink::LinkCollector::producer);

fn at(times: &mut [Duration], part: f64) -> f64 {
    times.sort();
    times[((times.len() as f64 * part) as usize).min(times.len() - 1)].as_nanos() as f64
}

fn main() {
    let context = |number: usize| {
        let (trace, span) = (TraceId::from(number as u128 * 0x9E37_79B9 + 1), number as u64 + 1);
        SpanContext::new(trace, SpanId::from(span), TraceFlags::SAMPLED, false, TraceState::NONE)
    };
    let contexts: Vec<_> = (0..8 * BATCH).map(context).collect();
    let names = ["base", "this", "base Producer", "this Producer"];
    let mut versions =
        [base_shared::open(), this_shared::open(), base_producer::open(), this_producer::open()];
    let mut times = [const { (Vec::new(), Vec::new()) }; 4];
    for turn in 0..TURNS {
        for step in 0..versions.len() {
            let which = (turn + step) % versions.len();
            let push = versions[which].push(&contexts[turn % 8 * BATCH..][..BATCH]);
            let drain = versions[which].drain();
            if turn > TURNS / 10 {
                times[which].0.push(push);
                times[which].1.push(drain);
            }
        }
    }
    for (name, (push, drain)) in names.iter().zip(&mut times) {
        let mut each = |part| [at(push, part), at(drain, part)].map(|time| time / BATCH as f64);
        let ([push, drain], [low_push, low_drain]) = (each(0.5), each(0.1));
        println!("{name:14} push {push:.2} ({low_push:.2}) drain {drain:.2} ({low_drain:.2})");
    }
    let mut latencies = [const { Vec::new() }; 2];
    for _ in 0..4 {
        latencies[0].append(&mut base_shared::latency(&contexts));
        latencies[1].append(&mut this_shared::latency(&contexts));
    }
    for (name, times) in names.iter().zip(&mut latencies) {
        let slow = times.iter().filter(|time| **time > Duration::from_micros(10)).count();
        let slow = slow as f64 / times.len() as f64 * 1e6;
        let [p50, p99, p9999] = [0.5, 0.99, 0.9999].map(|part| at(times, part));
        println!(
            "{name:14} {THREADS} threads: push p50 {p50} p99 {p99} p99.99 {p9999} ns, {slow:.0} of \
             a million over 10 us"
        );
    }
}
