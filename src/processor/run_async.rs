//! The processor in async code (feature `tokio`).

use super::batch::Batch;
use super::run::BatchProcessor;
use crate::queue::coop;
use futures_core::Stream;
use opentelemetry::Context;
use std::fmt::Display;
use std::future::poll_fn;
use std::pin::Pin;
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
    /// every item was handed out. With
    /// [`with_max_concurrent_batches`](super::BatchProcessorBuilder::with_max_concurrent_batches)
    /// up to so many handlers are awaited at once: batches begin in order and end in any.
    ///
    /// The batch's span is the current context whenever the handler's future is polled, and does
    /// not end before that is done. Panics are caught as in [`run`](Self::run).
    ///
    /// **Not cancel-safe for the batches that are being handled**: if the future is dropped (by
    /// `select!`, an aborted task, a runtime that ends), the handlers' futures are dropped with the
    /// batches they hold, and the items without an answer are failed
    /// ([`CallError::Unanswered`](super::CallError)). No other item is lost: what is queued stays
    /// for the next call.
    pub async fn run_async<F>(&mut self, mut handler: impl FnMut(Batch<T, R, E>) -> F)
    where
        F: Future<Output = ()>,
    {
        self.drive(
            |processor, batch| processor.start_batch(batch, &mut handler),
            |processor, running, cx| processor.poll_batch(running, cx),
        )
        .await;
    }

    /// Awaits `handler` with each item, one after the other, until the processor is closed and
    /// every item was handed out. Each item has a span, as in [`run_each`](Self::run_each), which
    /// is the current context whenever the handler's future is polled. Yields to other tasks
    /// between items. With
    /// [`with_max_concurrent_batches`](super::BatchProcessorBuilder::with_max_concurrent_batches)
    /// one item of each of so many batches is handled at the same time.
    ///
    /// **Not cancel-safe for the batches that are being handled**: if the future is dropped, the
    /// items in flight and those of their batches that were not handled yet are failed
    /// ([`CallError::Unanswered`](super::CallError)). The span of an item in flight ends with the
    /// `error.type` `dropped`. No other item is lost: what is queued stays for the next call.
    pub async fn run_each_async<F>(&mut self, mut handler: impl FnMut(T, Context) -> F)
    where
        F: Future<Output = Result<R, E>>,
        E: Display,
    {
        self.drive(
            |_, batch| Self::start_items(batch),
            |processor, running, cx| processor.poll_items(running, &mut handler, cx),
        )
        .await;
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
