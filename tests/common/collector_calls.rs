//! Calls of a collector and its flusher, in any order, made on the oracle too: both must answer
//! alike and look alike after each.

use super::choices::{Choices, Item, mark, one_of};
use super::{NEVER, assert_stats, by_size, context, oracle};
use batchlink::{
    Counts, Dedup, FlushError, FlushPolicy, Flusher, Invalid, LinkBatch, LinkCollector, LinkPolicy,
    Producer,
};
use batchlink::{Overflow, Stats, Trigger, Truncation, Unsampled};
use opentelemetry::Context;
use opentelemetry::trace::{Link, SpanContext, TraceContextExt};
use std::collections::HashMap;
use std::time::Duration;

/// A collector, as configured.
#[derive(Clone, Debug)]
pub struct Setup {
    size: usize,
    shards: usize,
    capacity: usize,
    policy: oracle::Policy,
    no_delay: bool,
    flush: FlushPolicy,
}

/// Returns a policy whose decisions need no time.
pub fn flush_policy(choices: &mut impl Choices, size: usize) -> FlushPolicy {
    let min_size = 1 + choices.below(size as u64) as usize;
    let policies = [
        FlushPolicy::Delay,
        FlushPolicy::Immediate,
        FlushPolicy::Balanced { min_size },
        FlushPolicy::IdleRestart { idle: Duration::ZERO },
        FlushPolicy::IdleRestart { idle: NEVER },
    ];
    one_of(choices, &policies)
}

impl Setup {
    /// Small, so that it is soon full. With several shards the batch alone
    /// tells which of them it took how much from: the policy then lets all contexts through.
    pub fn choose(choices: &mut impl Choices) -> Self {
        let size = 1 + choices.below(20) as usize;
        let shards = 1 + choices.below(4) as usize;
        // A multiple of the shards, so that there is nothing to round.
        let capacity = (size + choices.below(20) as usize).next_multiple_of(shards);
        let policy = match shards {
            1 => oracle::Policy::choose(choices, size as u64 + 2),
            _ => oracle::Policy {
                max_links: size,
                dedup: Dedup::Off,
                unsampled: Unsampled::Keep,
                // One without a trace id has no mark of its shard.
                invalid: Invalid::Drop,
                ..oracle::Policy::choose(choices, 1)
            },
        };
        let no_delay = choices.below(4) == 3;
        let flush = flush_policy(choices, size);
        Self { size, shards, capacity, policy, no_delay, flush }
    }
}

impl oracle::Policy {
    /// With up to `most` links.
    pub fn choose(choices: &mut impl Choices, most: u64) -> Self {
        use Truncation::{KeepFirst, KeepLast, OnePerTrace, SampledFirst};
        let dedup = one_of(choices, &[Dedup::ByContext, Dedup::ByContext, Dedup::Off]);
        let unsampled = one_of(choices, &[Unsampled::Drop, Unsampled::Keep]);
        // One choice of all: seeds older than the others take as many bytes still.
        let all = choices.below(9 * 5 * 5) as usize;
        let link_type = [Some("batch_item"), None, Some("other")][all % 3];
        let invalid = [Invalid::Drop, Invalid::KeepWithAttributes, Invalid::Keep][all / 3 % 3];
        let reservoir = Truncation::Reservoir { seed: 7 };
        let truncations = [KeepFirst, KeepLast, reservoir, SampledFirst, OnePerTrace];
        let truncation = truncations[all / 9 % 5];
        let (link_count, by_attributes, max_pages) = [
            (false, false, None),
            (true, false, None),
            (false, true, None),
            (true, true, None),
            (false, false, Some(3)),
        ][all / 45];
        let dedup = match dedup {
            Dedup::ByContext if by_attributes => Dedup::ByContextAndAttributes,
            other => other,
        };
        let max_links = most as usize - choices.below(most) as usize;
        Self { max_links, dedup, truncation, unsampled, invalid, link_type, link_count, max_pages }
    }

    /// The same, for the real ones.
    pub fn links(&self) -> LinkPolicy {
        let policy = LinkPolicy::new().with_max_links(self.max_links).with_dedup(self.dedup);
        let policy = policy.with_unsampled(self.unsampled).with_invalid(self.invalid);
        let policy = policy.with_truncation(self.truncation);
        let policy = if self.link_count { policy.with_link_count() } else { policy };
        let policy = match self.max_pages {
            Some(max_pages) => policy.with_overflow(Overflow::Spans { max_pages }),
            None => policy,
        };
        match self.link_type {
            Some(link_type) => policy.with_link_type(link_type),
            None => policy.without_link_type(),
        }
    }
}

/// One call. The number is that of the handle it is made through.
#[derive(Clone, Debug)]
pub enum Call {
    Push(usize, Item),
    /// Without time to wait, which is the same again.
    PushWait(usize, Item),
    PushLink(usize, Item),
    PushCurrent(usize, Option<Item>),
    PushAll(usize, Vec<Item>),
    /// Without waiting: what is due must be there, and a test that waits in vain says nothing.
    NextBatch,
    TryNext,
    Flush,
    /// Without time to wait: it says what is missing.
    FlushAndWait,
    Close,
    NewProducer,
    Clone(usize),
    Drop(usize),
    DropFlusher,
}

impl Call {
    pub fn choose(choices: &mut impl Choices) -> Self {
        const SPANS: u64 = 16;
        let kind = choices.below(256);
        let handle = choices.below(16) as usize;
        let mut item = || Item::choose(choices, SPANS);
        match kind {
            0..60 => Self::Push(handle, item()),
            60..80 => Self::PushWait(handle, item()),
            80..110 => Self::PushLink(handle, item()),
            110..125 => Self::PushCurrent(handle, Some(item())),
            125..130 => Self::PushCurrent(handle, None),
            130..160 => {
                let many = choices.below(32);
                Self::PushAll(handle, (0..many).map(|_| Item::choose(choices, SPANS)).collect())
            }
            160..205 => Self::NextBatch,
            205..225 => Self::TryNext,
            225..233 => Self::Flush,
            233..240 => Self::FlushAndWait,
            240..245 => Self::Clone(handle),
            245..250 => Self::Drop(handle),
            250..254 => Self::NewProducer,
            254 => Self::Close,
            _ => Self::DropFlusher,
        }
    }
}

enum Handle {
    Collector(LinkCollector),
    Producer(Producer),
}

/// Makes the same call on either.
macro_rules! on {
    ($handle:expr, $call:ident($($argument:expr),*)) => {
        match $handle {
            Handle::Collector(collector) => collector.$call($($argument),*),
            Handle::Producer(producer) => producer.$call($($argument),*),
        }
    };
}

/// A collector and the oracle, side by side.
pub struct Session {
    /// What can be pushed through, with its shard.
    handles: Vec<(Handle, usize)>,
    producers: usize,
    flusher: Option<Flusher>,
    shards: usize,
    oracle: oracle::Collector,
    links: oracle::LinkSet,
    totals: Counts,
    /// Of the batch taken last, until another is asked for.
    in_flight: u64,
    flushes: HashMap<Trigger, u64>,
}

impl Session {
    pub fn new(setup: Setup) -> Self {
        let Setup { size, shards, capacity, policy, no_delay, flush } = setup;
        let builder = by_size(size).with_shards(shards).with_queue_capacity(capacity);
        let builder = builder.with_link_policy(policy.links()).with_max_delay(if no_delay {
            Duration::ZERO
        } else {
            NEVER
        });
        let builder = builder.with_flush_policy(flush);
        let (collector, flusher) = builder.build().expect("valid");
        let slots = (capacity / shards).max(size).next_power_of_two();
        let oracle = oracle::Collector::new(size, slots, shards).with_invalid(policy.invalid);
        let oracle = oracle.with_flush_policy(flush);
        let mut session = Self {
            handles: vec![(Handle::Collector(collector), own_shard(shards))],
            producers: 0,
            flusher: Some(flusher),
            shards,
            oracle: if no_delay { oracle.without_delay() } else { oracle },
            links: oracle::LinkSet::new(policy),
            totals: Counts::default(),
            in_flight: 0,
            flushes: HashMap::new(),
        };
        (0..shards).for_each(|_| session.new_producer());
        session
    }

    pub fn call(&mut self, call: &Call) {
        match call {
            Call::Push(by, item) => {
                let Some((handle, shard)) = self.handle(*by) else { return };
                let context = item.context(shard, 0);
                let real = on!(handle, push(&context));
                assert_eq!(real, self.oracle.push(shard, Link::with_context(context)));
            }
            Call::PushWait(by, item) => {
                let Some((handle, shard)) = self.handle(*by) else { return };
                let context = item.context(shard, 0);
                let real = on!(handle, push_wait_timeout(&context, Duration::ZERO));
                assert_eq!(real, self.oracle.push(shard, Link::with_context(context)));
            }
            Call::PushLink(by, item) => {
                let Some((handle, shard)) = self.handle(*by) else { return };
                let link = item.link(shard, 0);
                let real = on!(handle, push_link(link.clone())).map_err(|refused| {
                    let reason = refused.reason();
                    assert_eq!(refused.into_link(), link);
                    reason
                });
                assert_eq!(real, self.oracle.push(shard, link));
            }
            Call::PushCurrent(by, item) => {
                let Some((handle, shard)) = self.handle(*by) else { return };
                let context = item.map_or(SpanContext::NONE, |item| item.context(shard, 0));
                let _entered =
                    item.map(|_| Context::new().with_remote_span_context(context.clone()).attach());
                let real = on!(handle, push_current());
                assert_eq!(real, self.oracle.push(shard, Link::with_context(context)));
            }
            Call::PushAll(by, items) => {
                let Some((handle, shard)) = self.handle(*by) else { return };
                let contexts: Vec<SpanContext> =
                    items.iter().map(|item| item.context(shard, 0)).collect();
                let real = on!(handle, push_all(&contexts));
                let links = contexts.into_iter().map(Link::with_context);
                assert_eq!(real, self.oracle.push_all(shard, links));
            }
            Call::NextBatch => {
                let Some(flusher) = &mut self.flusher else { return };
                self.in_flight = 0;
                let due = self.oracle.due();
                let batch = flusher.next_batch_timeout(Duration::ZERO);
                let found = batch.as_ref().map(|batch| batch.as_ref().map(LinkBatch::trigger));
                assert_eq!(found.map_err(|timeout| *timeout), due);
                batch.ok().flatten().into_iter().for_each(|batch| self.check_batch(batch));
            }
            Call::TryNext => {
                let Some(flusher) = &mut self.flusher else { return };
                self.in_flight = 0;
                let batch = flusher.try_next();
                self.oracle.look();
                let found = batch.as_ref().map(LinkBatch::trigger);
                assert_eq!(found, (self.oracle.pending() > 0).then_some(Trigger::Manual));
                batch.into_iter().for_each(|batch| self.check_batch(batch));
            }
            Call::Flush => {
                let Some(collector) = self.collector() else { return };
                collector.flush();
                self.oracle.flush();
            }
            Call::FlushAndWait => {
                let Some(collector) = self.collector() else { return };
                let flushed = collector.flush_and_wait(Duration::ZERO).map(|stats| stats.pending());
                let (pending, in_flight) = (self.oracle.pending() as u64, self.in_flight);
                let missing = match &self.flusher {
                    None if pending > 0 => Err(FlushError::Closed { pending }),
                    Some(_) if pending + in_flight > 0 => {
                        Err(FlushError::Timeout { pending, in_flight })
                    }
                    _ => Ok(0),
                };
                assert_eq!(flushed, missing);
                self.oracle.flush();
            }
            Call::Close => {
                let Some(collector) = self.collector() else { return };
                collector.close();
                self.oracle.close();
            }
            Call::NewProducer => self.new_producer(),
            Call::Clone(which) => {
                let Some((handle, shard)) = self.handle(*which) else { return };
                let clone = match handle {
                    Handle::Collector(collector) => Handle::Collector(collector.clone()),
                    Handle::Producer(producer) => Handle::Producer(producer.clone()),
                };
                self.handles.push((clone, shard));
            }
            Call::Drop(which) => {
                if !self.handles.is_empty() {
                    self.handles.swap_remove(which % self.handles.len());
                }
                if self.handles.is_empty() {
                    self.oracle.close();
                }
            }
            Call::DropFlusher => {
                self.flusher = None;
                self.in_flight = 0;
                self.oracle.close();
            }
        }
        self.check_stats();
    }

    /// Drops all but the flusher, which delivers what is left.
    pub fn end(mut self) {
        while !self.handles.is_empty() {
            self.call(&Call::Drop(0));
        }
        while self.oracle.pending() > 0 && self.flusher.is_some() {
            self.call(&Call::NextBatch);
        }
        self.call(&Call::NextBatch);
    }

    fn handle(&self, which: usize) -> Option<(&Handle, usize)> {
        let (handle, shard) = self.handles.get(which % self.handles.len().max(1))?;
        Some((handle, *shard))
    }

    fn collector(&self) -> Option<&LinkCollector> {
        self.handles.iter().find_map(|(handle, _)| match handle {
            Handle::Collector(collector) => Some(collector),
            Handle::Producer(_) => None,
        })
    }

    fn new_producer(&mut self) {
        if let Some(producer) = self.collector().map(LinkCollector::producer) {
            self.handles.push((Handle::Producer(producer), self.producers % self.shards));
            self.producers += 1;
        }
    }

    fn check_batch(&mut self, batch: LinkBatch) {
        self.in_flight = batch.received();
        let taken = match self.shards {
            1 => self.oracle.take(vec![0; self.oracle.next_size()]),
            _ => self.oracle.take(batch.links().iter().map(|link| mark(&link.span_context))),
        };
        for link in taken {
            self.links.insert(link);
        }
        let (links, counts) = self.links.finish();
        assert_eq!((batch.counts(), batch.links()), (counts, &*links));
        assert_eq!(batch.attributes(), oracle::attributes(&counts, batch.trigger().as_str()));
        *self.flushes.entry(batch.trigger()).or_default() += 1;
        let totals = &mut self.totals;
        totals.received += counts.received;
        totals.linked += counts.linked;
        totals.duplicates += counts.duplicates;
        totals.truncated += counts.truncated;
        totals.unsampled += counts.unsampled;
        totals.trace_states_cut += counts.trace_states_cut;
    }

    fn stats(&self) -> Option<Stats> {
        let flusher = || self.flusher.as_ref().map(Flusher::stats);
        self.collector().map(LinkCollector::stats).or_else(flusher)
    }

    fn check_stats(&self) {
        let Some(stats) = self.stats() else { return };
        let oracle = &self.oracle;
        assert_eq!(stats.pending(), oracle.pending() as u64);
        let refused = (oracle.rejected_full, oracle.rejected_closed);
        assert_stats(&stats, oracle.accepted, refused.0, refused.1, oracle.invalid);
        assert_eq!(stats.counts(), self.totals);
        for &trigger in Trigger::ALL {
            let flushes = self.flushes.get(&trigger).copied().unwrap_or_default();
            assert_eq!(stats.flushes(trigger), flushes, "{trigger}");
        }
    }
}

/// The shard of this thread in every collector with so many: the one that a producer finds full
/// after the thread has pushed.
fn own_shard(shards: usize) -> usize {
    let builder = by_size(1).with_shards(shards).with_queue_capacity(shards);
    let (collector, _flusher) = builder.build().expect("valid");
    collector.push(&context(1)).expect("room for one");
    (0..shards).find(|_| collector.producer().push(&context(1)).is_err()).expect("one is full")
}
