//! A pool of worker threads serves requests, each in a trace of its own. What the requests leave
//! behind is processed in batches, and every batch span links to the requests that it served.
//!
//! ```text
//! cargo run --release --example worker_pool
//! cargo run --release --example worker_pool -- \
//!     --threads 8 --contexts 200000 --duplicates 0.5 --format json
//! OTEL_EXPORTER_OTLP_ENDPOINT=http://localhost:4318 cargo run --release --example worker_pool
//! ```
//!
//! All there is to batchlink is `build`, `spawn` and `start` in this file and `push` in
//! `worker.rs`. The rest makes it a demonstration: `args.rs` has the flags, `telemetry.rs` sets up
//! the OpenTelemetry SDK and reads back what was exported, `report.rs` checks that all numbers
//! agree; `../common` is what all examples share.

mod args;
#[path = "../common/mod.rs"]
mod common;
mod report;
mod telemetry;
mod worker;

use args::Args;
use batchlink::{FlusherHandle, LinkCollector, LinkPolicy};
use common::Format;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use opentelemetry::trace::{Span, TracerProvider};
use report::{BatchRow, Report};
use std::error::Error;
use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::time::Duration;
use telemetry::{BATCH_SPAN, Telemetry};
use worker::{Pool, Pushes};

fn main() -> ExitCode {
    common::main(run)
}

fn run(args: &Args) -> Result<(), Box<dyn Error>> {
    let mut builder = LinkCollector::builder()
        .with_max_batch_size(args.batch_size)
        .with_max_delay(args.max_delay())
        .with_max_links(args.max_links)
        // The provider is built with the same limit.
        .with_link_policy(LinkPolicy::new().with_span_link_limit(args.max_links))
        .with_queue_capacity(args.queue_capacity());
    if let Some(shards) = args.shards {
        builder = builder.with_shards(shards);
    }
    let (collector, flusher) = builder.build().unwrap_or_else(|error| args::exit_for(&error));

    let telemetry = Telemetry::start(args.max_links)?;
    let tracer = telemetry.provider.tracer("worker_pool");

    let mut out = io::stdout();
    if args.format == Format::Text {
        report::write_headline(&mut out, args)?;
    }

    // One thread takes the batches. Each becomes one span, with its links.
    let (to_main, rows) = mpsc::channel();
    let batch_tracer = tracer.clone();
    let mut number = 0;
    let handle = flusher.spawn(move |batch| {
        number += 1;
        let row = BatchRow::new(number, &batch);
        let mut span = batch.start(&batch_tracer, BATCH_SPAN);
        // ... here the work of the batch would be done: one insert, one request, one file ...
        span.end();
        let _ = to_main.send(row); // fails only if main has given up
    })?;

    // Many threads push contexts.
    let pool = Pool::start(args, &collector, &tracer)?;
    let (mut batches, pushes) = watch(args, &collector, pool, &rows, &telemetry, &mut out)?;

    finish(&handle, &telemetry)?;
    // The handler is gone, and its end of the channel with it.
    for row in rows {
        show(args, &row, &mut out)?;
        batches.push(row);
    }

    let report = Report::new(args, pushes, batches, collector.stats(), telemetry.exported());
    match args.format {
        Format::Json => report.write_json(&mut out)?,
        Format::Text => report.write_text(&mut out)?,
    }
    report.verdict()?;
    if args.format == Format::Text {
        report.write_conclusion(&mut out)?;
    }
    Ok(())
}

/// Shows batches as they come, until all workers are done. Returns the batches so far and what the
/// workers pushed by their own count.
fn watch(
    args: &Args,
    collector: &LinkCollector,
    mut pool: Pool,
    rows: &Receiver<BatchRow>,
    telemetry: &Telemetry,
    out: &mut impl Write,
) -> Result<(Vec<BatchRow>, Pushes), Box<dyn Error>> {
    let progress = progress_bar(args.contexts)?;
    let mut batches = Vec::new();
    let mut pushes = Pushes::default();
    while !pool.is_empty() {
        match rows.recv_timeout(Duration::from_millis(20)) {
            Ok(row) => {
                show(args, &row, out)?;
                batches.push(row);
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => {
                return Err("the flusher's thread has died".into());
            }
        }
        progress.set_position(collector.stats().pushed());
        progress.set_message(format!("{} batches", batches.len()));
        telemetry.check()?;
        pushes += pool.join_finished()?;
    }
    progress.finish_and_clear();
    Ok((batches, pushes))
}

fn show(args: &Args, row: &BatchRow, out: &mut impl Write) -> io::Result<()> {
    match args.format {
        Format::Json => row.write_json(out),
        Format::Text => Ok(()),
    }
}

/// First the flusher, so that every batch span has ended; then the SDK, which exports them.
fn finish(handle: &FlusherHandle, telemetry: &Telemetry) -> Result<(), Box<dyn Error>> {
    handle.shutdown_with_timeout(Duration::from_secs(30))?;
    telemetry.shutdown()
}

/// Drawn on a terminal only.
fn progress_bar(contexts: u64) -> Result<ProgressBar, Box<dyn Error>> {
    let watched = io::stdout().is_terminal() && io::stderr().is_terminal();
    let target = if watched { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
    let style =
        ProgressStyle::with_template("{bar:40} {human_pos} of {human_len} contexts, {msg}")?;
    Ok(ProgressBar::with_draw_target(Some(contexts), target).with_style(style))
}
