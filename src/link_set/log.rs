//! What is logged of links that are lost: each kind once for a set, at most one for a batch.

use super::span_limit::SpanLimit;
use crate::panic::caught;
use crate::stats::Counts;

/// Which losses were logged.
#[derive(Debug, Default)]
pub(super) struct LossLog {
    over_limit: bool,
    truncated: bool,
}

impl LossLog {
    /// Warns of the first batch with more links than the SDK keeps of its span, unless they are on
    /// pages, and of the first with truncated contexts.
    pub(super) fn check(&mut self, counts: &Counts, limit: SpanLimit, paged: bool) {
        let over_limit = counts.linked > limit.links() && !paged;
        // A panic of the user's subscriber must not cost the batch.
        if over_limit && !std::mem::replace(&mut self.over_limit, true) {
            let _ = caught(|| {
                opentelemetry::otel_warn!(
                    name: "LinkSet.SpanLinkLimitExceeded",
                    links = counts.linked,
                    limit = limit.links(),
                    message = "A batch has more links than the SDK keeps of a span: those over \
                               the limit are dropped. Raise OTEL_SPAN_LINK_COUNT_LIMIT (or tell \
                               a limit set in code by LinkPolicy::with_span_link_limit), or lower \
                               max_links. This is logged once for each link set."
                );
            });
        } else if counts.truncated > 0 && !std::mem::replace(&mut self.truncated, true) {
            let _ = caught(|| {
                opentelemetry::otel_warn!(
                    name: "LinkSet.LinksTruncated",
                    linked = counts.linked,
                    truncated = counts.truncated,
                    message = "A batch has more contexts than links are allowed: the others are \
                               truncated. Raise max_links and the SDK's limit, or set \
                               Overflow::Spans. This is logged once for each link set."
                );
            });
        }
    }
}
