//! Shards and trigger together: what producers and the flusher share.

use crate::error::PushError;
use crate::ring::{Claim, Consumer, Ring};
use crate::stats::{Stats, Totals};
use crate::sync::unmodelled::AtomicU32 as Counter;
use crate::sync::{Arc, AtomicUsize, Ordering, Unparker};
use crate::trigger::{Signal, TriggerState};
use std::ops::Deref;

pub(crate) struct Queue<T> {
    pub(crate) rings: Arc<[Ring<T>]>,
    pub(crate) trigger: TriggerState,
    /// Handles through which something can be pushed; the last one to go closes the queue.
    handles: AtomicUsize,
    /// Producers made so far, to spread them over the shards.
    producers: Counter,
    pub(crate) totals: Totals,
}

impl<T> Queue<T> {
    /// A queue with one handle, and the consumers of its shards.
    #[expect(clippy::new_ret_no_self)] // a queue is reached through handles only
    pub(crate) fn new(
        shards: usize,
        slots_per_shard: u32,
        size: u32,
        unparker: Unparker,
    ) -> (Handle<T>, Vec<Consumer<T>>) {
        let (rings, consumers) = Ring::shards(shards, slots_per_shard);
        let trigger = TriggerState::new(size, &rings, Signal::new(unparker));
        let queue = Self {
            rings,
            trigger,
            handles: AtomicUsize::new(1),
            producers: Counter::new(0),
            totals: Totals::default(),
        };
        (Handle(Arc::new(queue)), consumers)
    }

    /// The next shard in turn.
    pub(crate) fn next_shard(&self) -> usize {
        self.producers.fetch_add(1, Ordering::Relaxed) as usize % self.rings.len()
    }

    /// Claims one position in a shard of this queue, for [`finish`](Self::finish). A refusal is
    /// counted.
    #[inline(always)]
    pub(crate) fn claim<'a>(&self, ring: &'a Ring<T>) -> Result<Claim<'a, T>, PushError> {
        ring.claim(1).inspect_err(|reason| Self::count_refused(ring, *reason, 1))
    }

    /// Publishes, then reports if the claim went past the limit.
    #[inline(always)]
    pub(crate) fn finish(&self, claim: Claim<'_, T>, make: impl FnOnce() -> T) {
        if claim.publish(make) {
            self.trigger.report(&self.rings);
        }
    }

    /// Pushes as many of `values` as one claim gets: at least one, or the refusal, which is not
    /// counted here.
    #[inline]
    pub(crate) fn push_run<V>(
        &self,
        ring: &Ring<T>,
        values: &[V],
        make: impl Fn(&V) -> T,
    ) -> Result<usize, PushError> {
        let claim = ring.claim(u32::try_from(values.len()).unwrap_or(u32::MAX))?;
        let count = claim.len();
        if claim.publish_all(&values[..count], make) {
            self.trigger.report(&self.rings);
        }
        Ok(count)
    }

    #[cold]
    pub(crate) fn count_refused(ring: &Ring<T>, reason: PushError, count: usize) {
        let counter = match reason {
            PushError::Full => &ring.refusals.full,
            PushError::Closed => &ring.refusals.closed,
        };
        counter.fetch_add(count as u64, Ordering::Relaxed);
    }

    /// After this no push succeeds. What was accepted stays until it is taken.
    pub(crate) fn close(&self) {
        for ring in self.rings.iter() {
            ring.close();
        }
        self.trigger.signal.notify();
    }

    /// The flusher has taken something.
    pub(crate) fn drained(&self) {
        self.trigger.drained(&self.rings);
    }

    /// Accepted and not yet taken.
    pub(crate) fn pending(&self) -> u64 {
        self.rings.iter().map(|ring| u64::from(ring.taken_and_pending().1)).sum()
    }

    pub(crate) fn stats(&self) -> Stats {
        let mut stats = self.totals.read();
        for ring in self.rings.iter() {
            let (taken, pending) = ring.taken_and_pending();
            stats.received += taken;
            stats.pending += u64::from(pending);
            stats.rejected_full += ring.refusals.full.load(Ordering::Relaxed);
            stats.rejected_closed += ring.refusals.closed.load(Ordering::Relaxed);
            stats.invalid += ring.refusals.invalid.load(Ordering::Relaxed);
        }
        stats
    }
}

/// A counted handle for producers: the last one to go closes the queue.
pub(crate) struct Handle<T>(Arc<Queue<T>>);

impl<T> Handle<T> {
    /// The queue for those who do not produce.
    pub(crate) fn queue(&self) -> &Arc<Queue<T>> {
        &self.0
    }
}

impl<T> Deref for Handle<T> {
    type Target = Queue<T>;

    #[inline(always)]
    fn deref(&self) -> &Queue<T> {
        &self.0
    }
}

impl<T> Clone for Handle<T> {
    fn clone(&self) -> Self {
        // Relaxed: whoever clones has a handle, so the count is not 0 and cannot become it.
        self.0.handles.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(&self.0))
    }
}

impl<T> Drop for Handle<T> {
    fn drop(&mut self) {
        // Release, Acquire: a push through a handle happens before the close by the last one.
        if self.0.handles.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.0.close();
        }
    }
}
