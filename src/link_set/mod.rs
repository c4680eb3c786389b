//! De-duplication, bound and accounting of one batch's links. Usable without a collector.
//!
//! Everything here works through `&mut self`: no atomics, no threads.

pub(crate) mod batch;
mod hoist;
pub(crate) mod policy;
pub(crate) mod record;

pub use batch::LinkBatch;
pub use policy::{Duplicates, Invalid, LinkPolicy, Unsampled};

use crate::error::ConfigError;
use crate::links::MaybeContext;
use crate::stats::{Counts, Trigger};
use ahash::RandomState;
use opentelemetry::trace::{Link, SpanContext, TraceFlags, TraceId};
#[cfg(feature = "processor")]
use record::Bounded;
use record::{Ids, PackedBox, Record, plain_link};
use std::hash::{BuildHasher, Hasher};

/// The SDK's default for `OTEL_SPAN_LINK_COUNT_LIMIT`.
pub(crate) const DEFAULT_MAX_LINKS: usize = 128;
pub(crate) const MAX_LINKS: usize = 1 << 20;

/// Slots that are filled in the time of about one look-up.
const SLOTS_PER_LOOKUP: usize = 64;

/// What became of a context given to a [`LinkSet`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Outcome {
    /// It is a link of the batch.
    Linked,
    /// The batch has a link to the same span already.
    Duplicate,
    /// The batch has `max_links` links and this would be one more.
    Truncated,
    /// Trace id or span id is zero, and the policy ([`Invalid`]) does not keep it.
    Invalid,
    /// The sampled flag is off and the policy is [`Unsampled::Drop`].
    Unsampled,
}

impl std::fmt::Display for Outcome {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Linked => "linked",
            Self::Duplicate => "duplicate",
            Self::Truncated => "truncated",
            Self::Invalid => "invalid",
            Self::Unsampled => "unsampled",
        })
    }
}

/// Configures a [`LinkSet`]; made by [`LinkSet::builder`].
///
/// ```
/// use batchlink::{LinkPolicy, LinkSet, links::Relation};
///
/// let policy = LinkPolicy::new().with_link_type(Relation::ConsumedFrom);
/// let set = LinkSet::builder().with_link_policy(policy).with_max_links(64).build()?;
/// # drop(set);
/// # Ok::<(), batchlink::ConfigError>(())
/// ```
#[derive(Clone, Debug, Default)]
#[must_use = "a builder does nothing until it is built"]
pub struct LinkSetBuilder(LinkPolicy);

impl LinkSetBuilder {
    /// Bounds the links of one batch; see [`LinkPolicy::with_max_links`].
    pub fn with_max_links(mut self, links: usize) -> Self {
        self.0 = self.0.with_max_links(links);
        self
    }

    /// Sets how contexts become links. A bound that was set before stays, unless the policy has one.
    pub fn with_link_policy(mut self, policy: LinkPolicy) -> Self {
        self.0 = policy.after(&self.0);
        self
    }

    /// Allocates the table: 16 to 32 bytes per possible link. The links themselves, 96 bytes each,
    /// belong to the batch.
    ///
    /// # Errors
    ///
    /// [`ConfigError`] naming `max_links` if it is not between 1 and 1 048 576, or `link_type_key`
    /// if it is empty.
    pub fn build(self) -> Result<LinkSet, ConfigError> {
        let bound = self.0.max_links();
        Ok(LinkSet::new(self.0.validate()?, bound))
    }
}

/// The de-duplicated, bounded links of one batch, in the order in which they came.
///
/// For a consumer that already holds its whole batch, such as a Kafka poll; a
/// [`Flusher`](crate::Flusher) has one inside. Two contexts are the same if trace id and span id
/// are; the first one stays. A context that was truncated is not remembered, so memory is
/// bounded and a second one with the same ids is truncated again.
///
/// ```
/// use batchlink::{LinkSet, Outcome};
/// # use opentelemetry::trace::{SpanContext, SpanId, TraceFlags, TraceId, TraceState};
/// # let context = |n: u64| SpanContext::new(TraceId::from(7u128), SpanId::from(n), TraceFlags::SAMPLED, true, TraceState::NONE);
/// let mut set = LinkSet::builder().with_max_links(2).build()?;
/// assert_eq!(set.insert(&context(1)), Outcome::Linked);
/// assert_eq!(set.insert(&context(1)), Outcome::Duplicate);
/// assert_eq!(set.insert(&context(2)), Outcome::Linked);
/// assert_eq!(set.insert(&context(3)), Outcome::Truncated);
///
/// let batch = set.finish();
/// assert_eq!((batch.received(), batch.linked()), (4, 2));
/// # Ok::<(), batchlink::ConfigError>(())
/// ```
#[derive(Debug)]
pub struct LinkSet {
    policy: LinkPolicy,
    /// The policy's.
    max_links: usize,
    /// The links so far, in order of arrival.
    links: Vec<Link>,
    /// Links of the last batch: room for as many is made for the next.
    last: usize,
    /// Open addressing, at most a quarter full, so that a look-up seldom needs a second look. 0: empty. Otherwise the low bits are the index in
    /// `links` plus one, the high bits those of the key's hash.
    table: Box<[u32]>,
    /// Keyed anew for every set: trace ids come from the network.
    hasher: RandomState,
    counts: Counts,
    /// A batch had more links than the SDK keeps, and that was logged.
    #[cfg(feature = "internal-logs")]
    warned: bool,
    /// Slots of the table that were read.
    #[cfg(test)]
    probes: std::cell::Cell<u64>,
    /// Slots that the last clearing wrote.
    #[cfg(test)]
    cleared: std::cell::Cell<usize>,
}

/// Where a key is, or would be, in the table.
enum Probe {
    Found,
    Free { slot: usize, tag: u32 },
}

impl LinkSet {
    /// Starts a configuration.
    pub fn builder() -> LinkSetBuilder {
        LinkSetBuilder::default()
    }

    /// `most`: no batch will hold more contexts than this.
    pub(crate) fn new(policy: LinkPolicy, most: usize) -> Self {
        let max_links = policy.max_links();
        let bound = max_links.min(most);
        Self {
            policy,
            max_links,
            links: Vec::new(),
            last: 0,
            table: vec![0; (4 * bound).next_power_of_two().max(8)].into(),
            hasher: RandomState::new(),
            counts: Counts::default(),
            #[cfg(feature = "internal-logs")]
            warned: false,
            #[cfg(test)]
            probes: Default::default(),
            #[cfg(test)]
            cleared: Default::default(),
        }
    }

    /// Adds a link to `context`, unless it is a duplicate, over the bound, invalid or unsampled.
    /// Clones nothing but trace state.
    #[inline]
    pub fn insert(&mut self, context: &SpanContext) -> Outcome {
        if !context.is_valid() {
            return match self.policy.invalid {
                Invalid::Drop => self.count_invalid(),
                _ => self.insert_invalid(Link::with_context(context.clone())),
            };
        }
        self.make_room(self.last.max(DEFAULT_MAX_LINKS));
        match Record::is_plain(context) {
            true => self.admit(Ids::of(context), context.trace_flags().is_sampled(), true, false, || {
                Link::with_context(context.clone())
            }),
            false => self.insert_record(Record::from_context(context)),
        }
    }

    /// As [`insert`](Self::insert), for what waited beside a payload; after
    /// [`make_room`](Self::make_room).
    #[cfg(feature = "processor")]
    #[inline]
    pub(crate) fn insert_bounded(&mut self, Bounded { context, state_cut }: &Bounded) -> Outcome {
        if !state_cut {
            return self.insert(context);
        }
        if context.is_valid() {
            let context = context.clone();
            return self.insert_record(Record::from_bounded(Bounded { context, state_cut: true }));
        }
        // It had a trace state, for which all but one of the policies keep it.
        match self.policy.invalid {
            Invalid::Drop => self.count_invalid(),
            _ => self.insert_boxed(Box::new(Link::with_context(context.clone())), true),
        }
    }

    /// As [`insert`](Self::insert), with the link's own attributes. `link.type` is added if it
    /// has none.
    pub fn insert_link(&mut self, link: Link) -> Outcome {
        if !link.span_context.is_valid() {
            return self.insert_invalid(link);
        }
        self.make_room(self.last.max(DEFAULT_MAX_LINKS));
        self.insert_record(Record::from_link(link).0)
    }

    /// As [`insert`](Self::insert), for what may have a context, such as an `Option<SpanContext>` or
    /// a [`Context`](opentelemetry::Context). `None` if it has none, which is then counted nowhere.
    /// For many of them there is [`extend`](Extend::extend).
    pub fn insert_optional(&mut self, context: impl MaybeContext) -> Option<Outcome> {
        context.with(|context| self.insert(context))
    }

    /// The link that this set would make, for another span; `None` if it would make none. Attributes
    /// whose closure panics are left out, which is not counted.
    #[cfg(feature = "processor")]
    pub(crate) fn link_to(&self, Bounded { context, state_cut }: &Bounded, index: usize) -> Option<Link> {
        let valid = context.is_valid();
        if valid && !context.is_sampled() && self.policy.unsampled == Unsampled::Drop {
            return None;
        }
        let mut link = Link::with_context(context.clone());
        let kept = match self.policy.invalid {
            Invalid::Drop => false,
            // See `insert_bounded`.
            policy => *state_cut || policy.keeps(&link),
        };
        if !valid && !kept {
            return None;
        }
        let _ = self.policy.complete(&mut link, index);
        Some(link)
    }

    /// The bound.
    pub(crate) fn max_links(&self) -> usize {
        self.max_links
    }

    /// Contexts given since the last [`finish`](Self::finish).
    pub fn received(&self) -> u64 {
        self.counts.received
    }

    /// Ends the batch ([`Trigger::Manual`]) and empties the set for the next one. The table is kept,
    /// the `Vec` of links goes with the batch; the next one is made for as many links as this had,
    /// at least 128, so that a batch allocates once, and once per link for `link.type`.
    pub fn finish(&mut self) -> LinkBatch {
        self.finish_as(Trigger::Manual)
    }

    pub(crate) fn finish_as(&mut self, trigger: Trigger) -> LinkBatch {
        let links = std::mem::take(&mut self.links);
        self.last = links.len();
        self.clear_table(&links);
        let span_limit = self.policy.span_limit();
        #[cfg(feature = "internal-logs")]
        self.warn_once_of_span_limit(span_limit.links());
        LinkBatch::new(links, std::mem::take(&mut self.counts), trigger, span_limit)
    }

    /// Empties the table that was filled by `links`. A few of them are cleared one by one, as a table
    /// for many takes long to fill.
    fn clear_table(&mut self, links: &[Link]) {
        if links.len() >= self.table.len() / SLOTS_PER_LOOKUP {
            #[cfg(test)]
            self.cleared.set(self.table.len());
            return self.table.fill(0);
        }
        #[cfg(test)]
        self.cleared.set(0);
        // The last one first: its search went past earlier ones only, and these are still there.
        for (index, link) in links.iter().enumerate().rev() {
            let mut slot = self.start(&Ids::of(&link.span_context)).0;
            while self.table[slot] != 0 {
                if self.index(self.table[slot]) == index {
                    self.table[slot] = 0;
                    #[cfg(test)]
                    self.cleared.set(self.cleared.get() + 1);
                    break;
                }
                slot = self.next(slot);
            }
        }
    }

    /// Warns of links that the SDK will drop, once: each batch would flood the log.
    #[cfg(feature = "internal-logs")]
    fn warn_once_of_span_limit(&mut self, limit: u64) {
        let links = self.counts.linked;
        if links <= limit || std::mem::replace(&mut self.warned, true) {
            return;
        }
        let _ = crate::panic::caught(|| {
            opentelemetry::otel_warn!(
                name: "LinkSet.SpanLinkLimitExceeded",
                links = links,
                limit = limit,
                message = "A batch has more links than the SDK keeps of a span: those over the limit are dropped. \
                           Raise OTEL_SPAN_LINK_COUNT_LIMIT (or tell a limit set in code by \
                           LinkPolicy::with_span_link_limit), or lower max_links. This is logged once for \
                           each link set."
            );
        });
    }

    /// Allocates for the links of a batch of `contexts` at once, if there is no room yet.
    #[inline(always)]
    pub(crate) fn make_room(&mut self, contexts: usize) {
        if self.links.capacity() == 0 {
            self.links.reserve_exact(contexts.min(self.max_links));
        }
    }

    /// Takes contexts that are valid or to be kept.
    pub(crate) fn insert_records(&mut self, records: impl Iterator<Item = Record>) {
        for record in records {
            self.insert_record(record);
        }
    }

    #[inline(always)]
    fn insert_record(&mut self, record: Record) -> Outcome {
        match record {
            Record::Plain { ids, flags, remote, state_cut } => {
                let sampled = TraceFlags::new(flags).is_sampled();
                self.admit(ids, sampled, true, state_cut, || plain_link(ids, flags, remote))
            }
            Record::Boxed(PackedBox(link), state_cut) => self.insert_boxed(link, state_cut),
        }
    }

    #[cold]
    fn insert_boxed(&mut self, link: Box<Link>, state_cut: bool) -> Outcome {
        let context = &link.span_context;
        let sampled = context.trace_flags().is_sampled() || !context.is_valid();
        let identified = context.trace_id() != TraceId::INVALID;
        self.admit(Ids::of(context), sampled, identified, state_cut, || *link)
    }

    #[cold]
    fn insert_invalid(&mut self, link: Link) -> Outcome {
        if !self.policy.invalid.keeps(&link) {
            return self.count_invalid();
        }
        self.make_room(self.last.max(DEFAULT_MAX_LINKS));
        self.insert_record(Record::from_link(link).0)
    }

    /// Decides on a context that is valid or to be kept. `identified`: its ids say which one it is.
    /// Always inlined: one that is passed on through memory costs more than all the rest.
    #[inline(always)]
    fn admit(
        &mut self,
        ids: Ids,
        sampled: bool,
        identified: bool,
        state_cut: bool,
        link: impl FnOnce() -> Link,
    ) -> Outcome {
        self.counts.received += 1;
        if self.policy.unsampled == Unsampled::Drop && !sampled {
            self.counts.unsampled += 1;
            return Outcome::Unsampled;
        }
        let full = self.links.len() == self.max_links;
        if self.policy.duplicates == Duplicates::Drop && identified {
            match self.find(&ids) {
                Probe::Found => {
                    self.counts.duplicates += 1;
                    return Outcome::Duplicate;
                }
                // The index fits: the table has four times as many places as there are links.
                Probe::Free { slot, tag } if !full => self.table[slot] = tag | (self.links.len() as u32 + 1),
                Probe::Free { .. } => {}
            }
        }
        if full {
            self.counts.truncated += 1;
            return Outcome::Truncated;
        }
        self.counts.linked += 1;
        self.counts.trace_states_cut += u64::from(state_cut);
        let index = self.links.len();
        // Made in its place.
        self.links.push(link());
        let whole = self.links.last_mut().is_none_or(|link| self.policy.complete(link, index));
        if !whole {
            self.counts.attribute_panics += 1;
        }
        Outcome::Linked
    }

    #[inline(always)]
    fn find(&self, ids: &Ids) -> Probe {
        let (mut slot, tag) = self.start(ids);
        loop {
            #[cfg(test)]
            self.probes.set(self.probes.get() + 1);
            let found = self.table[slot];
            if found == 0 {
                return Probe::Free { slot, tag };
            }
            let known = || Ids::of(&self.links[self.index(found)].span_context);
            if found & !self.mask() as u32 == tag && known() == *ids {
                return Probe::Found;
            }
            slot = self.next(slot);
        }
    }

    /// Where the search for a key starts, and the tag in its slot.
    #[inline(always)]
    fn start(&self, ids: &Ids) -> (usize, u32) {
        let hash = hash(&self.hasher, ids);
        ((hash >> 32) as usize & self.mask(), hash as u32 & !self.mask() as u32)
    }

    #[inline(always)]
    fn mask(&self) -> usize {
        self.table.len() - 1
    }

    #[inline(always)]
    fn next(&self, slot: usize) -> usize {
        (slot + 1) & self.mask()
    }

    /// The index in `links` of what was found in the table.
    #[inline(always)]
    fn index(&self, found: u32) -> usize {
        (found as usize & self.mask()) - 1
    }

    fn count_invalid(&mut self) -> Outcome {
        self.counts.received += 1;
        self.counts.invalid += 1;
        Outcome::Invalid
    }
}

#[inline(always)]
fn hash(keyed: &RandomState, ids: &Ids) -> u64 {
    let mut hasher = keyed.build_hasher();
    hasher.write_u128(u128::from_ne_bytes(ids.trace));
    hasher.write_u64(u64::from_ne_bytes(ids.span));
    hasher.finish()
}

/// Inserts each of them.
impl Extend<Link> for LinkSet {
    fn extend<I: IntoIterator<Item = Link>>(&mut self, links: I) {
        links.into_iter().for_each(|link| _ = self.insert_link(link));
    }
}

/// Inserts each that is there; see [`LinkSet::insert_optional`].
impl<C: MaybeContext> Extend<C> for LinkSet {
    fn extend<I: IntoIterator<Item = C>>(&mut self, contexts: I) {
        contexts.into_iter().for_each(|context| _ = self.insert_optional(context));
    }
}

#[cfg(test)]
mod flooding;

#[cfg(test)]
mod tests {
    use super::*;
    use opentelemetry::trace::{SpanId, TraceFlags, TraceId, TraceState};

    fn context(number: u64) -> SpanContext {
        let (trace, span) = (TraceId::from(1_u128), SpanId::from(number));
        SpanContext::new(trace, span, TraceFlags::SAMPLED, false, TraceState::NONE)
    }

    fn filled(links: usize) -> LinkSet {
        let mut set = LinkSet::builder().with_max_links(links).build().unwrap();
        assert!((1..=links as u64).all(|number| set.insert(&context(number)) == Outcome::Linked));
        set
    }

    #[test]
    fn the_table_is_at_most_a_quarter_full_and_keeps_its_size() {
        for links in [1, 2, 3, 4, 5, 127, 128, 129] {
            let mut set = filled(links);
            let size = set.table.len();
            assert!(size >= 4 * links && size <= (8 * links).max(8), "{size} places for {links} links");
            assert_eq!(set.table.iter().filter(|&&place| place != 0).count(), links);
            drop(set.finish());
            assert!(set.table.len() == size && set.table.iter().all(|&place| place == 0));
        }
    }

    /// In a large table, few links have few slots cleared, and these are all that were used.
    #[test]
    fn few_links_clear_few_slots() {
        let mut set = filled(1 << 18);
        assert!(set.finish().linked() == 1 << 18 && set.cleared.get() == set.table.len());
        for links in [0, 1, 2, 1000, 16_000] {
            (1..=links).for_each(|number| _ = set.insert(&context(number)));
            (1..=links).for_each(|number| _ = set.insert(&context(number)));
            assert_eq!(set.finish().linked(), links);
            assert_eq!(set.cleared.get(), links as usize);
            assert!(set.table.iter().all(|&slot| slot == 0), "{links} links");
        }
    }

    /// Links that are not in the table: those kept without a trace id, and all if duplicates are kept.
    #[test]
    fn unlisted_links_clear_nothing() {
        let nameless =
            SpanContext::new(TraceId::INVALID, SpanId::from(1), TraceFlags::SAMPLED, false, TraceState::NONE);
        let policy = LinkPolicy::new().with_max_links(10_000).with_invalid(Invalid::Keep);
        for (duplicates, slots) in [(Duplicates::Drop, 1), (Duplicates::Keep, 0)] {
            let policy = policy.clone().with_duplicates(duplicates);
            let mut set = LinkSet::builder().with_link_policy(policy).build().unwrap();
            for context in [&nameless, &context(1), &nameless] {
                set.insert(context);
            }
            assert_eq!((set.finish().linked(), set.cleared.get()), (3, slots));
            assert!(set.table.iter().all(|&slot| slot == 0));
        }
    }

    /// All in one run would be as slow as a list.
    #[test]
    fn links_are_spread_over_the_table() {
        let set = filled(100);
        let taken = |slot: usize| set.table[slot % set.table.len()] != 0;
        let runs = (0..set.table.len()).filter(|&slot| taken(slot) && !taken(slot + 1)).count();
        assert!(runs > 25, "{runs} runs");
    }

    #[test]
    fn a_batch_of_a_collector_needs_no_larger_table() {
        let policy = LinkPolicy::new().with_max_links(1 << 20);
        assert_eq!(LinkSet::new(policy, 10).table.len(), 64);
    }
}
