//! The handlers of several batches at once, in one task (feature `tokio`).

use super::batch::{Batch, BatchItem};
use super::parts::Panic;
use super::run::BatchProcessor;
use super::span::{BatchSpan, ItemSpan};
use super::{Outcomes, scope};
use crate::panic::caught;
use crate::queue::coop;
use crate::sync::Arc;
use opentelemetry::Context;
use std::fmt::Display;
use std::future::poll_fn;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::task::{self, Poll, ready};

/// Room for one future of a handler at a time.
struct Slot<F>(Pin<Box<Option<F>>>);

/// A batch whose handler runs. Dropped before that is done, it drops the handler's future first.
pub(super) struct Running<F> {
    slot: Slot<F>,
    /// Keeps the batch's span open until its handler has returned.
    span: Arc<BatchSpan>,
}

/// A batch whose items are handled one by one. Dropped before the last is done, it drops the
/// future, then fails the item in flight, then the others.
pub(super) struct RunningItems<T, R, E, F> {
    slot: Slot<F>,
    item: Option<ItemSpan<R, E>>,
    left: std::vec::IntoIter<BatchItem<T, R, E>>,
    /// Keeps the batch's span open until its items' spans have ended.
    whole: Arc<BatchSpan>,
}

impl<F: Future> Slot<F> {
    fn empty() -> Self {
        Self(Box::pin(None))
    }

    /// Calls the handler, with the context current.
    fn start(
        &mut self,
        outcomes: &Outcomes,
        context: &Context,
        handler: impl FnOnce() -> F,
    ) -> Result<(), Panic> {
        let (_current, _scope) = (context.clone().attach(), scope::enter(outcomes));
        self.0.set(Some(catch_unwind(AssertUnwindSafe(handler))?));
        Ok(())
    }

    /// Polls the handler's future, with the context current, and drops it when it is done. Returns
    /// its output, or what it panicked with.
    fn poll(
        &mut self,
        outcomes: &Outcomes,
        context: &Context,
        cx: &mut task::Context<'_>,
    ) -> Poll<Option<Result<F::Output, Panic>>> {
        let Some(future) = self.0.as_mut().as_pin_mut() else { return Poll::Ready(None) };
        let (_current, _scope) = (context.clone().attach(), scope::enter(outcomes));
        let output = match catch_unwind(AssertUnwindSafe(|| future.poll(cx))) {
            Ok(poll) => Ok(ready!(poll)),
            Err(panic) => Err(panic),
        };
        self.clear();
        Poll::Ready(Some(output))
    }
}

impl<F> Slot<F> {
    /// Drops the future, which is user code.
    fn clear(&mut self) {
        let _ = caught(|| self.0.set(None));
    }
}

impl<F> Drop for Slot<F> {
    fn drop(&mut self) {
        self.clear();
    }
}

impl<T, R, E> BatchProcessor<T, R, E>
where
    T: Send + 'static,
    R: Send + 'static,
    E: Send + 'static,
{
    /// Takes batches and has `start` and `poll` run the handler of each, up to
    /// `max_concurrent_batches` at the same time, until the processor is closed, every item was
    /// handed out, and every handler has returned.
    pub(super) async fn drive<S>(
        &mut self,
        mut start: impl FnMut(&mut Self, Batch<T, R, E>) -> S,
        mut poll: impl FnMut(&mut Self, &mut S, &mut task::Context<'_>) -> Poll<()>,
    ) {
        let mut running: Vec<S> = Vec::new();
        let mut closed = false;
        poll_fn(|cx| {
            running.retain_mut(|batch| poll(self, batch, cx).is_pending());
            while !closed && running.len() < self.options.max_concurrent_batches {
                self.receiver.drain.busy = !running.is_empty();
                let next = self.poll_next_batch(cx);
                self.receiver.drain.busy = false;
                match next {
                    Poll::Ready(Some(batch)) => {
                        let mut batch = start(self, batch);
                        if poll(self, &mut batch, cx).is_pending() {
                            running.push(batch);
                        }
                    }
                    Poll::Ready(None) => closed = true,
                    Poll::Pending => return Poll::Pending,
                }
            }
            if closed && running.is_empty() { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
    }

    pub(super) fn start_batch<F: Future<Output = ()>>(
        &self,
        batch: Batch<T, R, E>,
        handler: impl FnOnce(Batch<T, R, E>) -> F,
    ) -> Running<F> {
        let mut running = Running { slot: Slot::empty(), span: Arc::clone(&batch.span) };
        let context = running.span.context();
        if let Err(panic) = running.slot.start(&self.outcomes, context, || handler(batch)) {
            self.handler_panicked(&running.span, panic);
        }
        running
    }

    pub(super) fn poll_batch<F: Future<Output = ()>>(
        &self,
        Running { slot, span }: &mut Running<F>,
        cx: &mut task::Context<'_>,
    ) -> Poll<()> {
        if let Some(Err(panic)) = ready!(slot.poll(&self.outcomes, span.context(), cx)) {
            self.handler_panicked(span, panic);
        }
        Poll::Ready(())
    }

    pub(super) fn start_items<F: Future>(batch: Batch<T, R, E>) -> RunningItems<T, R, E, F> {
        let whole = Arc::clone(&batch.span);
        RunningItems { slot: Slot::empty(), item: None, left: batch.into_iter(), whole }
    }

    pub(super) fn poll_items<F: Future<Output = Result<R, E>>>(
        &self,
        RunningItems { slot, item, left, whole }: &mut RunningItems<T, R, E, F>,
        mut handler: impl FnMut(T, Context) -> F,
        cx: &mut task::Context<'_>,
    ) -> Poll<()>
    where
        E: Display,
    {
        loop {
            if let Some(span) = item {
                let output = ready!(slot.poll(&self.outcomes, span.context(), cx));
                if let (Some(span), Some(output)) = (item.take(), output) {
                    self.end_item(span, output);
                }
            }
            if left.len() == 0 {
                return Poll::Ready(());
            }
            ready!(coop::poll_proceed(cx, coop::PUSH));
            let Some(next) = left.next() else { return Poll::Ready(()) };
            let (payload, span) = self.start_item(next, whole.context());
            let context = span.context().clone();
            match slot.start(&self.outcomes, &context, || handler(payload, context.clone())) {
                Ok(()) => *item = Some(span),
                Err(panic) => self.end_item(span, Err(panic)),
            }
        }
    }
}
