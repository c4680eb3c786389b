//! Extract → transform → load, each in traces of its own: every span of a stage is linked to those
//! that its rows come from, with the number of rows, so that a loaded row can be followed back to
//! its page.
//!
//! ```text
//! cargo run --release --example etl
//! cargo run --release --example etl -- --sources 5 --rows 400 --format json
//! ```

mod check;
#[path = "../common/mod.rs"]
mod common;

use batchlink::links::LinkTemplate;
use batchlink::{LinkSet, links::Relation};
use clap::{Parser, value_parser};
use common::{Show, Telemetry, ensure};
use opentelemetry::trace::{Span, SpanContext, SpanId, TraceContextExt, Tracer};
use opentelemetry::{Context, KeyValue};
use opentelemetry_sdk::trace::SdkTracer;
use std::collections::{BTreeMap, HashMap};
use std::process::ExitCode;

/// Rows of several sources are extracted page by page, transformed in chunks and loaded in batches.
#[derive(Debug, Parser)]
#[command(name = "etl")]
struct Args {
    /// Sources, each extracted in a trace of its own
    #[arg(long, value_name = "N", default_value_t = 3)]
    #[arg(value_parser = value_parser!(u32).range(1..=100))]
    sources: u32,

    /// Rows of each source; one in ten is unreadable
    #[arg(long, value_name = "N", default_value_t = 24)]
    #[arg(value_parser = value_parser!(u32).range(1..=10_000))]
    rows: u32,

    /// Rows of a page, the unit of extraction
    #[arg(long, value_name = "N", default_value_t = 8)]
    #[arg(value_parser = value_parser!(u32).range(1..))]
    page: u32,

    /// Rows transformed at once; they come from as many pages at most, and a span holds 128 links
    #[arg(long, value_name = "N", default_value_t = 20)]
    #[arg(value_parser = value_parser!(u32).range(1..=128))]
    chunk: u32,

    /// Rows loaded at once
    #[arg(long, value_name = "N", default_value_t = 40)]
    #[arg(value_parser = value_parser!(u32).range(1..=128))]
    batch: u32,

    #[command(flatten)]
    show: Show,
}

/// A row, and the span that it came out of.
struct Row<T> {
    id: u32,
    amount: T,
    origin: SpanContext,
}

fn main() -> ExitCode {
    common::main(run)
}

fn run(args: &Args) -> common::Result {
    let telemetry = Telemetry::start("batchlink-etl")?;
    let tracer = telemetry.tracer();
    let mut links = LinkSet::builder().build()?;

    let extracted = extract(args, &tracer);
    let mut clean = Vec::new();
    for chunk in extracted.chunks(args.chunk as usize) {
        clean.extend(transform(&tracer, &mut links, chunk));
    }
    let mut table = BTreeMap::new();
    for batch in clean.chunks(args.batch as usize) {
        let mut span = start(&tracer, &mut links, "load", Relation::Aggregates, batch);
        table.extend(batch.iter().map(|row| (row.id, row.amount)));
        span.set_attribute(KeyValue::new("rows.in_table", table.len() as i64));
    }

    let exported = telemetry.finish()?;
    let counters = [
        ("rows extracted", extracted.len() as u64),
        ("rows rejected", (extracted.len() - clean.len()) as u64),
        ("rows loaded", table.len() as u64),
    ];
    exported.print(&args.show, &counters)?;
    ensure(table.len() == clean.len(), "every transformed row is in the table")?;
    check::check(&exported)
}

/// One trace per source, with a span per page. The sources are read in turns, a page each, so that
/// chunks have rows of several sources.
fn extract(args: &Args, tracer: &SdkTracer) -> Vec<Row<String>> {
    let source =
        |source| Context::current_with_span(tracer.start(format!("extract source_{source}")));
    let sources: Vec<Context> = (0..args.sources).map(source).collect();
    let mut rows = Vec::new();
    for first in (0..args.rows).step_by(args.page as usize) {
        for (source, cx) in (0..).zip(&sources) {
            let mut page = tracer.start_with_context("read_page", cx);
            let numbers = first..first.saturating_add(args.page).min(args.rows);
            page.set_attribute(KeyValue::new("rows", numbers.len() as i64));
            rows.extend(numbers.map(|number| Row {
                id: source * args.rows + number,
                amount: if number % 10 == 9 { "n/a".into() } else { format!("{number}.50") },
                origin: page.span_context().clone(),
            }));
        }
    }
    rows
}

/// Amounts become cents; what cannot be read is rejected, with an event.
fn transform(tracer: &SdkTracer, links: &mut LinkSet, rows: &[Row<String>]) -> Vec<Row<i64>> {
    let mut span = start(tracer, links, "transform", Relation::DerivedFrom, rows);
    let mut clean = Vec::with_capacity(rows.len());
    for Row { id, amount, .. } in rows {
        let row = |cents| Row { id: *id, amount: cents, origin: span.span_context().clone() };
        match amount.replace('.', "").parse() {
            Ok(cents) => clean.push(row(cents)),
            Err(_) => {
                let attributes = vec![
                    KeyValue::new("row.id", i64::from(*id)),
                    KeyValue::new("amount", amount.clone()),
                ];
                span.add_event("row.rejected", attributes);
            }
        }
    }
    span.set_attribute(KeyValue::new("rows.rejected", (rows.len() - clean.len()) as i64));
    clean
}

/// A span in a trace of its own with one link per origin of its rows, whose attribute `rows` says
/// how many came from there. The set is given every row, so `batch.size` counts rows and
/// `batch.links` origins.
fn start<T>(
    tracer: &SdkTracer,
    links: &mut LinkSet,
    name: &'static str,
    relation: Relation,
    rows: &[Row<T>],
) -> impl Span + use<T> {
    let mut counts: HashMap<SpanId, i64> = HashMap::new();
    for row in rows {
        *counts.entry(row.origin.span_id()).or_default() += 1;
    }
    let template = LinkTemplate::new(relation);
    for row in rows {
        let count = counts[&row.origin.span_id()];
        links.insert_link(template.link_with(&row.origin, [KeyValue::new("rows", count)]));
    }
    links.finish().start(tracer, name)
}
