//! A bounded queue of shards with one consumer, and the trigger that says when a batch is due.
//!
//! Nothing here depends on OpenTelemetry, on links or on configuration.

pub(crate) mod coop;
pub(crate) mod drain;
mod handle;
#[cfg(feature = "tokio")]
pub(crate) mod poll;
pub(crate) mod progress;
pub(crate) mod receiver;
pub(crate) mod ring;
pub(crate) mod rules;
mod shard;
pub(crate) mod steps;
mod timer;
pub(crate) mod trigger;
mod waiters;
pub(crate) mod watch;
mod weight;
mod word;

pub(crate) use handle::Handle;
pub(crate) use shard::{Shard, Whole};
#[cfg_attr(not(feature = "processor"), expect(unused_imports))]
pub(crate) use weight::MAX_WEIGHT;

use crate::stats::{Source, Stats, Totals};
use crate::sync::unmodelled::{AtomicU32, AtomicU64};
use crate::sync::{Arc, AtomicUsize, Ordering};
use progress::Progress;
use ring::{Consumer, Entry, Ring};
use trigger::TriggerState;
use waiters::Waiters;
use weight::Weight;

/// What producers and the consumer share.
pub(crate) struct Queue<T: Entry> {
    pub(crate) rings: Arc<[Ring<T>]>,
    pub(crate) trigger: TriggerState,
    /// The number of [`Handle`]s; dropping the last one closes the queue.
    handles: AtomicUsize,
    /// The number of producers made, to spread them over the shards.
    producers: AtomicU32,
    pub(crate) totals: Totals,
    pub(crate) weight: Weight,
    waiters: Waiters,
    /// Entries that the consumer has taken and holds for a later batch: they count as pending.
    /// Written by the consumer. Statistics only: `Relaxed`.
    pub(crate) held: AtomicU64,
    pub(crate) progress: Arc<Progress>,
}

impl<T: Entry> Queue<T> {
    /// Makes a queue with one handle, and the consumers of its shards.
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
            producers: AtomicU32::new(0),
            totals: Totals::default(),
            weight: Weight::new(max_weight),
            waiters: Waiters::new(shards),
            held: AtomicU64::new(0),
            progress: Progress::new(),
        };
        (Handle::first(queue), consumers)
    }

    /// Returns the next shard in turn.
    pub(crate) fn next_shard(&self) -> usize {
        self.producers.fetch_add(1, Ordering::Relaxed) as usize % self.rings.len()
    }

    /// Closes the queue: no push succeeds after this. Entries accepted stay until they are taken.
    pub(crate) fn close(&self) {
        for ring in self.rings.iter() {
            ring.close();
        }
        self.trigger.signal.notify();
        self.waiters.wake_all();
    }

    /// Returns whether pushes are refused as closed, or are about to be.
    #[cfg(feature = "tower")]
    pub(crate) fn is_closed(&self) -> bool {
        self.rings.iter().any(Ring::is_closed)
    }

    /// Reports that the consumer has taken entries; `freed` has the number for each shard.
    // Invariant: register-before-retry.
    fn drained(&self, freed: impl Iterator<Item = u32>, timed: bool) {
        self.trigger.drained(&self.rings, timed);
        self.waiters.wake(freed);
    }

    /// Counts the weight of an item that was published.
    #[cfg_attr(not(any(test, feature = "processor")), expect(dead_code))]
    pub(crate) fn weigh(&self, weight: u64) {
        if self.weight.add(weight) {
            self.trigger.signal.notify();
        }
    }

    pub(crate) fn stats(&self) -> Stats {
        let mut stats = self.totals.read();
        for ring in self.rings.iter() {
            let now = ring.snapshot();
            stats.counts.received += now.taken();
            stats.pending += u64::from(now.pending());
            stats.fullest_shard = stats.fullest_shard.max(now.pending().into());
            stats.shard_capacity = ring.capacity().into();
            stats.capacity += stats.shard_capacity;
            stats.rejected_full += ring.refusals.full.load(Ordering::Relaxed);
            stats.rejected_closed += ring.refusals.closed.load(Ordering::Relaxed);
            stats.invalid += ring.refusals.invalid.load(Ordering::Relaxed);
        }
        let held = self.held.load(Ordering::Relaxed).min(stats.counts.received);
        stats.counts.received -= held;
        stats.pending += held;
        stats
    }
}

impl<T: Entry + Send> Source<Stats> for Arc<Queue<T>> {
    fn stats(&self) -> Stats {
        Queue::stats(self)
    }

    fn is_final(&self) -> bool {
        // Acquire: pairs with the AcqRel decrement in the drop of a handle, after its refusals.
        self.handles.load(Ordering::Acquire) == 0 && self.progress.is_over()
    }
}
