//! A handle that is pinned to one shard.

use super::push::*;
use crate::error::{PushError, RejectedLink};
use crate::link_set::policy::Invalid;
use crate::link_set::record::Record;
use crate::links::MaybeContext;
use crate::queue::{Handle, Shard};
use opentelemetry::trace::{Link, SpanContext};
use std::fmt;
use std::time::Duration;

/// A collector's handle that is pinned to one shard, whatever thread it is used on.
///
/// Saves the look-up of the thread's shard. Contexts pushed through one producer are linked in
/// their order. Made by [`LinkCollector::producer`](crate::LinkCollector::producer); a clone has the same shard.
pub struct Producer {
    pub(super) queue: Handle<Record>,
    /// The index of its shard.
    pub(super) shard: usize,
    pub(super) invalid: Invalid,
}

impl Producer {
    /// See [`LinkCollector::push`](crate::LinkCollector::push).
    ///
    /// # Errors
    ///
    /// As there.
    #[inline]
    pub fn push(&self, context: &SpanContext) -> Result<(), PushError> {
        push(self.shard(), context, self.invalid)
    }

    /// See [`LinkCollector::push_link`](crate::LinkCollector::push_link).
    ///
    /// # Errors
    ///
    /// As there.
    pub fn push_link(&self, link: Link) -> Result<(), RejectedLink> {
        push_link(self.shard(), link, self.invalid)
    }

    /// See [`LinkCollector::push_current`](crate::LinkCollector::push_current).
    ///
    /// # Errors
    ///
    /// As there.
    pub fn push_current(&self) -> Result<(), PushError> {
        push_current(self.shard(), self.invalid)
    }

    /// See [`LinkCollector::push_optional`](crate::LinkCollector::push_optional).
    ///
    /// # Errors
    ///
    /// As [`LinkCollector::push`](crate::LinkCollector::push).
    pub fn push_optional(&self, context: impl MaybeContext) -> Result<(), PushError> {
        context.with(|context| self.push(context)).unwrap_or(Ok(()))
    }

    /// See [`LinkCollector::push_all`](crate::LinkCollector::push_all).
    pub fn push_all(&self, contexts: &[SpanContext]) -> usize {
        push_all(self.shard(), contexts, self.invalid)
    }

    /// See [`LinkCollector::push_wait`](crate::LinkCollector::push_wait).
    ///
    /// # Errors
    ///
    /// As there.
    pub fn push_wait(&self, context: &SpanContext) -> Result<(), PushError> {
        push_wait(self.shard(), context, None, self.invalid)
    }

    /// See [`LinkCollector::push_wait_timeout`](crate::LinkCollector::push_wait_timeout).
    ///
    /// # Errors
    ///
    /// As there.
    pub fn push_wait_timeout(&self, context: &SpanContext, timeout: Duration) -> Result<(), PushError> {
        push_wait(self.shard(), context, Some(timeout), self.invalid)
    }

    /// See [`LinkCollector::push_wait_async`](crate::LinkCollector::push_wait_async).
    ///
    /// # Errors
    ///
    /// As there.
    pub async fn push_wait_async(&self, context: &SpanContext) -> Result<(), PushError> {
        push_wait_async(self.shard(), context, self.invalid).await
    }

    #[inline(always)]
    pub(super) fn shard(&self) -> Shard<'_, Record> {
        self.queue.shard(self.shard)
    }
}

impl Clone for Producer {
    fn clone(&self) -> Self {
        Self { shard: self.shard, queue: self.queue.clone(), invalid: self.invalid }
    }
}

impl fmt::Debug for Producer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Producer").finish_non_exhaustive()
    }
}
