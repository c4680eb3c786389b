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
    /// Waits until a batch is due, and starts its span. Returns `None` once the processor is closed
    /// and every item was handed out.
    ///
    /// Cancel-safe: a future that is dropped has taken nothing. A loop over it yields to other
    /// tasks, inside tokio by its cooperative budget, though a batch is always ready.
    ///
    /// ```
    /// # use batchlink::processor::BatchProcessor;
    /// # use opentelemetry::trace::noop::NoopTracer;
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), batchlink::ConfigError> {
    /// let builder = BatchProcessor::<u64, u64, String>::builder("square").with_max_batch_size(2);
    /// let (submitter, mut processor) = builder.build(NoopTracer::new())?;
    /// let serve = async {
    ///     let batch = processor.next().await.expect("a caller waits");
    ///     batch.succeed_all(|n| n * n);
    /// };
    /// let (three, four, ()) = tokio::join!(submitter.call(3), submitter.call(4), serve);
    /// assert_eq!((three, four), (Ok(9), Ok(16)));
    /// # Ok(())
    /// # }
    /// ```
    pub async fn next(&mut self) -> Option<Batch<T, R, E>> {
        poll_fn(|cx| self.poll_next_batch(cx)).await
    }

    /// Polls for what [`next`](Self::next) waits for, to be used in a `poll` of your own.
    pub fn poll_next_batch(&mut self, cx: &mut task::Context<'_>) -> Poll<Option<Batch<T, R, E>>> {
        if !self.parts.is_empty() {
            ready!(coop::poll_proceed(cx, coop::BATCH));
        }
        while self.parts.is_empty() {
            let Some(due) = ready!(self.receiver.poll(cx)) else { return Poll::Ready(None) };
            self.take(due);
        }
        Poll::Ready(self.next_part())
    }

    /// Awaits `handler` with each batch, one after the other, until the processor is closed and
    /// every item was handed out. To process several at once, move the batch to a task of its own
    /// in `handler`.
    ///
    /// The batch's span is the current context whenever the handler's future is polled, and does
    /// not end before that is done. Panics are caught as in [`run`](Self::run).
    ///
    /// **Not cancel-safe for the batch that is being handled**: if the future is dropped (by
    /// `select!`, an aborted task, a runtime that ends), the handler's future is dropped with the
    /// batch it holds, and its items without an answer are failed
    /// ([`CallError::Unanswered`](super::CallError)). No other item is lost: what is queued stays
    /// for the next call.
    pub async fn run_async<F>(&mut self, mut handler: impl FnMut(Batch<T, R, E>) -> F)
    where
        F: Future<Output = ()>,
    {
        while let Some(batch) = self.next().await {
            let span = Arc::clone(&batch.span);
            let call = async { handler(batch).await };
            if let Err(panic) =
                caught(&self.outcomes, call.with_context(span.context().clone())).await
            {
                self.handler_panicked(&span, panic);
            }
        }
    }

    /// Awaits `handler` with each item, one after the other, until the processor is closed and
    /// every item was handed out. Each item has a span, as in [`run_each`](Self::run_each), which
    /// is the current context whenever the handler's future is polled. Yields to other tasks
    /// between items.
    ///
    /// **Not cancel-safe for the batch that is being handled**: if the future is dropped, the item
    /// in flight and those of its batch that were not handled yet are failed
    /// ([`CallError::Unanswered`](super::CallError)). The span of the item in flight ends with the
    /// `error.type` `dropped`. No other item is lost: what is queued stays for the next call.
    pub async fn run_each_async<F>(&mut self, mut handler: impl FnMut(T, Context) -> F)
    where
        F: Future<Output = Result<R, E>>,
        E: Display,
    {
        while let Some(batch) = self.next().await {
            // Keeps the batch's span open until its items' spans have ended.
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
async fn caught<F: Future>(
    outcomes: &Outcomes,
    future: F,
) -> Result<F::Output, Box<dyn Any + Send>> {
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
