//! A span of work that succeeds or fails, whatever happens to the work.

use crate::panic::{caught, error_text};
use crate::span::{OTHER, OwnSpan};
use opentelemetry::trace::{FutureExt, Span, SpanBuilder, SpanContext, TraceContextExt, Tracer};
use opentelemetry::{Context, ContextGuard, KeyValue};
use std::borrow::Cow;
use std::fmt::{self, Display};
use std::thread;

/// Bytes of an error's text that are kept for links.
const MAX_ERROR: usize = 256;

/// The span of one piece of work that succeeds or fails: an attempt of
/// [`Attempts`](crate::patterns::Attempts), a compensation of a [`Saga`](crate::patterns::Saga), a
/// worker or the aggregation of a [`FanOut`](crate::patterns::FanOut), or
/// [any other span](Self::start).
///
/// The span ends with the work. On success its status stays as it is, which is `Unset` unless the
/// work set one. On failure the status becomes `Error`, with the error's text as its description
/// (at most 4096 bytes), and the attribute `error.type` is set, unless the work has set them
/// itself.
///
/// | end | `error.type` | description |
/// |---|---|---|
/// | [`fail_as`](Self::fail_as) | the given one | the error's text |
/// | [`fail`](Self::fail), or `Err` of the work that it runs | `_OTHER` | the error's text |
/// | dropped while a panic unwinds | `panicked` | `panicked before it finished` |
/// | dropped otherwise, as with a cancelled future | `dropped` | `dropped before it finished` |
///
/// A guard can be sent to another thread or task, and its span becomes the current one where the
/// work is [`run`](Self::run).
///
/// Panics of span processors and exporters are caught. If a sampler or span processor panics at the
/// start there is no span: the work goes on in its parent's context, and is counted like any other.
///
/// ```
/// use batchlink::{LinkSet, messaging, patterns::SpanGuard};
/// use opentelemetry::global;
///
/// let batch = LinkSet::builder().build()?.finish();
/// let span = messaging::batch_span("kafka", messaging::Operation::SETTLE, "orders", 3, batch);
/// let commit = SpanGuard::start(&global::tracer("consumer"), span);
/// let committed: Result<u64, &str> = Ok(42); // ... the broker's answer ...
/// match committed {
///     Ok(_) => commit.succeed(),
///     Err(error) => commit.fail_as("COORDINATOR_NOT_AVAILABLE", error),
/// }
/// # Ok::<(), batchlink::ConfigError>(())
/// ```
#[must_use = "the work fails if its guard is dropped: end it with `succeed`, `fail` or `run`"]
pub struct SpanGuard {
    span: OwnSpan,
    /// Called once, with the result. `None` once the span has ended.
    ended: Option<Box<Ended>>,
}

/// Counts the result before the span ends, and returns what is to be set on the span.
type Ended = dyn FnOnce(&SpanContext, Result<(), &str>) -> Option<KeyValue> + Send + Sync;

impl SpanGuard {
    /// Starts a span as a child of the current context.
    pub fn start<T>(tracer: &T, span: SpanBuilder) -> Self
    where
        T: Tracer,
        T::Span: Span + Send + Sync + 'static,
    {
        Self::start_in(tracer, span, &Context::current())
    }

    /// Starts a span as a child of `parent`.
    pub(crate) fn start_in<T>(tracer: &T, span: SpanBuilder, parent: &Context) -> Self
    where
        T: Tracer,
        T::Span: Span + Send + Sync + 'static,
    {
        Self::start_with(tracer, span, parent, |_, _| None)
    }

    /// Starts a span as a child of `parent`. `ended` is called with the result, before the span
    /// ends.
    pub(super) fn start_with<T, E>(
        tracer: &T,
        span: SpanBuilder,
        parent: &Context,
        ended: E,
    ) -> Self
    where
        T: Tracer,
        T::Span: Span + Send + Sync + 'static,
        E: FnOnce(&SpanContext, Result<(), &str>) -> Option<KeyValue> + Send + Sync + 'static,
    {
        let span = OwnSpan::start(tracer, span, parent, &Context::current());
        Self { span, ended: Some(Box::new(ended)) }
    }

    /// Returns the current context with this span in it, for children, attributes and events.
    pub fn context(&self) -> &Context {
        self.span.context()
    }

    /// Returns the span's context, to link to; [`SpanContext::NONE`] if the span could not be
    /// started.
    pub fn span_context(&self) -> SpanContext {
        self.span.span_context()
    }

    /// Makes the span the current one of this thread until the guard is dropped. Do not hold it
    /// across an `await`: there use [`run_async`](Self::run_async).
    ///
    /// ```
    /// use batchlink::patterns::SpanGuard;
    /// use opentelemetry::{global, trace::SpanBuilder};
    ///
    /// let span = SpanBuilder::from_name("import");
    /// let guard = SpanGuard::start(&global::tracer("etl"), span);
    /// {
    ///     let _current = guard.attach();
    ///     // ... spans that start here are its children ...
    /// }
    /// guard.succeed();
    /// ```
    pub fn attach(&self) -> ContextGuard {
        self.context().clone().attach()
    }

    /// Ends the span as succeeded: its status stays as it is.
    pub fn succeed(mut self) {
        self.end(Ok(()));
    }

    /// Ends the span as failed, with the `error.type` `_OTHER`.
    pub fn fail(self, error: impl Display) {
        self.fail_as(OTHER, error);
    }

    /// Ends the span as failed with this `error.type`: a class of errors of which there are few,
    /// such as a broker's error code or `timeout`.
    ///
    /// ```
    /// use batchlink::patterns::SpanGuard;
    /// use opentelemetry::{global, trace::SpanBuilder};
    ///
    /// let span = SpanBuilder::from_name("import");
    /// let guard = SpanGuard::start(&global::tracer("etl"), span);
    /// guard.fail_as("timeout", "no answer within 5 s");
    /// ```
    pub fn fail_as(mut self, error_type: impl Into<Cow<'static, str>>, error: impl Display) {
        self.end(Err((error_type.into(), &error_text(error))));
    }

    /// Runs the work in this span and ends the span with the result. A panic of the work ends the
    /// span as failed and goes on to the caller.
    ///
    /// # Errors
    ///
    /// The error of the work.
    ///
    /// ```
    /// use batchlink::patterns::SpanGuard;
    /// use opentelemetry::{global, trace::SpanBuilder};
    ///
    /// let span = SpanBuilder::from_name("import");
    /// let guard = SpanGuard::start(&global::tracer("etl"), span);
    /// assert_eq!(guard.run(|_cx| Err::<(), _>("no such file")), Err("no such file"));
    /// ```
    pub fn run<R, E: Display>(self, work: impl FnOnce(&Context) -> Result<R, E>) -> Result<R, E> {
        let result = {
            let _current = self.attach();
            work(self.context())
        };
        self.end_with(result)
    }

    /// Runs the work in this span and ends the span with the result. If the future is dropped
    /// before it is ready, the work has failed.
    ///
    /// # Errors
    ///
    /// The error of the work.
    ///
    /// ```
    /// use batchlink::patterns::SpanGuard;
    /// use opentelemetry::{global, trace::SpanBuilder};
    ///
    /// # async fn import() -> Result<u64, String> { Ok(7) }
    /// # async fn example() -> Result<u64, String> {
    /// let guard = SpanGuard::start(&global::tracer("etl"), SpanBuilder::from_name("import"));
    /// let rows = guard.run_async(import()).await?; // fails the span on an error, or if dropped
    /// # Ok(rows)
    /// # }
    /// ```
    pub async fn run_async<R, E: Display>(
        self,
        work: impl Future<Output = Result<R, E>>,
    ) -> Result<R, E> {
        let result = work.with_context(self.context().clone()).await;
        self.end_with(result)
    }

    fn end_with<R, E: Display>(self, result: Result<R, E>) -> Result<R, E> {
        match &result {
            Ok(_) => self.succeed(),
            Err(error) => self.fail(error),
        }
        result
    }

    /// Counts the result, whatever the span's own code does, and ends the span.
    fn end(&mut self, result: Result<(), (Cow<'static, str>, &str)>) {
        let Some(ended) = self.ended.take() else { return };
        let text = result.as_ref().copied().map_err(|(_, text)| *text);
        let attribute = caught(|| ended(&self.span.span_context(), text)).flatten();
        // Span processors and exporters are user code, and this may be an unwinding.
        let _ = caught(|| self.context().span().set_attributes(attribute));
        if let Err((error_type, text)) = result {
            self.span.fail(error_type, text.to_owned());
        }
        self.span.end();
    }
}

impl Drop for SpanGuard {
    fn drop(&mut self) {
        self.end(Err(match thread::panicking() {
            true => ("panicked".into(), "panicked before it finished"),
            false => ("dropped".into(), "dropped before it finished"),
        }));
    }
}

impl fmt::Debug for SpanGuard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SpanGuard").field("cx", self.context()).finish_non_exhaustive()
    }
}

/// Returns what is kept of an error: at most 256 bytes, so that errors cannot make memory grow.
pub(super) fn shortened(error: &str) -> String {
    let fits = (0..=MAX_ERROR).rev().find_map(|end| error.get(..end));
    fits.unwrap_or_default().to_owned()
}
