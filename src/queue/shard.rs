//! One shard as a producer sees it: every push enters a queue through here.

use crate::error::PushError;
use crate::queue::Queue;
use crate::queue::ring::{Claim, Ring};
use crate::sync::Ordering;
use std::time::Instant;

/// One shard of a queue, to push to.
///
/// Borrowed from a [`Handle`](super::Handle), which keeps the queue open meanwhile.
pub(crate) struct Shard<'a, T> {
    pub(super) queue: &'a Queue<T>,
    pub(super) ring: &'a Ring<T>,
}

impl<T> Clone for Shard<'_, T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Shard<'_, T> {}

impl<'a, T> Shard<'a, T> {
    /// Slots of this shard.
    pub(crate) fn capacity(self) -> usize {
        self.ring.capacity() as usize
    }

    /// Pushes what `make` returns. A refusal is counted.
    ///
    /// `make` runs between claim and publish: it must not panic, block or allocate.
    #[inline(always)]
    pub(crate) fn push(self, make: impl FnOnce() -> T) -> Result<(), PushError> {
        let claim = self.claim()?;
        self.finish(claim, make);
        Ok(())
    }

    /// Pushes as many of `values` as one claim covers, and returns how many: at least one. A
    /// refusal is not counted. `make` is as for [`push`](Self::push).
    #[inline]
    pub(crate) fn push_run<V>(
        self,
        values: &[V],
        make: impl Fn(&V) -> T,
    ) -> Result<usize, PushError> {
        let claim = self.ring.claim(u32::try_from(values.len()).unwrap_or(u32::MAX))?;
        let count = claim.len();
        if claim.publish_all(&values[..count], make) {
            self.queue.trigger.report(&self.queue.rings);
        }
        Ok(count)
    }

    /// Pushes `value` as soon as a slot is free, or returns [`PushError::Full`] at `deadline`. A
    /// refusal is counted and returns the value. Blocks the thread.
    pub(crate) fn push_wait(
        self,
        deadline: Option<Instant>,
        value: T,
    ) -> Result<(), (T, PushError)> {
        let mut value = Some(value);
        let pushed = self.queue.waiters.wait(self.index(), deadline, || self.offer(&mut value));
        self.outcome(pushed, value)
    }

    /// Pushes `value` as soon as a slot is free, for tasks of any executor. A refusal is counted
    /// and returns the value. Cancel-safe: nothing is claimed before it is ready.
    pub(crate) async fn push_wait_async(self, value: T) -> Result<(), (T, PushError)> {
        let mut value = Some(value);
        let pushed = self.queue.waiters.wait_async(self.index(), || self.offer(&mut value)).await;
        self.outcome(pushed, value)
    }

    /// Which of the queue's shards this is. Not kept: a `Shard` of two words goes in registers.
    fn index(self) -> usize {
        let offset = std::ptr::from_ref(self.ring).addr() - self.queue.rings.as_ptr().addr();
        offset / size_of::<Ring<T>>()
    }

    /// Claims one position, for [`finish`](Self::finish). A refusal is counted.
    #[inline(always)]
    pub(crate) fn claim(self) -> Result<Claim<'a, T>, PushError> {
        self.ring.claim(1).inspect_err(|reason| self.count_refused(*reason, 1))
    }

    /// Publishes, then reports if the claim went past the limit.
    // Invariant: publish-before-report.
    #[inline(always)]
    pub(crate) fn finish(self, claim: Claim<'_, T>, make: impl FnOnce() -> T) {
        if claim.publish(make) {
            self.queue.trigger.report(&self.queue.rings);
        }
    }

    /// Counts `count` values that were refused for `reason`.
    #[cold]
    pub(crate) fn count_refused(self, reason: PushError, count: usize) {
        let counter = match reason {
            PushError::Full => &self.ring.refusals.full,
            PushError::Closed => &self.ring.refusals.closed,
        };
        counter.fetch_add(count as u64, Ordering::Relaxed);
    }

    /// Counts a value that was not pushed because it is invalid.
    pub(crate) fn count_invalid(self) {
        self.ring.refusals.invalid.fetch_add(1, Ordering::Relaxed);
    }

    /// Pushes the value, unless it is refused. Claims and publishes in one step: the waiter is
    /// removed afterwards, which takes a lock and drops the user's waker.
    // Invariant: publish-before-leave.
    fn offer(self, value: &mut Option<T>) -> Result<(), PushError> {
        let Some(offered) = value.take() else { return Ok(()) };
        match self.ring.claim(1) {
            Ok(claim) => self.finish(claim, || offered),
            Err(reason) => {
                *value = Some(offered);
                return Err(reason);
            }
        }
        Ok(())
    }

    /// The result of the last offer, which left `value`.
    fn outcome(
        self,
        offered: Result<(), PushError>,
        value: Option<T>,
    ) -> Result<(), (T, PushError)> {
        match (offered, value) {
            (Err(reason), Some(value)) => {
                self.count_refused(reason, 1);
                Err((value, reason))
            }
            _ => Ok(()),
        }
    }

    /// Pushes, and announces a report without scanning. Returns whether this thread owes the scan.
    #[cfg(batchlink_hooks)]
    pub(crate) fn push_unscanned(self, make: impl FnOnce() -> T) -> Result<bool, PushError> {
        Ok(self.claim()?.publish(make) && self.queue.trigger.announce())
    }

    /// The scan that [`push_unscanned`](Self::push_unscanned) owes.
    #[cfg(batchlink_hooks)]
    pub(crate) fn scan(self) {
        self.queue.trigger.coordinate(&self.queue.rings, true);
    }
}
