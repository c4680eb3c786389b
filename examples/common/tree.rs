//! Spans as a tree for people.
//!
//! ```text
//! trace 4f1a83c2
//! └─ process_batch  consumer  ok
//!    │  batch.size=2  batch.trigger=timeout
//!    │  • item.failed  error="no such item"
//!    │  ↗ batch_item → request (trace 9be0…)  batch.index=0
//!    └─ insert  client
//! ```

use super::exported::{TYPE_KEYS, link_type};
use super::{Exported, Show};
use opentelemetry::trace::{Link, SpanId, SpanKind, Status, TraceId};
use opentelemetry::{KeyValue, Value};
use opentelemetry_sdk::trace::SpanData;
use std::io::{self, Write};

pub(super) fn write(
    out: &mut impl Write,
    exported: &Exported,
    show: &Show,
    counters: &[(&str, u64)],
) -> io::Result<()> {
    let mut tree = Tree { out, exported, links: bound(show.links) };
    let traces = exported.traces();
    for roots in traces.iter().take(bound(show.traces)) {
        tree.trace(roots)?;
    }
    match traces.len().saturating_sub(bound(show.traces)) {
        0 => {}
        more => writeln!(out, "… {} (--traces 0 shows all)\n", counted(more, "more trace"))?,
    }
    for (name, count) in counters {
        writeln!(out, "{name:<32}{count:>8}")?;
    }
    Ok(())
}

/// 0 means all.
fn bound(limit: usize) -> usize {
    if limit == 0 { usize::MAX } else { limit }
}

struct Tree<'a, W> {
    out: &'a mut W,
    exported: &'a Exported,
    /// Links shown per span.
    links: usize,
}

impl<W: Write> Tree<'_, W> {
    fn trace(&mut self, roots: &[&SpanData]) -> io::Result<()> {
        writeln!(self.out, "trace {}", short(roots[0].span_context.trace_id()))?;
        for (index, root) in roots.iter().enumerate() {
            self.span("", root, index + 1 == roots.len())?;
        }
        writeln!(self.out)
    }

    /// `indent` is what stands before the span's own branch.
    fn span(&mut self, indent: &str, span: &SpanData, last: bool) -> io::Result<()> {
        let exported = self.exported;
        let (branch, below) = if last { ("└─ ", "   ") } else { ("├─ ", "│  ") };
        writeln!(self.out, "{indent}{branch}{}", headline(exported, span))?;

        let indent = format!("{indent}{below}");
        let children = exported.children(span);
        let count = children.len();
        let margin = format!("{indent}{}  ", if count > 0 { '│' } else { ' ' });
        self.details(&margin, span)?;
        for (index, child) in children.enumerate() {
            self.span(&indent, child, index + 1 == count)?;
        }
        Ok(())
    }

    fn details(&mut self, margin: &str, span: &SpanData) -> io::Result<()> {
        if !span.attributes.is_empty() || span.dropped_attributes_count > 0 {
            let dropped = dropped(span.dropped_attributes_count, "attribute");
            writeln!(self.out, "{margin}{}{dropped}", pairs(&span.attributes))?;
        }
        for event in span.events.iter() {
            writeln!(self.out, "{margin}• {}{}", event.name, after(&pairs(&event.attributes)))?;
        }
        if span.events.dropped_count > 0 {
            writeln!(self.out, "{margin}•{}", dropped(span.events.dropped_count, "event"))?;
        }
        for link in span.links.iter().take(self.links) {
            writeln!(self.out, "{margin}↗ {}", arrow(self.exported, link))?;
        }
        let hidden = span.links.len().saturating_sub(self.links);
        if hidden > 0 {
            writeln!(self.out, "{margin}↗ … {} (--links 0 shows all)", counted(hidden, "more link"))?;
        }
        if span.links.dropped_count > 0 {
            writeln!(self.out, "{margin}↗{}", dropped(span.links.dropped_count, "link"))?;
        }
        Ok(())
    }
}

fn headline(exported: &Exported, span: &SpanData) -> String {
    let mut line = format!("{}  {}", span.name, kind(&span.span_kind));
    match &span.status {
        Status::Unset => {}
        Status::Ok => line += "  ok",
        Status::Error { description } if description.is_empty() => line += "  error",
        Status::Error { description } => line = format!("{line}  error: {description}"),
    }
    if span.parent_span_id != SpanId::INVALID && exported.parent(span).is_none() {
        line = format!("{line}  (parent {} is not here)", span.parent_span_id);
    }
    line
}

/// `batch_item → request (trace 9be0…)  batch.index=0`
fn arrow(exported: &Exported, link: &Link) -> String {
    let context = &link.span_context;
    let what = link_type(link).map_or("link".into(), Value::as_str);
    let trace = short(context.trace_id());
    let target = match exported.find(context) {
        Some(target) => format!("{} (trace {trace}…)", target.name),
        None if context.span_id() == SpanId::INVALID => format!("trace {trace}…, all of it"),
        None => format!("span {} (trace {trace}…), not exported here", context.span_id()),
    };
    let others = link.attributes.iter().filter(|attribute| !TYPE_KEYS.contains(&attribute.key.as_str()));
    let unsampled = if context.is_sampled() { "" } else { "  unsampled" };
    let dropped = dropped(link.dropped_attributes_count, "attribute");
    format!("{what} → {target}{}{unsampled}{dropped}", after(&pairs(others)))
}

pub(super) fn kind(kind: &SpanKind) -> &'static str {
    match kind {
        SpanKind::Client => "client",
        SpanKind::Server => "server",
        SpanKind::Producer => "producer",
        SpanKind::Consumer => "consumer",
        SpanKind::Internal => "internal",
    }
}

fn pairs<'a>(attributes: impl IntoIterator<Item = &'a KeyValue>) -> String {
    let pair = |attribute: &KeyValue| match &attribute.value {
        // Quoted only if the end could not be told.
        Value::String(text) if text.as_str().is_empty() || text.as_str().contains(char::is_whitespace) => {
            format!("{}={:?}", attribute.key, text.as_str())
        }
        value => format!("{}={value}", attribute.key),
    };
    attributes.into_iter().map(pair).collect::<Vec<_>>().join("  ")
}

fn after(text: &str) -> String {
    if text.is_empty() { String::new() } else { format!("  {text}") }
}

fn dropped(count: u32, what: &str) -> String {
    if count == 0 { String::new() } else { format!(" {} dropped by the SDK", counted(count as usize, what)) }
}

fn counted(count: usize, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}

/// Enough of a trace id to tell it from the others.
fn short(trace: TraceId) -> String {
    trace.to_string()[..8].to_owned()
}
