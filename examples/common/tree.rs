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
use std::iter::once;

const ALL: &str = "(--limit 0 shows all)";

pub(super) fn write(
    out: &mut impl Write,
    exported: &Exported,
    show: &Show,
    counters: &[(&str, u64)],
) -> io::Result<()> {
    let limit = if show.limit == 0 { usize::MAX } else { show.limit };
    let mut tree = Tree { out, exported, limit };
    let (traces, hidden) =
        first_of_each(exported.traces().into_iter(), limit, |roots| &roots[0].name);
    for roots in traces {
        tree.trace(&roots)?;
    }
    for (name, count) in &hidden {
        writeln!(out, "… {} of {name} {ALL}", counted(*count, "more trace"))?;
    }
    if !hidden.is_empty() && !counters.is_empty() {
        writeln!(out)?;
    }
    for (name, count) in counters {
        writeln!(out, "{name:<32}{count:>8}")?;
    }
    Ok(())
}

/// Those shown, so that one batch is seen among a thousand requests: the first `limit` of each
/// name. With them the names of the others, and how many they are.
fn first_of_each<'a, T>(
    all: impl Iterator<Item = T>,
    limit: usize,
    name: impl Fn(&T) -> &'a str,
) -> (Vec<T>, Vec<(&'a str, usize)>) {
    let mut counts: Vec<(&str, usize)> = Vec::new();
    let mut shown = Vec::new();
    for item in all {
        let name = name(&item);
        let place = counts.iter().position(|(other, _)| *other == name).unwrap_or(counts.len());
        if place == counts.len() {
            counts.push((name, 0));
        }
        counts[place].1 += 1;
        if counts[place].1 <= limit {
            shown.push(item);
        }
    }
    let hidden = counts.into_iter().filter(|(_, count)| *count > limit);
    (shown, hidden.map(|(name, count)| (name, count - limit)).collect())
}

struct Tree<'a, W> {
    out: &'a mut W,
    exported: &'a Exported,
    /// What is shown of a kind at most.
    limit: usize,
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
        let (children, hidden) =
            first_of_each(exported.children(span), self.limit, |child| &child.name);
        let mut branches = children.len() + hidden.len();
        let margin = format!("{indent}{}  ", if branches > 0 { '│' } else { ' ' });
        self.details(&margin, span)?;
        for child in children {
            branches -= 1;
            self.span(&indent, child, branches == 0)?;
        }
        for (name, count) in hidden {
            branches -= 1;
            let branch = if branches == 0 { '└' } else { '├' };
            writeln!(
                self.out,
                "{indent}{branch}─ … {} of {name} {ALL}",
                counted(count, "more span")
            )?;
        }
        Ok(())
    }

    /// Writes the parts in lines that fit. `hang` indents the second and later ones.
    fn wrapped(
        &mut self,
        margin: &str,
        hang: &str,
        parts: impl Iterator<Item = String>,
    ) -> io::Result<()> {
        let mut line = String::new();
        for part in parts {
            if line.is_empty() {
                line = format!("{margin}{part}");
            } else if line.chars().count() + 2 + part.chars().count() <= WIDTH {
                line = format!("{line}  {part}");
            } else {
                writeln!(self.out, "{line}")?;
                line = format!("{margin}{hang}{part}");
            }
        }
        if line.is_empty() { Ok(()) } else { writeln!(self.out, "{line}") }
    }

    fn details(&mut self, margin: &str, span: &SpanData) -> io::Result<()> {
        self.wrapped(margin, "", span.attributes.iter().map(pair))?;
        if span.dropped_attributes_count > 0 {
            writeln!(self.out, "{margin}…{}", dropped(span.dropped_attributes_count, "attribute"))?;
        }
        for event in span.events.iter() {
            let name = format!("• {}", event.name);
            self.wrapped(margin, "  ", once(name).chain(event.attributes.iter().map(pair)))?;
        }
        if span.events.dropped_count > 0 {
            writeln!(self.out, "{margin}•{}", dropped(span.events.dropped_count, "event"))?;
        }
        for link in span.links.iter().take(self.limit) {
            self.wrapped(margin, "  ", arrow(self.exported, link))?;
        }
        let hidden = span.links.len().saturating_sub(self.limit);
        if hidden > 0 {
            writeln!(self.out, "{margin}↗ … {} {ALL}", counted(hidden, "more link"))?;
        }
        if span.links.dropped_count > 0 {
            writeln!(self.out, "{margin}↗{}", dropped(span.links.dropped_count, "link"))?;
        }
        Ok(())
    }
}

/// The columns of a line.
const WIDTH: usize = 100;

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

/// `↗ batch_item → request (trace 9be0…)`, `batch.index=0`: the parts of one line, if it is not too
/// long.
fn arrow(exported: &Exported, link: &Link) -> impl Iterator<Item = String> {
    let context = &link.span_context;
    let what = link_type(link).map_or("link".into(), Value::as_str);
    let trace = short(context.trace_id());
    let target = match exported.find(context) {
        Some(target) => format!("{} (trace {trace}…)", target.name),
        None if context.span_id() == SpanId::INVALID => format!("trace {trace}…, all of it"),
        None => format!("span {} (trace {trace}…), not exported here", context.span_id()),
    };
    let others =
        link.attributes.iter().filter(|attribute| !TYPE_KEYS.contains(&attribute.key.as_str()));
    let unsampled = (context.is_valid() && !context.is_sampled()).then(|| "unsampled".to_owned());
    let dropped = Some(dropped(link.dropped_attributes_count, "attribute").trim().to_owned());
    let dropped = dropped.filter(|text| !text.is_empty());
    once(format!("↗ {what} → {target}")).chain(others.map(pair)).chain(unsampled).chain(dropped)
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

fn pair(attribute: &KeyValue) -> String {
    match &attribute.value {
        // Quoted only if the end could not be told.
        Value::String(text)
            if text.as_str().is_empty() || text.as_str().contains(char::is_whitespace) =>
        {
            format!("{}={:?}", attribute.key, text.as_str())
        }
        value => format!("{}={value}", attribute.key),
    }
}

fn dropped(count: u32, what: &str) -> String {
    if count == 0 {
        String::new()
    } else {
        format!(" {} dropped by the SDK", counted(count as usize, what))
    }
}

fn counted(count: usize, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}

/// Enough of a trace id to tell it from the others.
fn short(trace: TraceId) -> String {
    trace.to_string()[..8].to_owned()
}
