//! Starts the service, sends it requests, and shows how they were joined in batches.
//!
//! ```text
//! cargo run --release -p batchlink-http-example
//! cargo run --release -p batchlink-http-example -- --requests 2000 --clients 64
//! ```
//!
//! `client.rs` sends requests, `check.rs` checks rows and links.

mod check;
mod client;
#[path = "../../../../common/mod.rs"]
mod common;

use batchlink::processor::BatchProcessor;
use batchlink_http_example::metrics::Metrics;
use batchlink_http_example::{BATCH_SPAN, server, store, telemetry};
use clap::{Parser, value_parser};
use client::Answer;
use common::{Result, Show, Telemetry};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;
use tokio::net::TcpListener;

/// Starts the service, sends it requests, and shows how they were joined in batches.
#[derive(Debug, Parser)]
#[command(name = "http")]
struct Args {
    /// Requests to send; one in ten asks for a name that is taken
    #[arg(long, value_name = "N", default_value_t = 40)]
    #[arg(value_parser = value_parser!(u32).range(1..=100_000))]
    requests: u32,

    /// Requests under way at a time
    #[arg(long, value_name = "N", default_value_t = 8)]
    #[arg(value_parser = value_parser!(u32).range(1..=1000))]
    clients: u32,

    /// Rows that make a batch; a span holds 128 links
    #[arg(long, value_name = "N", default_value_t = 16)]
    #[arg(value_parser = value_parser!(u16).range(1..=128))]
    batch_size: u16,

    /// Longest wait of a row for others, in milliseconds [0: none]
    #[arg(long, value_name = "MS", default_value_t = 0)]
    max_delay_ms: u64,

    /// Database to store the rows in, kept afterwards [default: a new one, deleted at the end]
    #[arg(long, value_name = "FILE")]
    database: Option<PathBuf>,

    #[command(flatten)]
    show: Show,
}

fn main() -> ExitCode {
    common::main(run)
}

fn run(args: &Args) -> Result {
    let telemetry = Telemetry::start("batchlink-http")?;
    telemetry::subscribe(telemetry.tracer())?;
    let scratch = std::env::temp_dir().join(format!("batchlink-http-{}.db", std::process::id()));
    let path = args.database.clone().unwrap_or_else(|| scratch.clone());
    let mut db = store::open(&path)?;
    let before = store::count(&db)?;

    let metrics = Metrics::start("batchlink-http")?;
    let (inserts, processor) = BatchProcessor::builder(BATCH_SPAN)
        .with_max_batch_size(args.batch_size.into())
        .with_max_delay(Duration::from_millis(args.max_delay_ms))
        .with_metrics(&metrics.meter("batchlink-http"), BATCH_SPAN)
        .build(telemetry.tracer())?;
    let stats = inserts.downgrade();
    let writer = processor.spawn(move |batch| store::insert(&mut db, batch))?;
    let router = server::router(inserts, metrics);
    let answers = tokio::runtime::Runtime::new()?.block_on(serve(args, router))?;
    writer.shutdown_with_timeout(Duration::from_secs(10))?;

    // Through a connection of its own, which sees what was committed.
    let stored = check::stored(&store::open(&path)?, &answers)?;
    if args.database.is_none() {
        for suffix in ["", "-wal", "-shm"] {
            let _ = std::fs::remove_file(format!("{}{suffix}", scratch.display()));
        }
    }
    let stats = stats.stats();
    let exported = telemetry.finish()?;
    let counters = [
        ("requests", stats.queue().pushed()),
        ("rows committed", stored.rows - before),
        ("rows refused", stats.failed()),
        ("batches", stats.queue().batches()),
    ];
    exported.print(&args.show, &counters)?;
    check::rows(args, &stored, before)?;
    check::links(&exported, args.requests as usize)
}

/// Serves the client of this example.
async fn serve(args: &Args, router: axum::Router) -> Result<Vec<Answer>> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let server = tokio::spawn(server::serve(listener, router, async { drop(stopped.await) }));
    let answers = client::send_all(args, address).await?;
    drop(stop);
    server.await??;
    Ok(answers)
}
