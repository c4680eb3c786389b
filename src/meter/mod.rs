//! What a collector or processor measures for metrics (feature `metrics`). Without the feature
//! nothing: all of this is then empty.

#[cfg(feature = "metrics")]
mod instruments;

use crate::stats::{Stats, StatsHandle};
use std::time::Duration;

/// Counters of a collector or processor, as instruments read them.
#[cfg_attr(not(feature = "metrics"), expect(dead_code))]
pub(crate) trait Measured: 'static {
    /// Returns the counters of the queue.
    fn queue(&self) -> &Stats;
    /// Returns how items ended, for a processor.
    fn items(&self) -> Option<Items>;
}

/// How the items of a processor ended.
#[derive(Clone, Copy)]
#[cfg_attr(not(feature = "metrics"), expect(dead_code))]
pub(crate) struct Items {
    pub(crate) succeeded: u64,
    pub(crate) failed: u64,
    pub(crate) canceled: u64,
    pub(crate) in_flight: u64,
}

impl Measured for Stats {
    fn queue(&self) -> &Stats {
        self
    }

    fn items(&self) -> Option<Items> {
        None
    }
}

/// Where a builder was told to report metrics, if it was.
#[derive(Clone, Debug, Default)]
pub(crate) struct MeterConfig {
    #[cfg(feature = "metrics")]
    target: Option<instruments::Target>,
}

impl MeterConfig {
    #[cfg(feature = "metrics")]
    pub(crate) fn new(meter: &opentelemetry::metrics::Meter, name: opentelemetry::Value) -> Self {
        Self { target: Some(instruments::Target::new(meter, name)) }
    }

    /// Makes the instruments. Their callbacks read from `stats`.
    #[cfg_attr(not(feature = "metrics"), expect(clippy::unused_self))]
    pub(crate) fn start<S: Measured>(self, stats: impl FnOnce() -> StatsHandle<S>) -> BatchMeter {
        #[cfg(not(feature = "metrics"))]
        let _ = stats;
        BatchMeter {
            #[cfg(feature = "metrics")]
            instruments: self.target.and_then(|target| target.start(&stats())),
        }
    }
}

/// Measures the batches of one consumer.
pub(crate) struct BatchMeter {
    #[cfg(feature = "metrics")]
    instruments: Option<std::sync::Arc<instruments::PerBatch>>,
}

/// Measures how long a batch takes, until it is dropped.
pub(crate) struct BatchTimer {
    #[cfg(feature = "metrics")]
    _running: Option<instruments::Running>,
}

impl BatchMeter {
    /// Measures how long each item of a batch has waited. Cost without metrics: as
    /// [`begin`](Self::begin).
    #[cfg(feature = "processor")]
    #[cfg_attr(not(feature = "metrics"), expect(clippy::unused_self))]
    pub(crate) fn item_waits(&self, waits: impl Iterator<Item = Duration>) {
        #[cfg(not(feature = "metrics"))]
        let _ = waits;
        #[cfg(feature = "metrics")]
        if let Some(instruments) = &self.instruments {
            instruments.record_item_waits(waits);
        }
    }

    /// Measures a batch that was taken, and whose oldest entry has waited this long at most. Cost
    /// without metrics: none, or a look at an `Option`.
    #[cfg_attr(not(feature = "metrics"), expect(clippy::unused_self))]
    #[inline]
    pub(crate) fn begin(&self, size: u64, wait: Option<Duration>) -> BatchTimer {
        #[cfg(not(feature = "metrics"))]
        let _ = (size, wait);
        BatchTimer {
            #[cfg(feature = "metrics")]
            _running: self
                .instruments
                .as_ref()
                .map(|instruments| instruments::Running::begin(instruments, size, wait)),
        }
    }
}
