//! How contexts become links: which of them, and with which attributes.

use crate::error::{ConfigError, within};
use crate::link_set::attributes::LinkAttributes;
use crate::link_set::parent::Parent;
pub use crate::link_set::treatment::{Dedup, Invalid, Overflow, Truncation, Unsampled};
use crate::link_set::{DEFAULT_MAX_LINKS, MAX_LINKS};
use crate::links::LINK_TYPE;
use opentelemetry::trace::{Link, SpanContext};
use opentelemetry::{Key, KeyValue};
use std::borrow::Cow;

/// How contexts become links: which of them, at most how many, and with which attributes.
///
/// One policy serves [`LinkSetBuilder`](crate::LinkSetBuilder),
/// [`LinkCollectorBuilder`](crate::LinkCollectorBuilder) and
#[cfg_attr(
    feature = "processor",
    doc = "[`BatchProcessorBuilder`](crate::processor::BatchProcessorBuilder), by their `with_link_policy`."
)]
#[cfg_attr(
    not(feature = "processor"),
    doc = "`BatchProcessorBuilder`, by their `with_link_policy`."
)]
/// Values are checked when those are built.
///
/// ```
/// use batchlink::{Dedup, LinkCollector, LinkPolicy, links::Relation};
///
/// let policy = LinkPolicy::new()
///     .with_dedup(Dedup::Off)
///     .with_link_type(Relation::ConsumedFrom);
/// let (collector, flusher) = LinkCollector::builder().with_link_policy(policy).build()?;
/// # drop((collector, flusher));
/// # Ok::<(), batchlink::ConfigError>(())
/// ```
#[derive(Clone, Debug)]
#[must_use = "a policy does nothing until it is given to a builder"]
pub struct LinkPolicy {
    /// `None`: [`DEFAULT_MAX_LINKS`].
    pub(crate) max_links: Option<usize>,
    /// `None`: that of the environment.
    pub(super) span_limit: Option<usize>,
    pub(crate) unsampled: Unsampled,
    pub(crate) dedup: Dedup,
    pub(super) link_count: bool,
    pub(super) truncation: Truncation,
    pub(super) overflow: Overflow,
    pub(crate) invalid: Invalid,
    pub(super) parent: Parent,
    pub(crate) link_type: Option<Cow<'static, str>>,
    /// `None`: `link.type`.
    pub(super) link_type_key: Option<Key>,
    pub(super) attributes: Option<LinkAttributes>,
}

impl Default for LinkPolicy {
    /// Returns the same as [`new`](Self::new).
    fn default() -> Self {
        Self {
            max_links: None,
            span_limit: None,
            unsampled: Unsampled::default(),
            dedup: Dedup::default(),
            link_count: false,
            truncation: Truncation::default(),
            overflow: Overflow::default(),
            invalid: Invalid::default(),
            parent: Parent::default(),
            link_type: Some(Cow::Borrowed("batch_item")),
            link_type_key: None,
            attributes: None,
        }
    }
}

impl LinkPolicy {
    /// Returns the default policy: at most 128 links of the type `batch_item`; drops duplicate,
    /// unsampled and invalid contexts.
    ///
    /// ```
    /// use batchlink::{LinkPolicy, LinkSet};
    ///
    /// let error = LinkSet::builder().with_link_policy(LinkPolicy::new().with_max_links(0)).build().unwrap_err();
    /// assert_eq!(error.to_string(), "invalid max_links: 0 (allowed: 1 to 1048576)");
    /// ```
    pub fn new() -> Self {
        Self::default()
    }

    /// Bounds the links of one batch; defaults to 128, 1 to 1 048 576 are allowed. Contexts beyond
    /// are counted as truncated, and the batch span says so. With [`Overflow::Spans`] it bounds the
    /// links of one span.
    ///
    /// The SDK drops links over a limit of its own, 128 by default. To have more, raise that too,
    /// by `OTEL_SPAN_LINK_COUNT_LIMIT`, or in code and by
    /// [`with_span_link_limit`](Self::with_span_link_limit). A batch with more links than the SDK
    /// keeps is logged once (feature `internal-logs`).
    pub fn with_max_links(mut self, links: usize) -> Self {
        self.max_links = Some(links);
        self
    }

    /// Tells how many links the SDK keeps of a span, if that is set in code (by
    /// `with_max_links_per_span`). Defaults to `OTEL_SPAN_LINK_COUNT_LIMIT`, as the SDK reads it,
    /// or to 128.
    ///
    /// The attributes of a batch span never state more links than that. A limit that is told here
    /// must be the SDK's exactly: [`LinkBatch::start`](crate::LinkBatch::start) then gives a span
    /// that is full one empty link for each truncated context, which the SDK counts as dropped and
    /// a higher limit would let through.
    ///
    /// ```
    /// use batchlink::LinkPolicy;
    ///
    /// // As `SdkTracerProvider::builder().with_max_links_per_span(512)`.
    /// let policy = LinkPolicy::new().with_max_links(512).with_span_link_limit(512);
    /// # drop(policy);
    /// ```
    pub fn with_span_link_limit(mut self, links: usize) -> Self {
        self.span_limit = Some(links);
        self
    }

    /// Decides on contexts whose sampled flag is off; see [`Unsampled`].
    pub fn with_unsampled(mut self, unsampled: Unsampled) -> Self {
        self.unsampled = unsampled;
        self
    }

    /// Decides which contexts are duplicates; see [`Dedup`].
    pub fn with_dedup(mut self, dedup: Dedup) -> Self {
        self.dedup = dedup;
        self
    }

    /// Adds the attribute `link.count` to each link: the number of contexts that it stands for, its
    /// own and its duplicates. The attributes are those of the first. A link that has the attribute
    /// already keeps its own.
    ///
    /// The counts of a batch's links add up to `linked + duplicates`. Costs more for each context,
    /// and an attribute for each link. The link of an item's own span, which
    /// `BatchProcessor::run_each` starts, has no count.
    ///
    /// ```
    /// # use opentelemetry::trace::{SpanContext, SpanId, TraceFlags, TraceId, TraceState};
    /// # let context = |n: u64| SpanContext::new(
    /// #     TraceId::from(7u128), SpanId::from(n), TraceFlags::SAMPLED, true, TraceState::NONE);
    /// use batchlink::{LinkPolicy, LinkSet};
    /// use opentelemetry::KeyValue;
    ///
    /// let policy = LinkPolicy::new().with_link_count();
    /// let mut set = LinkSet::builder().with_link_policy(policy).build()?;
    /// set.extend([1, 1, 2].map(context));
    /// assert!(set.finish().links()[0].attributes.contains(&KeyValue::new("link.count", 2)));
    /// # Ok::<(), batchlink::ConfigError>(())
    /// ```
    pub fn with_link_count(mut self) -> Self {
        self.link_count = true;
        self
    }

    /// Decides which contexts are linked if there are more than
    /// [`max_links`](Self::with_max_links); see [`Truncation`].
    pub fn with_truncation(mut self, truncation: Truncation) -> Self {
        self.truncation = truncation;
        self
    }

    /// Decides on links beyond [`max_links`](Self::with_max_links); see [`Overflow`].
    ///
    /// ```
    /// use batchlink::{LinkPolicy, LinkSet, Overflow};
    ///
    /// let policy = LinkPolicy::new().with_overflow(Overflow::Spans { max_pages: 0 });
    /// let error = LinkSet::builder().with_link_policy(policy).build().unwrap_err();
    /// assert_eq!(error.to_string(), "invalid max_pages: 0 (allowed: 1 to 8192)");
    /// ```
    pub fn with_overflow(mut self, overflow: Overflow) -> Self {
        self.overflow = overflow;
        self
    }

    /// Decides on contexts without a trace id or span id; see [`Invalid`].
    pub fn with_invalid(mut self, invalid: Invalid) -> Self {
        self.invalid = invalid;
        self
    }

    /// Decides on the parent of the batch span; see [`Parent`]. Defaults to the current span.
    pub fn with_parent(mut self, parent: Parent) -> Self {
        self.parent = parent;
        self
    }

    /// Sets the value of the attribute `link.type` on every link: a
    /// [`Relation`](crate::links::Relation) or any other text. Defaults to `batch_item`.
    ///
    /// Costs one allocation per link, because OpenTelemetry's `Link` owns its attributes in a
    /// `Vec`. [`without_link_type`](Self::without_link_type) saves it.
    ///
    /// ```
    /// use batchlink::{LinkPolicy, links::Relation};
    ///
    /// let policy = LinkPolicy::new().with_link_type(Relation::DerivedFrom);
    /// # drop(policy);
    /// ```
    pub fn with_link_type(mut self, link_type: impl Into<Cow<'static, str>>) -> Self {
        self.link_type = Some(link_type.into());
        self
    }

    /// Omits the attribute `link.type`: a batch then allocates nothing but the `Vec<Link>`.
    pub fn without_link_type(mut self) -> Self {
        self.link_type = None;
        self
    }

    /// Sets another key instead of `link.type`, such as
    /// [`link.relationship`](crate::links::LINK_RELATIONSHIP). The key of a link that has its type
    /// under `link.type`, as those made by [`links`](crate::links) do, is replaced by it. Must not
    /// be empty.
    ///
    /// ```
    /// use batchlink::{LinkPolicy, LinkSet, links::LINK_RELATIONSHIP};
    ///
    /// let policy = LinkPolicy::new().with_link_type_key(LINK_RELATIONSHIP);
    /// assert!(LinkSet::builder().with_link_policy(policy.with_link_type_key("")).build().is_err());
    /// ```
    pub fn with_link_type_key(mut self, key: impl Into<Key>) -> Self {
        self.link_type_key = Some(key.into());
        self
    }

    /// Adds attributes to each link, made by a closure of the context and the link's index in the
    /// batch, from 0. The closure is called by the flusher, or in the insert of a
    /// [`LinkSet`](crate::LinkSet), and only for contexts that become links. An attribute whose key
    /// the link has already is left out, as is the second of two with the same key.
    ///
    /// If the closure panics, the link is kept without these attributes and counted in
    /// [`Counts::attribute_panics`](crate::Counts::attribute_panics). The span that
    /// `BatchProcessor::run_each` starts for an item has a link of its own. There the index is that
    /// of the item in its batch, and a panic is not counted.
    ///
    /// ```
    /// use batchlink::{LinkPolicy, LinkSet, links::ITEM_INDEX};
    /// use opentelemetry::KeyValue;
    ///
    /// let policy = LinkPolicy::new()
    ///     .with_link_attributes(|_cx, index| [KeyValue::new(ITEM_INDEX, index as i64)]);
    /// let set = LinkSet::builder().with_link_policy(policy).build()?;
    /// # drop(set);
    /// # Ok::<(), batchlink::ConfigError>(())
    /// ```
    pub fn with_link_attributes<F, A>(mut self, make: F) -> Self
    where
        F: Fn(&SpanContext, usize) -> A + Send + Sync + 'static,
        A: IntoIterator<Item = KeyValue>,
    {
        self.attributes = Some(LinkAttributes::new(make));
        self
    }

    /// Returns this policy, with the bound of `earlier` if it has none of its own.
    pub(crate) fn after(mut self, earlier: &Self) -> Self {
        self.max_links = self.max_links.or(earlier.max_links);
        self
    }

    pub(crate) fn max_links(&self) -> usize {
        self.max_links.unwrap_or(DEFAULT_MAX_LINKS)
    }

    pub(crate) fn validate(self) -> Result<Self, ConfigError> {
        within("max_links", self.max_links(), 1..=MAX_LINKS)?;
        if let (Overflow::Spans { max_pages }, Some(page)) = (self.overflow, self.page()) {
            within("max_pages", max_pages, 1..=MAX_LINKS / page)?;
        }
        if self.link_type_key.as_ref().is_some_and(|key| key.as_str().is_empty()) {
            return Err(ConfigError::new("link_type_key", "an empty text", "any other text"));
        }
        Ok(self)
    }

    /// Adds the policy's attributes to a link. Returns `false` if the closure for them panicked.
    #[inline(always)]
    pub(super) fn complete(&self, link: &mut Link, index: usize) -> bool {
        let whole =
            self.attributes.as_ref().is_none_or(|attributes| attributes.add_to(link, index));
        self.add_type(link);
        whole
    }

    /// Adds the type, unless the link has one.
    #[inline(always)]
    fn add_type(&self, link: &mut Link) {
        let Some(link_type) = &self.link_type else {
            return;
        };
        let name = self.link_type_key.as_ref().map_or(LINK_TYPE, Key::as_str);
        if link.attributes.iter().any(|attribute| attribute.key.as_str() == name) {
            return;
        }
        let key = match &self.link_type_key {
            None => Key::from_static_str(LINK_TYPE),
            Some(key) => {
                // The link has a type under the usual key, as those of `links` do.
                if let Some(own) =
                    link.attributes.iter_mut().find(|own| own.key.as_str() == LINK_TYPE)
                {
                    own.key = key.clone();
                    return;
                }
                key.clone()
            }
        };
        let attribute = KeyValue::new(key, link_type.clone());
        if link.attributes.capacity() == 0 {
            link.attributes = vec![attribute];
            return;
        }
        // Exactly one more: a `Vec` that grows by itself starts with space for four.
        link.attributes.reserve_exact(1);
        link.attributes.push(attribute);
    }
}
