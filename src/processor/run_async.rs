//! The processor in async code (feature `tokio`).

use super::batch::Batch;
use super::run::BatchProcessor;
use super::{Outcomes, scope};
use crate::queue::coop;
use crate::sync::Arc;
use futures_core::Stream;
use opentelemetry::Context;
use opentelemetry::trace::FutureExt;
use std::any::Any;
use std::fmt::Display;
use std::future::poll_fn;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::{Pin, pin};
use std::task::{self, Poll, ready};

impl<T, R, E> BatchProcessor<T, R, E>
where
    T: Send + 'static,
    R: Send + 'static,
    E: Send + 'static,
{
    /// As [`next_batch`](Self::next_batch), in a task. Cancel-safe: a future that is dropped has
    /// taken nothing.
    pub async fn next(&mut self) -> Option<Batch<T, R, E>> {
        poll_fn(|cx| self.poll_next_batch(cx)).await
    }

    /// [`next`](Self::next) for those who write their own `poll`.
    pub fn poll_next_batch(&mut self, cx: &mut task::Context<'_>) -> Poll<Option<Batch<T, R, E>>> {
        if self.parts.is_empty() {
            let Some(due) = ready!(self.receiver.poll(cx)) else { return Poll::Ready(None) };
            self.take(due);
        } else {
            ready!(coop::poll_proceed(cx, coop::BATCH));
        }
        Poll::Ready(self.next_part())
    }

    /// As [`run`](Self::run), in a task: one batch after the other. To have several at once, move
    /// the batch to a task of its own in `handler`.
    pub async fn run_async<F>(&mut self, mut handler: impl FnMut(Batch<T, R, E>) -> F)
    where
        F: Future<Output = ()>,
    {
        while let Some(batch) = self.next().await {
            let span = Arc::clone(&batch.span);
            let call = async { handler(batch).await };
            if let Err(panic) = caught(&self.outcomes, call.with_context(span.context().clone())).await {
                self.handler_panicked(&span, panic);
            }
        }
    }

    /// As [`run_each`](Self::run_each), in a task: one item after the other, each with its span as
    /// the current context whenever it is polled.
    pub async fn run_each_async<F>(&mut self, mut handler: impl FnMut(T, Context) -> F)
    where
        F: Future<Output = Result<R, E>>,
        E: Display,
    {
        while let Some(batch) = self.next().await {
            // It ends after its items' spans.
            let whole = Arc::clone(&batch.span);
            for item in batch {
                poll_fn(|cx| coop::poll_proceed(cx, coop::PUSH)).await;
                let (payload, span) = self.start_item(item, whole.context());
                let context = span.context().clone();
                let call = async { handler(payload, context.clone()).await };
                let result = caught(&self.outcomes, call.with_context(context.clone())).await;
                self.end_item(span, result);
            }
        }
    }
}

impl<T, R, E> Stream for BatchProcessor<T, R, E>
where
    T: Send + 'static,
    R: Send + 'static,
    E: Send + 'static,
{
    type Item = Batch<T, R, E>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut task::Context<'_>) -> Poll<Option<Self::Item>> {
        self.get_mut().poll_next_batch(cx)
    }
}

/// The output of a handler's future, or what it panicked with.
async fn caught<F: Future>(outcomes: &Outcomes, future: F) -> Result<F::Output, Box<dyn Any + Send>> {
    let mut future = pin!(future);
    poll_fn(|cx| {
        let _scope = scope::enter(outcomes);
        match catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(cx))) {
            Ok(poll) => poll.map(Ok),
            Err(panic) => Poll::Ready(Err(panic)),
        }
    })
    .await
}
