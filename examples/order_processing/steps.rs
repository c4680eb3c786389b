//! Payment, stock and shipping of one batch.

use crate::{Args, Books, Order};
use batchlink::{
    links,
    patterns::{Attempts, FanOut, Saga},
    processor::{Batch, BatchItem},
};
use opentelemetry::trace::{Span, SpanContext, SpanKind, Status, TraceContextExt, Tracer};
use opentelemetry::{Context, KeyValue};
use opentelemetry_sdk::trace::SdkTracer;
use std::sync::atomic::Ordering;
use std::thread;

const MAX_ATTEMPTS: u32 = 3;

/// Undoes one step of one order.
type Undo<'a> = Box<dyn FnOnce() + 'a>;

pub(crate) fn process(
    args: &Args,
    tracer: &SdkTracer,
    books: &Books,
    batch: Batch<Order, (), String>,
) {
    let payment = match charge(args, tracer, books, &batch) {
        Ok(payment) => payment,
        Err(error) => return batch.fail_all(|_| format!("payment failed: {error}")),
    };
    let stock = reserve(args, tracer, books, &batch);
    for item in batch {
        let warehouse = &stock[item.payload().id as usize % stock.len()];
        fulfil(tracer, books, item, &payment, warehouse);
    }
}

/// One call for all cards of the batch, tried again if it fails. Returns the attempt that
/// succeeded.
fn charge(
    args: &Args,
    tracer: &SdkTracer,
    books: &Books,
    batch: &Batch<Order, (), String>,
) -> Result<SpanContext, &'static str> {
    let attempts =
        Attempts::new("charge_cards").with_kind(SpanKind::Client).with_max_attempts(MAX_ATTEMPTS);
    loop {
        let attempt = attempts.start(tracer);
        let number = attempts.outcome().attempts;
        let span = attempt.span_context();
        let result = attempt.run(|_cx| match number {
            _ if number <= args.payment_failures => Err("gateway timeout"),
            _ => {
                let total = batch.payloads().map(|order| order.amount).sum();
                books.paid.fetch_add(total, Ordering::Relaxed);
                Ok(span)
            }
        });
        if result.is_ok() || number == MAX_ATTEMPTS {
            return result; // otherwise a real service would wait a little
        }
    }
}

/// Each warehouse reserves its orders' items, in a thread and a trace of its own. Returns their
/// spans.
fn reserve(
    args: &Args,
    tracer: &SdkTracer,
    books: &Books,
    batch: &Batch<Order, (), String>,
) -> Vec<SpanContext> {
    let fan = FanOut::new(batch.context().span().span_context());
    let spans = thread::scope(|scope| {
        let reserve = |warehouse| {
            let worker = fan.start(tracer, "reserve_stock");
            let span = worker.span_context();
            let mine =
                batch.payloads().filter(|order| order.id % args.warehouses == warehouse).count()
                    as i64;
            scope.spawn(move || {
                worker.run(|cx| {
                    books.reserved.fetch_add(mine, Ordering::Relaxed);
                    cx.span().set_attribute(KeyValue::new("stock.reserved", mine));
                    Ok::<_, String>(())
                })
            });
            span
        };
        (0..args.warehouses).map(reserve).collect()
    });
    let (merge, counts) = fan.aggregate(tracer, "merge_stock");
    // The span says whether a warehouse failed; here none does.
    let _ = merge.run(|_cx| counts.result());
    spans
}

/// Ships one order, or undoes what was done for it, newest step first.
fn fulfil(
    tracer: &SdkTracer,
    books: &Books,
    item: BatchItem<Order, (), String>,
    payment: &SpanContext,
    warehouse: &SpanContext,
) {
    let Order { id, amount, deliverable } = *item.payload();
    let span = tracer
        .span_builder("fulfil_order")
        .with_attributes([KeyValue::new("order.id", i64::from(id))])
        .with_links(vec![links::causal(item.span_context(), "order placed")])
        .start(tracer);
    let cx = Context::current_with_span(span);
    let _current = cx.clone().attach();

    let mut saga: Saga<Undo<'_>> = Saga::new("order");
    let refund = move || {
        books.paid.fetch_sub(amount, Ordering::Relaxed);
    };
    saga.completed("charge_card", payment, Box::new(refund));
    let restock = || {
        books.reserved.fetch_sub(1, Ordering::Relaxed);
    };
    saga.completed("reserve_stock", warehouse, Box::new(restock));

    match ship(tracer, deliverable) {
        Ok(()) => {
            cx.span().set_status(Status::Ok);
            cx.span().end();
            item.succeed(());
        }
        Err(error) => {
            let undone = saga.compensate(tracer, error, |undo, _cx| {
                undo();
                Ok::<_, String>(())
            });
            cx.span().set_attribute(KeyValue::new("saga.compensated", undone.compensated as i64));
            cx.span().set_status(Status::error(error));
            cx.span().end();
            item.fail(error.to_owned());
        }
    }
}

fn ship(tracer: &SdkTracer, deliverable: bool) -> Result<(), &'static str> {
    let mut span = tracer.start("ship");
    if deliverable {
        span.set_status(Status::Ok);
        return Ok(());
    }
    let error = "no courier goes there";
    span.set_status(Status::error(error));
    Err(error)
}
