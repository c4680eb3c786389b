//! The producer half, the flusher half, and their configuration.

mod builder;
mod config;
pub(crate) mod flusher;
pub(crate) mod handle;
mod hooks;
mod producer;
mod push;
#[cfg(feature = "tokio")]
mod stream;

pub use builder::LinkCollectorBuilder;
pub(crate) use config::Config;
pub use flusher::Flusher;
pub use handle::FlusherHandle;
#[cfg(any(batchlink_loom, batchlink_hooks))]
pub use hooks::StalledPush;
pub use producer::Producer;

use crate::error::{PushError, RejectedLink};
use crate::link_set::policy::Invalid;
use crate::link_set::record::Record;
use crate::links::MaybeContext;
use crate::queue::{Handle, Queue, Shard};
use crate::stats::Stats;
use crate::sync::Arc;
use opentelemetry::trace::{Link, SpanContext};
use push::*;
use std::fmt;
use std::time::Duration;

/// Collects span contexts from many threads for the links of batch spans.
///
/// Clone it into every thread that has contexts to give; all clones feed the same [`Flusher`].
/// When the last clone and the last [`Producer`] are gone, the collector closes by itself: the
/// flusher delivers what is left and then ends.
///
/// Every thread is pinned to one shard, so its contexts are linked in the order in which it pushed
/// them. No method blocks, panics or takes a lock.
///
/// ```
/// use batchlink::LinkCollector;
/// use opentelemetry::{global, trace::Tracer};
/// use std::time::Duration;
///
/// let (collector, flusher) = LinkCollector::builder()
///     .with_max_batch_size(64)
///     .with_max_delay(Duration::from_millis(50))
///     .build()?;
/// let handle = flusher.spawn(|batch| {
///     let _span = batch.start(&global::tracer("writer"), "insert_batch");
///     // ... do the work of the batch
/// })?;
///
/// let worker = collector.clone();
/// std::thread::spawn(move || {
///     global::tracer("worker").in_span("request", |_cx| worker.push_current())
/// }).join().unwrap()?;
///
/// handle.shutdown_with_timeout(Duration::from_secs(5))?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct LinkCollector {
    queue: Handle<Record>,
    invalid: Invalid,
}

impl LinkCollector {
    /// Starts a configuration, with defaults that do not depend on the environment.
    pub fn builder() -> LinkCollectorBuilder {
        LinkCollectorBuilder::new()
    }

    pub(crate) fn from_config(config: Config) -> (Self, Flusher) {
        let (queue, consumers) = Queue::new(config.shards, config.slots_per_shard, config.max_batch_size, 0);
        let invalid = config.links.invalid;
        let flusher = Flusher::new(Arc::clone(queue.queue()), consumers, config);
        (Self { queue, invalid }, flusher)
    }

    /// Gives a context to the next batch. It is read, not cloned, unless it has trace state.
    ///
    /// An invalid context (no active span, tracing off) is counted and otherwise ignored, unless
    /// [`with_invalid`](crate::LinkPolicy::with_invalid) keeps it.
    ///
    /// Cost: one uncontended read-modify-write on the thread's shard and 32 bytes written; no
    /// allocation without trace state. About one push in a hundred also looks at the other shards.
    ///
    /// # Errors
    ///
    /// [`PushError::Full`] if this thread's shard is full, [`PushError::Closed`] after
    /// [`close`](Self::close) or when the flusher is gone. Both are counted.
    #[inline]
    pub fn push(&self, context: &SpanContext) -> Result<(), PushError> {
        push(self.shard(), context, self.invalid)
    }

    /// As [`push`](Self::push), for a link with attributes, which are boxed (one allocation).
    ///
    /// # Errors
    ///
    /// As [`push`](Self::push), with the link given back.
    pub fn push_link(&self, link: Link) -> Result<(), RejectedLink> {
        push_link(self.shard(), link, self.invalid)
    }

    /// As [`push`](Self::push), for the active span of the current
    /// [`Context`](opentelemetry::Context). With `tracing-opentelemetry`, an entered `tracing`
    /// span is that span.
    ///
    /// # Errors
    ///
    /// As [`push`](Self::push).
    pub fn push_current(&self) -> Result<(), PushError> {
        push_current(self.shard(), self.invalid)
    }

    /// As [`push`](Self::push), for what may have a context, such as an `Option<SpanContext>` or a
    /// [`Context`](opentelemetry::Context). If it has none, nothing happens and nothing is counted.
    ///
    /// # Errors
    ///
    /// As [`push`](Self::push).
    pub fn push_optional(&self, context: impl MaybeContext) -> Result<(), PushError> {
        context.with(|context| self.push(context)).unwrap_or(Ok(()))
    }

    /// As [`push`](Self::push) for each context, with one claim for as many as the shard lets
    /// through at once. Returns how many, from the first on, were taken (accepted, or counted as
    /// invalid); all others are counted as refused.
    pub fn push_all(&self, contexts: &[SpanContext]) -> usize {
        push_all(self.shard(), contexts, self.invalid)
    }

    /// As [`push`](Self::push), but a full shard is waited for instead of refused: back-pressure.
    ///
    /// **Blocks the thread** until the flusher has made room. Do not call it from the flusher's own
    /// handler, which would wait for itself, nor in async code, which has
    /// [`push_wait_async`](Self::push_wait_async). Costs no more than `push` if there is room.
    /// Those who wait are woken together, so no order among them is promised.
    ///
    /// # Errors
    ///
    /// [`PushError::Closed`] if the collector is closed, also while waiting.
    pub fn push_wait(&self, context: &SpanContext) -> Result<(), PushError> {
        push_wait(self.shard(), context, None, self.invalid)
    }

    /// As [`push_wait`](Self::push_wait), for at most `timeout`. Zero only tries.
    ///
    /// # Errors
    ///
    /// [`PushError::Full`] if there was no room in time, [`PushError::Closed`] if the collector is
    /// closed, also while waiting. Both are counted, once per call.
    pub fn push_wait_timeout(&self, context: &SpanContext, timeout: Duration) -> Result<(), PushError> {
        push_wait(self.shard(), context, Some(timeout), self.invalid)
    }

    /// As [`push_wait`](Self::push_wait), for tasks of any executor. Does not block.
    ///
    /// Cancel-safe: dropped before it is ready, it has pushed and counted nothing.
    ///
    /// # Errors
    ///
    /// [`PushError::Closed`] if the collector is closed, also while waiting.
    pub async fn push_wait_async(&self, context: &SpanContext) -> Result<(), PushError> {
        push_wait_async(self.shard(), context, self.invalid).await
    }

    /// A producer with a shard of its own choice, the next in turn: for a worker that lives long.
    pub fn producer(&self) -> Producer {
        Producer { shard: self.queue.next_shard(), queue: self.queue.clone(), invalid: self.invalid }
    }

    /// Asks the flusher to deliver what is pending now, as [`Trigger::Manual`](crate::Trigger).
    /// Does not wait for it. Everything whose push returned before this call is delivered
    /// without waiting for size or timeout.
    pub fn flush(&self) {
        self.queue.trigger.ask_flush();
    }

    /// Closes the collector, for all clones: no push succeeds any more. Everything accepted is
    /// still delivered. Further calls do nothing.
    pub fn close(&self) {
        self.queue.close();
    }

    /// The counters so far. Cost: a few loads per shard.
    pub fn stats(&self) -> Stats {
        self.queue.stats()
    }

    #[inline(always)]
    fn shard(&self) -> Shard<'_, Record> {
        self.queue.thread_shard()
    }
}

impl Clone for LinkCollector {
    fn clone(&self) -> Self {
        Self { queue: self.queue.clone(), invalid: self.invalid }
    }
}

impl fmt::Debug for LinkCollector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LinkCollector").field("stats", &self.stats()).finish_non_exhaustive()
    }
}
