//! Every pattern in one service: orders come in as requests and are processed in batches; a batch
//! is paid for in one call that is tried again, its stock is reserved by all warehouses at once,
//! and an order that cannot be shipped is undone step by step.
//!
//! ```text
//! cargo run --release --example order_processing --features processor
//! cargo run --release --example order_processing --features processor -- --payment-failures 3
//! ```
//!
//! `steps.rs` processes a batch, `check.rs` looks at what was exported.

mod check;
#[path = "../common/mod.rs"]
mod common;
mod steps;

use batchlink::processor::{BatchProcessor, Submitter};
use clap::{Parser, value_parser};
use common::{Show, Telemetry, ensure};
use opentelemetry::KeyValue;
use opentelemetry::trace::{SpanKind, Status, TraceContextExt, Tracer};
use opentelemetry_sdk::trace::SdkTracer;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::thread;
use std::time::Duration;

/// Batches of orders, with retries, fan-out, fan-in and compensation.
#[derive(Clone, Debug, Parser)]
#[command(name = "order_processing")]
struct Args {
    /// Orders, each in a request with a trace of its own
    #[arg(long, value_name = "N", default_value_t = 6)]
    #[arg(value_parser = value_parser!(u32).range(1..=200))]
    orders: u32,

    /// Orders that make a batch; a span holds 128 links
    #[arg(long, value_name = "N", default_value_t = 3)]
    #[arg(value_parser = value_parser!(u16).range(1..=128))]
    batch_size: u16,

    /// Longest wait of an order for its batch, in milliseconds
    #[arg(long, value_name = "MS", default_value_t = 50)]
    max_delay_ms: u64,

    /// Times that the payment of a batch fails before it succeeds; there are 3 attempts
    #[arg(long, value_name = "N", default_value_t = 1)]
    payment_failures: u32,

    /// Warehouses that reserve stock
    #[arg(long, value_name = "N", default_value_t = 2)]
    #[arg(value_parser = value_parser!(u32).range(1..=16))]
    warehouses: u32,

    /// One order in so many goes to where no courier does; 0: none
    #[arg(long, value_name = "N", default_value_t = 3)]
    undeliverable_every: u32,

    #[command(flatten)]
    show: Show,
}

struct Order {
    id: u32,
    amount: i64,
    deliverable: bool,
}

/// What the steps change, and compensations change back.
#[derive(Default)]
struct Books {
    paid: AtomicI64,
    reserved: AtomicI64,
}

fn main() -> ExitCode {
    common::main(run)
}

fn run(args: &Args) -> common::Result {
    let telemetry = Telemetry::start("batchlink-order-processing")?;
    let tracer = telemetry.tracer();
    let books = Arc::new(Books::default());

    let (orders, processor) = BatchProcessor::builder("process_orders")
        .with_max_batch_size(args.batch_size.into())
        .with_max_delay(Duration::from_millis(args.max_delay_ms))
        .build(tracer.clone())?;
    let (steps_args, steps_tracer, steps_books) =
        (args.clone(), tracer.clone(), Arc::clone(&books));
    let handle = processor
        .spawn(move |batch| steps::process(&steps_args, &steps_tracer, &steps_books, batch))?;

    // Each request waits for its own order.
    let shipped: Vec<i64> = thread::scope(|scope| {
        let request = |id| {
            let (orders, tracer) = (&orders, &tracer);
            scope.spawn(move || request(args, tracer, orders, id))
        };
        let requests: Vec<_> = (0..args.orders).map(request).collect();
        requests.into_iter().filter_map(|request| request.join().ok().flatten()).collect()
    });
    handle.shutdown_with_timeout(Duration::from_secs(10))?;

    let stats = orders.stats();
    let exported = telemetry.finish()?;
    let counters = [
        ("orders placed", stats.queue().pushed()),
        ("orders shipped", stats.succeeded()),
        ("orders cancelled", stats.failed()),
        ("batches", stats.queue().batches()),
    ];
    exported.print(&args.show, &counters)?;

    let (paid, reserved) =
        (books.paid.load(Ordering::Relaxed), books.reserved.load(Ordering::Relaxed));
    ensure(paid == shipped.iter().sum::<i64>(), format!("{paid} was paid, for orders shipped"))?;
    ensure(
        reserved == shipped.len() as i64,
        format!("{reserved} items are reserved, for orders shipped"),
    )?;
    check::check(args, &exported)
}

/// Returns what was paid, if the order was shipped.
fn request(
    args: &Args,
    tracer: &SdkTracer,
    orders: &Submitter<Order, (), String>,
    id: u32,
) -> Option<i64> {
    let amount = 10 + i64::from(id);
    let deliverable = args.undeliverable_every == 0 || (id + 1) % args.undeliverable_every != 0;
    let span = tracer.span_builder("POST /orders").with_kind(SpanKind::Server);
    let span = span.with_attributes([KeyValue::new("order.id", i64::from(id))]).start(tracer);
    let cx = opentelemetry::Context::current_with_span(span);
    let _current = cx.clone().attach();
    match orders.call_blocking(Order { id, amount, deliverable }) {
        Ok(()) => {
            cx.span().set_status(Status::Ok);
            Some(amount)
        }
        Err(error) => {
            cx.span().set_status(Status::error(error.to_string()));
            None
        }
    }
}
