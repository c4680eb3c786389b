//! De-duplication, bound and accounting of one batch's links. Usable without a collector.
//!
//! Everything here works through `&mut self`: no atomics, no threads.

mod attributes;
pub(crate) mod batch;
mod builder;
mod extend;
#[cfg(test)]
mod flooding;
mod hoist;
mod identity;
mod insert;
#[cfg(feature = "internal-logs")]
mod log;
mod outcome;
mod pages;
mod parent;
pub(crate) mod policy;
pub(crate) mod record;
mod selection;
mod span_limit;
mod table;
mod treatment;

pub use batch::LinkBatch;
pub use builder::LinkSetBuilder;
pub use outcome::Outcome;
pub use pages::LinkPages;
pub use parent::Parent;
pub use policy::{Dedup, Invalid, LinkPolicy, Overflow, Truncation, Unsampled};

use crate::links::MaybeContext;
use crate::stats::{Counts, Trigger};
use insert::Admitted;
use opentelemetry::trace::{Link, SpanContext};
use record::{Bounded, Plain, cut_state};
use selection::{Parts, Selection};
use table::Table;

/// The SDK's default for `OTEL_SPAN_LINK_COUNT_LIMIT`.
pub(crate) const DEFAULT_MAX_LINKS: usize = 128;
pub(crate) const MAX_LINKS: usize = 1 << 20;

/// The de-duplicated, bounded links of one batch, in order of arrival.
///
/// Use it where the whole batch is at hand, as after a Kafka poll. A [`Flusher`](crate::Flusher)
/// has one inside. By default two contexts are duplicates if trace id and span id agree, and the
/// first one stays. A truncated context is not remembered: memory is bounded, and a second one with
/// the same ids is truncated again. A [`LinkPolicy`] sets other rules.
///
/// ```
/// use batchlink::{LinkSet, Outcome};
/// # use opentelemetry::trace::{SpanContext, SpanId, TraceFlags, TraceId, TraceState};
/// # let context = |n: u64| SpanContext::new(
/// #     TraceId::from(7u128), SpanId::from(n), TraceFlags::SAMPLED, true, TraceState::NONE);
/// let mut set = LinkSet::builder().with_max_links(2).build()?;
/// assert_eq!(set.insert(&context(1)), Outcome::Linked);
/// assert_eq!(set.insert(&context(1)), Outcome::Duplicate);
/// assert_eq!(set.insert(&context(2)), Outcome::Linked);
/// assert_eq!(set.insert(&context(3)), Outcome::Truncated);
///
/// let batch = set.finish();
/// assert_eq!((batch.received(), batch.linked()), (4, 2));
/// # Ok::<(), batchlink::ConfigError>(())
/// ```
#[derive(Debug)]
pub struct LinkSet {
    policy: LinkPolicy,
    /// The bound of the policy.
    max_links: usize,
    /// The links so far, in order of arrival.
    links: Vec<Link>,
    /// Links of the last batch: memory for as many is reserved for the next.
    last: usize,
    /// The ids of the links, unless duplicates are linked.
    table: Table,
    /// What else the policy needs to know of the links.
    selection: Option<Box<Selection>>,
    counts: Counts,
    #[cfg(feature = "internal-logs")]
    log: log::LossLog,
}

impl LinkSet {
    /// Returns a builder with the default [`LinkPolicy`].
    pub fn builder() -> LinkSetBuilder {
        LinkSetBuilder::default()
    }

    /// `most`: no batch will hold more contexts than this.
    pub(crate) fn new(policy: LinkPolicy, most: usize) -> Self {
        let max_links = policy.bound();
        Self {
            selection: Selection::new(&policy),
            policy,
            max_links,
            links: Vec::new(),
            last: 0,
            table: Table::new(max_links.min(most)),
            counts: Counts::default(),
            #[cfg(feature = "internal-logs")]
            log: log::LossLog::default(),
        }
    }

    /// Adds a link to `context`, unless it is a duplicate, over the bound, invalid or unsampled.
    ///
    /// Cost: one look-up; clones trace state and nothing else.
    #[inline]
    pub fn insert(&mut self, context: &SpanContext) -> Outcome {
        if !context.is_valid() {
            return match self.policy.invalid {
                Invalid::Drop => self.count_invalid(),
                _ => self.insert_invalid(Link::with_context(context.clone())),
            };
        }
        self.reserve(self.last.max(DEFAULT_MAX_LINKS));
        if Plain::is_enough(context) {
            return self.insert_plain(Plain::of(context));
        }
        let Bounded { context, state_cut } = Bounded::new(context);
        self.insert_bounded_link(Link::with_context(context), state_cut)
    }

    /// Adds a link to a context that waited beside a payload. Call [`reserve`](Self::reserve)
    /// before.
    #[cfg(feature = "processor")]
    #[inline]
    pub(crate) fn insert_bounded(&mut self, Bounded { context, state_cut }: &Bounded) -> Outcome {
        if !state_cut {
            return self.insert(context);
        }
        if context.is_valid() {
            return self.insert_bounded_link(Link::with_context(context.clone()), true);
        }
        // It had a trace state, for which all but one of the policies keep it.
        match self.policy.invalid {
            Invalid::Drop => self.count_invalid(),
            _ => self.insert_bounded_link(Link::with_context(context.clone()), true),
        }
    }

    /// Adds a link with attributes of its own, as [`insert`](Self::insert) adds a context.
    /// `link.type` is added if it has none.
    ///
    /// ```
    /// # use opentelemetry::trace::{SpanContext, SpanId, TraceFlags, TraceId, TraceState};
    /// # let context = |n: u64| SpanContext::new(
    /// #     TraceId::from(7u128), SpanId::from(n), TraceFlags::SAMPLED, true, TraceState::NONE);
    /// use batchlink::{LinkSet, Outcome, links};
    ///
    /// let mut set = LinkSet::builder().build()?;
    /// assert_eq!(set.insert_link(links::batch_item(&context(1), 0)), Outcome::Linked);
    /// # Ok::<(), batchlink::ConfigError>(())
    /// ```
    pub fn insert_link(&mut self, mut link: Link) -> Outcome {
        if !link.span_context.is_valid() {
            return self.insert_invalid(link);
        }
        self.reserve(self.last.max(DEFAULT_MAX_LINKS));
        let state_cut = cut_state(&mut link).is_some();
        self.insert_bounded_link(link, state_cut)
    }

    /// Adds a link to a context that may be missing, such as an `Option<SpanContext>` or a
    /// [`Context`](opentelemetry::Context). Returns `None` if it is, and counts nothing.
    /// [`extend`](Extend::extend) takes many of them.
    ///
    /// ```
    /// # use opentelemetry::trace::{SpanContext, SpanId, TraceFlags, TraceId, TraceState};
    /// # let context = |n: u64| SpanContext::new(
    /// #     TraceId::from(7u128), SpanId::from(n), TraceFlags::SAMPLED, true, TraceState::NONE);
    /// use batchlink::{LinkSet, Outcome};
    ///
    /// let mut set = LinkSet::builder().build()?;
    /// assert_eq!(set.insert_optional(Some(context(1))), Some(Outcome::Linked));
    /// assert_eq!(set.insert_optional(None::<SpanContext>), None);
    /// # Ok::<(), batchlink::ConfigError>(())
    /// ```
    pub fn insert_optional(&mut self, context: impl MaybeContext) -> Option<Outcome> {
        context.with(|context| self.insert(context))
    }

    /// Returns the link that this set would make, for another span; `None` if it would make none.
    /// If the closure for attributes panics, they are left out and nothing is counted.
    #[cfg(feature = "processor")]
    pub(crate) fn link_to(
        &self,
        Bounded { context, state_cut }: &Bounded,
        index: usize,
    ) -> Option<Link> {
        let valid = context.is_valid();
        if valid && !context.is_sampled() && self.policy.unsampled == Unsampled::Drop {
            return None;
        }
        let mut link = Link::with_context(context.clone());
        let kept = match self.policy.invalid {
            Invalid::Drop => false,
            // See `insert_bounded`.
            policy => *state_cut || policy.keeps(&link),
        };
        if !valid && !kept {
            return None;
        }
        let _ = self.policy.complete(&mut link, index);
        Some(link)
    }

    /// Replaces the policy's truncation by [`Truncation::KeepFirst`], so that outcomes are final,
    /// and leaves out the counts of links and further pages.
    pub(crate) fn keep_first(&mut self) {
        self.policy.without_pages();
        self.max_links = self.policy.bound();
        self.policy.truncation = Truncation::KeepFirst;
        self.policy.link_count = false;
        if let Some(selection) = &mut self.selection {
            selection.truncation = Truncation::KeepFirst;
            selection.with_count = false;
        }
    }

    /// Returns the bound.
    pub(crate) fn max_links(&self) -> usize {
        self.max_links
    }

    /// Returns how many contexts were given since the last [`finish`](Self::finish).
    pub fn received(&self) -> u64 {
        self.counts.received
    }

    /// Ends the batch ([`Trigger::Manual`]) and empties the set for the next one.
    ///
    /// The table is kept, and the `Vec` of links goes with the batch. The next one is made for as
    /// many links as this had, at least 128: a batch allocates once, and once per link for
    /// `link.type`.
    ///
    /// ```
    /// # use opentelemetry::trace::{SpanContext, SpanId, TraceFlags, TraceId, TraceState};
    /// # let context = |n: u64| SpanContext::new(
    /// #     TraceId::from(7u128), SpanId::from(n), TraceFlags::SAMPLED, true, TraceState::NONE);
    /// use batchlink::LinkSet;
    ///
    /// let mut set = LinkSet::builder().build()?;
    /// set.extend([1, 2].map(context));
    /// assert_eq!(set.finish().linked(), 2);
    /// assert_eq!(set.finish().linked(), 0);
    /// # Ok::<(), batchlink::ConfigError>(())
    /// ```
    pub fn finish(&mut self) -> LinkBatch {
        self.finish_as(Trigger::Manual)
    }

    pub(crate) fn finish_as(&mut self, trigger: Trigger) -> LinkBatch {
        let Self { policy, table, counts, max_links, .. } = self;
        let mut links = std::mem::take(&mut self.links);
        self.last = links.len();
        match &mut self.selection {
            None => table.clear(&links),
            Some(selection) => {
                let set = Parts { links: &mut links, table, counts, max_links: *max_links };
                selection.finish(set, policy);
            }
        }
        let span_limit = self.policy.span_limit();
        #[cfg(feature = "internal-logs")]
        self.log.check(&self.counts, span_limit, self.policy.page().is_some());
        let page = self.policy.page();
        let counts = std::mem::take(&mut self.counts);
        let mut batch = LinkBatch::new(links, counts, trigger, span_limit, page);
        batch.parent = self.policy.parent;
        batch
    }

    /// Allocates for the links of a batch of `contexts` at once, if that was not done yet.
    #[inline(always)]
    pub(crate) fn reserve(&mut self, contexts: usize) {
        if self.links.capacity() == 0 {
            self.links.reserve_exact(contexts.min(self.max_links));
        }
    }
}
