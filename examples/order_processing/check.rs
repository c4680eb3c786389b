//! The links say how requests, attempts, warehouses and compensations belong together.

use crate::Args;
use crate::common::{Exported, Result, ensure, link_type};
use opentelemetry::trace::Status;
use opentelemetry_sdk::trace::SpanData;

pub(crate) fn check(args: &Args, exported: &Exported) -> Result {
    let batches = exported.named("process_orders");
    let linked: Vec<_> = batches.iter().flat_map(|batch| arrows(exported, batch)).collect();
    ensure(linked.len() == args.orders as usize, "every request is linked")?;
    ensure(linked.iter().all(|arrow| arrow == "batch_item POST /orders"), "to its batch")?;

    for batch in batches {
        let child = |name| exported.children(batch).filter(move |child| child.name == name);
        for (earlier, attempt) in child("charge_cards").enumerate() {
            let expected = vec!["retry charge_cards"; earlier];
            ensure(
                arrows(exported, attempt) == expected,
                "an attempt is linked to those before it",
            )?;
        }
        for merge in child("merge_stock") {
            let mut expected = vec!["caused_by process_orders"];
            expected.extend(vec!["aggregation reserve_stock"; args.warehouses as usize]);
            ensure(
                arrows(exported, merge) == expected,
                "the results of all warehouses are put together",
            )?;
        }
        for order in child("fulfil_order") {
            ensure(
                arrows(exported, order) == ["caused_by POST /orders"],
                "an order is linked to its request",
            )?;
            let undone: Vec<_> =
                exported.children(order).skip(1).flat_map(|step| arrows(exported, step)).collect();
            let expected: &[&str] = match order.status {
                Status::Ok => &[],
                _ => &["compensation reserve_stock", "compensation charge_cards"],
            };
            ensure(undone == expected, "a cancelled order is undone, newest step first")?;
        }
    }
    let workers = exported.named("reserve_stock");
    let spawned =
        workers.iter().all(|worker| arrows(exported, worker) == ["spawned_from process_orders"]);
    ensure(spawned, "a warehouse is linked to the batch")
}

/// The links of a span, each as its type and its target's name.
fn arrows(exported: &Exported, span: &SpanData) -> Vec<String> {
    let arrow = |(link, target): (_, Option<&SpanData>)| {
        format!(
            "{} {}",
            link_type(link).map_or("".into(), |it| it.as_str()),
            target.map_or("", |it| &it.name)
        )
    };
    span.links.iter().zip(exported.targets(span)).map(arrow).collect()
}
