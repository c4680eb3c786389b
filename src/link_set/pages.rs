//! Links beyond those of the batch span, on spans of their own.

use super::batch::{LinkBatch, page_attributes};
use super::parent::Parent;
use crate::links::int;
use crate::panic::caught;
use opentelemetry::trace::{Link, Span, SpanBuilder, SpanContext, TraceContextExt, Tracer};
use opentelemetry::{Context, KeyValue};

/// The links of a batch beyond the first page, from [`LinkBatch::take_pages`]; see
/// [`Overflow::Spans`](crate::Overflow::Spans).
///
/// ```
/// use batchlink::{LinkPolicy, LinkSet, Overflow};
/// use opentelemetry::{global, trace::{Span, SpanKind, Tracer}};
///
/// let policy = LinkPolicy::new().with_overflow(Overflow::Spans { max_pages: 8 });
/// let mut set = LinkSet::builder().with_link_policy(policy).build()?;
/// let mut batch = set.finish();
///
/// // A batch span of your own.
/// let pages = batch.take_pages().named("insert");
/// let tracer = global::tracer("inserts");
/// let span = tracer.build(batch.span_builder("insert").with_kind(SpanKind::Client));
/// pages.start(&tracer, span.span_context()); // spans "insert links"
/// # Ok::<(), batchlink::ConfigError>(())
/// ```
#[derive(Debug)]
#[must_use = "the links are lost if the spans are not started"]
pub struct LinkPages {
    links: Vec<Link>,
    page: usize,
    pages: usize,
    name: String,
}

impl LinkBatch {
    /// Takes the links beyond the first page out of the batch, for spans of their own. Empty unless
    /// the policy is [`Overflow::Spans`](crate::Overflow::Spans), and when called again.
    ///
    /// [`start`](Self::start) does this by itself. Call it before
    /// [`span_builder`](Self::span_builder), [`attributes`](Self::attributes) and
    /// [`into_links`](Self::into_links), and after [`hoist`](Self::hoist): what moved to the batch
    /// span is put back on the links that are taken. Without this call, the batch span gets all
    /// links, of which the SDK keeps as many as its limit allows.
    pub fn take_pages(&mut self) -> LinkPages {
        let page = self.page.unwrap_or(usize::MAX);
        if self.parent == Parent::Only && self.only().is_none() {
            // The links that are left may all be of one span.
            self.parent = Parent::Current;
        }
        let mut links = self.links.split_off(page.min(self.links.len()));
        if !links.is_empty() {
            self.pages = 1 + links.len().div_ceil(page);
            let hoisted = &self.hoisted;
            links.iter_mut().for_each(|link| link.attributes.extend_from_slice(hoisted));
        }
        LinkPages { links, page, pages: self.pages, name: String::new() }
    }
}

impl LinkPages {
    /// Sets the name of the batch span. Those of the pages are named `<name> links`.
    pub fn named(mut self, name: &str) -> Self {
        if !self.links.is_empty() {
            self.name = format!("{name} links");
        }
        self
    }

    /// Starts and ends a span for each page, as children of the batch span, if that is sampled.
    pub fn start<T: Tracer>(self, tracer: &T, batch_span: &SpanContext) {
        if self.links.is_empty() || !batch_span.is_sampled() {
            return;
        }
        let parent = Context::current().with_remote_span_context(batch_span.clone());
        self.into_builders().for_each(|span| {
            // A span processor that panics must not cost the caller the batch span.
            let _ = caught(|| tracer.build_with_context(span, &parent).end());
        });
    }

    /// Returns the builder of each page's span.
    pub(crate) fn into_builders(self) -> impl Iterator<Item = SpanBuilder> {
        let Self { links, page, pages, name } = self;
        let mut links = links.into_iter();
        // The batch span has the first.
        (2..=pages).map(move |number| {
            let links: Vec<Link> = links.by_ref().take(page).collect();
            let mut attributes = vec![KeyValue::new("batch.links", int(links.len()))];
            attributes.extend(page_attributes(number, pages));
            let mut span = SpanBuilder::from_name(name.clone()).with_attributes(attributes);
            // Not by `with_links`, which drops links to invalid contexts.
            span.links = Some(links);
            span
        })
    }
}
