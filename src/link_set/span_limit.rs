//! How many links a span has: by the SDK's limit, and by the pages of a batch.

use super::DEFAULT_MAX_LINKS;
use super::policy::LinkPolicy;
use super::treatment::Overflow;
use std::env;
use std::sync::LazyLock;

impl LinkPolicy {
    pub(super) fn span_limit(&self) -> SpanLimit {
        match self.span_limit {
            Some(links) => SpanLimit::Told(links as u64),
            None => SpanLimit::Assumed(*SDK_LIMIT),
        }
    }

    /// Returns how many links a page has; `None` if all links are for one span.
    pub(super) fn page(&self) -> Option<usize> {
        let Overflow::Spans { .. } = self.overflow else { return None };
        let limit = usize::try_from(self.span_limit().links()).unwrap_or(usize::MAX);
        // With a limit of 0 further spans would have no links either.
        (limit > 0).then_some(self.max_links().min(limit))
    }

    /// Returns the bound of a batch's links, on all its spans.
    pub(super) fn bound(&self) -> usize {
        match (self.overflow, self.page()) {
            (Overflow::Spans { max_pages }, Some(page)) => page * max_pages,
            _ => self.max_links(),
        }
    }

    /// Decides that all links are for one span.
    pub(super) fn without_pages(&mut self) {
        self.overflow = Overflow::Truncate;
    }
}

/// How many links the SDK keeps of a span.
#[derive(Clone, Copy, Debug)]
pub(super) enum SpanLimit {
    /// As the user set it.
    Told(u64),
    /// As the SDK reads it, unless it is set in code.
    Assumed(u64),
}

impl SpanLimit {
    pub(super) fn links(self) -> u64 {
        match self {
            Self::Told(links) | Self::Assumed(links) => links,
        }
    }
}

/// Read once, by the SDK's own rule: a value that is no number is ignored.
static SDK_LIMIT: LazyLock<u64> = LazyLock::new(|| {
    let limit = env::var("OTEL_SPAN_LINK_COUNT_LIMIT").ok();
    limit.and_then(|limit| limit.parse::<u32>().ok()).map_or(DEFAULT_MAX_LINKS as u64, u64::from)
});
