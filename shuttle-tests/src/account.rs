//! What a scenario must leave behind: everything accounted for, and nothing else.

use crate::common::choices::mark;
use crate::common::{assert_account, assert_stats, oracle};
use crate::producers::{Case, Log};
use batchlink::{Dedup, LinkBatch, Stats, Trigger, Unsampled};
use std::fmt;
use std::sync::{Arc, PoisonError};

const TRIGGERS: [Trigger; 4] =
    [Trigger::Size, Trigger::Timeout, Trigger::Manual, Trigger::Shutdown];

/// What came of schedules, all together.
#[derive(Default)]
pub struct Totals {
    pub schedules: u64,
    pub lanes: u64,
    pub accepted: u64,
    pub pending: u64,
    pub full: u64,
    pub closed: u64,
    /// Batches by trigger, in the order of [`TRIGGERS`].
    batches: [u64; 4],
}

impl Totals {
    pub fn batches(&self, trigger: Trigger) -> u64 {
        TRIGGERS
            .iter()
            .zip(self.batches)
            .filter(|(one, _)| **one == trigger)
            .map(|(_, count)| count)
            .sum()
    }

    pub(crate) fn add(&mut self, other: &Self) {
        self.schedules += other.schedules;
        self.lanes += other.lanes;
        self.accepted += other.accepted;
        self.pending += other.pending;
        self.full += other.full;
        self.closed += other.closed;
        self.batches.iter_mut().zip(other.batches).for_each(|(count, more)| *count += more);
    }
}

impl fmt::Display for Totals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { schedules, lanes, accepted, pending, full, closed, batches } = self;
        let [size, timeout, manual, shutdown] = batches;
        write!(
            f,
            "{schedules} schedules, {lanes} lanes, {accepted} accepted, {pending} left pending, "
        )?;
        write!(
            f,
            "{full} full, {closed} closed; batches by size {size}, timeout {timeout}, \
             manual {manual}, "
        )?;
        write!(f, "shutdown {shutdown}")
    }
}

impl Case {
    /// The account at the end, when all handles, flusher and lanes are gone: `batches` are all that
    /// were delivered, each for one of the `allowed` reasons; what is not in them is pending.
    pub fn settle(
        self: Arc<Self>,
        batches: Vec<LinkBatch>,
        stats: Stats,
        allowed: &[Trigger],
    ) -> Totals {
        let logs = std::mem::take(&mut *self.logs.lock().unwrap_or_else(PoisonError::into_inner));
        let sum = |part: fn(&Log) -> u64| logs.iter().map(part).sum::<u64>();
        let accepted = sum(|log| log.accepted.len() as u64);
        // `push_all` does not say why it refuses.
        let (full, refused) = (stats.rejected_full(), sum(|log| log.refused));
        let known = sum(|log| log.full);
        assert!(
            (known..=known + refused).contains(&full),
            "{full} full, {known} known, {refused} refused"
        );
        let closed = known + refused - full + sum(|log| log.closed);
        assert_stats(&stats, accepted, full, closed, sum(|log| log.invalid));

        // Lane by lane, the batches hold what was accepted, in its order. Of the size one, since
        // it cannot be said of how many contexts a flush or a timeout makes a batch.
        let lanes = logs.len();
        let mut queues = oracle::Collector::new(1, usize::MAX, lanes);
        for (lane, log) in logs.into_iter().enumerate() {
            log.accepted.into_iter().for_each(|link| assert_eq!(queues.push(lane, link), Ok(())));
        }
        let mut links = oracle::LinkSet::new(oracle::Policy {
            max_links: self.size,
            dedup: Dedup::Off,
            unsampled: Unsampled::Keep,
            link_type: None,
            ..oracle::Policy::default()
        });
        let mut by_trigger = [0; 4];
        for batch in &batches {
            for link in batch.links() {
                queues
                    .take([mark(&link.span_context)])
                    .into_iter()
                    .for_each(|link| _ = links.insert(link));
            }
            let (expected, counts) = links.finish();
            assert_eq!((batch.counts(), batch.links()), (counts, &*expected));
            assert_account(batch);
            let sizes = if batch.trigger() == Trigger::Size { self.size } else { 1 }..=self.size;
            assert!(sizes.contains(&(batch.received() as usize)), "{batch:?} of {sizes:?}");
            assert!(
                allowed.contains(&batch.trigger()),
                "{:?} is none of {allowed:?}",
                batch.trigger()
            );
            by_trigger
                [TRIGGERS.iter().position(|one| *one == batch.trigger()).expect("one of four")] +=
                1;
        }
        assert_eq!(stats.pending(), queues.pending() as u64, "neither in a batch nor pending");
        for (trigger, count) in TRIGGERS.into_iter().zip(by_trigger) {
            assert_eq!(stats.flushes(trigger), count, "{trigger}");
        }
        drop((batches, queues, links));
        assert_eq!(Arc::strong_count(&self.payload), 1, "each link is dropped once");
        Totals {
            schedules: 1,
            lanes: lanes as u64,
            accepted,
            pending: stats.pending(),
            full,
            closed,
            batches: by_trigger,
        }
    }
}
