//! What went in and what came out, by our own count.

use crate::common::number;
use batchlink::{LinkBatch, Stats, Trigger};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

/// What one producer thread pushed. Sequentially consistent: the counts of one thread are read by
/// another in the order in which they were written.
#[derive(Default)]
pub(crate) struct Pushed {
    begun: AtomicU64,
    accepted: AtomicU64,
    /// Full or closed: `push_all` does not say which.
    refused: AtomicU64,
    invalid: AtomicU64,
    unsampled: AtomicU64,
    /// Sum of the accepted contexts' [`mark`]s.
    marks: AtomicU64,
}

/// The sum of several [`Pushed`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct PushedSum {
    begun: u64,
    pub(crate) accepted: u64,
    pub(crate) refused: u64,
    pub(crate) invalid: u64,
    unsampled: u64,
    marks: u64,
}

/// What the handler was given.
#[derive(Default)]
pub(crate) struct Handled {
    pub(crate) batches: AtomicU64,
    pub(crate) received: AtomicU64,
    pub(crate) linked: AtomicU64,
    unsampled: AtomicU64,
    panics: AtomicU64,
    marks: AtomicU64,
    wrong: Mutex<Option<String>>,
}

/// A number that no sum of a few others gives by chance.
pub(crate) fn mark(number: u64) -> u64 {
    let mixed = (number ^ number >> 31).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    mixed ^ mixed >> 29
}

pub(crate) fn ensure(holds: bool, what: impl FnOnce() -> String) -> Result<(), String> {
    if holds { Ok(()) } else { Err(what()) }
}

fn add(counter: &AtomicU64, count: u64) {
    counter.fetch_add(count, Ordering::SeqCst);
}

fn get(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::SeqCst)
}

impl Pushed {
    pub(crate) fn begin(&self, contexts: u64) {
        add(&self.begun, contexts);
    }

    pub(crate) fn invalid(&self, contexts: u64) {
        add(&self.invalid, contexts);
    }

    pub(crate) fn accepted(&self, number: u64, sampled: bool) {
        add(&self.accepted, 1);
        add(&self.marks, mark(number));
        add(&self.unsampled, u64::from(!sampled));
    }

    pub(crate) fn refused(&self, contexts: u64) {
        add(&self.refused, contexts);
    }
}

impl PushedSum {
    pub(crate) fn of<'a>(tallies: impl Iterator<Item = &'a Pushed> + Clone) -> Self {
        let sum = |field: fn(&Pushed) -> &AtomicU64| {
            tallies.clone().fold(0_u64, |sum, tally| sum.wrapping_add(get(field(tally))))
        };
        let (accepted, refused) = (sum(|t| &t.accepted), sum(|t| &t.refused));
        let (invalid, unsampled, marks) =
            (sum(|t| &t.invalid), sum(|t| &t.unsampled), sum(|t| &t.marks));
        // Last: whatever is not yet among the others has begun.
        Self { begun: sum(|t| &t.begun), accepted, refused, invalid, unsampled, marks }
    }

    fn done(&self) -> u64 {
        self.accepted + self.refused + self.invalid
    }

    /// While threads push: what was done before a look at the collector is in its counters, and
    /// what is in its counters has begun by now.
    pub(crate) fn check_around(before: &Self, stats: &Stats, after: &Self) -> Result<(), String> {
        let open = after.begun - after.done();
        let holds =
            |least: u64, counted: u64, most: u64| least <= counted && counted <= most + open;
        let all = holds(before.accepted, stats.accepted(), after.accepted)
            && holds(
                before.refused,
                stats.rejected_full() + stats.rejected_closed(),
                after.refused,
            )
            && holds(before.invalid, stats.invalid(), after.invalid)
            && stats.pushed() <= after.begun;
        ensure(all, || format!("the counters ran off:\n  {before:?}\n  {stats:?}\n  {after:?}"))
    }

    /// While no thread pushes.
    pub(crate) fn check(&self, stats: &Stats) -> Result<(), String> {
        let refused = stats.rejected_full() + stats.rejected_closed();
        let counted = [stats.accepted(), refused, stats.invalid(), stats.pushed()];
        let own = [self.accepted, self.refused, self.invalid, self.begun];
        ensure(counted == own, || format!("pushes were miscounted:\n  {self:?}\n  {stats:?}"))
    }
}

impl Handled {
    /// Checks a batch and counts it. How many there were before it.
    pub(crate) fn take(&self, batch: &LinkBatch, batch_size: usize, max_links: usize) -> u64 {
        let counts = batch.counts();
        let sum = counts.linked
            + counts.duplicates
            + counts.truncated
            + counts.invalid
            + counts.unsampled;
        let full = counts.received == batch_size as u64;
        let fits = 0 < counts.received && counts.received <= batch_size as u64;
        let size_is_exact = batch.trigger() != Trigger::Size || full;
        let bounded =
            batch.links().len() <= max_links && batch.links().len() as u64 == counts.linked;
        if counts.received != sum || !fits || !size_is_exact || !bounded {
            self.report(format!("a batch does not add up: {counts:?}, {}", batch.trigger()));
        }
        let marks =
            batch.links().iter().fold(0_u64, |sum, link| sum.wrapping_add(mark(number(link))));
        add(&self.received, counts.received);
        add(&self.linked, counts.linked);
        add(&self.unsampled, counts.unsampled);
        add(&self.marks, marks);
        self.batches.fetch_add(1, Ordering::SeqCst)
    }

    pub(crate) fn panics(&self) {
        add(&self.panics, 1);
    }

    pub(crate) fn report(&self, what: String) {
        self.wrong.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(what);
    }

    pub(crate) fn verdict(&self) -> Result<(), String> {
        self.wrong.lock().unwrap_or_else(PoisonError::into_inner).take().map_or(Ok(()), Err)
    }

    /// After the end: everything accepted has come, once.
    pub(crate) fn check(
        &self,
        pushed: &PushedSum,
        stats: &Stats,
        exact: bool,
    ) -> Result<(), String> {
        self.verdict()?;
        pushed.check(stats)?;
        let came = [get(&self.received), stats.received(), pushed.accepted];
        ensure(came == [pushed.accepted; 3] && stats.pending() == 0, || {
            format!("{} of {} accepted contexts came:\n  {stats:?}", came[0], pushed.accepted)
        })?;
        let counted = [
            stats.counts().linked,
            stats.batches(),
            stats.counts().unsampled,
            stats.handler_panics(),
        ];
        let own = [get(&self.linked), get(&self.batches), get(&self.unsampled), get(&self.panics)];
        ensure(counted == own && own[2] == pushed.unsampled, || {
            format!("batches were miscounted: {own:?} and {pushed:?}\n  {stats:?}")
        })?;
        let marks = get(&self.marks);
        ensure(!exact || (stats.counts().linked, marks) == (pushed.accepted, pushed.marks), || {
            format!("other contexts were linked than accepted: {pushed:?}\n  {stats:?}")
        })
    }
}
