//! What the lanes have in common: totals, the memory that is allowed, the first thing that went
//! wrong.

use crate::memory;
use batchlink::Stats;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Sums over collectors that have ended.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Figures {
    pub(crate) collectors: u64,
    pub(crate) contexts: u64,
    pub(crate) accepted: u64,
    pub(crate) received: u64,
    pub(crate) batches: u64,
    pub(crate) links: u64,
    pub(crate) duplicates: u64,
    pub(crate) truncated: u64,
    pub(crate) unsampled: u64,
    pub(crate) invalid: u64,
    pub(crate) refused: u64,
    pub(crate) panics: u64,
}

impl Figures {
    pub(crate) fn of(stats: &Stats) -> Self {
        Self {
            collectors: 1,
            contexts: stats.pushed(),
            accepted: stats.accepted(),
            received: stats.received(),
            batches: stats.batches(),
            links: stats.counts().linked,
            duplicates: stats.counts().duplicates,
            truncated: stats.counts().truncated,
            unsampled: stats.counts().unsampled,
            invalid: stats.invalid(),
            refused: stats.rejected_full() + stats.rejected_closed(),
            panics: stats.handler_panics(),
        }
    }

    fn add(&mut self, other: &Self) {
        self.collectors += other.collectors;
        self.contexts += other.contexts;
        self.accepted += other.accepted;
        self.received += other.received;
        self.batches += other.batches;
        self.links += other.links;
        self.duplicates += other.duplicates;
        self.truncated += other.truncated;
        self.unsampled += other.unsampled;
        self.invalid += other.invalid;
        self.refused += other.refused;
        self.panics += other.panics;
    }
}

/// Bytes held at most at once, and the bound that applied to them.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Memory {
    pub(crate) peak: usize,
    pub(crate) bound: usize,
}

pub(crate) struct Shared {
    /// Per lane: what its collector may hold now, and the most of that since the last look.
    allowed: Mutex<Vec<(usize, usize)>>,
    figures: Mutex<Figures>,
    failure: Mutex<Option<String>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    pub(crate) fn new(lanes: usize) -> Self {
        Self {
            allowed: Mutex::new(vec![(0, 0); lanes]),
            figures: Mutex::default(),
            failure: Mutex::default(),
        }
    }

    /// Before a collector is built, and with 0 after it is gone.
    pub(crate) fn allow(&self, lane: usize, bytes: usize) {
        let (now, most) = &mut lock(&self.allowed)[lane];
        *now = bytes;
        *most = bytes.max(*most);
    }

    /// Peak and bound since the last look. Both under one lock, so that they are of the same time.
    pub(crate) fn memory(&self) -> Memory {
        let mut allowed = lock(&self.allowed);
        let peak = memory::take_peak();
        let bound = allowed.iter().map(|(_, most)| most).sum();
        allowed.iter_mut().for_each(|(now, most)| *most = *now);
        Memory { peak, bound }
    }

    pub(crate) fn add(&self, figures: &Figures) {
        lock(&self.figures).add(figures);
    }

    pub(crate) fn figures(&self) -> Figures {
        *lock(&self.figures)
    }

    pub(crate) fn fail(&self, what: String) {
        lock(&self.failure).get_or_insert(what);
    }

    pub(crate) fn has_failed(&self) -> bool {
        lock(&self.failure).is_some()
    }

    pub(crate) fn verdict(&self) -> Result<(), String> {
        lock(&self.failure).take().map_or(Ok(()), Err)
    }
}
