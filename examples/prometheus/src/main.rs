//! A service that serves the metrics of a collector and of a processor to a Prometheus scrape.
//!
//! ```text
//! cargo run --release -p batchlink-prometheus-example
//! curl http://127.0.0.1:9464/metrics
//! ```
//!
//! ```yaml
//! scrape_configs: # of Prometheus
//!   - job_name: batchlink
//!     static_configs: [{ targets: ["127.0.0.1:9464"] }]
//! ```
//!
//! `load.rs` makes the requests that are counted. `metrics.rs`, of the example `http`, leads to
//! Prometheus.

mod load;
#[path = "../../http/src/metrics.rs"]
mod metrics;

use axum::Router;
use axum::routing::get;
use batchlink::LinkCollector;
use batchlink::processor::BatchProcessor;
use batchlink::sampler::LinkedSampler;
use clap::{Parser, value_parser};
use metrics::Metrics;
use opentelemetry::trace::TracerProvider;
use opentelemetry_sdk::trace::{Sampler, SdkTracerProvider};
use std::net::SocketAddr;
use std::time::Duration;
use tokio::net::TcpListener;

/// Makes requests, and serves what batchlink counted of them.
#[derive(Debug, Parser)]
#[command(name = "prometheus")]
struct Args {
    /// Requests to make
    #[arg(long, value_name = "N", default_value_t = 1000)]
    #[arg(value_parser = value_parser!(u64).range(1..=1_000_000))]
    requests: u64,

    /// Address that serves `/metrics` until interrupted; port 0 takes a free one
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:9464")]
    listen: SocketAddr,
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let args = Args::parse();

    let metrics = Metrics::start("batchlink-prometheus-example")?;
    let meter = metrics.meter("batchlink-prometheus-example");

    // Every other request is sampled, and every batch that one of these was in.
    let root = LinkedSampler::any_sampled(Sampler::TraceIdRatioBased(0.5));
    let traces = SdkTracerProvider::builder().with_sampler(Sampler::parent_based(root)).build();
    let tracer = traces.tracer("batchlink-prometheus-example");

    let (collector, flusher) = LinkCollector::builder()
        .with_max_batch_size(64)
        .with_max_links(16) // so that some are truncated
        .with_metrics(&meter, "insert_batch")
        .build()?;
    let (submitter, processor) = BatchProcessor::<u64, (), String>::builder("send_mails")
        .with_metrics(&meter, "send_mails")
        .build(tracer.clone())?;
    let writer = tracer.clone();
    let flusher = flusher.spawn(move |batch| drop(batch.start(&writer, "insert_batch")))?;
    let sender = processor.spawn_each(|number, _cx| match number % 10 {
        0 => Err("no such address".to_owned()),
        _ => Ok(()),
    })?;

    let listener = TcpListener::bind(args.listen).await?;
    println!("http://{}/metrics", listener.local_addr()?);
    let load = load::Load { requests: args.requests, tracer, collector, submitter };
    let stats = tokio::task::spawn_blocking(|| load.run()).await??;
    println!("{stats}");

    let app = Router::new().route("/metrics", get(|| metrics.scrape()));
    let interrupted = async { _ = tokio::signal::ctrl_c().await };
    axum::serve(listener, app).with_graceful_shutdown(interrupted).await?;
    flusher.shutdown_async(Duration::from_secs(5)).await?;
    sender.shutdown_async(Duration::from_secs(5)).await?;
    Ok(())
}
