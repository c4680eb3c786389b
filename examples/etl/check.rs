//! The links alone tell where every row came from.

use crate::common::{Exported, Result, ensure, number};
use opentelemetry::trace::SpanId;
use opentelemetry_sdk::trace::SpanData;
use std::collections::HashMap;

/// On their way from stage to stage, rows are neither lost nor doubled: the links say so.
pub(crate) fn check(exported: &Exported) -> Result {
    for (stage, before, output) in
        [("transform", "read_page", "rows"), ("load", "transform", "batch.size")]
    {
        let mut taken: HashMap<SpanId, i64> = HashMap::new();
        for span in exported.named(stage) {
            let rows = span.links.iter().map(|link| number(&link.attributes, "rows"));
            let size = number(&span.attributes, "batch.size");
            ensure(
                rows.sum::<i64>() == size,
                format!("links of {stage} account for its {size} rows"),
            )?;
            for link in span.links.iter() {
                *taken.entry(link.span_context.span_id()).or_default() +=
                    number(&link.attributes, "rows");
            }
        }
        let made = |span: &SpanData| {
            number(&span.attributes, output) - number(&span.attributes, "rows.rejected")
        };
        for span in exported.named(before) {
            let (made, taken) =
                (made(span), taken.remove(&span.span_context.span_id()).unwrap_or_default());
            ensure(
                made == taken,
                format!("of {made} rows of a {before}, {taken} went through a {stage}"),
            )?;
        }
        ensure(taken.is_empty(), format!("every {stage} links to {before} only"))?;
    }
    Ok(())
}
