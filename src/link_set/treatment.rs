//! What is done with contexts that are unsampled, duplicates or invalid.

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
    /// None: every context is linked. For links that differ in their attributes, such as message
    /// ids.
    Off,
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
