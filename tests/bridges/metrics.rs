//! Metrics, read back as the SDK exports them, against `stats()` and the batches' own counts.

use super::common::*;
use batchlink::{Counts, LinkCollector, Stats, Trigger};
use opentelemetry::KeyValue;
use opentelemetry::metrics::{Meter, MeterProvider};
use opentelemetry::trace::{SpanContext, TraceFlags};
use opentelemetry_sdk::metrics::data::{AggregatedMetrics, Metric, MetricData};
use opentelemetry_sdk::metrics::{
    InMemoryMetricExporter, InMemoryMetricExporterBuilder, PeriodicReader, SdkMeterProvider,
    Temporality,
};
use std::collections::BTreeMap;
use std::thread;
use std::time::Duration;

/// Values by instrument and attributes, such as `batchlink.batches{batch.trigger=manual}`. A
/// histogram has its count and its sum.
pub(super) type Values = BTreeMap<String, f64>;

/// A meter, and a reader that reads when it is asked to.
pub(super) struct Metered {
    provider: SdkMeterProvider,
    exporter: InMemoryMetricExporter,
}

impl Metered {
    pub(super) fn new() -> Self {
        Self::with_temporality(Temporality::Cumulative)
    }

    fn with_temporality(temporality: Temporality) -> Self {
        let exporter = InMemoryMetricExporterBuilder::new().with_temporality(temporality).build();
        let provider = SdkMeterProvider::builder().with_reader(on_demand(&exporter)).build();
        Self { provider, exporter }
    }

    pub(super) fn meter(&self) -> Meter {
        self.provider.meter("test")
    }

    pub(super) fn read(&self) -> Values {
        self.provider.force_flush().unwrap();
        values(&self.exporter)
    }
}

fn on_demand(exporter: &InMemoryMetricExporter) -> PeriodicReader<InMemoryMetricExporter> {
    PeriodicReader::builder(exporter.clone()).with_interval(NEVER).build()
}

/// Takes what was exported.
fn values(exporter: &InMemoryMetricExporter) -> Values {
    let mut values = Values::new();
    each_metric(exporter, |metric| {
        let mut put = |part: &str, attributes: &mut dyn Iterator<Item = &KeyValue>, value| {
            let mut attributes: Vec<_> =
                attributes.map(|pair| format!("{}={}", pair.key, pair.value)).collect();
            attributes.sort();
            let name = format!("{}{part}{{{}}}", metric.name(), attributes.join(","));
            assert_eq!(values.insert(name, value), None, "a value is there twice");
        };
        match metric.data() {
            AggregatedMetrics::U64(MetricData::Sum(sum)) => sum
                .data_points()
                .for_each(|point| put("", &mut point.attributes(), point.value() as f64)),
            AggregatedMetrics::I64(MetricData::Sum(sum)) => sum
                .data_points()
                .for_each(|point| put("", &mut point.attributes(), point.value() as f64)),
            AggregatedMetrics::U64(MetricData::Gauge(gauge)) => gauge
                .data_points()
                .for_each(|point| put("", &mut point.attributes(), point.value() as f64)),
            AggregatedMetrics::U64(MetricData::Histogram(histogram)) => {
                for point in histogram.data_points() {
                    put(":count", &mut point.attributes(), point.count() as f64);
                    put(":sum", &mut point.attributes(), point.sum() as f64);
                }
            }
            AggregatedMetrics::F64(MetricData::Histogram(histogram)) => {
                for point in histogram.data_points() {
                    put(":count", &mut point.attributes(), point.count() as f64);
                    put(":sum", &mut point.attributes(), point.sum());
                }
            }
            other => panic!("{}: {other:?}", metric.name()),
        }
    });
    exporter.reset();
    values
}

fn each_metric(exporter: &InMemoryMetricExporter, mut each: impl FnMut(&Metric)) {
    for resource in exporter.get_finished_metrics().unwrap() {
        resource.scope_metrics().flat_map(|scope| scope.metrics()).for_each(&mut each);
    }
}

/// What a queue of this name must show, without durations, for these counters.
pub(super) fn expected(name: &str, stats: &Stats) -> Values {
    let mut expected = Values::new();
    let name = format!("batchlink.name={name}");
    let mut put = |metric: &str, value: u64| {
        let (metric, more) = metric.split_once(' ').unwrap_or((metric, ""));
        let mut attributes = vec![name.as_str()];
        attributes.extend(more.split(' ').filter(|more| !more.is_empty()));
        attributes.sort_unstable();
        expected.insert(format!("{metric}{{{}}}", attributes.join(",")), value as f64);
    };
    put("batchlink.queue.size", stats.pending());
    put("batchlink.queue.capacity", stats.capacity());
    put("batchlink.queue.shard.size", stats.fullest_shard());
    put("batchlink.queue.shard.capacity", stats.shard_capacity());
    let Counts { linked, duplicates, truncated, invalid, unsampled, .. } = stats.counts();
    put("batchlink.contexts batchlink.outcome=linked", linked);
    put("batchlink.contexts batchlink.outcome=duplicate", duplicates);
    put("batchlink.contexts batchlink.outcome=truncated", truncated);
    put("batchlink.contexts batchlink.outcome=invalid", invalid + stats.invalid());
    put("batchlink.contexts batchlink.outcome=unsampled", unsampled);
    let refused = "batchlink.contexts batchlink.outcome=refused error.type=";
    put(&format!("{refused}queue_full"), stats.rejected_full());
    put(&format!("{refused}closed"), stats.rejected_closed());
    for &trigger in Trigger::ALL {
        put(&format!("batchlink.batches batch.trigger={trigger}"), stats.flushes(trigger));
    }
    put("batchlink.handler.panics", stats.handler_panics());
    if stats.batches() > 0 {
        put("batchlink.batch.size:count", stats.batches());
        // A dropped processor discards items, which are received, and in no batch.
        let batched = linked + duplicates + truncated + invalid + unsampled;
        put("batchlink.batch.size:sum", batched);
    }
    expected
}

/// Takes the durations and waits out, and returns how many durations were recorded for this name.
pub(super) fn durations(values: &mut Values, name: &str) -> u64 {
    let mut take = |part| {
        let key = format!("batchlink.batch.{part}{{batchlink.name={name}}}");
        values.remove(&key).unwrap_or(0.0)
    };
    let (waits, longest) = (take("wait:count"), take("wait:sum"));
    let (count, sum) = (take("duration:count"), take("duration:sum"));
    assert!(longest >= 0.0 && sum >= 0.0, "{longest}, {sum}");
    // Each batch that was taken has a wait.
    let batches = format!("batchlink.batch.size:count{{batchlink.name={name}}}");
    assert_eq!(waits, values.get(&batches).copied().unwrap_or(0.0));
    count as u64
}

/// A builder of which every refusal and outcome is within reach.
fn small(meter: &Meter, name: &'static str) -> (LinkCollector, batchlink::Flusher) {
    by_size(8)
        .with_max_links(2)
        .with_queue_capacity(8)
        .with_shards(1)
        .with_metrics(meter, name)
        .build()
        .unwrap()
}

/// At every moment metrics say what `stats()` says, which is the sum over the batches.
#[test]
fn metrics_equal_stats() {
    let metered = Metered::new();
    let (collector, mut flusher) = small(&metered.meter(), "a");
    let (mut received, mut linked, mut batches) = (0, 0, 0);
    let mut random = Random(7);
    for round in 0..200 {
        let flags = TraceFlags::default().with_sampled(random.below(3) > 0);
        match random.below(12) {
            0 => _ = collector.push(&SpanContext::NONE),
            1 => collector.flush(),
            2 if round > 150 => collector.close(),
            step @ 3..5 => {
                let mut next = || match step {
                    3 => flusher.try_next(),
                    _ => flusher.next_batch_timeout(Duration::ZERO).ok().flatten(),
                };
                while let Some(batch) = next() {
                    received += batch.received();
                    linked += batch.linked();
                    batches += 1;
                }
            }
            _ => _ = collector.push(&with_flags(1 + random.below(9), flags)),
        }
        let mut values = metered.read();
        let finished = durations(&mut values, "a");
        let stats = collector.stats();
        assert_eq!(values, expected("a", &stats), "round {round}");
        assert_eq!((received, linked), (stats.received(), stats.counts().linked));
        assert!(batches - finished <= 1, "{finished} of {batches} are finished");
    }
    let stats = collector.stats();
    let Counts { duplicates, truncated, unsampled, .. } = stats.counts();
    for reached in [duplicates, truncated, unsampled, stats.invalid(), stats.rejected_full()] {
        assert!(reached > 0, "{stats:?}");
    }
    assert!(stats.rejected_closed() > 0, "{stats:?}");
    assert!(stats.flushes(Trigger::Size) > 0 && stats.flushes(Trigger::Manual) > 0, "{stats:?}");
}

/// A flush that returns has its batch's duration recorded.
#[test]
fn flushed_batch_has_duration() {
    let metered = Metered::new();
    let (collector, flusher) = small(&metered.meter(), "a");
    let handle = flusher.spawn(drop).unwrap();
    for n in 1..=5 {
        collector.push(&context(n)).unwrap();
        collector.flush_and_wait(NEVER).unwrap();
        assert_eq!(durations(&mut metered.read(), "a"), n);
    }
    handle.shutdown().unwrap();
}

/// Names tell two collectors on one meter apart.
#[test]
fn names_tell_collectors_apart() {
    let metered = Metered::new();
    let (one, mut flusher) = small(&metered.meter(), "one");
    let (two, _flusher) = small(&metered.meter(), "two");
    one.push_all(&[1, 2, 3].map(context));
    drop(flusher.try_next());
    two.push_all(&[1, 2].map(context));
    let mut values = metered.read();
    assert_eq!(durations(&mut values, "one") + durations(&mut values, "two"), 0);
    let mut both = expected("one", &one.stats());
    both.append(&mut expected("two", &two.stats()));
    assert_eq!(values, both);
}

/// Metrics do not keep a collector open: the last producer closes it, and after the flusher its
/// final counters are observed once, by every reader, and then nothing.
#[test]
fn final_counts_appear_once() {
    let exporters = [InMemoryMetricExporter::default(), InMemoryMetricExporter::default()];
    let provider = SdkMeterProvider::builder()
        .with_reader(on_demand(&exporters[0]))
        .with_reader(on_demand(&exporters[1]))
        .build();
    let (collector, mut flusher) = small(&provider.meter("test"), "a");
    let handle = collector.stats_handle();
    collector.push_all(&[1, 1, 2].map(context));
    provider.force_flush().unwrap();
    exporters.iter().for_each(|exporter| drop(values(exporter)));
    drop(collector);
    assert_eq!(flusher.next_batch().unwrap().trigger(), Trigger::Shutdown);
    assert!(flusher.next_batch().is_none());
    assert!(!handle.is_final());
    drop(flusher);
    assert!(handle.is_final());
    assert_eq!((handle.stats().received(), handle.stats().pending()), (3, 0));

    provider.force_flush().unwrap();
    for exporter in &exporters {
        let mut values = values(exporter);
        assert_eq!(durations(&mut values, "a"), 1);
        assert_eq!(values, expected("a", &handle.stats()));
    }
    provider.force_flush().unwrap();
    for exporter in &exporters {
        let mut values = values(exporter);
        assert_eq!(durations(&mut values, "a"), 1);
        // A histogram is not observed, so the SDK goes on to export it.
        assert!(values.keys().all(|key| key.starts_with("batchlink.batch.size:")), "{values:?}");
    }
}

/// A producer that is left can still be refused, which metrics show; contexts that the flusher left
/// stay visible.
#[test]
fn producer_left_stays_visible() {
    let metered = Metered::new();
    let (collector, flusher) = small(&metered.meter(), "a");
    let producer = collector.producer();
    producer.push(&context(1)).unwrap();
    drop((collector, flusher));
    for refused in 0..3 {
        let values = metered.read();
        let closed = "batchlink.contexts{batchlink.name=a,batchlink.outcome=refused,\
                      error.type=closed}";
        assert_eq!(values[closed], f64::from(refused));
        assert_eq!(values["batchlink.queue.size{batchlink.name=a}"], 1.0);
        producer.push(&context(2)).unwrap_err();
    }
    drop(producer);
    assert_eq!(metered.read()["batchlink.queue.size{batchlink.name=a}"], 1.0);
    assert_eq!(metered.read(), Values::new());
}

/// What a reader of deltas gets adds up to the final counters.
#[test]
fn deltas_add_up() {
    let metered = Metered::with_temporality(Temporality::Delta);
    let (collector, mut flusher) = small(&metered.meter(), "a");
    let handle = collector.stats_handle();
    let mut sums = Values::new();
    let mut read = || {
        for (key, value) in metered.read() {
            *sums.entry(key).or_default() += value;
        }
    };
    for n in 1..30 {
        collector.push_all(&[n, n, n + 1].map(context));
        if n % 4 == 0 {
            drop(flusher.try_next());
        }
        if n % 3 == 0 {
            read();
        }
    }
    drop(collector);
    while flusher.next_batch().is_some() {}
    drop(flusher);
    (0..3).for_each(|_| read());
    assert_eq!(durations(&mut sums, "a"), handle.stats().batches());
    // Sizes and capacities are no deltas.
    let counters = |key: &str| !key.starts_with("batchlink.queue");
    sums.retain(|key, _| counters(key));
    let mut expected = expected("a", &handle.stats());
    expected.retain(|key, _| counters(key));
    assert_eq!(sums, expected);
}

/// Metrics that are collected while producers push and a flusher flushes never exceed what was
/// pushed, and are exact afterwards.
#[test]
fn concurrent_collection_is_exact() {
    let metered = Metered::new();
    let builder = by_size(64).with_queue_capacity(1 << 14).with_metrics(&metered.meter(), "a");
    let (collector, flusher) = builder.build().unwrap();
    let handle = flusher.spawn(drop).unwrap();
    let pushed = thread::scope(|scope| {
        let producers = [0, 1].map(|part| {
            let collector = collector.clone();
            scope.spawn(move || {
                let contexts: Vec<_> = (1..=3000).map(|n| context(2 * n + part)).collect();
                contexts.chunks(10).map(|chunk| collector.push_all(chunk) as u64).sum::<u64>()
            })
        });
        let contexts = |values: &Values| -> f64 {
            let contexts = values.iter().filter(|(key, _)| key.starts_with("batchlink.contexts{"));
            contexts.map(|(_, count)| count).sum()
        };
        let mut last = 0.0;
        for _ in 0..20 {
            let now = contexts(&metered.read());
            assert!(last <= now && now <= 6000.0, "{last}, then {now}");
            last = now;
        }
        producers.map(|producer| producer.join().unwrap()).iter().sum::<u64>()
    });
    let stats = handle.shutdown().unwrap();
    assert_eq!((stats.received(), stats.pushed()), (pushed, 6000));
    let mut values = metered.read();
    assert_eq!(durations(&mut values, "a"), stats.batches());
    assert_eq!(values, expected("a", &stats));
}

/// The rows of the documentation's tables are those of the instruments that a processor exports.
/// The value of an attribute is documented if an instrument has it.
#[cfg(feature = "processor")]
#[test]
fn documentation_lists_instruments() {
    use batchlink::processor::BatchProcessor;
    use opentelemetry::trace::noop::NoopTracer;

    let metered = Metered::new();
    let builder = BatchProcessor::<u64, (), String>::builder("batch");
    let builder = builder.with_metrics(&metered.meter(), "a").with_wait_times();
    let (submitter, mut processor) = builder.build(NoopTracer::new()).unwrap();
    submitter.submit(1).unwrap();
    processor.next_batch().unwrap().succeed_all(|_| ());
    metered.provider.force_flush().unwrap();

    let page = include_str!("../../docs/METRICS.md");
    let mut rows = Vec::new();
    each_metric(&metered.exporter, |metric| {
        let (name, unit) = (metric.name(), metric.unit());
        let (kind, keys) = kind_and_attributes(metric.data());
        rows.push(format!("| `{name}` | {kind} | `{unit}` | {keys} |"));
        rows.push(format!("| `{name}` | {} |", metric.description()));
    });
    let missing: Vec<_> = rows.iter().filter(|row| !page.contains(&format!("\n{row}\n"))).collect();
    assert!(missing.is_empty(), "missing in docs/METRICS.md:\n{missing:#?}");
    let attributes = ["| `batchlink.name`", "| `batchlink.outcome`"];
    let documented = page.lines().filter(|line| {
        line.starts_with("| `batchlink.") && !attributes.iter().any(|row| line.starts_with(row))
    });
    let documented = documented.count();
    assert_eq!(documented, rows.len(), "docs/METRICS.md has rows of no instrument");
    let (tables, _text) = page.split_once("## What the numbers mean").unwrap();
    for key in values(&metered.exporter).keys() {
        let attributes = key.split(['{', '}', ',']).filter(|part| part.contains('='));
        for (key, value) in attributes.filter_map(|part| part.split_once('=')) {
            let documented = value == "a" || tables.contains(&format!("`{value}`"));
            assert!(documented, "{key}={value} is not in docs/METRICS.md");
        }
    }
}

/// Returns an instrument's kind and the keys of its attributes, as the documentation has them.
#[cfg(feature = "processor")]
fn kind_and_attributes(data: &AggregatedMetrics) -> (&'static str, String) {
    fn keys<'a>(attributes: impl Iterator<Item = &'a KeyValue>) -> String {
        let mut keys: Vec<_> = attributes.map(|pair| format!("`{}`", pair.key)).collect();
        keys.sort();
        keys.dedup();
        keys.retain(|key| key != "`batchlink.name`");
        if keys.is_empty() { "-".into() } else { keys.join(", ") }
    }
    match data {
        AggregatedMetrics::I64(MetricData::Sum(sum)) => {
            ("up-down counter", keys(sum.data_points().flat_map(|point| point.attributes())))
        }
        AggregatedMetrics::U64(MetricData::Sum(sum)) => {
            ("counter", keys(sum.data_points().flat_map(|point| point.attributes())))
        }
        AggregatedMetrics::U64(MetricData::Gauge(gauge)) => {
            ("gauge", keys(gauge.data_points().flat_map(|point| point.attributes())))
        }
        AggregatedMetrics::U64(MetricData::Histogram(histogram)) => {
            ("histogram", keys(histogram.data_points().flat_map(|point| point.attributes())))
        }
        AggregatedMetrics::F64(MetricData::Histogram(histogram)) => {
            ("histogram", keys(histogram.data_points().flat_map(|point| point.attributes())))
        }
        other => panic!("{other:?}"),
    }
}

/// The waits that are recorded are those of the batches.
#[test]
fn waits_equal_batches() {
    let metered = Metered::new();
    let (collector, mut flusher) = small(&metered.meter(), "a");
    let mut waited = 0.0;
    for n in 1..=20 {
        collector.push_all(&[n, n + 1].map(context));
        let batch = flusher.try_next().unwrap();
        waited += batch.wait_bound().unwrap().as_secs_f64();
    }
    let sum = metered.read()["batchlink.batch.wait:sum{batchlink.name=a}"];
    assert!((sum - waited).abs() < 1e-9, "{sum}, {waited}");
    assert!(waited > 0.0);
}
