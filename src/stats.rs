//! Counters that add up.

use crate::sync::Ordering;
use crate::sync::unmodelled::AtomicU64;
use std::fmt;

/// How many kinds of [`Trigger`] there are.
const TRIGGERS: usize = Trigger::Shutdown as usize + 1;

/// What ended a batch. If there are several reasons, it is the first of size, weight, shutdown, manual
/// and timeout.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Trigger {
    /// `max_batch_size` contexts were pending.
    Size,
    /// The items pending weighed `max_batch_weight` or more; see
    /// [`BatchProcessorBuilder::with_max_batch_weight`](crate::processor::BatchProcessorBuilder::with_max_batch_weight).
    Weight,
    /// `max_delay` was over for the first of them.
    Timeout,
    /// Somebody asked: [`LinkCollector::flush`](crate::LinkCollector::flush),
    /// [`Flusher::try_next`](crate::Flusher::try_next) or [`LinkSet::finish`](crate::LinkSet::finish).
    Manual,
    /// The collector was closed, and this is what was left.
    Shutdown,
}

impl Trigger {
    /// The value of the attribute `batch.trigger`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Size => "size_limit",
            Self::Weight => "weight_limit",
            Self::Timeout => "timeout",
            Self::Manual => "manual",
            Self::Shutdown => "shutdown",
        }
    }
}

impl fmt::Display for Trigger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What became of the contexts of a batch: `received` is the sum of the next five.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Counts {
    /// Contexts that the batch took.
    pub received: u64,
    /// Contexts that became a link.
    pub linked: u64,
    /// Contexts whose span was linked already.
    pub duplicates: u64,
    /// Contexts over `max_links`.
    pub truncated: u64,
    /// Contexts without a trace id or span id, given to a [`LinkSet`](crate::LinkSet) directly, that
    /// its policy ([`Invalid`](crate::Invalid)) did not keep.
    pub invalid: u64,
    /// Contexts that were not sampled.
    pub unsampled: u64,
    /// Links whose trace state was over 512 bytes and was left out.
    pub trace_states_dropped: u64,
    /// Links without the attributes of their own that `with_link_attributes` was to make, because
    /// the closure panicked.
    pub attribute_panics: u64,
}

/// What happened so far, in contexts unless said otherwise; see
/// [`LinkCollector::stats`](crate::LinkCollector::stats).
///
/// Always: `pushed = accepted + rejected_full + rejected_closed + invalid` and
/// `accepted = received + pending`. The counters are read one by one, so while others push, two
/// of them may be from slightly different moments; once they are done, everything is exact.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    pub(crate) pending: u64,
    pub(crate) fullest_shard: u64,
    pub(crate) shard_capacity: u64,
    pub(crate) rejected_full: u64,
    pub(crate) rejected_closed: u64,
    pub(crate) invalid: u64,
    pub(crate) counts: Counts,
    pub(crate) flushes: [u64; TRIGGERS],
    pub(crate) handler_panics: u64,
    pub(crate) wake_ups: u64,
}

impl Stats {
    /// Offered to the collector, whatever came of it.
    pub fn pushed(&self) -> u64 {
        self.accepted() + self.rejected_full + self.rejected_closed + self.invalid
    }

    /// Accepted: in a batch, or pending.
    pub fn accepted(&self) -> u64 {
        self.received() + self.pending
    }

    /// Taken into batches.
    pub fn received(&self) -> u64 {
        self.counts.received
    }

    /// Accepted and not yet taken.
    pub fn pending(&self) -> u64 {
        self.pending
    }

    /// Returns how many contexts are pending in the fullest shard. Producers that use it are refused
    /// from [`shard_capacity`](Self::shard_capacity) on.
    pub fn fullest_shard(&self) -> u64 {
        self.fullest_shard
    }

    /// Returns how many contexts fit into one shard: what a single thread can have pending.
    pub fn shard_capacity(&self) -> u64 {
        self.shard_capacity
    }

    /// Refused because the shard was full.
    pub fn rejected_full(&self) -> u64 {
        self.rejected_full
    }

    /// Refused because the collector was closed.
    pub fn rejected_closed(&self) -> u64 {
        self.rejected_closed
    }

    /// Without a trace id or span id (no active span, tracing off) and not kept by the policy
    /// ([`Invalid`](crate::Invalid)): answered `Ok`, never queued.
    pub fn invalid(&self) -> u64 {
        self.invalid
    }

    /// What became of the contexts that batches took, all batches together.
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// Batches made.
    pub fn batches(&self) -> u64 {
        self.flushes.iter().sum()
    }

    /// Batches made by this trigger.
    pub fn flushes(&self, trigger: Trigger) -> u64 {
        self.flushes[trigger as usize]
    }

    /// Panics of the handler given to [`Flusher::spawn`](crate::Flusher::spawn).
    pub fn handler_panics(&self) -> u64 {
        self.handler_panics
    }

    /// How often the flusher came out of a wait, whatever for.
    pub fn wake_ups(&self) -> u64 {
        self.wake_ups
    }
}

/// What the flusher counts. Statistics only: `Relaxed`, one writer.
#[derive(Debug, Default)]
pub(crate) struct Totals {
    linked: AtomicU64,
    duplicates: AtomicU64,
    truncated: AtomicU64,
    unsampled: AtomicU64,
    trace_states_dropped: AtomicU64,
    attribute_panics: AtomicU64,
    flushes: [AtomicU64; TRIGGERS],
    handler_panics: AtomicU64,
    wake_ups: AtomicU64,
}

fn add(counter: &AtomicU64, count: u64) {
    counter.fetch_add(count, Ordering::Relaxed);
}

impl Totals {
    pub(crate) fn add_batch(&self, counts: &Counts, trigger: Trigger) {
        add(&self.linked, counts.linked);
        add(&self.duplicates, counts.duplicates);
        add(&self.truncated, counts.truncated);
        add(&self.unsampled, counts.unsampled);
        add(&self.trace_states_dropped, counts.trace_states_dropped);
        add(&self.attribute_panics, counts.attribute_panics);
        add(&self.flushes[trigger as usize], 1);
    }

    pub(crate) fn add_handler_panic(&self) {
        add(&self.handler_panics, 1);
    }

    pub(crate) fn add_wake_up(&self) {
        add(&self.wake_ups, 1);
    }

    pub(crate) fn read(&self) -> Stats {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Stats {
            counts: Counts {
                linked: get(&self.linked),
                duplicates: get(&self.duplicates),
                truncated: get(&self.truncated),
                unsampled: get(&self.unsampled),
                trace_states_dropped: get(&self.trace_states_dropped),
                attribute_panics: get(&self.attribute_panics),
                ..Counts::default()
            },
            flushes: self.flushes.each_ref().map(get),
            handler_panics: get(&self.handler_panics),
            wake_ups: get(&self.wake_ups),
            ..Stats::default()
        }
    }
}
