//! Batches by size and by timeout, outcomes of single orders, and the workflow that links hold
//! together.

use super::exported::{Exported, events, int, json, links, run, text};
use serde_json::Value;
use std::collections::BTreeSet;

fn spans_of<'a>(exported: &'a Exported, batch: &Value) -> Vec<&'a Value> {
    let is_child = |span: &&Value| {
        span["trace_id"] == batch["trace_id"] && span["parent_span_id"] == batch["span_id"]
    };
    exported.spans().iter().filter(is_child).collect()
}

/// Checks the outcome of every order, and returns the triggers of the first stage's batches.
fn assert_workflow(exported: &Exported, orders: u64, batch_size: u64) -> Vec<String> {
    let rejected = (0..orders).filter(|id| id % 7 == 6).count() as u64;
    let mut requests = BTreeSet::new();
    let mut triggers = Vec::new();
    for batch in exported.named("validate_batch") {
        assert_eq!(exported.parent(batch), None);
        assert_eq!(int(batch, "batch.links"), links(batch).len() as u64);
        assert_eq!(int(batch, "batch.size"), links(batch).len() as u64);
        assert!(int(batch, "batch.size") <= batch_size);
        for link in links(batch) {
            let request = exported.target(link);
            assert_eq!(
                (&request["name"], &request["kind"]),
                (&"POST /orders".into(), &"server".into())
            );
            assert_eq!(link["type"], "batch_item");
            assert!(requests.insert(int(request, "order.id")), "a request is linked once");
        }
        let children = spans_of(exported, batch);
        assert_eq!(children.len(), links(batch).len(), "each order has a span");
        let mut failed = 0;
        for (index, order) in children.into_iter().enumerate() {
            assert_eq!(order["name"], "validate_order");
            assert_eq!(int(order, "item.index"), index as u64);
            // Of one batch, the order's own span links to the same request as the batch does.
            let request = exported.target(&links(order)[0]);
            assert_eq!(int(order, "order.id"), int(request, "order.id"));
            assert_eq!(links(order)[0]["span_id"], links(batch)[index]["span_id"]);
            if int(order, "order.id") % 7 == 6 {
                failed += 1;
                assert_eq!(order["status"], "error");
                assert_eq!(order["status_description"], "the amount is zero");
                assert_eq!(
                    events(order, "item.failed")[0]["attributes"]["error"],
                    "the amount is zero"
                );
            } else {
                assert_eq!(order["status"], "unset");
                assert_eq!(events(order, "item.succeeded").len(), 1);
            }
        }
        assert_eq!(int(batch, "batch.failed"), failed);
        assert_eq!(int(batch, "batch.succeeded"), int(batch, "batch.size") - failed);
        let rate = batch["attributes"]["batch.success_rate"].as_f64().expect("a rate");
        assert!((rate - 1.0 + failed as f64 / int(batch, "batch.size") as f64).abs() < 1e-9);
        let description = match failed {
            0 => Value::Null,
            1 => "1 item failed: the amount is zero".into(),
            more => format!("{more} items failed, first: the amount is zero").into(),
        };
        assert_eq!(batch["status_description"], description);
        assert_eq!(batch["status"], if failed > 0 { "error" } else { "unset" });
        triggers.push(batch["attributes"]["batch.trigger"].as_str().expect("a trigger").to_owned());
    }
    assert_eq!(requests, (0..orders).collect());

    let mut stored = BTreeSet::new();
    let store_batches = exported.named("store_batch");
    for batch in &store_batches {
        assert_eq!(batch["status"], "unset");
        assert_eq!(events(batch, "transaction.committed").len(), 1);
        for link in links(batch) {
            let order = exported.target(link);
            assert_eq!(order["name"], "validate_order");
            assert!(stored.insert(int(order, "order.id")), "an order is stored once");
        }
    }
    assert_eq!(stored, (0..orders).filter(|id| id % 7 != 6).collect());

    let report = exported.the("report");
    let reported: Vec<_> = links(report).iter().map(|link| exported.target(link)).collect();
    assert_eq!(reported, store_batches);
    assert!(links(report).iter().all(|link| link["type"] == "aggregation"));

    assert_eq!(exported.counter("orders received"), orders);
    assert_eq!(exported.counter("orders rejected"), rejected);
    assert_eq!(exported.counter("orders validated"), orders - rejected);
    assert_eq!(exported.counter("orders stored"), orders - rejected);
    triggers
}

#[test]
fn order_leads_to_report() {
    assert_workflow(&json("batch_service", ""), 20, 8);
    assert_workflow(&json("batch_service", "--orders 500 --clients 8 --batch-size 32"), 500, 32);
    assert_workflow(&json("batch_service", "--orders 1 --clients 5"), 1, 8);
}

#[test]
fn by_size_alone() {
    let exported = json("batch_service", "--orders 24 --batch-size 8 --max-delay-ms 3600000");
    assert_eq!(assert_workflow(&exported, 24, 8), ["size_limit"; 3]);
    assert_eq!(exported.counter("validate batches by size"), 3);
}

#[test]
fn by_timeout_alone() {
    let exported = json("batch_service", "--orders 5 --batch-size 100 --max-delay-ms 20");
    let triggers = assert_workflow(&exported, 5, 100);
    assert!(triggers.iter().all(|trigger| trigger == "timeout"), "{triggers:?}");
    assert_eq!(exported.counter("validate batches by timeout"), triggers.len() as u64);
}

#[test]
fn bad_sizes_are_refused() {
    for flags in
        ["--orders 0", "--clients 0", "--batch-size 129", "--batch-size 0", "--max-delay-ms -1"]
    {
        let output = run("batch_service", flags);
        assert_eq!(output.status.code(), Some(2), "{flags}: {}", text(&output.stderr));
    }
}
