//! A span of our own, which is user code underneath: it may panic anywhere, and what the user set
//! on it stays.

use crate::panic::caught;
use crate::sync::Ordering;
use crate::sync::unmodelled::AtomicBool;
use opentelemetry::trace::{Span, SpanBuilder, SpanContext, Status, TraceContextExt, Tracer};
use opentelemetry::{Context, KeyValue};
use std::borrow::Cow;
use std::sync::Arc;
use std::time::SystemTime;

/// The class of an error, by the semantic conventions.
const ERROR_TYPE: &str = "error.type";
/// The conventions' `error.type` for an error without a class.
pub(crate) const OTHER: &str = "_OTHER";

/// A span that is started and ended here, in a context.
pub(crate) struct OwnSpan {
    context: Context,
    /// `None` if there is no span.
    set_by_user: Option<Arc<SetByUser>>,
}

impl OwnSpan {
    /// Starts a span as a child of `parent`, and puts it into `base`.
    ///
    /// Samplers and span processors are user code. If one panics there is no span, and the context
    /// has the parent's identity alone, through which the parent cannot be changed or ended.
    pub(crate) fn start<T>(tracer: &T, span: SpanBuilder, parent: &Context, base: &Context) -> Self
    where
        T: Tracer,
        T::Span: Send + Sync + 'static,
    {
        let set_by_user = Arc::<SetByUser>::default();
        let context = caught(|| {
            let span = tracer.build_with_context(span, parent);
            base.with_span(Watched { span: Some(span), set_by_user: Arc::clone(&set_by_user) })
        });
        match context {
            Some(context) => Self { context, set_by_user: Some(set_by_user) },
            None => Self { context: without_span(parent, base), set_by_user: None },
        }
    }

    /// Returns no span, and has none made below it: for work that was submitted where telemetry is
    /// suppressed.
    #[cfg(feature = "processor")]
    pub(crate) fn suppressed(parent: &Context) -> Self {
        let context = without_span(parent, parent).with_telemetry_suppressed();
        Self { context, set_by_user: None }
    }

    pub(crate) fn context(&self) -> &Context {
        &self.context
    }

    /// Returns the span's own context, or `NONE` if there is no span.
    pub(crate) fn span_context(&self) -> SpanContext {
        match self.set_by_user {
            Some(_) => self.context.span().span_context().clone(),
            None => SpanContext::NONE,
        }
    }

    /// Fails the span. A status and an `error.type` that the user set stay.
    // Invariant: status-unset-or-error.
    pub(crate) fn fail(&self, error_type: Cow<'static, str>, text: String) {
        let Some(set_by_user) = &self.set_by_user else { return };
        let span = self.context.span();
        // Relaxed: a change that races with the end of the span may be overlooked.
        if !set_by_user.error_type.load(Ordering::Relaxed) {
            let _ = caught(|| span.set_attribute(KeyValue::new(ERROR_TYPE, error_type)));
        }
        if !set_by_user.status.load(Ordering::Relaxed) {
            let _ = caught(|| span.set_status(Status::error(text)));
        }
    }

    /// Ends the span, which may be done while a panic unwinds.
    pub(crate) fn end(&self) {
        let _ = caught(|| self.context.span().end());
    }
}

/// Returns `base` with the identity of the parent's span, and without the span itself.
fn without_span(parent: &Context, base: &Context) -> Context {
    base.with_remote_span_context(parent.span().span_context().clone())
}

/// Has the span of this context count links that it was not given, as
/// [`LinkBatch::start`](crate::LinkBatch::start) does.
pub(crate) fn count_dropped_links(context: &Context, links: u64) {
    let span = context.span();
    if links > 0 && span.is_recording() {
        let _ = caught(|| (0..links).for_each(|_| span.add_link(SpanContext::NONE, vec![])));
    }
}

/// What the user set on a span. It stays (invariant `status-unset-or-error`).
#[derive(Debug, Default)]
struct SetByUser {
    status: AtomicBool,
    error_type: AtomicBool,
}

/// A span that records what the user sets on it, which the API cannot be asked for.
#[derive(Debug)]
struct Watched<S> {
    /// `None` only while it is dropped.
    span: Option<S>,
    set_by_user: Arc<SetByUser>,
}

impl<S: Span> Span for Watched<S> {
    fn add_event_with_timestamp<N>(&mut self, name: N, at: SystemTime, attributes: Vec<KeyValue>)
    where
        N: Into<Cow<'static, str>>,
    {
        self.with(|span| span.add_event_with_timestamp(name, at, attributes));
    }

    fn span_context(&self) -> &SpanContext {
        self.span.as_ref().map_or(&SpanContext::NONE, Span::span_context)
    }

    fn is_recording(&self) -> bool {
        self.span.as_ref().is_some_and(Span::is_recording)
    }

    fn set_attribute(&mut self, attribute: KeyValue) {
        if attribute.key.as_str() == ERROR_TYPE {
            self.set_by_user.error_type.store(true, Ordering::Relaxed);
        }
        self.with(|span| span.set_attribute(attribute));
    }

    fn set_status(&mut self, status: Status) {
        self.set_by_user.status.store(true, Ordering::Relaxed);
        self.with(|span| span.set_status(status));
    }

    fn update_name<N: Into<Cow<'static, str>>>(&mut self, name: N) {
        self.with(|span| span.update_name(name));
    }

    fn add_link(&mut self, context: SpanContext, attributes: Vec<KeyValue>) {
        self.with(|span| span.add_link(context, attributes));
    }

    fn end_with_timestamp(&mut self, at: SystemTime) {
        self.with(|span| span.end_with_timestamp(at));
    }
}

impl<S> Watched<S> {
    fn with(&mut self, act: impl FnOnce(&mut S)) {
        if let Some(span) = &mut self.span {
            act(span);
        }
    }
}

impl<S> Drop for Watched<S> {
    fn drop(&mut self) {
        // A span that is not the SDK's may have a drop of its own, which runs wherever the last
        // context that holds it is dropped.
        let span = self.span.take();
        let _ = caught(|| drop(span));
    }
}
