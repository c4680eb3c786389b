//! How late a timeout is: one context is pushed, and its batch is due 5 ms later.

use crate::results::{Results, median};
use crate::rounds::{Effort, Progress, rotate};
use crate::source::{Kind, Source};
use batchlink::{LinkCollector, LinkPolicy, Trigger};
use opentelemetry::trace::SpanContext;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

const DELAY: Duration = Duration::from_millis(5);

/// How much later than due, in nanoseconds, for each of the contexts.
type Run = fn(&[SpanContext]) -> Vec<f64>;

fn lateness(start: Instant, end: Instant) -> f64 {
    end.saturating_duration_since(start + DELAY).as_nanos() as f64
}

fn batchlink(contexts: &[SpanContext]) -> Vec<f64> {
    let (collector, flusher) = LinkCollector::builder()
        .with_max_delay(DELAY)
        .with_link_policy(LinkPolicy::new().without_link_type())
        .build()
        .expect("a valid configuration");
    let (arrived, arrivals) = mpsc::channel();
    let handle = flusher
        .spawn(move |batch| {
            let now = Instant::now();
            assert_eq!(batch.trigger(), Trigger::Timeout);
            let _ = arrived.send(now);
        })
        .expect("a thread");
    let times = contexts
        .iter()
        .map(|context| {
            thread::sleep(Duration::from_micros(200));
            let start = Instant::now();
            collector.push(context).expect("room");
            lateness(start, arrivals.recv().expect("a batch"))
        })
        .collect();
    handle.shutdown().expect("it ends");
    times
}

/// A channel whose consumer takes the first, then waits with a deadline: what users write.
fn channel(contexts: &[SpanContext]) -> Vec<f64> {
    let (sender, receiver) = crossbeam_channel::bounded::<SpanContext>(128);
    let (arrived, arrivals) = mpsc::channel();
    let consumer = thread::spawn(move || {
        while receiver.recv().is_ok() {
            let deadline = Instant::now() + DELAY;
            while receiver.recv_deadline(deadline).is_ok() {}
            let _ = arrived.send(Instant::now());
        }
    });
    let times = contexts
        .iter()
        .map(|context| {
            thread::sleep(Duration::from_micros(200));
            let start = Instant::now();
            sender.send(context.clone()).expect("a receiver");
            lateness(start, arrivals.recv().expect("a batch"))
        })
        .collect();
    drop(sender);
    consumer.join().expect("no panic");
    times
}

/// What the system's own timer is late by.
fn sleep(contexts: &[SpanContext]) -> Vec<f64> {
    let once = |_| {
        let start = Instant::now();
        thread::sleep(DELAY);
        lateness(start, Instant::now())
    };
    contexts.iter().map(once).collect()
}

pub fn bench(results: &mut Results, progress: &Progress, effort: Effort) {
    let source = Source::new(Kind::Plain, 128, 0);
    let contexts = &source.contexts[..(effort.waits / 3).clamp(1, 100)];
    let all: [(&str, Run); 3] =
        [("batchlink", batchlink), ("crossbeam channel", channel), ("thread::sleep alone", sleep)];
    rotate(progress, effort.rounds, &all, "latency, timeout", |(name, run)| {
        let late = run(contexts);
        results.add("latency", name, "timeout late by, p50", "ns", median(&late));
        let max = late.iter().copied().fold(0.0, f64::max);
        results.add("latency", name, "timeout late by, max", "ns", max);
    });
}
