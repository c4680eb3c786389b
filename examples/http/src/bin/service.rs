//! The service, to be copied: spans by OTLP, metrics, an orderly end.
//!
//! ```text
//! cargo run --release -p batchlink-http-example --bin service
//! curl -i localhost:8080/items --json '{"name": "apple", "quantity": 3}'
//! curl localhost:8080/metrics
//! ```
//!
//! SIGTERM or Ctrl-C ends it: requests under way are answered, all rows committed, all spans sent.
//! It prints its metrics at the end.

use batchlink::processor::BatchProcessor;
use batchlink_http_example::{BATCH_SPAN, Result, server, store, telemetry};
use clap::Parser;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

const SERVICE: &str = "batchlink-http";

/// Stores items in batches.
#[derive(Debug, Parser)]
struct Args {
    /// Address to serve at
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:8080")]
    listen: SocketAddr,

    /// Database to store the rows in
    #[arg(long, value_name = "FILE", default_value = "items.db")]
    database: PathBuf,

    /// Rows that make a batch; a span holds 128 links
    #[arg(long, value_name = "N", default_value_t = 128)]
    batch_size: usize,

    /// Longest wait of a row for others, in milliseconds [0: none]
    #[arg(long, value_name = "MS", default_value_t = 0)]
    max_delay_ms: u64,

    /// Does not link the requests, to measure what links cost
    #[arg(long)]
    no_links: bool,
}

fn main() -> ExitCode {
    match run(&Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("service: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &Args) -> Result {
    let (provider, metrics) = telemetry::start(SERVICE)?;
    let mut db = store::open(&args.database)?;
    let tracer = opentelemetry::trace::TracerProvider::tracer(&provider, SERVICE);
    let (rows, processor) = BatchProcessor::builder(BATCH_SPAN)
        .with_max_batch_size(args.batch_size)
        .with_max_delay(Duration::from_millis(args.max_delay_ms))
        .with_metrics(&metrics.meter(SERVICE), BATCH_SPAN)
        .build(tracer)?;
    let writer = processor.spawn(move |batch| store::insert(&mut db, batch))?;

    let router = match args.no_links {
        false => server::router(rows, metrics.clone()),
        true => server::router_without_links(rows, metrics.clone()),
    };
    tokio::runtime::Runtime::new()?.block_on(async {
        let listener = TcpListener::bind(args.listen).await?;
        let address = listener.local_addr()?;
        let (mut term, mut int) =
            (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
        tracing::info!("serving http://{address}/items");
        let end = async move {
            tokio::select! {
                _ = term.recv() => (),
                _ = int.recv() => (),
            }
        };
        server::serve(listener, router, end).await
    })?;
    // In this order: no request comes any more; their rows are committed; all spans are sent.
    writer.shutdown_with_timeout(Duration::from_secs(10))?;
    let sent = provider.shutdown_with_timeout(Duration::from_secs(10));
    print!("{}", metrics.text()?);
    Ok(sent?)
}
