//! Flushing and closing by the producer half.

use super::LinkCollector;
use crate::error::FlushError;
use crate::stats::Stats;
use std::time::Duration;

impl LinkCollector {
    /// Asks the flusher to deliver what is pending, as [`Trigger::Manual`](crate::Trigger). Does
    /// not wait. Every context whose push returned before this call is delivered without waiting
    /// for size or timeout.
    ///
    /// ```
    /// use batchlink::{LinkCollector, Trigger};
    /// # use opentelemetry::trace::{SpanContext, SpanId, TraceFlags, TraceId, TraceState};
    /// # let context = |n| SpanContext::new(
    /// #     TraceId::from(7), SpanId::from(n), TraceFlags::SAMPLED, false, TraceState::NONE);
    ///
    /// let (collector, mut flusher) = LinkCollector::builder().build()?;
    /// collector.push(&context(1))?;
    /// collector.flush();
    /// assert_eq!(flusher.next_batch().unwrap().trigger(), Trigger::Manual);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn flush(&self) {
        self.queue.trigger.ask_flush();
    }

    /// **Blocks** the thread, at most for `timeout`: asks for a flush and waits until every context
    /// that was accepted before the call is delivered. Returns the counters after that.
    ///
    /// Delivered means: the handler given to [`Flusher::spawn`](crate::Flusher::spawn) has
    /// returned, or panicked. For batches that are taken one by one, with `next_batch` or `next`,
    /// it means that the flusher was asked for another batch after it, or was dropped. A loop that
    /// hands its batches to other threads or tasks must wait for these itself. What is accepted
    /// during the wait is not waited for.
    ///
    /// For a process that may be frozen or stopped after this, such as a serverless function. Flush
    /// the tracer provider after it, which then has the batch spans.
    ///
    /// **On a thread of an async runtime the flusher may wait for what this stops**: use
    /// [`flush_and_wait_async`](Self::flush_and_wait_async) there. Called by the handler it waits
    /// for itself and times out.
    ///
    /// ```
    /// use batchlink::LinkCollector;
    /// use std::time::Duration;
    ///
    /// let (collector, flusher) = LinkCollector::builder().build()?;
    /// let _handle = flusher.spawn(|batch| println!("{} links", batch.linked()))?;
    /// collector.push_current()?;
    /// let stats = collector.flush_and_wait(Duration::from_secs(1))?;
    /// assert_eq!(stats.pending(), 0);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// - [`FlushError::Timeout`] with what is missing; delivery continues.
    /// - [`FlushError::Closed`] if the flusher was dropped and left some of it.
    pub fn flush_and_wait(&self, timeout: Duration) -> Result<Stats, FlushError> {
        self.queue.flush_and_wait(timeout).map(|()| self.stats())
    }

    /// Flushes and waits as [`flush_and_wait`](Self::flush_and_wait) does, in a task of any
    /// executor.
    ///
    /// Cancel-safe. The timeout is kept by the process's one timer thread;
    /// [`Duration::MAX`] needs none, for use inside a runtime's own timeout.
    ///
    /// # Errors
    ///
    /// [`FlushError::Timeout`], [`FlushError::Closed`].
    pub async fn flush_and_wait_async(&self, timeout: Duration) -> Result<Stats, FlushError> {
        self.queue.flush_and_wait_async(timeout).await.map(|()| self.stats())
    }

    /// Closes the collector, for all clones: no push succeeds after it. Everything accepted is
    /// still delivered. Further calls do nothing. Does not wait.
    ///
    /// ```
    /// use batchlink::{LinkCollector, PushError};
    /// # use opentelemetry::trace::{SpanContext, SpanId, TraceFlags, TraceId, TraceState};
    /// # let context = |n| SpanContext::new(
    /// #     TraceId::from(7), SpanId::from(n), TraceFlags::SAMPLED, false, TraceState::NONE);
    ///
    /// let (collector, mut flusher) = LinkCollector::builder().build()?;
    /// collector.push(&context(1))?;
    /// collector.close();
    /// assert_eq!(collector.push(&context(2)), Err(PushError::Closed));
    /// assert_eq!(flusher.next_batch().unwrap().received(), 1);
    /// assert!(flusher.next_batch().is_none());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn close(&self) {
        self.queue.close();
    }
}
