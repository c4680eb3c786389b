//! Contexts that may be missing, in whatever form the caller has them.

use opentelemetry::Context;
use opentelemetry::trace::{SpanContext, TraceContextExt};

/// What may have a span context: [`SpanContext`] (always), [`Context`] (if a span is active in it),
/// and `Option` of these, each by value or by reference.
///
/// What has none is skipped and counted nowhere. A span context that is there but invalid is not
/// skipped: it is passed on, and judged and counted like any other.
///
/// This trait is sealed: it has no methods for others to call or implement.
pub trait MaybeContext: sealed::Sealed {}

impl<C: sealed::Sealed> MaybeContext for C {}

mod sealed {
    use opentelemetry::trace::SpanContext;

    pub trait Sealed {
        /// Calls `work` if there is a context.
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
