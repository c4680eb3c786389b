//! An HTTP service (axum) that stores the items of many requests at once: one writer, one
//! transaction per batch in a SQLite database, and every response waits for its own row to be
//! committed.
//!
//! ```text
//! cargo run --release -p batchlink-http-example
//! cargo run --release -p batchlink-http-example -- --requests 2000 --clients 64
//! cargo run --release -p batchlink-http-example -- --serve 127.0.0.1:8080
//! curl -i localhost:8080/items --json '{"name": "apple", "quantity": 3}'
//! ```
//!
//! `server.rs` submits the rows, `store.rs` inserts them, `client.rs` sends requests, `check.rs`
//! checks rows and links.

mod check;
mod client;
#[path = "../../common/mod.rs"]
mod common;
mod server;
mod store;

use batchlink::processor::BatchProcessor;
use clap::{Parser, value_parser};
use client::Answer;
use common::{Result, Show, Telemetry};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;
use tokio::net::TcpListener;

const BATCH_SPAN: &str = "insert_batch";

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

    /// Only serve, at this address, until interrupted
    #[arg(long, value_name = "ADDR")]
    serve: Option<SocketAddr>,

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
    let scratch = std::env::temp_dir().join(format!("batchlink-http-{}.db", std::process::id()));
    let path = args.database.clone().unwrap_or_else(|| scratch.clone());
    let mut db = store::open(&path)?;
    let before = store::count(&db)?;

    let (inserts, processor) = BatchProcessor::builder(BATCH_SPAN)
        .with_max_batch_size(args.batch_size.into())
        .with_max_delay(Duration::from_millis(args.max_delay_ms))
        .build(telemetry.tracer())?;
    let stats = inserts.downgrade();
    let writer = processor.spawn(move |batch| store::insert(&mut db, batch))?;
    let answers = tokio::runtime::Runtime::new()?.block_on(serve(args, server::router(inserts)))?;
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
    if args.serve.is_some() {
        return Ok(()); // the requests are not known
    }
    check::rows(args, &stored, before)?;
    check::links(&exported, args.requests as usize)
}

/// Serves the client of this example, or any client until interrupted.
async fn serve(args: &Args, router: axum::Router) -> Result<Vec<Answer>> {
    let listener =
        TcpListener::bind(args.serve.unwrap_or_else(|| ([127, 0, 0, 1], 0).into())).await?;
    let address = listener.local_addr()?;
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let server =
        axum::serve(listener, router).with_graceful_shutdown(async { drop(stopped.await) });
    let server = tokio::spawn(server.into_future());
    let answers = if args.serve.is_some() {
        // In this order: the message invites an interrupt.
        let hello = async { eprintln!("serving http://{address}/items, until Ctrl-C") };
        tokio::join!(biased; tokio::signal::ctrl_c(), hello).0?;
        Vec::new()
    } else {
        client::send_all(args, address).await?
    };
    drop(stop);
    server.await??;
    Ok(answers)
}
