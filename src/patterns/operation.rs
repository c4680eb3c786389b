//! A span of work that succeeds or fails, whatever happens to the work.

use crate::links::int;
use opentelemetry::trace::{FutureExt, Span, SpanBuilder, SpanContext, Status, TraceContextExt, Tracer};
use opentelemetry::{Context, ContextGuard, KeyValue};
use std::fmt::{self, Display};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Bytes of an error's text that are kept for links.
const MAX_ERROR: usize = 256;

/// The span of one piece of work that succeeds or fails: an attempt of [`Attempts`](crate::patterns::Attempts), a
/// compensation of a [`Saga`](crate::patterns::Saga), a worker or the aggregation of a [`FanOut`](crate::patterns::FanOut).
///
/// The span ends with the operation, with status `Ok` or `Error` and the error as description. An
/// operation that is dropped, because of a panic or because its future was cancelled, has failed
/// with the error `dropped`; so has one that was forgotten about.
///
/// It can be sent to another thread or task, and the span becomes the current one where the work is
/// [`run`](Self::run).
#[must_use = "an operation that is dropped has failed"]
pub struct SpanGuard {
    cx: Context,
    /// Is told, once, how it ended.
    ended: Option<Box<Ended>>,
}

type Ended = dyn FnOnce(&Context, Result<(), &str>) + Send + Sync;

impl SpanGuard {
    /// Starts the span below `parent`. `ended` is told how it ends, before the span does.
    pub(crate) fn start<T>(
        tracer: &T,
        span: SpanBuilder,
        parent: &Context,
        ended: impl FnOnce(&Context, Result<(), &str>) + Send + Sync + 'static,
    ) -> Self
    where
        T: Tracer,
        T::Span: Span + Send + Sync + 'static,
    {
        let span = tracer.build_with_context(span, parent);
        Self { cx: Context::current_with_span(span), ended: Some(Box::new(ended)) }
    }

    /// The current context with this span in it, for children, attributes and events.
    pub fn context(&self) -> &Context {
        &self.cx
    }

    /// What to link to.
    pub fn span_context(&self) -> SpanContext {
        self.cx.span().span_context().clone()
    }

    /// Makes the span the current one of this thread until the guard is dropped. Not across an
    /// `await`: there use [`run_async`](Self::run_async).
    pub fn attach(&self) -> ContextGuard {
        self.cx.clone().attach()
    }

    /// It has succeeded: status `Ok`, and the span ends.
    pub fn succeed(mut self) {
        self.end(Ok(()));
    }

    /// It has failed: status `Error` with this description, and the span ends.
    pub fn fail(mut self, error: impl Display) {
        self.end(Err(&error.to_string()));
    }

    /// Does the work in this span and ends with its result.
    ///
    /// # Errors
    ///
    /// Those of the work.
    pub fn run<R, E: Display>(self, work: impl FnOnce(&Context) -> Result<R, E>) -> Result<R, E> {
        let result = {
            let _current = self.attach();
            work(&self.cx)
        };
        self.end_with(result)
    }

    /// Does the work in this span and ends with its result. If the future is dropped before, the
    /// operation has failed.
    ///
    /// # Errors
    ///
    /// Those of the work.
    pub async fn run_async<R, E: Display>(self, work: impl Future<Output = Result<R, E>>) -> Result<R, E> {
        let result = work.with_context(self.cx.clone()).await;
        self.end_with(result)
    }

    fn end_with<R, E: Display>(self, result: Result<R, E>) -> Result<R, E> {
        match &result {
            Ok(_) => self.succeed(),
            Err(error) => self.fail(error),
        }
        result
    }

    fn end(&mut self, result: Result<(), &str>) {
        if let Some(ended) = self.ended.take() {
            ended(&self.cx, result);
            let span = self.cx.span();
            span.set_status(match result {
                Ok(()) => Status::Ok,
                Err(error) => Status::error(error.to_owned()),
            });
            span.end();
        }
    }
}

impl Drop for SpanGuard {
    fn drop(&mut self) {
        self.end(Err("dropped"));
    }
}

impl fmt::Debug for SpanGuard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SpanGuard").field("cx", &self.cx).finish_non_exhaustive()
    }
}

/// What is kept of an error: at most 256 bytes, so that errors cannot make memory grow.
pub(crate) fn shortened(error: &str) -> String {
    let fits = (0..=MAX_ERROR).rev().find_map(|end| error.get(..end));
    fits.unwrap_or_default().to_owned()
}

/// As on a batch span, and only if links were cut.
pub(crate) fn truncation(linked: u64, truncated: u64) -> Vec<KeyValue> {
    if truncated == 0 {
        return Vec::new();
    }
    vec![
        KeyValue::new("links.truncated", true),
        KeyValue::new("links.original_count", int(linked + truncated)),
    ]
}

/// Nothing panics while it holds one of these locks, but for an allocation that fails.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
