//! The producer half, the flusher half, and their configuration.

mod builder;
mod config;
mod env;
mod flush;
mod flush_policy;
pub(crate) mod flusher;
pub(crate) mod handle;
mod hooks;
pub(crate) mod log;
mod producer;
mod push;
#[cfg(feature = "tokio")]
mod stream;

pub use builder::LinkCollectorBuilder;
pub(crate) use config::Config;
pub use flush_policy::FlushPolicy;
pub use flusher::Flusher;
pub use handle::FlusherHandle;
#[cfg(any(batchlink_loom, batchlink_hooks))]
pub use hooks::StalledPush;
#[cfg(batchlink_hooks)]
pub use hooks::StalledReport;
pub use producer::Producer;

use crate::error::{PushError, RejectedLink};
use crate::link_set::policy::Invalid;
use crate::link_set::record::Record;
use crate::links::MaybeContext;
use crate::queue::{Handle, Queue};
use crate::stats::{Stats, StatsHandle};
use crate::sync::Arc;
use opentelemetry::trace::{Link, SpanContext};
use push::Inlet;
use std::fmt;
use std::time::Duration;

/// Collects span contexts from many threads for the links of batch spans.
///
/// Clone it into every thread that has contexts to give. All clones feed the same [`Flusher`]. When
/// the last clone and the last [`Producer`] are dropped, the collector closes: the flusher delivers
/// what is left and then ends.
///
/// Every thread is pinned to one shard, so its contexts are linked in the order in which it pushed
/// them. An async task moves between threads: give it a [`Producer`] for its order.
///
/// No method panics. Only those that say so block: [`push_wait`](Self::push_wait),
/// [`push_wait_timeout`](Self::push_wait_timeout) and [`flush_and_wait`](Self::flush_and_wait). All
/// others are lock-free, except that [`close`](Self::close), and dropping the last clone, take a
/// lock if a producer waits for a free slot.
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
#[derive(Clone)]
pub struct LinkCollector {
    queue: Handle<Record>,
    invalid: Invalid,
}

impl LinkCollector {
    /// Returns a builder with the defaults, which do not depend on the environment.
    pub fn builder() -> LinkCollectorBuilder {
        LinkCollectorBuilder::new()
    }

    pub(crate) fn from_config(config: Config) -> (Self, Flusher) {
        let (queue, consumers) =
            Queue::new(config.shards, config.slots_per_shard, config.rules().threshold(), 0);
        let invalid = config.links.invalid;
        let flusher = Flusher::new(Arc::clone(queue.queue()), consumers, config);
        (Self { queue, invalid }, flusher)
    }

    /// Pushes a context for the next batch. Reads it, and clones only its trace state.
    ///
    /// An invalid context (no active span, tracing off) is counted and otherwise ignored, unless
    /// the policy for [`Invalid`](crate::Invalid) contexts keeps it.
    ///
    /// Does not block. Cost: one uncontended read-modify-write on the thread's shard and 32 bytes
    /// written; no allocation without trace state (with it, see [`push_link`](Self::push_link)).
    /// About one push in a hundred also scans the other shards.
    ///
    /// # Errors
    ///
    /// - [`PushError::Full`] if this thread's shard is full.
    /// - [`PushError::Closed`] after [`close`](Self::close), or if the flusher was dropped.
    ///
    /// Both are counted.
    #[inline]
    pub fn push(&self, context: &SpanContext) -> Result<(), PushError> {
        self.inlet().push(context)
    }

    /// Pushes a link. Does not block.
    ///
    /// Allocates nothing, but for the first link with trace state or attributes in a shard: that
    /// allocates 96 bytes for each slot of it, and initialises them.
    ///
    /// ```
    /// use batchlink::{LinkCollector, links};
    /// # use opentelemetry::trace::{SpanContext, SpanId, TraceFlags, TraceId, TraceState};
    /// # let context = |n| SpanContext::new(
    /// #     TraceId::from(7), SpanId::from(n), TraceFlags::SAMPLED, false, TraceState::NONE);
    ///
    /// let (collector, mut flusher) = LinkCollector::builder().build()?;
    /// collector.push_link(links::batch_item(&context(1), 0))?;
    /// assert_eq!(flusher.try_next().unwrap().linked(), 1);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`RejectedLink`] with the link, for [`PushError::Full`] or [`PushError::Closed`].
    pub fn push_link(&self, link: Link) -> Result<(), RejectedLink> {
        self.inlet().push_link(link)
    }

    /// Pushes the active span of the current [`Context`](opentelemetry::Context). With
    /// `tracing-opentelemetry`, that is the entered `tracing` span. Does not block.
    ///
    /// ```
    /// use opentelemetry::{global, trace::Tracer};
    ///
    /// let (collector, _flusher) = batchlink::LinkCollector::builder().build()?;
    /// global::tracer("worker").in_span("request", |_cx| collector.push_current())?;
    /// collector.push_current()?; // no active span: counted as invalid
    /// assert_eq!(collector.stats().invalid(), 2); // no SDK is installed here
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`PushError::Full`], [`PushError::Closed`].
    pub fn push_current(&self) -> Result<(), PushError> {
        self.inlet().push_current()
    }

    /// Pushes the context of an `Option<SpanContext>`, a [`Context`](opentelemetry::Context) or the
    /// like. If there is none, nothing happens and nothing is counted. Does not block.
    ///
    /// ```
    /// # use opentelemetry::trace::{SpanContext, SpanId, TraceFlags, TraceId, TraceState};
    /// # let context = |n| SpanContext::new(
    /// #     TraceId::from(7), SpanId::from(n), TraceFlags::SAMPLED, false, TraceState::NONE);
    /// let (collector, _flusher) = batchlink::LinkCollector::builder().build()?;
    /// collector.push_optional(Some(context(1)))?;
    /// collector.push_optional(None::<SpanContext>)?;
    /// assert_eq!(collector.stats().pushed(), 1);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`PushError::Full`], [`PushError::Closed`].
    pub fn push_optional(&self, context: impl MaybeContext) -> Result<(), PushError> {
        context.with(|context| self.push(context)).unwrap_or(Ok(()))
    }

    /// Pushes contexts up to the first refusal, with one claim for as many as the shard lets
    /// through at once. Returns how many were accepted or counted as invalid. The others are
    /// counted as refused. Does not block.
    ///
    /// ```
    /// # use opentelemetry::trace::{SpanContext, SpanId, TraceFlags, TraceId, TraceState};
    /// # let context = |n| SpanContext::new(
    /// #     TraceId::from(7), SpanId::from(n), TraceFlags::SAMPLED, false, TraceState::NONE);
    /// let builder = batchlink::LinkCollector::builder().with_max_batch_size(2);
    /// let (collector, _flusher) = builder.with_queue_capacity(2).build()?;
    /// assert_eq!(collector.push_all(&[1, 2, 3].map(context)), 2);
    /// assert_eq!(collector.stats().rejected_full(), 1);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn push_all(&self, contexts: &[SpanContext]) -> usize {
        self.inlet().push_all(contexts)
    }

    /// **Blocks** the thread until its shard has a free slot, and pushes: back-pressure instead of
    /// [`PushError::Full`].
    ///
    /// Do not call it from the flusher's handler, which would wait for itself, nor in async code,
    /// which has [`push_wait_async`](Self::push_wait_async). Costs no more than
    /// [`push`](Self::push) if a slot is free. No order is promised among waiting threads.
    ///
    /// # Errors
    ///
    /// - [`PushError::Closed`] if the collector is closed, also while waiting.
    /// - [`PushError::Full`] instead of a wait where tokio polls tasks (feature `tokio`): it would
    ///   stop them.
    pub fn push_wait(&self, context: &SpanContext) -> Result<(), PushError> {
        self.inlet().push_wait(context, None)
    }

    /// **Blocks** the thread as [`push_wait`](Self::push_wait) does, for at most `timeout`, and
    /// pushes. Zero does not wait.
    ///
    /// ```
    /// use batchlink::{LinkCollector, PushError};
    /// use std::time::Duration;
    /// # use opentelemetry::trace::{SpanContext, SpanId, TraceFlags, TraceId, TraceState};
    /// # let context = |n| SpanContext::new(
    /// #     TraceId::from(7), SpanId::from(n), TraceFlags::SAMPLED, false, TraceState::NONE);
    ///
    /// let builder = LinkCollector::builder().with_max_batch_size(1).with_queue_capacity(1);
    /// let (collector, _flusher) = builder.build()?;
    /// collector.push_wait(&context(1))?;
    /// let late = collector.push_wait_timeout(&context(2), Duration::from_millis(1));
    /// assert_eq!(late, Err(PushError::Full));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// - [`PushError::Full`] if it timed out, or instead of a wait where tokio polls tasks (feature
    ///   `tokio`).
    /// - [`PushError::Closed`] if the collector is closed, also while waiting.
    ///
    /// Both are counted, once a call.
    pub fn push_wait_timeout(
        &self,
        context: &SpanContext,
        timeout: Duration,
    ) -> Result<(), PushError> {
        self.inlet().push_wait(context, Some(timeout))
    }

    /// Waits until the shard of the thread that first polls it has a free slot, and pushes. For
    /// tasks of any executor.
    ///
    /// Cancel-safe: dropped before it is ready, it has pushed and counted nothing. A task that
    /// moves between threads changes its shard: for an order, use
    /// [`Producer::push_wait_async`].
    ///
    /// # Errors
    ///
    /// [`PushError::Closed`] if the collector is closed, also while waiting.
    pub async fn push_wait_async(&self, context: &SpanContext) -> Result<(), PushError> {
        self.inlet().push_wait_async(context).await
    }

    /// Returns a producer with a shard of its own, the next in turn: for a long-lived worker, or a
    /// task.
    pub fn producer(&self) -> Producer {
        Producer {
            queue: self.queue.clone(),
            shard: self.queue.next_shard(),
            invalid: self.invalid,
        }
    }

    /// Returns a snapshot of the counters. Cost: a few loads per shard.
    ///
    /// ```
    /// let (collector, _flusher) = batchlink::LinkCollector::builder().build()?;
    /// collector.push_current()?; // no active span
    /// let stats = collector.stats();
    /// assert_eq!((stats.pushed(), stats.invalid(), stats.pending()), (1, 1, 0));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn stats(&self) -> Stats {
        self.queue.stats()
    }

    /// Returns a handle to the counters that does not keep the collector open.
    pub fn stats_handle(&self) -> StatsHandle {
        StatsHandle::new(Arc::clone(self.queue.queue()))
    }

    #[inline(always)]
    fn inlet(&self) -> Inlet<'_> {
        Inlet { shard: self.queue.thread_shard(), invalid: self.invalid }
    }
}

impl fmt::Debug for LinkCollector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LinkCollector").field("stats", &self.stats()).finish_non_exhaustive()
    }
}
