//! The links of one batch, what became of every context, and the span that carries them.

use super::parent::Parent;
use super::span_limit::SpanLimit;
use crate::links::int;
use crate::stats::{Counts, Trigger, Wait};
use opentelemetry::KeyValue;
use opentelemetry::trace::{Link, Span, SpanBuilder, SpanContext, Tracer};
use std::borrow::Cow;
use std::time::Duration;

/// Empty links that one span is given at most.
const MAX_UNCOUNTED: u64 = 1 << 16;

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
    pub(super) links: Vec<Link>,
    /// Attributes that were moved from the links to the span.
    pub(super) hoisted: Vec<KeyValue>,
    pub(super) counts: Counts,
    pub(super) parent: Parent,
    trigger: Trigger,
    span_limit: SpanLimit,
    /// Links of one page, if the policy allows further ones.
    pub(super) page: Option<usize>,
    /// Pages of the batch, once further ones were taken; else 1.
    pub(super) pages: usize,
    wait: Option<Wait>,
    /// The wait of the oldest context becomes an attribute.
    states_wait: bool,
}

impl LinkBatch {
    pub(super) fn new(
        links: Vec<Link>,
        counts: Counts,
        trigger: Trigger,
        span_limit: SpanLimit,
        page: Option<usize>,
    ) -> Self {
        let (hoisted, parent) = (Vec::new(), Parent::default());
        let (wait, states_wait, pages) = (None, false, 1);
        Self { links, hoisted, counts, parent, trigger, span_limit, page, pages, wait, states_wait }
    }

    /// Adds how long its contexts have waited, with an attribute for it if `states_wait`.
    pub(crate) fn with_wait(self, wait: Wait, states_wait: bool) -> Self {
        Self { wait: Some(wait), states_wait, ..self }
    }

    /// Returns the links, in order of arrival: at most `max_links`, or as many for each page that
    /// [`Overflow`](crate::Overflow) allows and that was not [taken](Self::take_pages). No two are
    /// duplicates by the policy's [`Dedup`](crate::Dedup). Links to invalid contexts are among them
    /// if the policy ([`Invalid`](crate::Invalid)) keeps these.
    pub fn links(&self) -> &[Link] {
        &self.links
    }

    /// Returns the links, for a span that you build yourself. Add the
    /// [`attributes`](Self::attributes) to it too. `SpanBuilder::with_links` drops links to invalid
    /// contexts; its field `links` does not.
    ///
    /// ```
    /// # use opentelemetry::trace::{SpanContext, SpanId, TraceFlags, TraceId, TraceState};
    /// # let context = |n: u64| SpanContext::new(
    /// #     TraceId::from(7u128), SpanId::from(n), TraceFlags::SAMPLED, true, TraceState::NONE);
    /// use batchlink::LinkSet;
    /// use opentelemetry::trace::SpanBuilder;
    ///
    /// let mut set = LinkSet::builder().build()?;
    /// set.insert(&context(1));
    /// let batch = set.finish();
    /// let mut span = SpanBuilder::from_name("insert").with_attributes(batch.attributes());
    /// span.links = Some(batch.into_links());
    /// # Ok::<(), batchlink::ConfigError>(())
    /// ```
    pub fn into_links(self) -> Vec<Link> {
        self.links
    }

    /// Returns the reason for the batch.
    pub fn trigger(&self) -> Trigger {
        self.trigger
    }

    /// Returns all counts, as a copy that outlives the batch.
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// Returns contexts taken into the batch: `linked + duplicates + truncated + invalid +
    /// unsampled`.
    pub fn received(&self) -> u64 {
        self.counts.received
    }

    /// Returns contexts that became a link.
    pub fn linked(&self) -> u64 {
        self.counts.linked
    }

    /// Returns contexts for which the link of another stands.
    pub fn duplicates(&self) -> u64 {
        self.counts.duplicates
    }

    /// Returns contexts without a link because there were more than `max_links`.
    pub fn truncated(&self) -> u64 {
        self.counts.truncated
    }

    /// Returns contexts without a trace id or span id that the policy ([`Invalid`](crate::Invalid))
    /// did not keep. A collector never takes these: see [`Stats::invalid`](crate::Stats::invalid).
    pub fn invalid(&self) -> u64 {
        self.counts.invalid
    }

    /// Returns contexts that were not sampled.
    pub fn unsampled(&self) -> u64 {
        self.counts.unsampled
    }

    /// Returns how long the oldest context has waited: the time from the push that started the
    /// delay to the batch. `None` if that is not known.
    ///
    /// No push reads the clock but the first after the collector was empty. So it is known for a
    /// batch that begins with this push, and not for one that begins with what an earlier batch
    /// left, or with what was pushed while that was taken. [`wait_bound`](Self::wait_bound) has a
    /// bound for these. A [`LinkSet`](crate::LinkSet) knows no waits.
    ///
    /// ```
    /// # use opentelemetry::trace::{SpanContext, SpanId, TraceFlags, TraceId, TraceState};
    /// # let context = |n| SpanContext::new(
    /// #     TraceId::from(7), SpanId::from(n), TraceFlags::SAMPLED, false, TraceState::NONE);
    /// let (collector, mut flusher) = batchlink::LinkCollector::builder().build()?;
    /// assert!(flusher.try_next().is_none()); // empty
    /// collector.push(&context(1))?;
    /// let batch = flusher.try_next().expect("a context is pending");
    /// assert_eq!(batch.oldest_wait(), batch.wait_bound());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn oldest_wait(&self) -> Option<Duration> {
        self.wait.and_then(Wait::oldest)
    }

    /// Returns a bound of the waits: no context of this batch has waited longer. `None` for a batch
    /// of a [`LinkSet`](crate::LinkSet).
    ///
    /// If [`oldest_wait`](Self::oldest_wait) is known, this is the same. Otherwise it exceeds the
    /// wait of the oldest context, by at most as long as the flusher took to reach it: under a
    /// lasting backlog it is about twice that wait.
    ///
    /// ```
    /// let batch = batchlink::LinkSet::builder().build()?.finish();
    /// assert_eq!((batch.oldest_wait(), batch.wait_bound()), (None, None));
    /// # Ok::<(), batchlink::ConfigError>(())
    /// ```
    pub fn wait_bound(&self) -> Option<Duration> {
        self.wait.map(|wait| wait.bound)
    }

    /// Returns the attributes of the batch span.
    ///
    /// | attribute | value | set |
    /// |---|---|---|
    /// | `batch.size` | contexts received | always |
    /// | `batch.links` | links on the span | always |
    /// | `batch.trigger` | [`Trigger::as_str`] | always |
    /// | `links.duplicates` | duplicate contexts, not linked | if not 0 |
    /// | `links.unsampled` | unsampled contexts, not linked | if not 0 |
    /// | `links.invalid` | invalid contexts, not linked | if not 0 |
    /// | `links.truncated` | `true` | if links were cut |
    /// | `links.original_count` | links before the cut | if links were cut |
    /// | `batch.page` | 1 | if there are pages on further spans |
    /// | `batch.pages` | number of pages | if there are pages on further spans |
    /// | `batch.oldest_wait` | [`oldest_wait`](Self::oldest_wait) in seconds | if known; option |
    ///
    /// Links are cut at `max_links`, and by the SDK at its own limit. `batch.links` is at most that
    /// limit: 128, the value of `OTEL_SPAN_LINK_COUNT_LIMIT`, or what
    /// [`with_span_link_limit`](crate::LinkPolicy::with_span_link_limit) says.
    ///
    /// The option is [`with_wait_times`](crate::LinkCollectorBuilder::with_wait_times). After these
    /// come the attributes that were [hoisted](Self::hoist).
    ///
    /// ```
    /// # use opentelemetry::trace::{SpanContext, SpanId, TraceFlags, TraceId, TraceState};
    /// # let context = |n: u64| SpanContext::new(
    /// #     TraceId::from(7u128), SpanId::from(n), TraceFlags::SAMPLED, true, TraceState::NONE);
    /// use batchlink::LinkSet;
    /// use opentelemetry::KeyValue;
    ///
    /// let mut set = LinkSet::builder().build()?;
    /// set.extend([1, 1, 2].map(context));
    /// let attributes = set.finish().attributes();
    /// assert!(attributes.contains(&KeyValue::new("batch.size", 3)));
    /// assert!(attributes.contains(&KeyValue::new("batch.links", 2)));
    /// assert!(attributes.contains(&KeyValue::new("links.duplicates", 1)));
    /// # Ok::<(), batchlink::ConfigError>(())
    /// ```
    pub fn attributes(&self) -> Vec<KeyValue> {
        let Counts { received, duplicates, truncated, invalid, unsampled, .. } = self.counts;
        let mut attributes = vec![
            KeyValue::new("batch.size", int(received)),
            KeyValue::new("batch.links", int(self.carried())),
            KeyValue::new("batch.trigger", self.trigger.as_str()),
        ];
        let reasons = [
            ("links.duplicates", duplicates),
            ("links.unsampled", unsampled),
            ("links.invalid", invalid),
        ];
        let reasons = reasons.into_iter().filter(|&(_, count)| count > 0);
        attributes.extend(reasons.map(|(key, count)| KeyValue::new(key, int(count))));
        attributes.extend(self.truncation(truncated));
        if self.pages > 1 {
            attributes.extend(page_attributes(1, self.pages));
        }
        let wait = self.oldest_wait().filter(|_| self.states_wait);
        attributes.extend(wait.map(|wait| KeyValue::new("batch.oldest_wait", wait.as_secs_f64())));
        attributes.extend_from_slice(&self.hoisted);
        attributes
    }

    /// Returns how many links the SDK keeps of those that are left to the batch span.
    fn carried(&self) -> u64 {
        (self.links.len() as u64).min(self.span_limit.links())
    }

    /// Returns what a span with these links says, if it carries fewer than these and the truncated
    /// ones.
    pub(crate) fn truncation(&self, truncated: u64) -> impl Iterator<Item = KeyValue> + use<> {
        // Invariant: cut-is-told.
        let original = self.counts.linked + truncated;
        let others = self.counts.linked - self.links.len() as u64;
        let cut = self.carried() + others < original;
        let attributes = || {
            [
                KeyValue::new("links.truncated", true),
                KeyValue::new("links.original_count", int(original)),
            ]
        };
        cut.then(attributes).into_iter().flatten()
    }

    /// Returns a builder of the batch span, with links and attributes set at creation, so that
    /// samplers see them. Set kind, start time and more on it before you start it, in the context
    /// that [`parent`](Self::parent) returns if the policy names one. More attributes
    /// by `with_attributes` would replace these, so add those to the started span.
    ///
    /// All links are in it, also those to invalid contexts that the policy kept.
    ///
    /// ```
    /// use opentelemetry::{global, trace::{SpanKind, Tracer}};
    ///
    /// # let batch = batchlink::LinkSet::builder().build()?.finish();
    /// let builder = batch.span_builder("insert").with_kind(SpanKind::Client);
    /// let span = global::tracer("inserts").build(builder);
    /// # drop(span);
    /// # Ok::<(), batchlink::ConfigError>(())
    /// ```
    pub fn span_builder(self, name: impl Into<Cow<'static, str>>) -> SpanBuilder {
        let mut builder = SpanBuilder::from_name(name).with_attributes(self.attributes());
        // Not by `with_links`, which drops links to invalid contexts.
        builder.links = Some(self.links);
        builder
    }

    /// Starts the batch span. Its parent is the current `Context`, unless the policy names another
    /// [`Parent`](crate::Parent). On the flusher's thread that is empty unless you attach one: the
    /// batch then has a trace of its own, joined by its links, and the sampler decides on it as on
    /// any root span.
    ///
    /// The span is not made current. Spans that the work of the batch starts are its children if it
    /// is attached: by [`mark_span_as_active`](opentelemetry::trace::mark_span_as_active), as the
    /// example of [`Flusher::spawn`](crate::Flusher::spawn) does, or in a task by
    /// [`FutureExt::with_context`](opentelemetry::trace::FutureExt::with_context).
    ///
    /// If the SDK's limit was [told](crate::LinkPolicy::with_span_link_limit), truncated contexts
    /// are counted in the span's own count of dropped links (`dropped_links_count` in OTLP), up to
    /// 65 536 of them. Cost: one call of the span for each.
    ///
    /// With [`Overflow::Spans`](crate::Overflow) it also starts and ends the spans of the further
    /// pages.
    pub fn start<T: Tracer>(mut self, tracer: &T, name: impl Into<Cow<'static, str>>) -> T::Span {
        let (name, parent) = (name.into(), self.parent());
        let pages = self.take_pages().named(&name);
        let uncounted = self.uncounted();
        let mut span = self.span_builder(name).start_with_context(tracer, &parent);
        if span.is_recording() {
            (0..uncounted).for_each(|_| span.add_link(SpanContext::NONE, Vec::new()));
        }
        pages.start(tracer, span.span_context());
        span
    }

    /// Returns how many empty links to give to the started span, which is full and counts each as
    /// dropped.
    pub(crate) fn uncounted(&self) -> u64 {
        match self.span_limit {
            SpanLimit::Told(limit) if self.links.len() as u64 >= limit => {
                self.counts.truncated.min(MAX_UNCOUNTED)
            }
            _ => 0,
        }
    }
}

/// Returns what a span says of its page of the batch's links.
pub(super) fn page_attributes(page: usize, pages: usize) -> [KeyValue; 2] {
    [KeyValue::new("batch.page", int(page)), KeyValue::new("batch.pages", int(pages))]
}

/// Adds the attributes that have a new key.
pub(crate) fn add_new(attributes: &mut Vec<KeyValue>, others: impl IntoIterator<Item = KeyValue>) {
    for other in others {
        if !attributes.iter().any(|known| known.key == other.key) {
            attributes.push(other);
        }
    }
}
