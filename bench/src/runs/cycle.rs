//! One thread: push, drain, de-duplicate, bound, links.

use crate::contest::{Batch, Consumer, Contestant, Producer, Setup};
use crate::results::Results;
use crate::roster::{FLOOR, Group, roster};
use crate::rounds::{Effort, Progress, rotate};
use crate::source::{Kind, Source};
use opentelemetry::trace::{SpanBuilder, TracerProvider};
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{SdkTracer, SdkTracerProvider, SpanData, SpanExporter};
use std::hint::black_box;
use std::time::{Duration, Instant};

/// Time for this many batches of the source, and the source's first batches as they came out.
pub type Run = fn(&Source, batches: usize) -> (Duration, Vec<Batch>);

#[derive(Debug)]
struct NoExporter;

impl SpanExporter for NoExporter {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        drop(black_box(batch));
        Ok(())
    }
}

/// The provider shuts down when it is dropped, so it is kept.
fn tracer() -> (SdkTracerProvider, SdkTracer) {
    let provider = SdkTracerProvider::builder().with_simple_exporter(NoExporter).build();
    let tracer = provider.tracer("bench");
    (provider, tracer)
}

#[inline(always)]
fn once<C: Contestant>(
    producer: &mut C::Producer,
    consumer: &mut C::Consumer,
    source: &Source,
    turn: usize,
) -> Batch {
    let first = turn % source.batches() * source.batch;
    let range = first..first + source.batch;
    let taken = match source.kind {
        Kind::Attributes => {
            source.links[range].iter().filter(|link| producer.push_link(black_box(link))).count()
        }
        _ => source.contexts[range]
            .iter()
            .filter(|context| producer.push(black_box(context)))
            .count(),
    };
    assert_eq!(taken, source.batch, "there is room for all");
    C::hand_over(producer, consumer);
    consumer.take().expect("a batch")
}

pub fn run<C: Contestant>(source: &Source, batches: usize) -> (Duration, Vec<Batch>) {
    let (mut producers, mut consumer) = C::open(Setup::single(source.batch));
    let producer = &mut producers[0];
    let warm_up = source.batches().max(batches / 8);
    let mut seen: Vec<Batch> =
        (0..warm_up).map(|turn| once::<C>(producer, &mut consumer, source, turn)).collect();
    seen.truncate(source.batches());
    let tracer = (source.kind == Kind::Span).then(tracer);
    let start = Instant::now();
    for turn in 0..batches {
        let batch = once::<C>(producer, &mut consumer, source, turn);
        match &tracer {
            None => drop(black_box(batch)),
            Some((_, tracer)) => {
                drop(black_box(
                    SpanBuilder::from_name("batch").with_links(batch.links).start(tracer),
                ));
            }
        }
    }
    (start.elapsed(), seen)
}

pub const BATCHES: [usize; 4] = [16, 128, 512, 4096];
pub const DUPLICATES: [usize; 3] = [0, 50, 90];

pub fn param(kind: Kind, batch: usize, duplicates: usize) -> String {
    let kind = match kind {
        Kind::Plain => "",
        Kind::TraceState => ", trace state",
        Kind::Attributes => ", attributes",
        Kind::Span => ", span",
    };
    match duplicates {
        0 => format!("{batch}, unique{kind}"),
        duplicates => format!("{batch}, {duplicates} % duplicates{kind}"),
    }
}

pub fn bench(results: &mut Results, progress: &Progress, effort: Effort) {
    for kind in [Kind::Plain, Kind::TraceState, Kind::Attributes, Kind::Span] {
        for batch in BATCHES {
            for duplicates in DUPLICATES {
                // The rarer kinds at one size.
                if kind == Kind::Plain || batch == 512 {
                    compare(results, progress, effort, kind, batch, duplicates);
                }
            }
        }
    }
}

fn compare(
    results: &mut Results,
    progress: &Progress,
    effort: Effort,
    kind: Kind,
    batch: usize,
    duplicates: usize,
) {
    let source = &Source::new(kind, batch, duplicates);
    let param = param(kind, batch, duplicates);
    let all = roster(kind, false);
    let (_, expected) =
        (all.iter().find(|entry| entry.name == FLOOR).expect("the floor").cycle)(source, 1);
    let contexts = if kind == Kind::Plain { effort.contexts } else { effort.contexts / 4 };
    let batches = (contexts / batch).max(2);
    rotate(progress, effort.rounds, &all, &format!("cycle {param}"), |entry| {
        let (time, seen) = (entry.cycle)(source, batches);
        let same =
            seen == expected || entry.group == Group::Shown && entry.name.contains("no dedup");
        assert!(same, "{} gives another result at {param}", entry.name);
        let value = time.as_nanos() as f64 / (batches * batch) as f64;
        results.add("cycle", entry.name, &param, "ns/context", value);
    });
}
