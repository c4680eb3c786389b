//! A service collects the orders of many requests into batches, by size or timeout, says of each
//! order what became of it, and hands the good ones on to the next stage: a workflow of batches
//! that links hold together, from the requests to the report on all of it.
//!
//! ```text
//! cargo run --release --example batch_service --features processor
//! cargo run --release --example batch_service --features processor -- \
//!     --orders 500 --clients 8 --batch-size 32
//! ```

mod check;
#[path = "../common/mod.rs"]
mod common;

use batchlink::{
    LinkSet, Trigger, links,
    processor::{BatchProcessor, Submitter},
};
use clap::{Parser, value_parser};
use common::{Show, Telemetry};
use opentelemetry::KeyValue;
use opentelemetry::trace::{
    SpanKind, Status, TraceContextExt, Tracer, get_active_span, mark_span_as_active,
};
use opentelemetry_sdk::trace::SdkTracer;
use std::process::ExitCode;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

/// Requests → validated order by order → stored batch by batch → reported.
#[derive(Debug, Parser)]
#[command(name = "batch_service")]
struct Args {
    /// Orders, each in a request with a trace of its own; one in seven is no good
    #[arg(long, value_name = "N", default_value_t = 20)]
    #[arg(value_parser = value_parser!(u32).range(1..=100_000))]
    orders: u32,

    /// Threads that have requests
    #[arg(long, value_name = "N", default_value_t = 3)]
    #[arg(value_parser = value_parser!(u32).range(1..=1000))]
    clients: u32,

    /// Orders that make a batch; a span holds 128 links
    #[arg(long, value_name = "N", default_value_t = 8)]
    #[arg(value_parser = value_parser!(u16).range(1..=128))]
    batch_size: u16,

    /// Longest wait of an order for its batch, in milliseconds
    #[arg(long, value_name = "MS", default_value_t = 50)]
    max_delay_ms: u64,

    #[command(flatten)]
    show: Show,
}

struct Order {
    id: u32,
    amount: u32,
}

fn main() -> ExitCode {
    common::main(run)
}

fn run(args: &Args) -> common::Result {
    let telemetry = Telemetry::start("batchlink-batch-service")?;
    let tracer = telemetry.tracer();

    // The last stage: all orders of a batch at once.
    let (store, storing) = stage::<()>("store_batch", args, &tracer)?;
    let (to_report, stored) = mpsc::channel();
    let stored_stats = store.clone();
    let storing = storing.spawn(move |batch| {
        let ids: Vec<i64> = batch.payloads().map(|order| order.id.into()).collect();
        let span = batch.context().span();
        span.add_event("transaction.committed", vec![KeyValue::new("rows", ids.len() as i64)]);
        let _ = to_report.send(span.span_context().clone()); // fails only if main has given up
        batch.succeed_all(|_| ());
    })?;

    // The first stage: each order for itself. In here the current span is the order's own, so that
    // is what the next stage links.
    let (validate, validating) = stage::<()>("validate_batch", args, &tracer)?;
    let validating = validating.spawn_each(move |order: Order, cx| {
        cx.span().set_attribute(KeyValue::new("order.id", i64::from(order.id)));
        if order.amount == 0 {
            return Err("the amount is zero".to_owned());
        }
        store.submit_wait(order).map_err(|refused| refused.to_string())
    })?;

    let first = |client| (client..args.orders).step_by(args.clients as usize);
    thread::scope(|scope| {
        for client in 0..args.clients {
            let (tracer, validate) = (&tracer, &validate);
            scope.spawn(move || first(client).for_each(|id| request(tracer, validate, id)));
        }
    });

    // It is quiet now: what is left leaves by timeout, if that is not too long to watch.
    let started = Instant::now();
    let patience = Duration::from_secs(if args.max_delay_ms > 1000 { 0 } else { 30 });
    while validate.stats().queue().pending() > 0 && started.elapsed() < patience {
        thread::sleep(Duration::from_millis(1));
    }
    // From the first stage to the last, so that each delivers before the next one closes.
    validating.shutdown_with_timeout(Duration::from_secs(10))?;
    storing.shutdown_with_timeout(Duration::from_secs(10))?;
    let mut report = LinkSet::builder().build()?;
    for batch in stored {
        report.insert_link(links::aggregate(&batch, "store_batch"));
    }
    drop(report.finish().start(&tracer, "report"));

    let (validated, stored) = (validate.stats(), stored_stats.stats());
    let exported = telemetry.finish()?;
    let counters = [
        ("orders received", validated.queue().pushed()),
        ("orders validated", validated.succeeded()),
        ("orders rejected", validated.failed()),
        ("orders stored", stored.succeeded()),
        ("validate batches by size", validated.queue().flushes(Trigger::Size)),
        ("validate batches by timeout", validated.queue().flushes(Trigger::Timeout)),
        ("store batches", stored.queue().batches()),
    ];
    exported.print(&args.show, &counters)?;
    check::check(&exported, args.orders as usize)
}

type Stage<R> = (Submitter<Order, R, String>, BatchProcessor<Order, R, String>);

fn stage<R: Send + 'static>(
    name: &'static str,
    args: &Args,
    tracer: &SdkTracer,
) -> common::Result<Stage<R>> {
    Ok(BatchProcessor::builder(name)
        .with_item_span_name("validate_order")
        .with_max_batch_size(args.batch_size.into())
        .with_max_delay(Duration::from_millis(args.max_delay_ms))
        .build(tracer.clone())?)
}

/// Answers at once: the order is processed later.
fn request(tracer: &SdkTracer, validate: &Submitter<Order, (), String>, id: u32) {
    let span = tracer.span_builder("POST /orders").with_kind(SpanKind::Server);
    let span = span.with_attributes([KeyValue::new("order.id", i64::from(id))]).start(tracer);
    let _current = mark_span_as_active(span);
    let amount = if id % 7 == 6 { 0 } else { id + 1 };
    if let Err(refused) = validate.submit_wait(Order { id, amount }) {
        let answer = Status::error(refused.to_string());
        get_active_span(|span| span.set_status(answer));
    }
}
