//! From a context to a link of the set, or to the count of its outcome.

use super::record::{Ids, Plain, Record, cut_state};
use super::selection::Parts;
use super::table::Probe;
use super::{DEFAULT_MAX_LINKS, Dedup, LinkSet, Outcome, Unsampled};
use opentelemetry::trace::{Link, SpanContext, TraceFlags, TraceId};
use std::iter;

/// A context that is valid or to be kept.
#[derive(Clone, Copy)]
pub(super) struct Admitted {
    pub(super) ids: Ids,
    /// It is sampled, or has no span.
    pub(super) sampled: bool,
    /// Its ids say which span it is.
    pub(super) identified: bool,
    /// Its trace state lost members.
    pub(super) state_cut: bool,
}

impl Admitted {
    fn of(context: &SpanContext, state_cut: bool) -> Self {
        let sampled = context.trace_flags().is_sampled() || !context.is_valid();
        let identified = context.trace_id() != TraceId::INVALID;
        Self { ids: Ids::of(context), sampled, identified, state_cut }
    }

    /// Returns its trace, if it has one.
    pub(super) fn trace(&self) -> Option<TraceId> {
        self.identified.then(|| TraceId::from_bytes(self.ids.trace))
    }
}

impl LinkSet {
    /// Adds what slots held of contexts that are valid or to be kept. `beside` takes the link
    /// beside the slot of the last one.
    pub(crate) fn insert_records<R: Iterator<Item = Record>>(
        &mut self,
        mut records: R,
        beside: impl Fn(&mut R) -> Option<Link>,
    ) {
        while let Some(record) = records.next() {
            match record {
                Record::Plain(plain) => _ = self.insert_plain(plain),
                Record::Beside { state_cut } => {
                    let link = beside(&mut records);
                    debug_assert!(link.is_some(), "a link beside its slot");
                    link.into_iter().for_each(|link| _ = self.insert_bounded_link(link, state_cut));
                }
            }
        }
    }

    #[inline(always)]
    pub(super) fn insert_plain(&mut self, plain: Plain) -> Outcome {
        // Out of line, so that the usual way keeps nothing on the stack for it.
        if self.selection.is_some() {
            return self.insert_bounded_link(plain.into_link(), plain.state_cut);
        }
        let Plain { ids, flags, state_cut, .. } = plain;
        let sampled = TraceFlags::new(flags).is_sampled();
        let context = Admitted { ids, sampled, identified: true, state_cut };
        self.admit(context, || plain.into_link())
    }

    /// Adds a link whose trace state fits and whose context is valid or to be kept.
    #[inline(never)]
    pub(super) fn insert_bounded_link(&mut self, link: Link, state_cut: bool) -> Outcome {
        let context = Admitted::of(&link.span_context, state_cut);
        if self.selection.is_none() {
            return self.admit(context, || link);
        }
        self.count(&context).unwrap_or_else(|| self.select(&context, link))
    }

    #[cold]
    pub(super) fn insert_invalid(&mut self, mut link: Link) -> Outcome {
        if !self.policy.invalid.keeps(&link) {
            return self.count_invalid();
        }
        self.reserve(self.last.max(DEFAULT_MAX_LINKS));
        let state_cut = cut_state(&mut link).is_some();
        self.insert_bounded_link(link, state_cut)
    }

    /// Counts a context; returns its outcome if it is dropped as unsampled.
    #[inline(always)]
    fn count(&mut self, context: &Admitted) -> Option<Outcome> {
        self.counts.received += 1;
        let dropped = !context.sampled && self.policy.unsampled == Unsampled::Drop;
        dropped.then(|| {
            self.counts.unsampled += 1;
            Outcome::Unsampled
        })
    }

    /// Decides on a context that is valid or to be kept. Always inlined: a link that is passed on
    /// through memory costs more than all the rest.
    #[inline(always)]
    fn admit(&mut self, context: Admitted, link: impl FnOnce() -> Link) -> Outcome {
        if let Some(dropped) = self.count(&context) {
            return dropped;
        }
        let Admitted { ids, identified, state_cut, .. } = context;
        let full = self.links.len() == self.max_links;
        if self.policy.dedup == Dedup::ByContext && identified {
            match self.table.find(&ids, &self.links) {
                Probe::Found(_) => {
                    self.counts.duplicates += 1;
                    return Outcome::Duplicate;
                }
                Probe::Free { slot, tag } if !full => self.table.fill(slot, tag, self.links.len()),
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
        // Written in place: `push` would make the link first, then look for room, then copy it.
        self.links.extend(iter::once_with(link));
        let whole = self.links.last_mut().is_none_or(|link| self.policy.complete(link, index));
        if !whole {
            self.counts.attribute_panics += 1;
        }
        Outcome::Linked
    }

    /// Decides by a policy for which the links are not enough.
    #[inline(never)]
    fn select(&mut self, context: &Admitted, link: Link) -> Outcome {
        let Self { links, table, counts, max_links, .. } = self;
        let set = Parts { links, table, counts, max_links: *max_links };
        self.selection.as_mut().map_or(Outcome::Truncated, |own| own.insert(set, context, link))
    }

    pub(super) fn count_invalid(&mut self) -> Outcome {
        self.counts.received += 1;
        self.counts.invalid += 1;
        Outcome::Invalid
    }
}
