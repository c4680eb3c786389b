//! A request is spread over workers, each in a trace of its own, and their results are put together
//! in a span that is linked to the request and to every worker, with those marked that failed.
//!
//! ```text
//! cargo run --release --example fan_in
//! cargo run --release --example fan_in -- --workers 200 --max-links 20 --on tasks --format json
//! ```

#[path = "../common/mod.rs"]
mod common;

use batchlink::{
    LinkSet,
    patterns::{FanCounts, FanOut, SpanGuard},
};
use clap::{Parser, ValueEnum, value_parser};
use common::{Exported, Show, Telemetry, attribute, ensure};
use opentelemetry::trace::{Status, TraceContextExt, Tracer};
use opentelemetry_sdk::trace::SdkTracer;
use std::process::ExitCode;
use std::thread;

/// A document is searched by workers; their hits are merged.
#[derive(Debug, Parser)]
#[command(name = "fan_in")]
struct Args {
    /// Workers
    #[arg(long, value_name = "N", default_value_t = 6)]
    #[arg(value_parser = value_parser!(u32).range(1..=10_000))]
    workers: u32,

    /// One worker in so many fails; 0: none
    #[arg(long, value_name = "N", default_value_t = 4)]
    fail_every: u32,

    /// Links of the aggregation span; more are counted and left out
    #[arg(long, value_name = "N", default_value_t = 128)]
    #[arg(value_parser = value_parser!(u32).range(1..=128))]
    max_links: u32,

    /// What the workers are
    #[arg(long, value_enum, default_value_t = On::Threads)]
    on: On,

    #[command(flatten)]
    show: Show,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum On {
    Threads,
    Tasks,
}

fn main() -> ExitCode {
    common::main(run)
}

fn run(args: &Args) -> common::Result {
    let telemetry = Telemetry::start("batchlink-fan-in")?;
    let tracer = telemetry.tracer();
    let links = LinkSet::builder().with_max_links(args.max_links as usize).build()?;

    let counts = tracer.in_span("search_request", |request| -> common::Result<FanCounts> {
        let fan = FanOut::with_link_set(request.span().span_context(), links);
        let workers = (0..args.workers).map(|shard| (fan.start(&tracer, "search_shard"), shard));
        match args.on {
            On::Threads => on_threads(args, &tracer, workers),
            On::Tasks => on_tasks(args, &tracer, workers)?,
        }
        let (merge, counts) = fan.aggregate(&tracer, "merge_hits");
        let merged = merge.run(|_cx| counts.result());
        // Some hits are better than none: the request fails only without any.
        if merged.is_err() && counts.succeeded == 0 {
            request.span().set_status(Status::error("no hits"));
        }
        Ok(counts)
    })?;

    let exported = telemetry.finish()?;
    let counters = [
        ("workers", counts.started as u64),
        ("succeeded", counts.succeeded as u64),
        ("failed", counts.failed as u64),
    ];
    exported.print(&args.show, &counters)?;
    check(args, &exported, &counts)
}

fn on_threads(args: &Args, tracer: &SdkTracer, workers: impl Iterator<Item = (SpanGuard, u32)>) {
    thread::scope(|scope| {
        for (worker, shard) in workers {
            let _ = scope.spawn(move || worker.run(|_cx| search(args.fail_every, tracer, shard)));
        }
    });
}

fn on_tasks(
    args: &Args,
    tracer: &SdkTracer,
    workers: impl Iterator<Item = (SpanGuard, u32)>,
) -> common::Result {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).build()?;
    runtime.block_on(async {
        let (fail_every, mut tasks) = (args.fail_every, tokio::task::JoinSet::new());
        for (worker, shard) in workers {
            let tracer = tracer.clone();
            tasks.spawn(worker.run_async(async move { search(fail_every, &tracer, shard) }));
        }
        tasks.join_all().await;
    });
    Ok(())
}

/// What a worker does, in its own span and trace.
fn search(fail_every: u32, tracer: &SdkTracer, shard: u32) -> Result<(), String> {
    tracer.in_span("read_shard", |_cx| match fail_every {
        0 => Ok(()),
        every if (shard + 1) % every == 0 => Err(format!("shard {shard} is offline")),
        _ => Ok(()),
    })
}

/// The aggregation leads to the request and, within its bound, to all workers; those that failed
/// are marked.
fn check(args: &Args, exported: &Exported, counts: &FanCounts) -> common::Result {
    let merge = exported.named("merge_hits")[0];
    let all = 1 + counts.started;
    ensure(merge.links.len() == all.min(args.max_links as usize), "the links are bounded")?;
    let marked =
        merge.links.iter().filter(|link| attribute(&link.attributes, "worker.failed").is_some());
    let marked = marked.count();
    ensure(
        marked == counts.failed || all > merge.links.len(),
        "all workers that failed are marked",
    )?;
    let said = attribute(&merge.attributes, "links.truncated").is_some();
    ensure(said == (all > merge.links.len()), "the span says whether links were left out")
}
