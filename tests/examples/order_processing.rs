//! Retries, fan-out, fan-in and compensation of one service, read from its links.

use super::exported::{Exported, int, json, links, run, text};
use serde_json::{Value, json};
use std::collections::BTreeSet;

struct Run {
    orders: u64,
    batch_size: u64,
    payment_failures: u64,
    warehouses: u64,
    undeliverable_every: u64,
}

fn children<'a>(exported: &'a Exported, parent: &Value, name: &str) -> Vec<&'a Value> {
    let is_child = |span: &&Value| {
        span["trace_id"] == parent["trace_id"] && span["parent_span_id"] == parent["span_id"]
    };
    exported.spans().iter().filter(is_child).filter(|span| span["name"] == name).collect()
}

/// The only link, of this type, to a span of this name.
fn only_link<'a>(
    exported: &'a Exported,
    span: &'a Value,
    link_type: &str,
    target: &str,
) -> &'a Value {
    let [link] = links(span) else { panic!("not one link on {span}") };
    assert_eq!((&link["type"], &link["target"]), (&link_type.into(), &target.into()));
    exported.target(link)
}

/// Each attempt links to all before it, and only the last one may have succeeded.
fn assert_payment(exported: &Exported, batch: &Value, failures: u64) -> bool {
    let attempts = children(exported, batch, "charge_cards");
    assert_eq!(attempts.len() as u64, (failures + 1).min(3));
    for (earlier, attempt) in attempts.iter().enumerate() {
        let number = earlier as u64 + 1;
        assert_eq!(attempt["kind"], "client");
        assert_eq!(int(attempt, "retry.attempt_number"), number);
        let failed = number <= failures;
        assert_eq!(attempt["status"], if failed { "error" } else { "unset" });
        assert_eq!(attempt["attributes"].get("retry.exhausted").is_some(), failed && number == 3);
        assert_eq!(links(attempt).len(), earlier);
        for (previous, link) in links(attempt).iter().enumerate() {
            assert_eq!(link["type"], "retry");
            assert_eq!(exported.target(link), attempts[previous]);
            assert_eq!(int(link, "previous.attempt_number"), previous as u64 + 1);
            assert_eq!(link["attributes"]["previous.error"], "gateway timeout");
        }
    }
    failures < 3
}

/// Warehouses work in traces of their own, linked to the batch; the results are put together in one
/// span.
fn assert_stock(exported: &Exported, batch: &Value, warehouses: u64) {
    let [merge] = children(exported, batch, "merge_stock")[..] else {
        panic!("stock is merged once per batch")
    };
    assert_eq!(int(merge, "workers.started"), warehouses);
    assert_eq!(int(merge, "workers.succeeded"), warehouses);
    let [request, workers @ ..] = links(merge) else { panic!("{merge} has no links") };
    assert_eq!(request["type"], "caused_by");
    assert_eq!(exported.target(request), batch);
    let mut indexes = BTreeSet::new();
    let mut reserved = 0;
    for link in workers {
        assert_eq!(link["type"], "aggregation");
        let worker = exported.target(link);
        assert_eq!(worker["parent_span_id"], Value::Null, "a warehouse has a trace of its own");
        assert_eq!(only_link(exported, worker, "spawned_from", "process_orders"), batch);
        assert_eq!(int(worker, "worker.index"), int(link, "worker.index"));
        indexes.insert(int(worker, "worker.index"));
        reserved += int(worker, "stock.reserved");
    }
    assert_eq!(indexes, (0..warehouses).collect());
    assert_eq!(reserved, int(batch, "batch.size"));
}

/// Returns the order's number and whether it was shipped.
fn assert_fulfilled(exported: &Exported, batch: &Value, order: &Value, run: &Run) -> (u64, bool) {
    let id = int(order, "order.id");
    let request = only_link(exported, order, "caused_by", "POST /orders");
    assert_eq!(int(request, "order.id"), id);
    let [ship] = children(exported, order, "ship")[..] else { panic!("an order is shipped once") };
    let shipped = run.undeliverable_every == 0 || (id + 1) % run.undeliverable_every != 0;
    let status = if shipped { "ok" } else { "error" };
    for span in [order, ship, request] {
        assert_eq!(span["status"], status, "{span}");
    }
    let compensations: Vec<_> = exported
        .spans()
        .iter()
        .filter(|span| span["parent_span_id"] == order["span_id"] && *span != ship)
        .collect();
    if shipped {
        assert!(compensations.is_empty(), "nothing is undone");
        return (id, true);
    }
    // Newest step first, each linked to what it undoes, and saying why.
    let names: Vec<_> = compensations.iter().map(|span| &span["name"]).collect();
    assert_eq!(names, ["compensate reserve_stock", "compensate charge_card"]);
    for (undo, step) in compensations.iter().zip(["reserve_stock", "charge_card"]) {
        assert_eq!(undo["status"], "unset");
        assert_eq!(undo["attributes"]["compensation.reason"], "no courier goes there");
        assert_eq!(undo["attributes"]["saga.step"], step);
    }
    let warehouse = only_link(exported, compensations[0], "compensation", "reserve_stock");
    assert_eq!(int(warehouse, "worker.index"), id % run.warehouses);
    assert_eq!(exported.target(&links(warehouse)[0]), batch, "of the same batch");
    let payment = only_link(exported, compensations[1], "compensation", "charge_cards");
    assert_eq!((exported.parent(payment), &payment["status"]), (Some(batch), &"unset".into()));
    (id, false)
}

fn assert_processed(run: &Run) -> Exported {
    let exported = json(
        "order_processing",
        &format!(
            "--orders {} --batch-size {} --payment-failures {} --warehouses {} \
             --undeliverable-every {}",
            run.orders,
            run.batch_size,
            run.payment_failures,
            run.warehouses,
            run.undeliverable_every
        ),
    );
    let mut requests = BTreeSet::new();
    let mut fulfilled = BTreeSet::new();
    let mut shipped = 0;
    for batch in exported.named("process_orders") {
        assert_eq!(batch["parent_span_id"], Value::Null);
        assert!(int(batch, "batch.size") <= run.batch_size);
        for link in links(batch) {
            assert_eq!(
                (&link["type"], &link["target"]),
                (&"batch_item".into(), &"POST /orders".into())
            );
            assert!(
                requests.insert(int(exported.target(link), "order.id")),
                "a request is linked once"
            );
        }
        let mut failed = int(batch, "batch.size");
        if assert_payment(&exported, batch, run.payment_failures) {
            assert_stock(&exported, batch, run.warehouses);
            for order in children(&exported, batch, "fulfil_order") {
                let (id, good) = assert_fulfilled(&exported, batch, order, run);
                assert!(fulfilled.insert(id));
                failed -= u64::from(good);
                shipped += u64::from(good);
            }
        } else {
            assert!(
                children(&exported, batch, "merge_stock").is_empty(),
                "what is not paid is not reserved"
            );
            assert!(children(&exported, batch, "fulfil_order").is_empty());
        }
        assert_eq!(int(batch, "batch.failed"), failed);
        assert_eq!(batch["status"], if failed > 0 { "error" } else { "unset" });
    }
    assert_eq!(requests, (0..run.orders).collect());
    if run.payment_failures < 3 {
        assert_eq!(fulfilled, requests, "every order was dealt with");
    }
    let counted =
        ["orders placed", "orders shipped", "orders cancelled"].map(|name| exported.counter(name));
    assert_eq!(counted, [run.orders, shipped, run.orders - shipped]);
    exported
}

#[test]
fn all_patterns_at_once() {
    let exported = assert_processed(&Run {
        orders: 6,
        batch_size: 3,
        payment_failures: 1,
        warehouses: 2,
        undeliverable_every: 3,
    });
    assert_eq!(exported.counter("orders cancelled"), 2);
    let many = Run {
        orders: 50,
        batch_size: 16,
        payment_failures: 2,
        warehouses: 5,
        undeliverable_every: 7,
    };
    assert_eq!(assert_processed(&many).counter("orders cancelled"), 7);
}

#[test]
fn nothing_to_undo() {
    let fine = Run {
        orders: 4,
        batch_size: 4,
        payment_failures: 0,
        warehouses: 1,
        undeliverable_every: 0,
    };
    let exported = assert_processed(&fine);
    assert!(exported.spans().iter().all(|span| span["status"] != "error"));
}

#[test]
fn failed_payment_fails_its_batch() {
    let broke = Run {
        orders: 3,
        batch_size: 3,
        payment_failures: 3,
        warehouses: 2,
        undeliverable_every: 3,
    };
    let exported = assert_processed(&broke);
    for request in exported.named("POST /orders") {
        let said = &request["status_description"];
        assert_eq!(said, &json!("the item failed: payment failed: gateway timeout"));
    }
}

#[test]
fn bad_counts_are_refused() {
    for flags in
        ["--orders 0", "--orders 201", "--batch-size 0", "--warehouses 0", "--warehouses 17"]
    {
        let output = run("order_processing", flags);
        assert_eq!(output.status.code(), Some(2), "{flags}: {}", text(&output.stderr));
    }
}
