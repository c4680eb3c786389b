//! Submissions whose result is waited for.

use super::answer::{CallError, Reply, channel};
use super::submitter::Submitter;
use super::{Item, Request, scope};
use crate::error::PushError;
use crate::sync::polls_tasks;
use opentelemetry::trace::SpanContext;
use std::time::{Duration, Instant};

impl<T, R, E> Submitter<T, R, E> {
    /// Submits an item and waits for its own result, on any executor.
    ///
    /// The span is that of the call, the item is submitted at the first poll of the future. A
    /// future that is dropped before has submitted nothing. Dropped later, the item stays in its
    /// batch and its result is dropped: wrap the call in the timeout of your runtime at will.
    /// Without one it waits until the processor answers or is dropped.
    ///
    /// Cost beyond [`submit`](Self::submit): one allocation.
    ///
    /// # Errors
    ///
    /// The item was not submitted: [`CallError::Full`], [`CallError::Closed`],
    /// [`CallError::OwnHandler`]. The processor was dropped before it took the item:
    /// [`CallError::Closed`]. The handler did not succeed: [`CallError::Failed`],
    /// [`CallError::Panicked`], [`CallError::Unanswered`].
    pub fn call(&self, item: T) -> impl Future<Output = Result<R, CallError<E>>> {
        let request = Request::current();
        async move { self.ask(item, request.or_current())?.await }
    }

    /// Does the same as [`call`](Self::call), linked to the given span.
    ///
    /// # Errors
    ///
    /// Those of [`call`](Self::call).
    pub fn call_with_context(
        &self,
        item: T,
        context: &SpanContext,
    ) -> impl Future<Output = Result<R, CallError<E>>> + use<'_, T, R, E> {
        let request = Request::of(context);
        async move { self.ask(item, request)?.await }
    }

    /// Waits until a slot is free, submits the item and waits for its own result, on any executor;
    /// see [`call`](Self::call).
    ///
    /// A future that is dropped while it waits for a slot has submitted nothing and drops the item.
    ///
    /// # Errors
    ///
    /// Those of [`call`](Self::call) except [`CallError::Full`].
    pub fn call_wait(&self, item: T) -> impl Future<Output = Result<R, CallError<E>>> {
        let request = Request::current();
        async move {
            self.refuse_own_handler()?;
            let (caller, waiting) = channel();
            self.wait_async(self.item(item, request.or_current(), Some(caller)))
                .await
                .map_err(refused)?;
            waiting.await
        }
    }

    /// **Blocks** the thread until the item's own result is there. Does not wait for a slot.
    ///
    /// # Errors
    ///
    /// Those of [`call`](Self::call), and [`CallError::AsyncContext`] on a thread that polls tokio
    /// tasks (feature `tokio`; `spawn_blocking` and `block_in_place` may block).
    pub fn call_blocking(&self, item: T) -> Result<R, CallError<E>> {
        self.ask_blocking(item)?.wait(None)
    }

    /// **Blocks** the thread until the item's own result is there, at most for `timeout`. Does not
    /// wait for a slot.
    ///
    /// # Errors
    ///
    /// Those of [`call_blocking`](Self::call_blocking), and [`CallError::Timeout`]: an item that
    /// was accepted is processed all the same.
    pub fn call_blocking_timeout(&self, item: T, timeout: Duration) -> Result<R, CallError<E>> {
        let waiting = self.ask_blocking(item)?;
        waiting.wait(Instant::now().checked_add(timeout))
    }

    /// Submits an item whose result is waited for.
    #[inline(always)]
    fn ask(&self, item: T, request: Request) -> Result<Reply<R, E>, CallError<E>> {
        self.refuse_own_handler()?;
        let (caller, waiting) = channel();
        self.put(self.item(item, request, Some(caller))).map_err(refused)?;
        Ok(waiting)
    }

    fn ask_blocking(&self, item: T) -> Result<Reply<R, E>, CallError<E>> {
        if polls_tasks() {
            return Err(CallError::AsyncContext);
        }
        self.ask(item, Request::current())
    }

    #[inline(always)]
    fn refuse_own_handler(&self) -> Result<(), CallError<E>> {
        if scope::is_own(&self.inner.outcomes) { Err(CallError::OwnHandler) } else { Ok(()) }
    }
}

fn refused<T, R, E>((_, reason): (Item<T, R, E>, PushError)) -> CallError<E> {
    match reason {
        PushError::Full => CallError::Full,
        PushError::Closed => CallError::Closed,
    }
}
