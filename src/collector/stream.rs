//! The flusher in async code: `next().await` and `Stream` (feature `tokio`).

use crate::collector::flusher::Flusher;
use crate::link_set::LinkBatch;
use futures_core::Stream;
use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll};

impl Flusher {
    /// Waits until a batch is due. Returns `None` once the collector is closed and everything was
    /// delivered.
    ///
    /// Cancel-safe: a future that is dropped has taken nothing. The delay is timed by the process's
    /// one timer thread, on any executor, and by tokio on its paused clock. A loop whose batches
    /// are always ready yields after a few of them, inside tokio by its cooperative budget.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), batchlink::ConfigError> {
    /// let (collector, mut flusher) = batchlink::LinkCollector::builder().build()?;
    /// drop(collector);
    /// while let Some(batch) = flusher.next().await {
    ///     println!("{} links", batch.linked());
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub async fn next(&mut self) -> Option<LinkBatch> {
        poll_fn(|cx| self.poll_next_batch(cx)).await
    }

    /// Polls for the next batch, for a hand-written future; see [`next`](Self::next).
    pub fn poll_next_batch(&mut self, cx: &mut Context<'_>) -> Poll<Option<LinkBatch>> {
        self.finish_last();
        self.receiver.poll(cx).map(|due| due.map(|due| self.take(due)))
    }
}

impl Stream for Flusher {
    type Item = LinkBatch;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<LinkBatch>> {
        self.get_mut().poll_next_batch(cx)
    }
}
