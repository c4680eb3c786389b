//! The links of one batch, what became of every context, and the way to a span.

use crate::links::int;
use crate::stats::{Counts, Trigger};
use opentelemetry::trace::{Link, SpanBuilder, Tracer};
use opentelemetry::{Key, KeyValue};
use std::borrow::Cow;

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
    /// What all links had in common, if it was moved to the span.
    hoisted: Vec<KeyValue>,
    counts: Counts,
    trigger: Trigger,
}

impl LinkBatch {
    pub(crate) fn new(links: Vec<Link>, counts: Counts, trigger: Trigger) -> Self {
        Self { links, hoisted: Vec::new(), counts, trigger }
    }

    /// The links: no two to the same span, at most `max_links`, each producer's in its order. With
    /// [`Invalid::Keep`](crate::Invalid) or `KeepWithAttributes` among them those that were kept,
    /// in their place.
    pub fn links(&self) -> &[Link] {
        &self.links
    }

    /// The links, for a span that you build yourself. Its [`attributes`](Self::attributes) are for it
    /// too. (`SpanBuilder::with_links` throws those to invalid contexts away; its field `links` does not.)
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

    /// Moves the attributes that are the same on every link to the span, as the messaging conventions
    /// ask; those that differ, or that a link lacks, stay where they are. So do those of which the span
    /// has one of its own, and all whose key begins with `link.`, as these speak of the link and not
    /// of what it leads to. (A type under another kind of key, by `with_link_type_key`, does move.)
    ///
    /// With one link all others move: what is true of its only item is true of the batch. Contexts
    /// that did not become a link have no say.
    ///
    /// Cost: each attribute of the first link is looked for in all others.
    ///
    /// ```
    /// use batchlink::{LinkSet, messaging::Message};
    /// use opentelemetry::KeyValue;
    /// # use opentelemetry::trace::{SpanContext, SpanId, TraceFlags, TraceId, TraceState};
    /// # let context = |n: u64| SpanContext::new(TraceId::from(7u128), SpanId::from(n), TraceFlags::SAMPLED, true, TraceState::NONE);
    ///
    /// let mut set = LinkSet::builder().build()?;
    /// set.insert_link(Message::new().with_id("m-1").with_partition("3").link(&context(1)));
    /// set.insert_link(Message::new().with_id("m-2").with_partition("3").link(&context(2)));
    ///
    /// let batch = set.finish().hoist();
    /// assert!(batch.attributes().contains(&KeyValue::new("messaging.destination.partition.id", "3")));
    /// assert_eq!(batch.links()[1].attributes[0], KeyValue::new("messaging.message.id", "m-2"));
    /// # Ok::<(), batchlink::ConfigError>(())
    /// ```
    pub fn hoist(self) -> Self {
        self.hoist_where(|key| !key.as_str().starts_with("link."))
    }

    /// As [`hoist`](Self::hoist), for the keys that `which` says, those of `link.` included.
    pub fn hoist_where(mut self, mut which: impl FnMut(&Key) -> bool) -> Self {
        let Some((first, others)) = self.links.split_first() else {
            return self;
        };
        let on_all = |attribute: &KeyValue| others.iter().all(|link| link.attributes.contains(attribute));
        let common = first.attributes.iter().filter(|attribute| which(&attribute.key) && on_all(attribute));
        // What the span has already has no place there, and stays.
        let mut span = self.attributes();
        let already = span.len();
        add_new(&mut span, common.cloned());
        let common = span.split_off(already);
        for link in &mut self.links {
            link.attributes.retain(|attribute| !common.contains(attribute));
        }
        self.hoisted.extend(common);
        self
    }

    /// The attributes of the batch span: `batch.size` (contexts received), `batch.links`,
    /// `batch.trigger`; if links were cut, `links.truncated = true` and `links.original_count`
    /// (links and truncated contexts together), because the SDK cannot be told of links that
    /// were dropped before it saw them. After them those that were [hoisted](Self::hoist).
    pub fn attributes(&self) -> Vec<KeyValue> {
        let mut attributes = vec![
            KeyValue::new("batch.size", int(self.counts.received)),
            KeyValue::new("batch.links", int(self.counts.linked)),
            KeyValue::new("batch.trigger", self.trigger.as_str()),
        ];
        if self.counts.truncated > 0 {
            attributes.push(KeyValue::new("links.truncated", true));
            let original = self.counts.linked + self.counts.truncated;
            attributes.push(KeyValue::new("links.original_count", int(original)));
        }
        attributes.extend_from_slice(&self.hoisted);
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

/// Adds what has a new key.
pub(crate) fn add_new(attributes: &mut Vec<KeyValue>, others: impl IntoIterator<Item = KeyValue>) {
    for other in others {
        if !attributes.iter().any(|known| known.key == other.key) {
            attributes.push(other);
        }
    }
}
