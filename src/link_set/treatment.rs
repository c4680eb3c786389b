//! What is done with contexts that are unsampled, duplicates, too many or invalid.

#[cfg(doc)]
use super::LinkPolicy;
use opentelemetry::trace::{Link, SpanId, TraceId};

/// The treatment of contexts whose sampled flag is off; set by [`LinkPolicy::with_unsampled`].
///
/// ```
/// use batchlink::{LinkPolicy, Unsampled};
///
/// let policy = LinkPolicy::new().with_unsampled(Unsampled::Keep);
/// # drop(policy);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Unsampled {
    /// Counts them as unsampled and does not link them (the default). Their spans are not recorded:
    /// such a link leads nowhere, and takes the place of another.
    #[default]
    Drop,
    /// Links them like any other, with their flags: for backends that sample later.
    Keep,
}

/// The rule by which two contexts of a batch are duplicates; set by [`LinkPolicy::with_dedup`].
///
/// A duplicate is counted and not linked: the link of the first stays, with its attributes.
/// [`LinkPolicy::with_link_count`] makes each link say for how many contexts it stands.
///
/// ```
/// use batchlink::{Dedup, LinkPolicy};
///
/// let policy = LinkPolicy::new().with_dedup(Dedup::Off);
/// # drop(policy);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Dedup {
    /// Contexts with the same trace id and span id (the default). Flags, trace state and attributes
    /// do not matter.
    #[default]
    ByContext,
    /// Contexts with the same trace id and span id whose links were pushed with the same
    /// attributes, in any order. Attributes that the policy adds do not matter.
    ByContextAndAttributes,
    /// None: every context is linked. For links that differ in their attributes, such as message
    /// ids.
    Off,
}

/// The choice of links if a batch has more contexts than `max_links`; set by
/// [`LinkPolicy::with_truncation`].
///
/// Each choice is determined by the contexts of the batch and their order. The links of the batch
/// are in order of arrival with every choice. Memory is bounded by `max_links`, so a context that
/// is not linked, or no longer, is not remembered: if it comes again, it is another context.
///
/// All but `KeepFirst` may take a link back for a later context. That context and its duplicates
/// are then counted as truncated.
///
/// ```
/// # use opentelemetry::trace::{SpanContext, SpanId, TraceFlags, TraceId, TraceState};
/// # let context = |n: u64| SpanContext::new(
/// #     TraceId::from(7u128), SpanId::from(n), TraceFlags::SAMPLED, true, TraceState::NONE);
/// use batchlink::{LinkPolicy, LinkSet, Truncation};
///
/// let policy = LinkPolicy::new().with_max_links(2).with_truncation(Truncation::KeepLast);
/// let mut set = LinkSet::builder().with_link_policy(policy).build()?;
/// set.extend([1, 2, 3, 4].map(context));
/// let batch = set.finish();
/// assert_eq!(batch.links()[0].span_context, context(3));
/// assert_eq!(batch.truncated(), 2);
/// # Ok::<(), batchlink::ConfigError>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Truncation {
    /// The contexts that came first (the default, and the cheapest).
    #[default]
    KeepFirst,
    /// The contexts that came last. A duplicate counts as an arrival of its context.
    KeepLast,
    /// A uniform sample of the different contexts, however often each came.
    ///
    /// A context is chosen by a hash of the seed, its ids and, as
    /// [`Dedup::ByContextAndAttributes`] compares these, its attributes. So the same contexts give
    /// the same sample in any order. With [`Dedup::Off`], every arrival has a chance of its own. A
    /// party that knows the seed can choose ids that are always kept.
    Reservoir {
        /// Any number. Batches of the same contexts, and collectors with the same seed, choose the
        /// same.
        seed: u64,
    },
    /// The sampled contexts that came first, and only then unsampled ones, whose links lead
    /// nowhere. It differs from `KeepFirst` with [`Unsampled::Keep`] alone.
    SampledFirst,
    /// The first context of each trace, in order of arrival, and only then further ones: the most
    /// different traces that fit.
    OnePerTrace,
}

/// The treatment of links beyond the first `max_links` of a batch; set by
/// [`LinkPolicy::with_overflow`].
///
/// ```
/// use batchlink::{LinkPolicy, LinkSet, Overflow};
///
/// let policy = LinkPolicy::new().with_overflow(Overflow::Spans { max_pages: 8 });
/// let set = LinkSet::builder().with_link_policy(policy).build()?; // up to 1024 links
/// # drop(set);
/// # Ok::<(), batchlink::ConfigError>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Overflow {
    /// They are counted as truncated, and which they are is decided by [`Truncation`] (the
    /// default).
    #[default]
    Truncate,
    /// They go on further spans, in pages of `max_links` links, or of as many as the SDK keeps of a
    /// span ([`LinkPolicy::with_span_link_limit`]) if that is less.
    ///
    /// The batch span has the first page. Each further page is on a child of it that ends at once,
    /// named `<name> links`, with the attributes `batch.page` (from 2), `batch.pages` and
    /// `batch.links`. No page is empty. [`LinkBatch::start`](crate::LinkBatch::start),
    #[cfg_attr(
        feature = "processor",
        doc = "[`BatchProcessor`](crate::processor::BatchProcessor),"
    )]
    #[cfg_attr(not(feature = "processor"), doc = "`BatchProcessor`,")]
    /// [`messaging::BatchSpan::start`](crate::messaging::BatchSpan::start) and
    /// [`FanOut`](crate::patterns::FanOut) start these spans. For a batch span that you start
    /// yourself, see [`LinkBatch::take_pages`](crate::LinkBatch::take_pages).
    ///
    /// The sampler of the batch span sees the links of the first page. If the batch span is not
    /// sampled, no others are started.
    Spans {
        /// Pages of one batch at most, the first included. What is beyond is truncated. At least
        /// 1, and not so many that a batch could have more than 1 048 576 links.
        max_pages: usize,
    },
}

/// The treatment of invalid contexts, whose trace id or span id is zero; set by
/// [`LinkPolicy::with_invalid`].
///
/// A context that is kept is accepted and received like any other, and then linked, a duplicate or
/// truncated. Its sampled flag is ignored, because it has no span. Without a trace id it is never a
/// duplicate.
///
/// ```
/// use batchlink::{Invalid, LinkPolicy, LinkSet, Outcome, links};
/// use opentelemetry::trace::TraceId;
///
/// let policy = LinkPolicy::new().with_invalid(Invalid::KeepWithAttributes);
/// let mut set = LinkSet::builder().with_link_policy(policy).build()?;
/// assert_eq!(set.insert_link(links::whole_trace(TraceId::from(7u128))), Outcome::Linked);
/// # Ok::<(), batchlink::ConfigError>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Invalid {
    /// Counts them as invalid and does not link them (the default).
    #[default]
    Drop,
    /// Links those with attributes or trace state, as OpenTelemetry's specification asks, and
    /// counts others as invalid. Attributes that the policy adds do not matter here.
    ///
    /// [`links::whole_trace`](crate::links::whole_trace) needs this.
    KeepWithAttributes,
    /// Links also those with nothing but a trace id or a span id. A context with neither, nor
    /// attributes, nor trace state (such as that of no active span) is counted as invalid.
    Keep,
}

impl Invalid {
    /// Returns whether a link to an invalid context is kept.
    pub(crate) fn keeps(self, link: &Link) -> bool {
        let cx = &link.span_context;
        let says_more =
            || !link.attributes.is_empty() || cx.trace_state().into_iter().next().is_some();
        match self {
            Self::Drop => false,
            Self::KeepWithAttributes => says_more(),
            Self::Keep => {
                cx.trace_id() != TraceId::INVALID || cx.span_id() != SpanId::INVALID || says_more()
            }
        }
    }
}
