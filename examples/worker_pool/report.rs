//! What is printed, and the proof that the numbers agree.

use crate::args::Args;
use crate::telemetry::{Exported, attribute};
use crate::worker::Pushes;
use batchlink::{LinkBatch, Stats, Trigger};
use opentelemetry_sdk::trace::SpanData;
use serde::Serialize;
use std::error::Error;
use std::fmt;
use std::io::{self, Write};

/// Traces shown of the sample.
const SAMPLE_TRACES: usize = 4;

/// One batch, as `--format json` prints it.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct BatchRow {
    batch: u64,
    trigger: &'static str,
    received: u64,
    linked: u64,
    duplicates: u64,
    truncated: u64,
    invalid: u64,
    unsampled: u64,
}

impl BatchRow {
    pub(crate) fn new(batch: u64, links: &LinkBatch) -> Self {
        let counts = links.counts();
        Self {
            batch,
            trigger: links.trigger().as_str(),
            received: counts.received,
            linked: counts.linked,
            duplicates: counts.duplicates,
            truncated: counts.truncated,
            invalid: counts.invalid,
            unsampled: counts.unsampled,
        }
    }

    pub(crate) fn write_json(&self, out: &mut impl Write) -> io::Result<()> {
        writeln!(out, "{}", serde_json::to_string(self)?)
    }
}

/// The last line of `--format json`.
#[derive(Debug, Serialize)]
struct Summary {
    /// Always true: tells this line from those of batches.
    summary: bool,
    /// Counted by the workers.
    pushed: u64,
    /// Counted by the collector.
    accepted: u64,
    rejected_full: u64,
    rejected_closed: u64,
    /// Summed up over the batches.
    received: u64,
    linked: u64,
    duplicates: u64,
    truncated: u64,
    /// Counted by the collector.
    invalid: u64,
    /// Summed up over the batches.
    unsampled: u64,
    /// Counted by the collector.
    pending: u64,
    batches: u64,
    size_flushes: u64,
    timeout_flushes: u64,
    /// Batch spans that were exported, and the links on them.
    exported_spans: u64,
    exported_links: u64,
}

pub(crate) struct Report<'a> {
    args: &'a Args,
    pushes: Pushes,
    rows: Vec<BatchRow>,
    stats: Stats,
    exported: Exported,
    summary: Summary,
}

impl<'a> Report<'a> {
    pub(crate) fn new(
        args: &'a Args,
        pushes: Pushes,
        rows: Vec<BatchRow>,
        stats: Stats,
        exported: Exported,
    ) -> Self {
        let sum = |field: fn(&BatchRow) -> u64| rows.iter().map(field).sum();
        let flushes = |trigger: Trigger| {
            rows.iter().filter(|row| row.trigger == trigger.as_str()).count() as u64
        };
        let summary = Summary {
            summary: true,
            pushed: pushes.pushed,
            accepted: stats.accepted(),
            rejected_full: stats.rejected_full(),
            rejected_closed: stats.rejected_closed(),
            received: sum(|row| row.received),
            linked: sum(|row| row.linked),
            duplicates: sum(|row| row.duplicates),
            truncated: sum(|row| row.truncated),
            invalid: stats.invalid(),
            unsampled: sum(|row| row.unsampled),
            pending: stats.pending(),
            batches: rows.len() as u64,
            size_flushes: flushes(Trigger::Size),
            timeout_flushes: flushes(Trigger::Timeout),
            exported_spans: exported.batches.len() as u64,
            exported_links: exported.links(),
        };
        Self { args, pushes, rows, stats, exported, summary }
    }

    pub(crate) fn write_json(&self, out: &mut impl Write) -> io::Result<()> {
        writeln!(out, "{}", serde_json::to_string(&self.summary)?)
    }

    pub(crate) fn write_text(&self, out: &mut impl Write) -> io::Result<()> {
        let (all, args) = (&self.summary, self.args);
        let other_flushes = all.batches - all.size_flushes - all.timeout_flushes;
        let after_delay = format!("after {} ms", args.max_delay_ms);
        let full_batch = format!("with {} contexts", args.batch_size);
        let over_bound = format!("over {} links", args.max_links);
        let mut row =
            |label: &str, count: u64| writeln!(out, "  {label:<32}{:>12}", grouped(count));
        row("contexts pushed", all.pushed)?;
        row("  refused, queue full", all.rejected_full)?;
        row("  refused, collector closed", all.rejected_closed)?;
        row("  invalid, no span was active", all.invalid)?;
        row("  accepted", all.accepted)?;
        row("    linked", all.linked)?;
        row("    duplicates", all.duplicates)?;
        row("    unsampled", all.unsampled)?;
        row(&format!("    {over_bound}"), all.truncated)?;
        row("    still pending", all.pending)?;
        row("batches", all.batches)?;
        row(&format!("  {full_batch}"), all.size_flushes)?;
        row(&format!("  {after_delay}"), all.timeout_flushes)?;
        row("  at shutdown", other_flushes)?;
        row("batch spans exported", all.exported_spans)?;
        row("  links on them", all.exported_links)?;
        row("request spans exported", self.exported.request_spans)?;
        if let Some(span) = &self.exported.sample {
            writeln!(out, "\nThe first batch span, as it was exported:\n")?;
            write_tree(out, span)?;
        }
        Ok(())
    }

    /// That everything adds up, in one sentence; only after [`verdict`](Self::verdict).
    pub(crate) fn write_conclusion(&self, out: &mut impl Write) -> io::Result<()> {
        let all = &self.summary;
        writeln!(
            out,
            "\nEvery context is accounted for: of {} pushed, {} were accepted and went into {} \
             batches,\n\
             and the exported batch spans carry exactly the {} links that the batches report.",
            grouped(all.pushed),
            grouped(all.accepted),
            grouped(all.batches),
            grouped(all.linked),
        )
    }

    /// An error that names every equation that does not hold.
    pub(crate) fn verdict(&self) -> Result<(), Box<dyn Error>> {
        let (all, args, stats) = (&self.summary, self.args, &self.stats);
        let answers = all.accepted + all.rejected_full + all.rejected_closed + all.invalid;
        let mut wrong = Vec::new();
        let totals = [
            ("pushed = contexts asked for", all.pushed, args.contexts),
            ("pushed = accepted + rejected_full + rejected_closed + invalid", all.pushed, answers),
            ("full, seen by workers = by the collector", self.pushes.full, all.rejected_full),
            ("closed, seen by workers = by the collector", self.pushes.closed, all.rejected_closed),
            ("accepted = received + pending", all.accepted, all.received + all.pending),
            ("pending after shutdown = 0", all.pending, 0),
            ("linked, sum over batches = by the collector", all.linked, stats.counts().linked),
            (
                "duplicates, sum over batches = by the collector",
                all.duplicates,
                stats.counts().duplicates,
            ),
            (
                "truncated, sum over batches = by the collector",
                all.truncated,
                stats.counts().truncated,
            ),
            (
                "unsampled, sum over batches = by the collector",
                all.unsampled,
                stats.counts().unsampled,
            ),
            ("batches handled = made by the collector", all.batches, stats.batches()),
            ("panics of the handler = 0", stats.handler_panics(), 0),
            ("batch spans exported = batches", all.exported_spans, all.batches),
            ("links exported = linked", all.exported_links, all.linked),
        ];
        check(&mut wrong, format_args!(""), &totals);
        for row in &self.rows {
            let parts = row.linked + row.duplicates + row.truncated + row.invalid + row.unsampled;
            let over = |count: u64, bound: usize| count.saturating_sub(bound as u64);
            let equations = [
                ("received = sum of its parts", row.received, parts),
                ("contexts over --batch-size = 0", over(row.received, args.batch_size), 0),
                ("links over --max-links = 0", over(row.linked, args.max_links), 0),
            ];
            check(&mut wrong, format_args!("batch {}: ", row.batch), &equations);
        }
        // One thread starts and ends the batch spans, so they are exported in the order of the
        // batches.
        for (row, span) in self.rows.iter().zip(&self.exported.batches) {
            let said = |value: Option<i64>| value.and_then(|value| u64::try_from(value).ok());
            let equations = [
                ("links = linked", span.links, row.linked),
                ("links = different spans that they lead to", span.links, span.targets),
                ("dropped links = truncated", span.dropped, row.truncated),
                ("batch.size = received", said(span.batch_size).unwrap_or(u64::MAX), row.received),
                ("batch.links = links", said(span.batch_links).unwrap_or(u64::MAX), span.links),
                (
                    "false batch.trigger = 0",
                    (span.batch_trigger.as_deref() != Some(row.trigger)).into(),
                    0,
                ),
            ];
            check(&mut wrong, format_args!("span of batch {}: ", row.batch), &equations);
        }
        if wrong.is_empty() { Ok(()) } else { Err(complaint(&wrong).into()) }
    }
}

fn check(wrong: &mut Vec<String>, whose: fmt::Arguments<'_>, equations: &[(&str, u64, u64)]) {
    let failed = equations.iter().filter(|(_, left, right)| left != right);
    wrong.extend(
        failed.map(|(equation, left, right)| format!("{whose}{equation}: {left} is not {right}")),
    );
}

fn complaint(wrong: &[String]) -> String {
    let more = wrong.len().saturating_sub(5);
    let mut text = format!(
        "not every context is accounted for:\n  {}",
        wrong[..wrong.len() - more].join("\n  ")
    );
    if more > 0 {
        text += &format!("\n  and {more} more");
    }
    text
}

pub(crate) fn write_headline(out: &mut impl Write, args: &Args) -> io::Result<()> {
    writeln!(
        out,
        "{} workers push the contexts of {} spans; a batch leaves with {} of them, or after {} \
         ms.\n",
        args.threads,
        grouped(args.contexts),
        grouped(args.batch_size as u64),
        grouped(args.max_delay_ms),
    )
}

/// A batch span with its first links, those to the same trace in one line.
fn write_tree(out: &mut impl Write, span: &SpanData) -> io::Result<()> {
    let said = |key: &str| attribute(span, key).map(ToString::to_string).unwrap_or_default();
    writeln!(
        out,
        "  {}  trace {}\n  │  batch.size={} batch.links={} batch.trigger={}",
        span.name,
        span.span_context.trace_id(),
        said("batch.size"),
        said("batch.links"),
        said("batch.trigger"),
    )?;
    let mut traces =
        span.links.chunk_by(|a, b| a.span_context.trace_id() == b.span_context.trace_id());
    for trace in traces.by_ref().take(SAMPLE_TRACES) {
        let spans: Vec<_> =
            trace.iter().map(|link| link.span_context.span_id().to_string()).collect();
        let linked = if spans.len() == 1 { "link to span" } else { "links to spans" };
        write!(out, "  ├─ trace {}  {linked} ", trace[0].span_context.trace_id())?;
        // Two to a line, which then has less than 100 columns.
        let lines: Vec<_> = spans.chunks(2).map(|line| line.join(", ")).collect();
        writeln!(out, "{}", lines.join(&format!(",\n  │{:57}", "")))?;
    }
    match traces.map(<[_]>::len).sum::<usize>() {
        0 => Ok(()),
        more => writeln!(out, "  └─ {more} more links"),
    }
}

/// With commas between thousands.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index) % 3 == 0 {
            text.push(',');
        }
        text.push(digit);
    }
    text
}
