//! The same spans as one JSON document.

use super::exported::link_type;
use super::{Exported, tree};
use opentelemetry::trace::{Event, Link, SpanId, Status};
use opentelemetry::{Array, KeyValue, Value};
use opentelemetry_sdk::trace::SpanData;
use serde_json::{Map, Value as Json, json};
use std::io::{self, Write};

pub(super) fn write(
    out: &mut impl Write,
    exported: &Exported,
    counters: &[(&str, u64)],
) -> io::Result<()> {
    let spans: Vec<Json> = exported.spans().iter().map(|of| span(exported, of)).collect();
    let counters: Map<String, Json> =
        counters.iter().map(|(name, n)| ((*name).into(), json!(n))).collect();
    serde_json::to_writer_pretty(&mut *out, &json!({ "spans": spans, "counters": counters }))?;
    writeln!(out)
}

fn span(exported: &Exported, span: &SpanData) -> Json {
    let (status, description) = match &span.status {
        Status::Unset => ("unset", None),
        Status::Ok => ("ok", None),
        Status::Error { description } => ("error", Some(description.as_ref())),
    };
    json!({
        "name": span.name,
        "trace_id": span.span_context.trace_id().to_string(),
        "span_id": span.span_context.span_id().to_string(),
        "parent_span_id": id(span.parent_span_id),
        "kind": tree::kind(&span.span_kind),
        "status": status,
        "status_description": description,
        "attributes": attributes(&span.attributes),
        "dropped_attributes": span.dropped_attributes_count,
        "events": span.events.iter().map(event).collect::<Vec<_>>(),
        "dropped_events": span.events.dropped_count,
        "links": span.links.iter().map(|of| link(exported, of)).collect::<Vec<_>>(),
        "dropped_links": span.links.dropped_count,
    })
}

fn event(event: &Event) -> Json {
    json!({ "name": event.name, "attributes": attributes(&event.attributes) })
}

fn link(exported: &Exported, link: &Link) -> Json {
    let context = &link.span_context;
    json!({
        "type": link_type(link).map(value),
        "target": exported.find(context).map(|target| target.name.as_ref()),
        "trace_id": context.trace_id().to_string(),
        "span_id": id(context.span_id()),
        "flags": context.trace_flags().to_u8(),
        "is_remote": context.is_remote(),
        "trace_state": context.trace_state().header(),
        "attributes": attributes(&link.attributes),
        "dropped_attributes": link.dropped_attributes_count,
    })
}

/// `null` for none: the root has no parent, a link to a whole trace no span.
fn id(id: SpanId) -> Option<String> {
    (id != SpanId::INVALID).then(|| id.to_string())
}

fn attributes(attributes: &[KeyValue]) -> Map<String, Json> {
    attributes.iter().map(|of| (of.key.to_string(), value(&of.value))).collect()
}

fn value(value: &Value) -> Json {
    match value {
        Value::Bool(value) => json!(value),
        Value::I64(value) => json!(value),
        Value::F64(value) => json!(value),
        Value::Array(Array::Bool(values)) => json!(values),
        Value::Array(Array::I64(values)) => json!(values),
        Value::Array(Array::F64(values)) => json!(values),
        Value::Array(Array::String(values)) => values.iter().map(|value| value.as_str()).collect(),
        other => json!(other.as_str()),
    }
}
