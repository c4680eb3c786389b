//! Meters whose instruments panic.

use super::common::*;
use batchlink::LinkCollector;
use opentelemetry::KeyValue;
use opentelemetry::metrics::{
    AsyncInstrument, AsyncInstrumentBuilder, Callback, Histogram, HistogramBuilder,
    InstrumentProvider, Meter, ObservableCounter, ObservableUpDownCounter, SyncInstrument,
};
use std::panic::resume_unwind;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

/// A meter that keeps callbacks, and panics where it is told to.
#[derive(Default)]
struct Panicking {
    /// When an instrument is made.
    made: bool,
    counters: Mutex<Vec<Callback<u64>>>,
    sizes: Mutex<Vec<Callback<i64>>>,
    calls: Arc<AtomicU64>,
}

fn on_purpose() {
    resume_unwind(Box::new("on purpose"));
}

/// An instrument that panics when it is used.
struct Instrument(Arc<AtomicU64>);

impl<N> AsyncInstrument<N> for Instrument {
    fn observe(&self, _value: N, _attributes: &[KeyValue]) {
        self.0.fetch_add(1, Ordering::Relaxed);
        on_purpose();
    }
}

impl<N> SyncInstrument<N> for Instrument {
    fn measure(&self, _value: N, _attributes: &[KeyValue]) {
        self.0.fetch_add(1, Ordering::Relaxed);
        on_purpose();
    }
}

impl InstrumentProvider for Panicking {
    fn u64_observable_counter(
        &self,
        builder: AsyncInstrumentBuilder<'_, ObservableCounter<u64>, u64>,
    ) -> ObservableCounter<u64> {
        if self.made {
            on_purpose();
        }
        self.counters.lock().unwrap().extend(builder.callbacks);
        ObservableCounter::new()
    }

    fn i64_observable_up_down_counter(
        &self,
        builder: AsyncInstrumentBuilder<'_, ObservableUpDownCounter<i64>, i64>,
    ) -> ObservableUpDownCounter<i64> {
        self.sizes.lock().unwrap().extend(builder.callbacks);
        ObservableUpDownCounter::new()
    }

    fn u64_histogram(&self, _: HistogramBuilder<'_, Histogram<u64>>) -> Histogram<u64> {
        Histogram::new(Arc::new(Instrument(Arc::clone(&self.calls))))
    }

    fn f64_histogram(&self, _: HistogramBuilder<'_, Histogram<f64>>) -> Histogram<f64> {
        Histogram::new(Arc::new(Instrument(Arc::clone(&self.calls))))
    }
}

/// A meter that panics when an instrument is made measures nothing, and the collector works.
#[test]
fn panicking_meter_measures_nothing() {
    let meter = Meter::new(Arc::new(Panicking { made: true, ..Panicking::default() }));
    let builder = LinkCollector::builder().with_metrics(&meter, "a");
    let (collector, mut flusher) = builder.build().unwrap();
    collector.push(&context(1)).unwrap();
    assert_eq!(flusher.try_next().unwrap().linked(), 1);
}

/// Histograms that panic cost no batch, and instruments that panic do not reach the reader that
/// calls the callbacks.
#[test]
fn panicking_instruments_are_contained() {
    let panicking = Arc::new(Panicking::default());
    let meter = Meter::new(panicking.clone());
    let builder = LinkCollector::builder().with_metrics(&meter, "a");
    let (collector, mut flusher) = builder.build().unwrap();
    for n in 1..=3 {
        collector.push(&context(n)).unwrap();
        assert_eq!(flusher.try_next().unwrap().linked(), 1);
    }
    assert!(flusher.try_next().is_none());
    assert_eq!(panicking.calls.swap(0, Ordering::Relaxed), 9, "three a batch");
    let instrument = Instrument(Arc::clone(&panicking.calls));
    for callback in &*panicking.counters.lock().unwrap() {
        callback(&instrument);
        callback(&instrument);
    }
    for callback in &*panicking.sizes.lock().unwrap() {
        callback(&instrument);
    }
    assert_eq!(panicking.calls.load(Ordering::Relaxed), 2 * 3 + 2);
}
