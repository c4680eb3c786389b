//! The exported spans, in an order that a person can follow.

use super::{Format, Result, Show, json, tree};
use opentelemetry::trace::{Link, SpanContext, SpanId, TraceId};
use opentelemetry::{KeyValue, Value};
use opentelemetry_sdk::trace::SpanData;
use std::collections::HashMap;
use std::io::{self, Write};

/// All spans of one run.
pub(crate) struct Exported {
    /// By start.
    spans: Vec<SpanData>,
    /// Where each span stands in `spans`.
    index: HashMap<(TraceId, SpanId), usize>,
    /// The children of each span, by start.
    children: HashMap<(TraceId, SpanId), Vec<usize>>,
    /// Spans without a parent here, by start.
    roots: Vec<usize>,
}

impl Exported {
    pub(crate) fn new(mut spans: Vec<SpanData>) -> Self {
        // Exported when they end; the sort is stable, so that is the order of those that start at
        // once.
        spans.sort_by_key(|span| span.start_time);
        let index: HashMap<_, _> =
            spans.iter().map(|span| key(&span.span_context)).zip(0..).collect();
        let mut children: HashMap<_, Vec<usize>> = HashMap::new();
        let mut roots = Vec::new();
        for (place, span) in spans.iter().enumerate() {
            let parent = (span.span_context.trace_id(), span.parent_span_id);
            if index.contains_key(&parent) {
                children.entry(parent).or_default().push(place);
            } else {
                roots.push(place);
            }
        }
        Self { spans, index, children, roots }
    }

    pub(crate) fn spans(&self) -> &[SpanData] {
        &self.spans
    }

    /// The spans of this name, by start.
    pub(crate) fn named(&self, name: &str) -> Vec<&SpanData> {
        self.spans.iter().filter(|span| span.name == name).collect()
    }

    pub(crate) fn find(&self, context: &SpanContext) -> Option<&SpanData> {
        self.index.get(&key(context)).map(|&place| &self.spans[place])
    }

    /// Its parent, if that was exported too.
    pub(crate) fn parent(&self, span: &SpanData) -> Option<&SpanData> {
        let parent = (span.span_context.trace_id(), span.parent_span_id);
        self.index.get(&parent).map(|&place| &self.spans[place])
    }

    /// The spans that `span` links to, in the order of its links; `None` for one that was not
    /// exported.
    pub(crate) fn targets(&self, span: &SpanData) -> Vec<Option<&SpanData>> {
        span.links.iter().map(|link| self.find(&link.span_context)).collect()
    }

    /// The spans without a parent here. Those of one trace stand together, at the first one's
    /// place.
    pub(crate) fn traces(&self) -> Vec<Vec<&SpanData>> {
        let mut places = HashMap::new();
        let mut traces: Vec<Vec<&SpanData>> = Vec::new();
        for root in self.roots.iter().map(|&place| &self.spans[place]) {
            let place = *places.entry(root.span_context.trace_id()).or_insert(traces.len());
            if place == traces.len() {
                traces.push(Vec::new());
            }
            traces[place].push(root);
        }
        traces
    }

    pub(crate) fn children(&self, span: &SpanData) -> impl Iterator<Item = &SpanData> {
        let places = self.children.get(&key(&span.span_context)).map_or(&[][..], Vec::as_slice);
        places.iter().map(|&place| &self.spans[place])
    }

    /// Prints the spans, and after them what the example has counted.
    pub(crate) fn print(&self, show: &Show, counters: &[(&str, u64)]) -> Result {
        let mut out = io::stdout().lock();
        match show.format {
            Format::Text => tree::write(&mut out, self, show, counters)?,
            Format::Json => json::write(&mut out, self, counters)?,
        }
        Ok(out.flush()?)
    }
}

fn key(context: &SpanContext) -> (TraceId, SpanId) {
    (context.trace_id(), context.span_id())
}

pub(crate) fn attribute<'a>(attributes: &'a [KeyValue], key: &str) -> Option<&'a Value> {
    attributes
        .iter()
        .find(|attribute| attribute.key.as_str() == key)
        .map(|attribute| &attribute.value)
}

/// The attribute, 0 if there is none.
pub(crate) fn number(attributes: &[KeyValue], key: &str) -> i64 {
    match attribute(attributes, key) {
        Some(Value::I64(number)) => *number,
        _ => 0,
    }
}

/// What the link says of its kind, under either name that is in use.
pub(crate) fn link_type(link: &Link) -> Option<&Value> {
    TYPE_KEYS.iter().find_map(|key| attribute(&link.attributes, key))
}

pub(super) const TYPE_KEYS: [&str; 2] = ["link.type", "link.relationship"];
