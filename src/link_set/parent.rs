//! The parent of a batch span.

use super::batch::LinkBatch;
#[cfg(doc)]
use super::policy::LinkPolicy;
use super::record::Ids;
use crate::links::context::baggage;
use opentelemetry::Context;
use opentelemetry::baggage::BaggageExt;
use opentelemetry::trace::{Link, TraceContextExt};

/// The parent of a batch span; set by [`LinkPolicy::with_parent`].
///
/// A batch has many origins, so its span links them and has none of them as parent. Some backends
/// show parents only, and a batch of one is part of one request. A request that becomes the parent
/// is linked all the same: the messaging conventions
/// [require the link and allow the parent](https://github.com/open-telemetry/semantic-conventions/issues/1205),
/// and all counts stay those of the links.
///
/// A request as parent decides more than the place of the span:
///
/// - **Trace:** the batch span, and all spans below it, are part of this request's trace. Those of
///   the other requests lead there by links only.
/// - **Sampling:** a sampler such as `ParentBased` records the batch span if this request is
///   sampled. [`Unsampled::Drop`](crate::Unsampled::Drop), the default, gives no unsampled parent.
///   With [`Unsampled::Keep`](crate::Unsampled::Keep) an unsampled first request drops the span,
///   and the links of all others with it.
/// - **Flags and trace state** are those of the link: flags as they came, trace state cut at
///   512 bytes. The SDK passes the trace state on to the batch span.
/// - **Baggage** and other values stay those of the current context.
///
/// ```
/// # use opentelemetry::trace::{SpanContext, SpanId, TraceFlags, TraceId, TraceState};
/// # let context = |n: u64| SpanContext::new(
/// #     TraceId::from(7u128), SpanId::from(n), TraceFlags::SAMPLED, true, TraceState::NONE);
/// use batchlink::{LinkPolicy, LinkSet, Parent};
/// use opentelemetry::trace::TraceContextExt;
///
/// let policy = LinkPolicy::new().with_parent(Parent::Only);
/// let mut set = LinkSet::builder().with_link_policy(policy).build()?;
/// set.insert(&context(1));
/// assert_eq!(*set.finish().parent().span().span_context(), context(1));
/// set.extend([1, 2].map(context));
/// assert!(!set.finish().parent().span().span_context().is_valid()); // two origins, no parent
/// # Ok::<(), batchlink::ConfigError>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Parent {
    /// The span of the current [`Context`], where the batch span is started (the default). On the
    /// thread or task of a flusher or processor there is none, unless you attach one.
    #[default]
    Current,
    /// None: the batch span is the root of a trace of its own. Its parent's context keeps the
    /// current baggage and suppression, and no other value.
    None,
    /// The first linked request. Without a link, the current span.
    First,
    /// The request of the batch if it has exactly one: every context received is that of one span.
    /// Otherwise the current span.
    Only,
}

impl LinkBatch {
    /// Returns the context to start the batch span in: the current one, with the span that the
    /// policy makes the [`Parent`]. [`start`](Self::start) uses it by itself; a span that you build
    /// needs it.
    ///
    /// ```
    /// use batchlink::{LinkPolicy, LinkSet, Parent};
    /// use opentelemetry::{global, trace::{SpanKind, Tracer}};
    ///
    /// let policy = LinkPolicy::new().with_parent(Parent::First);
    /// let batch = LinkSet::builder().with_link_policy(policy).build()?.finish();
    /// let parent = batch.parent();
    /// let builder = batch.span_builder("insert").with_kind(SpanKind::Client);
    /// let span = builder.start_with_context(&global::tracer("inserts"), &parent);
    /// # drop(span);
    /// # Ok::<(), batchlink::ConfigError>(())
    /// ```
    pub fn parent(&self) -> Context {
        self.chosen_parent().unwrap_or_else(Context::current)
    }

    /// Returns the context to start the batch span in; `None` if the policy leaves the parent to
    /// the place where the span starts.
    pub(crate) fn chosen_parent(&self) -> Option<Context> {
        let link = match self.parent {
            Parent::Current => None,
            Parent::None => return Some(without_span(&Context::current())),
            Parent::First => self.links.iter().find(|link| link.span_context.is_valid()),
            Parent::Only => self.only(),
        };
        link.map(|link| Context::current().with_remote_span_context(link.span_context.clone()))
    }

    /// Returns the first link if every context received is that of its span.
    pub(super) fn only(&self) -> Option<&Link> {
        let first = self.links.first().filter(|link| link.span_context.is_valid())?;
        let ids = |link: &Link| Ids::of(&link.span_context);
        let all = self.counts.linked + self.counts.duplicates == self.counts.received;
        (all && self.links.iter().all(|link| ids(link) == ids(first))).then_some(first)
    }
}

/// Returns a context with the same baggage and suppression. The API cannot take the span out of
/// one, and samplers take an invalid span for an unsampled parent.
fn without_span(current: &Context) -> Context {
    let root = match baggage(current) {
        Some(baggage) => Context::new().with_baggage(baggage),
        None => Context::new(),
    };
    if current.is_telemetry_suppressed() { root.with_telemetry_suppressed() } else { root }
}
