//! From a context to a link of the set, or to the count of its outcome.

use super::record::{Ids, PackedBox, Record, plain_link};
use super::selection::Parts;
use super::table::Probe;
use super::{DEFAULT_MAX_LINKS, Dedup, LinkSet, Outcome, Unsampled};
use opentelemetry::trace::{Link, TraceFlags, TraceId};

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
    /// Returns its trace, if it has one.
    pub(super) fn trace(&self) -> Option<TraceId> {
        self.identified.then(|| TraceId::from_bytes(self.ids.trace))
    }
}

impl LinkSet {
    /// Adds contexts that are valid or to be kept.
    pub(crate) fn insert_records(&mut self, records: impl Iterator<Item = Record>) {
        // Decided once for all of them.
        if self.selection.is_none() {
            for record in records {
                self.insert_as::<true>(record);
            }
        } else {
            for record in records {
                self.insert_record(record);
            }
        }
    }

    #[inline(always)]
    pub(super) fn insert_record(&mut self, record: Record) -> Outcome {
        self.insert_as::<false>(record)
    }

    /// Adds a context. `SIMPLE`: there is no selection.
    #[inline(always)]
    fn insert_as<const SIMPLE: bool>(&mut self, record: Record) -> Outcome {
        match record {
            Record::Plain { ids, flags, remote, state_cut } => {
                let sampled = TraceFlags::new(flags).is_sampled();
                let context = Admitted { ids, sampled, identified: true, state_cut };
                self.admit::<SIMPLE>(context, || plain_link(ids, flags, remote))
            }
            Record::Boxed(PackedBox(link), state_cut) => self.insert_boxed(link, state_cut),
        }
    }

    #[cold]
    pub(super) fn insert_boxed(&mut self, link: Box<Link>, state_cut: bool) -> Outcome {
        let context = &link.span_context;
        let sampled = context.trace_flags().is_sampled() || !context.is_valid();
        let identified = context.trace_id() != TraceId::INVALID;
        let context = Admitted { ids: Ids::of(context), sampled, identified, state_cut };
        self.admit::<false>(context, || *link)
    }

    #[cold]
    pub(super) fn insert_invalid(&mut self, link: Link) -> Outcome {
        if !self.policy.invalid.keeps(&link) {
            return self.count_invalid();
        }
        self.reserve(self.last.max(DEFAULT_MAX_LINKS));
        self.insert_record(Record::from_link(link).0)
    }

    /// Decides on a context that is valid or to be kept. Always inlined: a link that is passed on
    /// through memory costs more than all the rest.
    #[inline(always)]
    pub(super) fn admit<const SIMPLE: bool>(
        &mut self,
        context: Admitted,
        link: impl FnOnce() -> Link,
    ) -> Outcome {
        let Admitted { ids, sampled, identified, state_cut } = context;
        self.counts.received += 1;
        if self.policy.unsampled == Unsampled::Drop && !sampled {
            self.counts.unsampled += 1;
            return Outcome::Unsampled;
        }
        if !SIMPLE && self.selection.is_some() {
            return self.select(&context, link());
        }
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
        // Written in place.
        self.links.push(link());
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
