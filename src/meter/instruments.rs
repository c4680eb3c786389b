//! The instruments; docs/METRICS.md has their table, which a test holds against what is exported.

use super::Measured;
use crate::panic::{caught, unpoisoned};
use crate::stats::{StatsHandle, Trigger};
use opentelemetry::metrics::{AsyncInstrument, Histogram, Meter};
use opentelemetry::{KeyValue, Value};
use std::panic::{RefUnwindSafe, UnwindSafe};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// The attribute that tells collectors and processors apart.
const NAME: &str = "batchlink.name";
const OUTCOME: &str = "batchlink.outcome";
/// As on the batch span.
const TRIGGER: &str = "batch.trigger";
const ERROR_TYPE: &str = "error.type";

const SIZES: [f64; 13] =
    [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0, 2048.0, 4096.0];
const SECONDS: [f64; 15] =
    [0.0001, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];

/// A meter, and the name of what is measured.
#[derive(Clone, Debug)]
pub(super) struct Target {
    meter: Meter,
    name: KeyValue,
}

// A meter is called where panics are caught, and read nowhere.
impl UnwindSafe for Target {}
impl RefUnwindSafe for Target {}

/// What the consumer records, once a batch.
pub(super) struct PerBatch {
    size: Histogram<u64>,
    wait: Histogram<f64>,
    duration: Histogram<f64>,
    /// `None` for a collector.
    #[cfg_attr(not(feature = "processor"), expect(dead_code))]
    item_wait: Option<Histogram<f64>>,
    name: [KeyValue; 1],
}

/// A batch that is not finished.
pub(super) struct Running {
    instruments: Arc<PerBatch>,
    since: Instant,
}

/// Counters that a callback reads until they are final.
struct Watched<S> {
    /// `None` once the final counters were read: nothing is kept for a meter that never ends.
    stats: Mutex<Option<StatsHandle<S>>>,
}

impl Target {
    pub(super) fn new(meter: &Meter, name: Value) -> Self {
        Self { meter: meter.clone(), name: KeyValue::new(NAME, name) }
    }

    /// Makes the instruments. `None` if the meter, which is user code, panics.
    pub(super) fn start<S: Measured>(self, stats: &StatsHandle<S>) -> Option<Arc<PerBatch>> {
        caught(|| {
            self.observe_queue(stats);
            self.observe_counters(stats);
            let has_items = stats.stats().items().is_some();
            if has_items {
                self.observe_items(stats);
            }
            Arc::new(self.per_batch(has_items))
        })
    }

    fn per_batch(self, has_items: bool) -> PerBatch {
        let item_wait = || {
            self.meter
                .f64_histogram("batchlink.item.wait")
                .with_unit("s")
                .with_description("The time from submitting an item until its batch is made.")
                .with_boundaries(SECONDS.into())
                .build()
        };
        PerBatch {
            item_wait: has_items.then(item_wait),
            size: self
                .meter
                .u64_histogram("batchlink.batch.size")
                .with_unit("{item}")
                .with_description("The number of contexts or items in a batch.")
                .with_boundaries(SIZES.into())
                .build(),
            wait: self
                .meter
                .f64_histogram("batchlink.batch.wait")
                .with_unit("s")
                .with_description("The wait that no context or item of a batch has exceeded.")
                .with_boundaries(SECONDS.into())
                .build(),
            duration: self
                .meter
                .f64_histogram("batchlink.batch.duration")
                .with_unit("s")
                .with_description("The time from taking a batch until it is finished.")
                .with_boundaries(SECONDS.into())
                .build(),
            name: [self.name],
        }
    }

    fn observe_queue<S: Measured>(&self, stats: &StatsHandle<S>) {
        self.meter
            .i64_observable_up_down_counter("batchlink.queue.size")
            .with_unit("{item}")
            .with_description("The number of contexts or items that wait for a batch.")
            .with_callback(self.callback(stats, |stats: &S, observe| {
                observe(signed(stats.queue().pending()), &[]);
            }))
            .build();
        self.meter
            .i64_observable_up_down_counter("batchlink.queue.capacity")
            .with_unit("{item}")
            .with_description("The number of contexts or items that can wait, in all shards.")
            .with_callback(self.callback(stats, |stats: &S, observe| {
                observe(signed(stats.queue().capacity()), &[]);
            }))
            .build();
        self.meter
            .u64_observable_gauge("batchlink.queue.shard.size")
            .with_unit("{item}")
            .with_description("The number of contexts or items that wait in the fullest shard.")
            .with_callback(self.callback(stats, |stats: &S, observe| {
                observe(stats.queue().fullest_shard(), &[]);
            }))
            .build();
        self.meter
            .u64_observable_gauge("batchlink.queue.shard.capacity")
            .with_unit("{item}")
            .with_description("The number of contexts or items that can wait in one shard.")
            .with_callback(self.callback(stats, |stats: &S, observe| {
                observe(stats.queue().shard_capacity(), &[]);
            }))
            .build();
    }

    fn observe_counters<S: Measured>(&self, stats: &StatsHandle<S>) {
        self.meter
            .u64_observable_counter("batchlink.contexts")
            .with_unit("{context}")
            .with_description("The number of contexts that were pushed, by what became of them.")
            .with_callback(self.callback(stats, |stats: &S, observe| {
                let (stats, counts) = (stats.queue(), stats.queue().counts());
                for (outcome, count) in [
                    ("linked", counts.linked),
                    ("duplicate", counts.duplicates),
                    ("truncated", counts.truncated),
                    ("invalid", counts.invalid + stats.invalid()),
                    ("unsampled", counts.unsampled),
                ] {
                    observe(count, &[KeyValue::new(OUTCOME, outcome)]);
                }
                for (error, count) in
                    [("queue_full", stats.rejected_full()), ("closed", stats.rejected_closed())]
                {
                    let refused = KeyValue::new(OUTCOME, "refused");
                    observe(count, &[refused, KeyValue::new(ERROR_TYPE, error)]);
                }
            }))
            .build();
        self.meter
            .u64_observable_counter("batchlink.batches")
            .with_unit("{batch}")
            .with_description("The number of batches, by what triggered them.")
            .with_callback(self.callback(stats, |stats: &S, observe| {
                for &trigger in Trigger::ALL {
                    let attribute = KeyValue::new(TRIGGER, trigger.as_str());
                    observe(stats.queue().flushes(trigger), &[attribute]);
                }
            }))
            .build();
        self.meter
            .u64_observable_counter("batchlink.handler.panics")
            .with_unit("{panic}")
            .with_description("The number of panics of the handler of batches.")
            .with_callback(self.callback(stats, |stats: &S, observe| {
                observe(stats.queue().handler_panics(), &[]);
            }))
            .build();
    }

    fn observe_items<S: Measured>(&self, stats: &StatsHandle<S>) {
        self.meter
            .u64_observable_counter("batchlink.items")
            .with_unit("{item}")
            .with_description("The number of items that ended, by how.")
            .with_callback(self.callback(stats, |stats: &S, observe| {
                let Some(items) = stats.items() else { return };
                for (outcome, count) in [
                    ("succeeded", items.succeeded),
                    ("failed", items.failed),
                    ("canceled", items.canceled),
                ] {
                    observe(count, &[KeyValue::new(OUTCOME, outcome)]);
                }
            }))
            .build();
        self.meter
            .i64_observable_up_down_counter("batchlink.active_items")
            .with_unit("{item}")
            .with_description("The number of items that are in a batch and have not ended.")
            .with_callback(self.callback(stats, |stats: &S, observe| {
                let Some(items) = stats.items() else { return };
                observe(signed(items.in_flight), &[]);
            }))
            .build();
    }

    /// Returns a callback that observes what `read` makes of the counters, until these are final.
    fn callback<S: Measured, N>(
        &self,
        stats: &StatsHandle<S>,
        read: impl Fn(&S, &mut dyn FnMut(N, &[KeyValue])) + Send + Sync + 'static,
    ) -> impl Fn(&dyn AsyncInstrument<N>) + Send + Sync + 'static {
        let watched = Watched { stats: Mutex::new(Some(stats.clone())) };
        let name = self.name.clone();
        move |instrument| {
            // The SDK does not catch panics: one would cost all metrics of this collection.
            let _ = caught(|| {
                let Some(stats) = watched.read() else { return };
                read(&stats, &mut |value, attributes| {
                    let attributes = [std::slice::from_ref(&name), attributes].concat();
                    instrument.observe(value, &attributes);
                });
            });
        }
    }
}

impl<S> Watched<S> {
    /// Returns the counters; `None` after the final ones were returned.
    fn read(&self) -> Option<S> {
        let mut watched = unpoisoned(self.stats.lock());
        let handle = watched.as_ref()?;
        // Before the counters, which are then the last ones.
        let is_final = handle.is_final();
        let stats = handle.stats();
        if is_final {
            *watched = None;
        }
        Some(stats)
    }
}

impl Running {
    pub(super) fn begin(instruments: &Arc<PerBatch>, size: u64, wait: Option<Duration>) -> Self {
        let PerBatch { size: sizes, wait: waits, name, .. } = &**instruments;
        let _ = caught(|| sizes.record(size, name));
        if let Some(wait) = wait {
            let _ = caught(|| waits.record(wait.as_secs_f64(), name));
        }
        Self { instruments: Arc::clone(instruments), since: Instant::now() }
    }
}

#[cfg(feature = "processor")]
impl PerBatch {
    pub(super) fn record_item_waits(&self, waits: impl Iterator<Item = Duration>) {
        let Some(histogram) = &self.item_wait else { return };
        let _ = caught(|| waits.for_each(|wait| histogram.record(wait.as_secs_f64(), &self.name)));
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let PerBatch { duration, name, .. } = &*self.instruments;
        let _ = caught(|| duration.record(self.since.elapsed().as_secs_f64(), name));
    }
}

fn signed(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}
