//! The oracle: a collector, a processor's queue and a link set as plain queues, a set and counts.
//!
//! Random calls (`collector/oracle.rs`), calls that shrink (`link_set/proptest_oracle.rs`), fuzz
//! targets and the models in packages of their own share it; the latter reach this file by
//! `#[path]`. It uses batchlink's plain types (`Outcome`, `PushError`), so that results can be
//! compared, and none of its code.
//!
//! With concurrent calls no next batch can be predicted, but the account holds afterwards: give a
//! [`Collector`] with `usize::MAX` slots what every producer got accepted, in its order, and
//! [`take`](Collector::take) the batches one by one. What is left must be what is pending.
#![allow(dead_code, unreachable_pub)] // each user uses a part of it

use batchlink::{
    Counts, Dedup, FlushPolicy, Invalid, Outcome, PushError, Timeout, Trigger, Truncation,
    Unsampled,
};
use opentelemetry::trace::{Link, SpanContext, SpanId, TraceId, TraceState};
use opentelemetry::{KeyValue, Value};
use std::collections::{HashMap, HashSet, VecDeque};

/// A collector and its flusher. Its delay never ends, unless it is zero.
pub struct Collector {
    size: usize,
    slots: usize,
    no_delay: bool,
    invalid_policy: Invalid,
    /// A processor's queue: items are queued whatever their context.
    items: bool,
    max_weight: u64,
    shards: Vec<Shard>,
    flush_asked: bool,
    closed: bool,
    policy: FlushPolicy,
    /// Nothing was pending at some poll since the last batch.
    idle: bool,
    pub accepted: u64,
    pub rejected_full: u64,
    pub rejected_closed: u64,
    pub invalid: u64,
}

#[derive(Clone, Default)]
struct Shard {
    /// Links and their weights.
    waiting: VecDeque<(Link, u64)>,
    /// How many of them a flush is to deliver.
    to_flush: usize,
}

impl Collector {
    /// Returns an empty collector with so many slots in each shard.
    pub fn new(size: usize, slots: usize, shards: usize) -> Self {
        Self {
            size,
            slots,
            no_delay: false,
            invalid_policy: Invalid::Drop,
            items: false,
            max_weight: u64::MAX,
            shards: vec![Shard::default(); shards],
            flush_asked: false,
            closed: false,
            policy: FlushPolicy::Delay,
            idle: false,
            accepted: 0,
            rejected_full: 0,
            rejected_closed: 0,
            invalid: 0,
        }
    }

    /// Sets a delay of zero: what is pending is due.
    pub fn without_delay(self) -> Self {
        Self { no_delay: true, ..self }
    }

    /// With an `IdleRestart` of zero, or one that never ends.
    pub fn with_flush_policy(self, policy: FlushPolicy) -> Self {
        Self { policy, ..self }
    }

    pub fn with_invalid(self, policy: Invalid) -> Self {
        Self { invalid_policy: policy, ..self }
    }

    /// A processor's queue, which takes items whatever their contexts. With a bound on the weight
    /// of a batch there must be one shard: else it is undefined which items are left for later.
    pub fn of_items(self, max_weight: Option<u64>) -> Self {
        assert!(max_weight.is_none() || self.shards.len() == 1);
        Self { items: true, max_weight: max_weight.unwrap_or(u64::MAX), ..self }
    }

    pub fn pending(&self) -> usize {
        self.shards.iter().map(|shard| shard.waiting.len()).sum()
    }

    pub fn push(&mut self, shard: usize, link: Link) -> Result<(), PushError> {
        self.push_heavy(shard, link, 0)
    }

    pub fn push_heavy(&mut self, shard: usize, link: Link, weight: u64) -> Result<(), PushError> {
        let waiting = &mut self.shards[shard].waiting;
        if !self.items && !is_valid(&link.span_context) && !keeps(self.invalid_policy, &link) {
            self.invalid += 1;
            Ok(())
        } else if self.closed {
            self.rejected_closed += 1;
            Err(PushError::Closed)
        } else if waiting.len() == self.slots {
            self.rejected_full += 1;
            Err(PushError::Full)
        } else {
            self.accepted += 1;
            waiting.push_back((link, weight.min(1 << 38)));
            Ok(())
        }
    }

    /// Stops at the first refusal; what follows counts as refused too.
    pub fn push_all(&mut self, shard: usize, links: impl ExactSizeIterator<Item = Link>) -> usize {
        let offered = links.len();
        for (taken, link) in links.enumerate() {
            if let Err(reason) = self.push(shard, link) {
                let rest = (offered - taken - 1) as u64;
                match reason {
                    PushError::Full => self.rejected_full += rest,
                    _ => self.rejected_closed += rest,
                }
                return taken;
            }
        }
        offered
    }

    pub fn flush(&mut self) {
        self.flush_asked = true;
    }

    /// Returns whether a flush is requested that no poll has found yet.
    pub fn is_flush_asked(&self) -> bool {
        self.flush_asked
    }

    pub fn close(&mut self) {
        self.closed = true;
    }

    /// Polls as the flusher does: a requested flush covers what is pending now.
    pub fn look(&mut self) {
        self.idle |= self.pending() == 0;
        if std::mem::take(&mut self.flush_asked) {
            for shard in &mut self.shards {
                shard.to_flush = shard.waiting.len();
            }
        }
    }

    /// Returns what `next_batch_timeout` returns without time to wait.
    pub fn due(&mut self) -> Result<Option<Trigger>, Timeout> {
        self.look();
        match self.pending() {
            0 if self.closed => Ok(None),
            0 => Err(Timeout),
            pending if pending >= self.size => Ok(Some(Trigger::Size)),
            _ if self.weights().sum::<u64>() >= self.max_weight => Ok(Some(Trigger::Weight)),
            _ if self.closed => Ok(Some(Trigger::Shutdown)),
            _ if self.shards.iter().any(|shard| shard.to_flush > 0) => Ok(Some(Trigger::Manual)),
            _ if self.no_delay && self.policy != FlushPolicy::Immediate => {
                Ok(Some(Trigger::Timeout))
            }
            pending if self.is_early(pending) => Ok(Some(Trigger::Policy)),
            _ => Err(Timeout),
        }
    }

    fn is_early(&self, pending: usize) -> bool {
        match self.policy {
            FlushPolicy::Immediate => true,
            // With a `min_size` of 1 there is no load that would have to wait.
            FlushPolicy::Balanced { min_size } => self.idle || pending >= min_size,
            FlushPolicy::IdleRestart { idle } => idle.is_zero(),
            _ => false,
        }
    }

    fn weights(&self) -> impl Iterator<Item = u64> {
        self.shards.iter().flat_map(|shard| &shard.waiting).map(|&(_, weight)| weight)
    }

    /// How many a batch takes: all that is pending, up to its size and its weight, but at least
    /// one.
    pub fn next_size(&self) -> usize {
        let mut heavy = 0;
        let fits = self.weights().take_while(|weight| {
            heavy += weight;
            heavy <= self.max_weight
        });
        fits.count().max(1).min(self.pending()).min(self.size)
    }

    /// Drops the consumer: closes, and drops what is pending.
    pub fn discard(&mut self) {
        self.closed = true;
        self.shards.iter_mut().for_each(|shard| shard.waiting.clear());
    }

    /// Takes a batch whose contexts came from these shards, in this order: which shards give how
    /// much is not promised, that each gives its oldest is.
    pub fn take(&mut self, shards: impl IntoIterator<Item = usize>) -> Vec<Link> {
        let size = self.next_size();
        self.idle = false;
        let mut oldest = |shard: usize| {
            let shard = &mut self.shards[shard];
            shard.to_flush = shard.to_flush.saturating_sub(1);
            shard.waiting.pop_front().expect("no more from a shard than it was given").0
        };
        let batch: Vec<Link> = shards.into_iter().map(&mut oldest).collect();
        assert_eq!(batch.len(), size, "contexts in the batch");
        batch
    }
}

/// How links are made.
#[derive(Clone, Debug)]
pub struct Policy {
    pub max_links: usize,
    pub dedup: Dedup,
    pub truncation: Truncation,
    pub unsampled: Unsampled,
    pub invalid: Invalid,
    pub link_type: Option<&'static str>,
    pub link_count: bool,
    /// Of links on spans of their own, the first included.
    pub max_pages: Option<usize>,
}

impl Policy {
    /// Returns how many links a span has at most, of which the SDK keeps 128.
    pub fn page(&self) -> usize {
        self.max_links.min(128)
    }

    fn bound(&self) -> usize {
        self.max_pages.map_or(self.max_links, |pages| pages * self.page())
    }
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            max_links: 128,
            dedup: Dedup::ByContext,
            truncation: Truncation::KeepFirst,
            unsampled: Unsampled::Drop,
            invalid: Invalid::Drop,
            link_type: Some("batch_item"),
            link_count: false,
            max_pages: None,
        }
    }
}

/// A link set, also that of a flusher. It remembers every link that was ever possible, and orders
/// all of them to find those that are kept.
pub struct LinkSet {
    policy: Policy,
    links: Vec<Possible>,
    /// Indices of those with these ids.
    by_ids: HashMap<(TraceId, SpanId), Vec<usize>>,
    traces: HashSet<TraceId>,
    arrivals: u64,
    counts: Counts,
}

/// A context that was no duplicate, as a link.
struct Possible {
    link: Link,
    arrival: u64,
    /// The arrival of its last duplicate.
    last: u64,
    contexts: u64,
    new_trace: bool,
    rank: u64,
    kept: bool,
}

impl LinkSet {
    pub fn new(policy: Policy) -> Self {
        Self {
            policy,
            links: Vec::new(),
            by_ids: HashMap::new(),
            traces: HashSet::new(),
            arrivals: 0,
            counts: Counts::default(),
        }
    }

    pub fn insert(&mut self, link: Link) -> Outcome {
        self.counts.received += 1;
        let Policy { unsampled, invalid, .. } = self.policy;
        let context = &link.span_context;
        let valid = is_valid(context);
        if !valid && !keeps(invalid, &link) {
            self.counts.invalid += 1;
            return Outcome::Invalid;
        }
        if valid && unsampled == Unsampled::Drop && !is_sampled(context) {
            self.counts.unsampled += 1;
            return Outcome::Unsampled;
        }
        self.arrivals += 1;
        let (ids, arrival) = (ids(context), self.arrivals);
        let same_ids = self.by_ids.get(&ids).map_or(&[][..], |same| same);
        let same = |index: &&usize| self.same(&self.links[**index], &link);
        if let Some(&index) = same_ids.iter().find(same) {
            self.links[index].contexts += 1;
            self.links[index].last = arrival;
            return Outcome::Duplicate;
        }
        let index = self.links.len();
        self.by_ids.entry(ids).or_default().push(index);
        let new_trace = ids.0 != TraceId::INVALID && self.traces.insert(ids.0);
        let rank = self.rank(&link, arrival);
        let last = arrival;
        self.links.push(Possible {
            link,
            arrival,
            last,
            contexts: 1,
            new_trace,
            rank,
            kept: false,
        });
        self.choose();
        if self.links[index].kept { Outcome::Linked } else { Outcome::Truncated }
    }

    /// Returns whether a link is a duplicate of one with the same ids.
    fn same(&self, known: &Possible, link: &Link) -> bool {
        let (own, others) = (&known.link.attributes, &link.attributes);
        let all_in = |these: &[KeyValue], those: &[KeyValue]| {
            these.len() == those.len() && these.iter().all(|own| those.contains(own))
        };
        known.kept
            && link.span_context.trace_id() != TraceId::INVALID
            && match self.policy.dedup {
                Dedup::Off => false,
                Dedup::ByContextAndAttributes => all_in(own, others) && all_in(others, own),
                _ => true,
            }
    }

    /// Keeps the best of all.
    fn choose(&mut self) {
        let bound = self.policy.bound();
        let most = self.links.len();
        if most <= bound || self.policy.truncation == Truncation::KeepFirst {
            self.links[most - 1].kept = most <= bound;
            return;
        }
        let mut order: Vec<usize> = (0..self.links.len()).collect();
        order.sort_by_key(|&index| {
            let link = &self.links[index];
            let best = match self.policy.truncation {
                Truncation::KeepLast => u64::MAX - link.last,
                Truncation::Reservoir { .. } => u64::MAX - link.rank,
                Truncation::SampledFirst => u64::from(
                    is_valid(&link.link.span_context) && !is_sampled(&link.link.span_context),
                ),
                Truncation::OnePerTrace => u64::from(!link.new_trace),
                _ => 0,
            };
            (best, link.arrival)
        });
        for (place, index) in order.into_iter().enumerate() {
            self.links[index].kept = place < bound;
        }
    }

    /// Returns the links of the batch and its counts, and empties the set.
    pub fn finish(&mut self) -> (Vec<Link>, Counts) {
        let mut counts = std::mem::take(&mut self.counts);
        let mut links = Vec::new();
        for Possible { link, contexts, kept, .. } in std::mem::take(&mut self.links) {
            if !kept {
                counts.truncated += contexts;
                continue;
            }
            counts.linked += 1;
            counts.duplicates += contexts - 1;
            let mut link = self.typed(link, contexts);
            let cut;
            (link.span_context, cut) = with_short_state(link.span_context);
            counts.trace_states_cut += u64::from(cut);
            links.push(link);
        }
        self.by_ids.clear();
        self.traces.clear();
        self.arrivals = 0;
        (links, counts)
    }

    fn typed(&self, mut link: Link, contexts: u64) -> Link {
        let has = |link: &Link, key| link.attributes.iter().any(|own| own.key.as_str() == key);
        if let Some(link_type) = self.policy.link_type.filter(|_| !has(&link, "link.type")) {
            link.attributes.push(KeyValue::new("link.type", link_type));
        }
        if self.policy.link_count && !has(&link, "link.count") {
            link.attributes.push(KeyValue::new("link.count", contexts as i64));
        }
        link
    }

    /// Returns the place of a link in a sample: those with the highest are kept.
    fn rank(&self, link: &Link, arrival: u64) -> u64 {
        let Truncation::Reservoir { seed } = self.policy.truncation else { return 0 };
        let (trace, span) = ids(&link.span_context);
        let trace = u128::from_be_bytes(trace.to_bytes());
        let own = [(trace >> 64) as u64, trace as u64, u64::from_be_bytes(span.to_bytes())];
        let rank = own.into_iter().fold(seed, mix);
        if self.policy.dedup == Dedup::Off || trace == 0 {
            return mix(rank, arrival);
        }
        if self.policy.dedup == Dedup::ByContextAndAttributes {
            let attribute = |own: &KeyValue| {
                let value = match &own.value {
                    Value::Bool(value) => vec![u64::from(*value)],
                    Value::I64(value) => vec![*value as u64],
                    Value::F64(value) => vec![value.to_bits()],
                    other => words(&other.as_str()),
                };
                words(own.key.as_str()).into_iter().chain(value).fold(rank, mix)
            };
            return mix(rank, link.attributes.iter().map(attribute).fold(0, u64::wrapping_add));
        }
        rank
    }
}

/// SplitMix64's finaliser.
fn mix(state: u64, word: u64) -> u64 {
    let mut mixed = (state ^ word).wrapping_add(0x9E37_79B9_7F4A_7C15);
    for (shift, factor) in [(30, 0xBF58_476D_1CE4_E5B9), (27, 0x94D0_49BB_1331_11EB)] {
        mixed = (mixed ^ mixed >> shift).wrapping_mul(factor);
    }
    mixed ^ mixed >> 31
}

/// A text as words of eight bytes, and its length.
fn words(text: &str) -> Vec<u64> {
    let word = |chunk: &[u8]| {
        (0..8).fold(0, |word, place| word << 8 | u64::from(*chunk.get(place).unwrap_or(&0)))
    };
    let words = text.as_bytes().chunks(8).map(word);
    words.chain([text.len() as u64]).collect()
}

/// Returns the attributes of a batch span, of which the SDK keeps 128 links.
pub fn attributes(counts: &Counts, trigger: &'static str) -> Vec<KeyValue> {
    let carried = counts.linked.min(128);
    let mut attributes = vec![
        KeyValue::new("batch.size", counts.received as i64),
        KeyValue::new("batch.links", carried as i64),
        KeyValue::new("batch.trigger", trigger),
    ];
    for (key, count) in [
        ("links.duplicates", counts.duplicates),
        ("links.unsampled", counts.unsampled),
        ("links.invalid", counts.invalid),
    ] {
        if count > 0 {
            attributes.push(KeyValue::new(key, count as i64));
        }
    }
    let original = counts.linked + counts.truncated;
    if original > carried {
        attributes.push(KeyValue::new("links.truncated", true));
        attributes.push(KeyValue::new("links.original_count", original as i64));
    }
    attributes
}

/// Returns the attributes of a batch span whose further pages were taken.
pub fn paged_attributes(counts: &Counts, trigger: &'static str, page: usize) -> Vec<KeyValue> {
    let pages = counts.linked.div_ceil(page as u64);
    if pages <= 1 {
        return attributes(counts, trigger);
    }
    // As if each page was carried.
    let mut truncated = *counts;
    truncated.linked = 0;
    let mut attributes = attributes(&truncated, trigger);
    attributes[1] = KeyValue::new("batch.links", page as i64);
    if let Some(original) =
        attributes.iter_mut().find(|own| own.key.as_str() == "links.original_count")
    {
        original.value = Value::I64((counts.linked + counts.truncated) as i64);
    }
    attributes.push(KeyValue::new("batch.page", 1));
    attributes.push(KeyValue::new("batch.pages", pages as i64));
    attributes
}

fn ids(context: &SpanContext) -> (TraceId, SpanId) {
    (context.trace_id(), context.span_id())
}

/// Returns a context with up to 512 bytes of trace state, and whether members were cut.
/// OpenTelemetry's own and the leftmost are the last to go, those over 128 characters the first,
/// and then from the right.
pub fn with_short_state(context: SpanContext) -> (SpanContext, bool) {
    if context.trace_state().header().len() <= 512 {
        return (context, false);
    }
    let header = context.trace_state().header();
    let mut left: Vec<Option<&str>> = header.split(',').map(Some).collect();
    let own = |(place, member): (usize, &str)| place == 0 || member.starts_with("ot=");
    for (spare_own, only_long) in [(true, true), (true, false), (false, true), (false, false)] {
        for place in (0..left.len()).rev() {
            let fits = left.iter().flatten().map(|member| member.len() + 1).sum::<usize>() <= 513;
            let goes = |member: &&str| {
                (!only_long || member.chars().count() > 128) && !(spare_own && own((place, member)))
            };
            if !fits && left[place].as_ref().is_some_and(goes) {
                left[place] = None;
            }
        }
    }
    let pairs = left.iter().flatten().map(|member| member.split_once('=').expect("key=value"));
    let state = TraceState::from_key_value(pairs).expect("valid");
    let (trace, span) = ids(&context);
    let (flags, remote) = (context.trace_flags(), context.is_remote());
    (SpanContext::new(trace, span, flags, remote, state), true)
}

fn is_sampled(context: &SpanContext) -> bool {
    context.trace_flags().to_u8() & 1 == 1
}

fn is_valid(context: &SpanContext) -> bool {
    context.trace_id() != TraceId::INVALID && context.span_id() != SpanId::INVALID
}

/// Returns whether a link to an invalid context is kept.
fn keeps(policy: Invalid, link: &Link) -> bool {
    let says_more =
        !link.attributes.is_empty() || !link.span_context.trace_state().header().is_empty();
    match policy {
        Invalid::Drop => false,
        Invalid::KeepWithAttributes => says_more,
        _ => says_more || ids(&link.span_context) != (TraceId::INVALID, SpanId::INVALID),
    }
}
