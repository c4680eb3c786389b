//! The links of one batch, what became of every context, and the way to a span.

use opentelemetry::trace::{Link, SpanBuilder, Tracer};
use opentelemetry::{KeyValue, Value};
use std::borrow::Cow;
use std::fmt;

/// What ended a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Trigger {
    /// `max_batch_size` contexts were pending.
    Size,
    /// `max_delay` was over for the first of them.
    Timeout,
    /// Somebody asked: [`LinkCollector::flush`](crate::LinkCollector::flush),
    /// [`Flusher::try_next`](crate::Flusher::try_next) or [`LinkSet::finish`](crate::LinkSet::finish).
    Manual,
    /// The collector was closed, and this is what was left.
    Shutdown,
}

impl Trigger {
    /// The value of the attribute `batch.trigger`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Size => "size_limit",
            Self::Timeout => "timeout",
            Self::Manual => "manual",
            Self::Shutdown => "shutdown",
        }
    }
}

impl fmt::Display for Trigger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What became of the contexts of a batch: `received` is the sum of the next five.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Counts {
    /// Contexts that the batch took.
    pub received: u64,
    /// Contexts that became a link.
    pub linked: u64,
    /// Contexts whose span was linked already.
    pub duplicates: u64,
    /// Contexts over `max_links`.
    pub truncated: u64,
    /// Contexts without a trace id or span id, given to a [`LinkSet`](crate::LinkSet) directly, that
    /// its policy ([`Invalid`](crate::Invalid)) did not keep.
    pub invalid: u64,
    /// Contexts that were not sampled.
    pub unsampled: u64,
    /// Links whose trace state was over 512 bytes and was left out.
    pub trace_states_dropped: u64,
    /// Links without the attributes of their own that `with_link_attributes` was to make, because
    /// the closure panicked.
    pub attribute_panics: u64,
}

/// The links of one batch, ready for its span.
///
/// ```
/// use batchlink::LinkSet;
/// use opentelemetry::global;
///
/// let mut set = LinkSet::builder().build()?;
/// let batch = set.finish();
/// let counts = batch.counts(); // a copy: the batch goes into the span
/// let span = batch.start(&global::tracer("inserts"), "insert_batch");
/// println!("{} of {} contexts linked", counts.linked, counts.received);
/// # Ok::<(), batchlink::ConfigError>(())
/// ```
#[derive(Clone, Debug)]
#[must_use = "a batch that is dropped links nothing"]
pub struct LinkBatch {
    links: Vec<Link>,
    counts: Counts,
    trigger: Trigger,
}

impl LinkBatch {
    pub(crate) fn new(links: Vec<Link>, counts: Counts, trigger: Trigger) -> Self {
        Self { links, counts, trigger }
    }

    /// The links: no two to the same span, at most `max_links`, each producer's in its order. With
    /// [`Invalid::Keep`](crate::Invalid) or `KeepWithAttributes` among them those that were kept,
    /// in their place.
    pub fn links(&self) -> &[Link] {
        &self.links
    }

    /// The links, for a span that you build yourself. See also [`attributes`](Self::attributes).
    pub fn into_links(self) -> Vec<Link> {
        self.links
    }

    /// What ended the batch.
    pub fn trigger(&self) -> Trigger {
        self.trigger
    }

    /// All counts, as a copy that outlives the batch.
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// Contexts that the batch took: `linked + duplicates + truncated + invalid + unsampled`.
    pub fn received(&self) -> u64 {
        self.counts.received
    }

    /// Contexts that became a link.
    pub fn linked(&self) -> u64 {
        self.counts.linked
    }

    /// Contexts whose span was linked already.
    pub fn duplicates(&self) -> u64 {
        self.counts.duplicates
    }

    /// Contexts over `max_links`.
    pub fn truncated(&self) -> u64 {
        self.counts.truncated
    }

    /// Contexts without a trace id or span id, given to a [`LinkSet`](crate::LinkSet) directly, that
    /// its policy ([`Invalid`](crate::Invalid)) did not keep. A collector counts those in
    /// [`Stats::invalid`](crate::Stats::invalid) and never takes them.
    pub fn invalid(&self) -> u64 {
        self.counts.invalid
    }

    /// Contexts that were not sampled.
    pub fn unsampled(&self) -> u64 {
        self.counts.unsampled
    }

    /// Links whose trace state was over 512 bytes and was left out.
    pub fn trace_states_dropped(&self) -> u64 {
        self.counts.trace_states_dropped
    }

    /// Links without the attributes of their own that `with_link_attributes` was to make, because
    /// the closure panicked.
    pub fn attribute_panics(&self) -> u64 {
        self.counts.attribute_panics
    }

    /// The attributes of the batch span: `batch.size` (contexts received), `batch.links`,
    /// `batch.trigger`; if links were cut, `links.truncated = true` and `links.original_count`
    /// (links and truncated contexts together), because the SDK cannot be told of links that
    /// were dropped before it saw them.
    pub fn attributes(&self) -> Vec<KeyValue> {
        let count = |n: u64| Value::I64(i64::try_from(n).unwrap_or(i64::MAX));
        let mut attributes = vec![
            KeyValue::new("batch.size", count(self.counts.received)),
            KeyValue::new("batch.links", count(self.counts.linked)),
            KeyValue::new("batch.trigger", self.trigger.as_str()),
        ];
        if self.counts.truncated > 0 {
            attributes.push(KeyValue::new("links.truncated", true));
            let original = self.counts.linked + self.counts.truncated;
            attributes.push(KeyValue::new("links.original_count", count(original)));
        }
        attributes
    }

    /// A span with links and attributes set at creation, so that samplers see them. Set kind,
    /// start time and more on it before you start it; more attributes with `with_attributes`
    /// would replace these, so add those to the started span.
    ///
    /// All links are in it, also those to invalid contexts that the policy kept.
    pub fn span_builder(self, name: impl Into<Cow<'static, str>>) -> SpanBuilder {
        let mut builder = SpanBuilder::from_name(name).with_attributes(self.attributes());
        // Not by `with_links`, which throws links to invalid contexts away.
        builder.links = Some(self.links);
        builder
    }

    /// Starts the batch span. Its parent is the current `Context`, which on the flusher's thread
    /// is empty unless you attach one: the batch then has a trace of its own, joined by its links,
    /// and the sampler decides on it as on any root span.
    pub fn start<T: Tracer>(self, tracer: &T, name: impl Into<Cow<'static, str>>) -> T::Span {
        self.span_builder(name).start(tracer)
    }
}
