//! Submissions whose result is waited for.

use super::answer::CallError;
use super::back_link::BackLink;
use super::reply::{Reply, channel};
use super::request::Request;
use super::submitter::Submitter;
use super::{Item, scope};
use crate::error::PushError;
use crate::sync::polls_tasks;
use opentelemetry::trace::SpanContext;
use std::future::poll_fn;
use std::task::{Poll, Waker};
use std::time::{Duration, Instant};

impl<T, R, E> Submitter<T, R, E> {
    /// Submits an item and waits for its own result, on any executor.
    ///
    /// The span is that of the call, the item is submitted at the first poll of the future. A
    /// future that is dropped before has submitted nothing. Dropped later, the item is processed
    /// all the same, unless [`with_skip_canceled`] says otherwise, and its result is dropped: wrap
    /// the call in the timeout of your runtime at will. Without one it waits until the processor
    /// answers or is dropped.
    ///
    /// The batch links the call's span. For the way back see [`BackLink`](super::BackLink).
    ///
    /// Cost beyond [`submit`](Self::submit): one allocation.
    ///
    /// # Errors
    ///
    /// The item was not submitted: [`CallError::Full`], [`CallError::Closed`],
    /// [`CallError::OwnHandler`]. The processor was dropped before it took the item:
    /// [`CallError::Closed`]. The handler did not succeed: [`CallError::Failed`],
    /// [`CallError::Panicked`], [`CallError::Unanswered`].
    ///
    /// [`with_skip_canceled`]: super::BatchProcessorBuilder::with_skip_canceled
    pub fn call(&self, item: T) -> impl Future<Output = Result<R, CallError<E>>> {
        let request = self.inner.request();
        async move {
            let waker = current_waker().await;
            let (waiting, _back) = self.ask(item, self.inner.or_current(request), Some(waker))?;
            waiting.await
        }
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
        let request = self.inner.request_of(context);
        async move {
            let waker = current_waker().await;
            let (waiting, _back) = self.ask(item, request, Some(waker))?;
            waiting.await
        }
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
        self.ask_wait(item, self.inner.request())
    }

    /// Does the same as [`call_wait`](Self::call_wait), and owns the submitter.
    #[cfg(feature = "tower")]
    pub(crate) fn into_call(
        self,
        item: T,
    ) -> impl Future<Output = Result<R, CallError<E>>> + use<T, R, E> {
        let request = self.inner.request();
        async move { self.ask_wait(item, request).await }
    }

    /// Returns whether the processor is closed.
    #[cfg(feature = "tower")]
    pub(crate) fn is_closed(&self) -> bool {
        self.queue.is_closed()
    }

    async fn ask_wait(&self, item: T, request: Request) -> Result<R, CallError<E>> {
        self.refuse_own_handler()?;
        let (caller, waiting) = channel(None);
        let mut request = self.inner.or_current(request);
        let _back = request.link_back();
        self.wait_async(self.item(item, request, Some(caller))).await.map_err(refused)?;
        waiting.await
    }

    /// **Blocks** the thread until the item's own result is there. Does not wait for a slot.
    ///
    /// # Errors
    ///
    /// Those of [`call`](Self::call), and [`CallError::AsyncContext`] on a thread that polls tokio
    /// tasks (feature `tokio`; `spawn_blocking` and `block_in_place` may block).
    pub fn call_blocking(&self, item: T) -> Result<R, CallError<E>> {
        let (waiting, _back) = self.ask_blocking(item)?;
        waiting.wait(None)
    }

    /// **Blocks** the thread until the item's own result is there, at most for `timeout`. Does not
    /// wait for a slot.
    ///
    /// # Errors
    ///
    /// Those of [`call_blocking`](Self::call_blocking), and [`CallError::Timeout`]: an item that
    /// was accepted is processed all the same.
    pub fn call_blocking_timeout(&self, item: T, timeout: Duration) -> Result<R, CallError<E>> {
        let (waiting, _back) = self.ask_blocking(item)?;
        waiting.wait(Instant::now().checked_add(timeout))
    }

    /// Submits an item whose result is waited for. The back link is to be held until then.
    #[inline(always)]
    fn ask(
        &self,
        item: T,
        mut request: Request,
        waker: Option<Waker>,
    ) -> Result<Asked<R, E>, CallError<E>> {
        self.refuse_own_handler()?;
        let (caller, waiting) = channel(waker);
        let back = request.link_back();
        match self.put(self.item(item, request, Some(caller))) {
            Ok(()) => Ok((waiting, back)),
            Err(refusal) => {
                // With its waker, which the drop of the refused item would wake.
                drop(waiting);
                Err(refused(refusal))
            }
        }
    }

    fn ask_blocking(&self, item: T) -> Result<Asked<R, E>, CallError<E>> {
        if polls_tasks() {
            return Err(CallError::AsyncContext);
        }
        self.ask(item, self.inner.request(), None)
    }

    #[inline(always)]
    fn refuse_own_handler(&self) -> Result<(), CallError<E>> {
        if scope::is_own(&self.inner.outcomes) { Err(CallError::OwnHandler) } else { Ok(()) }
    }
}

/// A call that waits.
type Asked<R, E> = (Reply<R, E>, Option<BackLink>);

/// Returns the waker of the task that polls this.
async fn current_waker() -> Waker {
    poll_fn(|cx| Poll::Ready(cx.waker().clone())).await
}

fn refused<T, R, E>((_, reason): (Item<T, R, E>, PushError)) -> CallError<E> {
    match reason {
        PushError::Full => CallError::Full,
        PushError::Closed => CallError::Closed,
    }
}
