//! Counters that add up.

mod handle;

pub(crate) use handle::Source;
pub use handle::StatsHandle;

use crate::sync::Ordering;
use crate::sync::unmodelled::AtomicU64;
use std::fmt;
use std::time::Duration;

/// The reason for a batch. If there are several, it is the first of size, weight, shutdown, manual,
/// timeout and policy.
///
/// ```
/// use batchlink::{LinkSet, Trigger};
///
/// let batch = LinkSet::builder().build()?.finish();
/// assert_eq!((batch.trigger(), batch.trigger().as_str()), (Trigger::Manual, "manual"));
/// # Ok::<(), batchlink::ConfigError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Trigger {
    /// `max_batch_size` contexts were pending.
    Size,
    /// The pending items weighed `max_batch_weight` or more; see
    /// `BatchProcessorBuilder::with_max_batch_weight` (feature `processor`).
    Weight,
    /// The first pending context had waited for `max_delay`.
    Timeout,
    /// A call asked for it: [`LinkCollector::flush`](crate::LinkCollector::flush),
    /// [`Flusher::try_next`](crate::Flusher::try_next) or
    /// [`LinkSet::finish`](crate::LinkSet::finish).
    Manual,
    /// The collector was closed, and this was left.
    Shutdown,
    /// The [`FlushPolicy`](crate::FlushPolicy) made it due before its size and delay.
    Policy,
}

impl Trigger {
    /// All triggers, in the order of their declaration.
    pub const ALL: &[Self] =
        &[Self::Size, Self::Weight, Self::Timeout, Self::Manual, Self::Shutdown, Self::Policy];

    /// Returns the value of the attribute `batch.trigger`.
    ///
    /// ```
    /// assert_eq!(batchlink::Trigger::Size.as_str(), "size_limit");
    /// ```
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Size => "size_limit",
            Self::Weight => "weight_limit",
            Self::Timeout => "timeout",
            Self::Manual => "manual",
            Self::Shutdown => "shutdown",
            Self::Policy => "flush_policy",
        }
    }
}

impl fmt::Display for Trigger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What became of received contexts: `received` is the sum of the next five. Of a processor, items
/// that were canceled, or left to a dropped processor, are received and in none of them.
///
/// ```
/// use batchlink::LinkSet;
/// use opentelemetry::trace::SpanContext;
///
/// let mut set = LinkSet::builder().build()?;
/// set.insert(&SpanContext::NONE);
/// let counts = set.finish().counts();
/// assert_eq!((counts.received, counts.linked, counts.invalid), (1, 0, 1));
/// # Ok::<(), batchlink::ConfigError>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Counts {
    /// Contexts taken into the batch.
    pub received: u64,
    /// Contexts that became a link.
    pub linked: u64,
    /// Contexts for which the link of another stands, by the policy's [`Dedup`](crate::Dedup).
    pub duplicates: u64,
    /// Contexts without a link because there were more than `max_links`.
    pub truncated: u64,
    /// Contexts without a trace id or span id that the policy ([`Invalid`](crate::Invalid)) did not
    /// keep. A collector does not queue these, and counts them in [`Stats::invalid`] instead.
    pub invalid: u64,
    /// Contexts that were not sampled.
    pub unsampled: u64,
    /// Links that lost members of their trace state, which was over 512 bytes.
    pub trace_states_cut: u64,
    /// Links that lack the attributes of
    /// [`with_link_attributes`](crate::LinkPolicy::with_link_attributes), because the closure
    /// panicked.
    pub attribute_panics: u64,
}

/// A snapshot of a collector's counters, in contexts unless said otherwise; see
/// [`LinkCollector::stats`](crate::LinkCollector::stats).
///
/// Always: `pushed = accepted + rejected_full + rejected_closed + invalid` and
/// `accepted = received + pending`. The counters are read one by one: during concurrent pushes, two
/// of them may be of slightly different moments. Afterwards all are exact.
///
/// ```
/// use batchlink::{LinkCollector, Trigger};
/// use opentelemetry::trace::SpanContext;
///
/// let (collector, flusher) = LinkCollector::builder().build()?;
/// collector.push(&SpanContext::NONE)?;
/// let stats = collector.stats();
/// assert_eq!((stats.pushed(), stats.invalid(), stats.pending()), (1, 1, 0));
/// assert_eq!(stats.flushes(Trigger::Size), 0);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub struct Stats {
    pub(crate) pending: u64,
    pub(crate) fullest_shard: u64,
    pub(crate) shard_capacity: u64,
    pub(crate) capacity: u64,
    pub(crate) rejected_full: u64,
    pub(crate) rejected_closed: u64,
    pub(crate) invalid: u64,
    pub(crate) counts: Counts,
    flushes: [u64; Trigger::ALL.len()],
    handler_panics: u64,
    wake_ups: u64,
}

impl Stats {
    /// Returns all contexts offered, whatever became of them.
    pub fn pushed(&self) -> u64 {
        self.accepted() + self.rejected_full + self.rejected_closed + self.invalid
    }

    /// Returns contexts accepted: in a batch, or pending.
    pub fn accepted(&self) -> u64 {
        self.received() + self.pending
    }

    /// Returns contexts taken into batches.
    pub fn received(&self) -> u64 {
        self.counts.received
    }

    /// Returns contexts accepted and not yet taken.
    pub fn pending(&self) -> u64 {
        self.pending
    }

    /// Returns how many contexts are pending in the fullest shard. Producers that use it are
    /// refused from [`shard_capacity`](Self::shard_capacity) on.
    pub fn fullest_shard(&self) -> u64 {
        self.fullest_shard
    }

    /// Returns how many contexts fit into one shard: what a single thread can have pending.
    pub fn shard_capacity(&self) -> u64 {
        self.shard_capacity
    }

    /// Returns how many contexts fit into all shards together. Constant, as the capacity of one is.
    pub fn capacity(&self) -> u64 {
        self.capacity
    }

    /// Returns contexts refused because the shard was full.
    pub fn rejected_full(&self) -> u64 {
        self.rejected_full
    }

    /// Returns contexts refused because the collector was closed.
    pub fn rejected_closed(&self) -> u64 {
        self.rejected_closed
    }

    /// Returns contexts without a trace id or span id (no active span, tracing off) that the policy
    /// ([`Invalid`](crate::Invalid)) did not keep. Their push was `Ok`; they were never queued.
    pub fn invalid(&self) -> u64 {
        self.invalid
    }

    /// Returns what became of the contexts that batches took, summed over all batches.
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// Returns the number of batches.
    pub fn batches(&self) -> u64 {
        self.flushes.iter().sum()
    }

    /// Returns the number of batches of this trigger.
    pub fn flushes(&self, trigger: Trigger) -> u64 {
        self.flushes[trigger as usize]
    }

    /// Returns the number of panics of the handler given to
    /// [`Flusher::spawn`](crate::Flusher::spawn).
    pub fn handler_panics(&self) -> u64 {
        self.handler_panics
    }

    /// Returns how often the flusher came out of a wait, for any reason.
    pub fn wake_ups(&self) -> u64 {
        self.wake_ups
    }
}

impl fmt::Debug for Stats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        struct Flushes<'a>(&'a Stats);
        impl fmt::Debug for Flushes<'_> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.debug_map()
                    .entries(Trigger::ALL.iter().map(|&of| (of, self.0.flushes(of))))
                    .finish()
            }
        }
        f.debug_struct("Stats")
            .field("pushed", &self.pushed())
            .field("accepted", &self.accepted())
            .field("pending", &self.pending)
            .field("fullest_shard", &self.fullest_shard)
            .field("shard_capacity", &self.shard_capacity)
            .field("capacity", &self.capacity)
            .field("rejected_full", &self.rejected_full)
            .field("rejected_closed", &self.rejected_closed)
            .field("invalid", &self.invalid)
            .field("counts", &self.counts)
            .field("flushes", &Flushes(self))
            .field("handler_panics", &self.handler_panics)
            .field("wake_ups", &self.wake_ups)
            .finish()
    }
}

/// How long the contexts of a batch have waited, as far as it is known without reading a clock for
/// each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Wait {
    /// No context waited longer.
    pub(crate) bound: Duration,
    /// The oldest one waited as long as the bound.
    pub(crate) exact: bool,
}

impl Wait {
    /// Returns the wait of the oldest context, if it is known.
    pub(crate) fn oldest(self) -> Option<Duration> {
        self.exact.then_some(self.bound)
    }
}

/// What the flusher counts. Statistics only: `Relaxed`, one writer.
#[derive(Debug, Default)]
pub(crate) struct Totals {
    linked: AtomicU64,
    duplicates: AtomicU64,
    truncated: AtomicU64,
    invalid: AtomicU64,
    unsampled: AtomicU64,
    trace_states_cut: AtomicU64,
    attribute_panics: AtomicU64,
    flushes: [AtomicU64; Trigger::ALL.len()],
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
        add(&self.invalid, counts.invalid);
        add(&self.unsampled, counts.unsampled);
        add(&self.trace_states_cut, counts.trace_states_cut);
        add(&self.attribute_panics, counts.attribute_panics);
        add(&self.flushes[trigger as usize], 1);
    }

    pub(crate) fn add_handler_panic(&self) {
        add(&self.handler_panics, 1);
    }

    pub(crate) fn add_wake_up(&self) {
        add(&self.wake_ups, 1);
    }

    /// Returns what is counted here; the shards know the rest.
    pub(crate) fn read(&self) -> Stats {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Stats {
            counts: Counts {
                received: 0,
                linked: get(&self.linked),
                duplicates: get(&self.duplicates),
                truncated: get(&self.truncated),
                invalid: get(&self.invalid),
                unsampled: get(&self.unsampled),
                trace_states_cut: get(&self.trace_states_cut),
                attribute_panics: get(&self.attribute_panics),
            },
            flushes: self.flushes.each_ref().map(get),
            handler_panics: get(&self.handler_panics),
            wake_ups: get(&self.wake_ups),
            ..Stats::default()
        }
    }
}
