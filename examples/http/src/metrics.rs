//! Counters in the text format of Prometheus.

use crate::server::Rows;
use crate::telemetry::Exports;
use batchlink::processor::WeakSubmitter;
use std::fmt::Write;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// What `GET /metrics` shows. Does not keep the processor open.
#[derive(Clone)]
pub struct Metrics {
    rows: WeakSubmitter<crate::store::Item, i64, crate::store::StoreError>,
    exports: Arc<Exports>,
}

impl Metrics {
    pub fn new(rows: &Rows, exports: Arc<Exports>) -> Self {
        Self { rows: rows.downgrade(), exports }
    }

    pub fn text(&self) -> String {
        let stats = self.rows.stats();
        let queue = stats.queue();
        let (exported, failed) = (&self.exports.exported, &self.exports.failed);
        let load = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed);
        let mut text = String::new();
        for (name, kind, value) in [
            ("items_submitted_total", "counter", queue.pushed()),
            ("items_refused_total", "counter", queue.rejected_full() + queue.rejected_closed()),
            ("items_pending", "gauge", queue.pending()),
            ("items_succeeded_total", "counter", stats.succeeded()),
            ("items_failed_total", "counter", stats.failed()),
            ("batches_total", "counter", queue.batches()),
            ("links_total", "counter", queue.counts().linked),
            ("spans_exported_total", "counter", load(&exported.spans)),
            ("spans_export_failed_total", "counter", load(&failed.spans)),
            ("links_exported_total", "counter", load(&exported.links)),
            ("links_export_failed_total", "counter", load(&failed.links)),
        ] {
            // Writing to a string does not fail.
            let _ = writeln!(text, "# TYPE {name} {kind}\n{name} {value}");
        }
        text
    }
}
