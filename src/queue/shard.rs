//! One shard as a producer sees it: every push enters a queue through here.

use crate::error::PushError;
use crate::queue::Queue;
use crate::queue::ring::{Claim, Entry, Ring};
use crate::sync::Ordering;
use std::time::Instant;

/// An entry with what it has besides.
pub(crate) type Whole<T> = (T, Option<<T as Entry>::Beside>);

/// One shard of a queue, to push to.
///
/// Borrowed from a [`Handle`](super::Handle), which keeps the queue open meanwhile.
pub(crate) struct Shard<'a, T: Entry> {
    pub(super) queue: &'a Queue<T>,
    pub(super) ring: &'a Ring<T>,
}

impl<T: Entry> Clone for Shard<'_, T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T: Entry> Copy for Shard<'_, T> {}

impl<'a, T: Entry> Shard<'a, T> {
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

    /// As [`push`](Self::push), with what the entry has besides, which `wrap` makes of `beside`. A
    /// refusal returns that.
    // Invariant: bare-claim.
    #[inline(always)]
    pub(crate) fn push_beside<B>(
        self,
        beside: B,
        wrap: impl FnOnce(B) -> T::Beside,
        make: impl FnOnce() -> T,
    ) -> Result<(), (B, PushError)> {
        self.prepare_beside();
        match self.claim() {
            Ok(mut claim) => {
                claim.put_beside(|| wrap(beside));
                self.finish(claim, make);
                Ok(())
            }
            Err(reason) => Err((beside, reason)),
        }
    }

    /// Allocates the cells beside the slots, if that was not done yet: not between claim and
    /// publish.
    pub(crate) fn prepare_beside(self) {
        self.ring.prepare_beside();
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
        value: Whole<T>,
    ) -> Result<(), (Whole<T>, PushError)> {
        let mut value = Some(value);
        let pushed = self.queue.waiters.wait(self.index(), deadline, || self.retry(&mut value));
        self.outcome(pushed, value)
    }

    /// Pushes `value` as soon as a slot is free, for tasks of any executor. A refusal is counted
    /// and returns the value. Cancel-safe: nothing is claimed before it is ready.
    pub(crate) async fn push_wait_async(
        self,
        value: Whole<T>,
    ) -> Result<(), (Whole<T>, PushError)> {
        let mut value = Some(value);
        let pushed = self.queue.waiters.wait_async(self.index(), || self.retry(&mut value)).await;
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

    /// Pushes a value, or returns it. A refusal is not counted. Claims and publishes in one step: a
    /// waiter is removed afterwards, which takes a lock and drops the user's waker.
    // Invariants: publish-before-leave, bare-claim.
    pub(crate) fn offer(self, (value, beside): Whole<T>) -> Result<(), (Whole<T>, PushError)> {
        if beside.is_some() {
            self.prepare_beside();
        }
        match self.ring.claim(1) {
            Ok(mut claim) => {
                beside.into_iter().for_each(|beside| claim.put_beside(|| beside));
                self.finish(claim, || value);
                Ok(())
            }
            Err(reason) => Err(((value, beside), reason)),
        }
    }

    /// Offers what `value` holds, and leaves it there if it is refused.
    fn retry(self, value: &mut Option<Whole<T>>) -> Result<(), PushError> {
        let Some(offered) = value.take() else { return Ok(()) };
        self.offer(offered).map_err(|(refused, reason)| {
            *value = Some(refused);
            reason
        })
    }

    /// The result of the last offer, which left `value`.
    fn outcome(
        self,
        offered: Result<(), PushError>,
        value: Option<Whole<T>>,
    ) -> Result<(), (Whole<T>, PushError)> {
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
