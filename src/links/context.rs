//! Contexts that may be missing, of several types.

use opentelemetry::Context;
use opentelemetry::baggage::{Baggage, BaggageExt};
use opentelemetry::trace::{SpanContext, TraceContextExt};

/// A type that may hold a span context: [`SpanContext`] (always), [`Context`] (if a span is active
/// in it), a `tracing::Span` (feature `tracing`; if it is exported as an OpenTelemetry span), and
/// `Option` of these, each by value or by reference.
///
/// A missing context is skipped and counted nowhere. An invalid one is not missing: it is passed on
/// and counted like any other.
///
/// This trait is sealed: it has no methods to call or implement elsewhere.
///
/// ```
/// use batchlink::LinkSet;
/// use opentelemetry::{Context, trace::SpanContext};
///
/// let mut set = LinkSet::builder().build()?;
/// set.insert_optional(Context::current()); // no span is active here
/// set.insert_optional(None::<&SpanContext>);
/// set.insert_optional(SpanContext::NONE);
/// assert_eq!((set.received(), set.finish().invalid()), (1, 1));
/// # Ok::<(), batchlink::ConfigError>(())
/// ```
pub trait MaybeContext: sealed::Sealed {}

impl<C: sealed::Sealed> MaybeContext for C {}

pub(crate) mod sealed {
    use opentelemetry::trace::SpanContext;

    pub trait Sealed {
        /// Calls `work` unless the context is missing.
        fn with<R>(&self, work: impl FnOnce(&SpanContext) -> R) -> Option<R>;
    }
}

impl sealed::Sealed for SpanContext {
    fn with<R>(&self, work: impl FnOnce(&SpanContext) -> R) -> Option<R> {
        Some(work(self))
    }
}

impl sealed::Sealed for Context {
    fn with<R>(&self, work: impl FnOnce(&SpanContext) -> R) -> Option<R> {
        self.has_active_span().then(|| work(self.span().span_context()))
    }
}

impl<C: sealed::Sealed> sealed::Sealed for Option<C> {
    fn with<R>(&self, work: impl FnOnce(&SpanContext) -> R) -> Option<R> {
        self.as_ref()?.with(work)
    }
}

impl<C: sealed::Sealed> sealed::Sealed for &C {
    fn with<R>(&self, work: impl FnOnce(&SpanContext) -> R) -> Option<R> {
        C::with(self, work)
    }
}

/// Copies the baggage of a context; `None` if there is none.
pub(crate) fn baggage(cx: &Context) -> Option<Baggage> {
    let baggage = cx.baggage();
    let copy = || baggage.iter().map(|(key, value)| (key.clone(), value.clone())).collect();
    (!baggage.is_empty()).then(copy)
}
