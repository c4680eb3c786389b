//! Shards and trigger together: what producers and the consumer share.
//!
//! This room knows nothing of OpenTelemetry, of links or of configuration.

pub(crate) mod drain;
#[cfg(feature = "tokio")]
pub(crate) mod poll;
pub(crate) mod receiver;
pub(crate) mod ring;
pub(crate) mod steps;
#[cfg(feature = "tokio")]
mod timer;
pub(crate) mod trigger;
mod waiters;
mod weight;

#[cfg_attr(not(feature = "processor"), expect(unused_imports))]
pub(crate) use weight::MAX_WEIGHT;

use crate::error::PushError;
use crate::stats::{Stats, Totals};
use crate::sync::unmodelled::AtomicU32 as Counter;
use crate::sync::{Arc, AtomicUsize, Ordering};
use ring::{Claim, Consumer, Ring};
use std::ops::Deref;
use std::time::Instant;
use trigger::TriggerState;
use waiters::Room;
use weight::Weight;

pub(crate) struct Queue<T> {
    pub(crate) rings: Arc<[Ring<T>]>,
    pub(crate) trigger: TriggerState,
    /// Handles through which something can be pushed; the last one to go closes the queue.
    handles: AtomicUsize,
    /// Producers made so far, to spread them over the shards.
    producers: Counter,
    pub(crate) totals: Totals,
    pub(crate) weight: Weight,
    /// Where producers wait for a slot, if they choose to.
    pub(crate) room: Room,
}

impl<T> Queue<T> {
    /// A queue with one handle, and the consumers of its shards.
    #[expect(clippy::new_ret_no_self)] // a queue is reached through handles only
    pub(crate) fn new(
        shards: usize,
        slots_per_shard: u32,
        size: u32,
        max_weight: u64,
    ) -> (Handle<T>, Vec<Consumer<T>>) {
        let (rings, consumers) = Ring::shards(shards, slots_per_shard);
        let trigger = TriggerState::new(size, &rings);
        let queue = Self {
            rings,
            trigger,
            handles: AtomicUsize::new(1),
            producers: Counter::new(0),
            totals: Totals::default(),
            weight: Weight::new(max_weight),
            room: Room::new(),
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
        self.room.open();
    }

    /// The flusher has taken something.
    pub(crate) fn drained(&self) {
        self.trigger.drained(&self.rings);
        self.room.open();
    }

    /// Something of this weight was published.
    #[cfg_attr(not(any(test, feature = "processor")), expect(dead_code))]
    pub(crate) fn weigh(&self, weight: u64) {
        if self.weight.add(weight) {
            self.trigger.signal.notify();
        }
    }

    /// Pushes `value` as soon as there is room; [`PushError::Full`] only if `deadline` is over. A
    /// refusal is counted and gives the value back. Blocks the thread.
    pub(crate) fn push_wait(
        &self,
        ring: &Ring<T>,
        deadline: Option<Instant>,
        value: T,
    ) -> Result<(), (T, PushError)> {
        let mut value = Some(value);
        let pushed = self.room.wait(deadline, || self.offer(ring, &mut value));
        self.outcome(ring, pushed, value)
    }

    /// As [`push_wait`](Self::push_wait), for tasks. Nothing is claimed before it is ready.
    pub(crate) async fn push_wait_async(&self, ring: &Ring<T>, value: T) -> Result<(), (T, PushError)> {
        let mut value = Some(value);
        let pushed = self.room.wait_async(|| self.offer(ring, &mut value)).await;
        self.outcome(ring, pushed, value)
    }

    /// Pushes `value`, unless it is refused. Claims and publishes at once: whoever waits leaves the line
    /// later, which takes its lock and drops the user's waker.
    fn offer(&self, ring: &Ring<T>, value: &mut Option<T>) -> Result<(), PushError> {
        let Some(offered) = value.take() else { return Ok(()) };
        match ring.claim(1) {
            Ok(claim) => self.finish(claim, || offered),
            Err(reason) => {
                *value = Some(offered);
                return Err(reason);
            }
        }
        Ok(())
    }

    /// What became of an offer that left `value`.
    fn outcome(
        &self,
        ring: &Ring<T>,
        offered: Result<(), PushError>,
        value: Option<T>,
    ) -> Result<(), (T, PushError)> {
        match (offered, value) {
            (Err(reason), Some(value)) => {
                Self::count_refused(ring, reason, 1);
                Err((value, reason))
            }
            _ => Ok(()),
        }
    }

    /// Accepted and not yet taken.
    pub(crate) fn pending(&self) -> u64 {
        self.rings.iter().map(|ring| u64::from(ring.snapshot().pending())).sum()
    }

    pub(crate) fn stats(&self) -> Stats {
        let mut stats = self.totals.read();
        for ring in self.rings.iter() {
            let now = ring.snapshot();
            stats.counts.received += now.taken();
            stats.pending += u64::from(now.pending());
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
        // Release, Acquire: a push through a handle happens before the close by the last one, and so
        // cannot be refused because of it.
        if self.0.handles.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.0.close();
        }
    }
}
