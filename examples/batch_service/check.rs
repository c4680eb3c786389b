//! Every order can be followed by its links.

use crate::common::{Exported, Result, attribute, ensure, number};
use opentelemetry::trace::Status;
use opentelemetry_sdk::trace::SpanData;

/// Request → validation → store → report.
pub(crate) fn check(exported: &Exported, orders: usize) -> Result {
    let batches = exported.named("validate_batch");
    let linked: usize = batches.iter().map(|batch| batch.links.len()).sum();
    ensure(linked == orders, format!("{linked} of {orders} requests are linked"))?;
    for batch in batches {
        let failed = exported.children(batch).filter(|order| is_error(order)).count();
        ensure(
            failed == number(&batch.attributes, "batch.failed") as usize,
            "the failures are counted",
        )?;
        ensure(
            is_error(batch) == (failed > 0),
            "a batch with a failed order has the status Error",
        )?;
    }
    let mut stored = 0;
    for batch in exported.named("store_batch") {
        for target in exported.targets(batch) {
            let order = target.ok_or("not as it should be: a link leads nowhere")?;
            let name = exported.parent(order).map(|batch| batch.name.as_ref());
            ensure(
                !is_error(order) && name == Some("validate_batch"),
                "only good orders are stored",
            )?;
            stored += 1;
        }
    }
    ensure(stored == orders - orders / 7, format!("{stored} of {orders} orders are stored"))?;
    let report = exported.named("report")[0];
    let complete = attribute(&report.attributes, "links.truncated").is_some()
        || report.links.len() == exported.named("store_batch").len();
    ensure(complete, "the report is on all batches")
}

fn is_error(span: &SpanData) -> bool {
    matches!(span.status, Status::Error { .. })
}
