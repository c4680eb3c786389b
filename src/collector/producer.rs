//! A handle that is pinned to one shard.

use super::push::Inlet;
use crate::error::{PushError, RejectedLink};
use crate::link_set::policy::Invalid;
use crate::link_set::record::Record;
use crate::links::MaybeContext;
use crate::queue::Handle;
use opentelemetry::trace::{Link, SpanContext};
use std::fmt;
use std::time::Duration;

/// A collector's handle that is pinned to one shard, whatever thread it is used on.
///
/// Contexts pushed through one producer are linked in their order, also from a task that moves
/// between threads. Saves the look-up of the thread's shard. Made by
/// [`LinkCollector::producer`](crate::LinkCollector::producer); a clone has the same shard.
///
/// ```
/// use batchlink::LinkCollector;
/// # use opentelemetry::trace::{SpanContext, SpanId, TraceFlags, TraceId, TraceState};
/// # let context = |n| SpanContext::new(
/// #     TraceId::from(7), SpanId::from(n), TraceFlags::SAMPLED, false, TraceState::NONE);
///
/// let (collector, mut flusher) = LinkCollector::builder().build()?;
/// let producer = collector.producer();
/// producer.push(&context(1))?;
/// std::thread::scope(|scope| scope.spawn(|| producer.push(&context(2))).join()).unwrap()?;
/// let batch = flusher.try_next().unwrap();
/// assert_eq!(batch.links()[0].span_context, context(1));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct Producer {
    pub(super) queue: Handle<Record>,
    /// The index of its shard.
    pub(super) shard: usize,
    pub(super) invalid: Invalid,
}

impl Producer {
    /// Pushes a context; see [`LinkCollector::push`](crate::LinkCollector::push).
    ///
    /// # Errors
    ///
    /// [`PushError::Full`], [`PushError::Closed`].
    #[inline]
    pub fn push(&self, context: &SpanContext) -> Result<(), PushError> {
        self.inlet().push(context)
    }

    /// Pushes a link; see [`LinkCollector::push_link`](crate::LinkCollector::push_link).
    ///
    /// # Errors
    ///
    /// [`RejectedLink`] with the link, for [`PushError::Full`] or [`PushError::Closed`].
    pub fn push_link(&self, link: Link) -> Result<(), RejectedLink> {
        self.inlet().push_link(link)
    }

    /// Pushes the active span; see
    /// [`LinkCollector::push_current`](crate::LinkCollector::push_current).
    ///
    /// # Errors
    ///
    /// [`PushError::Full`], [`PushError::Closed`].
    pub fn push_current(&self) -> Result<(), PushError> {
        self.inlet().push_current()
    }

    /// Pushes the context, if there is one; see
    /// [`LinkCollector::push_optional`](crate::LinkCollector::push_optional).
    ///
    /// # Errors
    ///
    /// [`PushError::Full`], [`PushError::Closed`].
    pub fn push_optional(&self, context: impl MaybeContext) -> Result<(), PushError> {
        context.with(|context| self.push(context)).unwrap_or(Ok(()))
    }

    /// Pushes contexts up to the first refusal and returns how many; see
    /// [`LinkCollector::push_all`](crate::LinkCollector::push_all).
    pub fn push_all(&self, contexts: &[SpanContext]) -> usize {
        self.inlet().push_all(contexts)
    }

    /// **Blocks** the thread until the shard has a free slot, and pushes; see
    /// [`LinkCollector::push_wait`](crate::LinkCollector::push_wait).
    ///
    /// # Errors
    ///
    /// [`PushError::Closed`]; [`PushError::Full`] instead of a wait where tokio polls tasks.
    pub fn push_wait(&self, context: &SpanContext) -> Result<(), PushError> {
        self.inlet().push_wait(context, None)
    }

    /// **Blocks** the thread until the shard has a free slot, for at most `timeout`, and pushes;
    /// see [`LinkCollector::push_wait_timeout`](crate::LinkCollector::push_wait_timeout).
    ///
    /// # Errors
    ///
    /// [`PushError::Full`] if it timed out, [`PushError::Closed`].
    pub fn push_wait_timeout(
        &self,
        context: &SpanContext,
        timeout: Duration,
    ) -> Result<(), PushError> {
        self.inlet().push_wait(context, Some(timeout))
    }

    /// Waits until the shard has a free slot, and pushes; see
    /// [`LinkCollector::push_wait_async`](crate::LinkCollector::push_wait_async).
    ///
    /// # Errors
    ///
    /// [`PushError::Closed`].
    pub async fn push_wait_async(&self, context: &SpanContext) -> Result<(), PushError> {
        self.inlet().push_wait_async(context).await
    }

    #[inline(always)]
    pub(super) fn inlet(&self) -> Inlet<'_> {
        Inlet { shard: self.queue.shard(self.shard), invalid: self.invalid }
    }
}

impl fmt::Debug for Producer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Producer").finish_non_exhaustive()
    }
}
