//! When to flush: at exactly the `max_batch_size`-th pending context, after `max_delay`, or when
//! asked. And how the flusher hears of it.
//!
//! **The idea.** Producers may claim up to their shard's limit without telling anybody. Limits are
//! handed out so that all of them together stay one short of the batch size; hence the context
//! that completes a batch had to claim past a limit, and whoever claims past a limit reports.
//!
//! **What the flusher has been told** since it last drained: *nothing* → *armed* (something is
//! pending: start the timer) → *fired* (a batch is complete: come and take it). Draining takes it
//! back to *nothing*. Every message is a hint: the flusher decides from what it finds in the
//! rings, so a stale one costs a look, never an early batch.
//!
//! **One coordinator.** Reports are handled by whoever finds nobody handling them; everybody else
//! leaves a note and goes on. The coordinator leaves only when no note is left, so a report is
//! never lost and nobody waits. A report comes *after* the publication it tells of.
//!
//! **A scan** counts what is pending, tells the flusher, then sets the limits. A tail that is found
//! past its new limit moved under the old one, unseen: the scan starts over. When it ends, every
//! shard stands at or below its limit, and the limits leave room for `size − 1` pending contexts
//! in all, or the flusher has been told to come.

use crate::panic::caught;
use crate::queue::ring::{Ring, Snapshot};
use crate::queue::steps::{Step, count};
use crate::sync::unmodelled;
use crate::sync::{AtomicBool, AtomicU8, AtomicU64, AtomicWaker, Clock, Ordering};
use arrayvec::ArrayVec;

/// The most shards of one collector: a scan keeps its snapshots on the stack.
pub(crate) const MAX_SHARDS: usize = 128;

/// Values of `Trigger::told`, in the order in which the flusher is told.
const NOTHING: u8 = 0;
const ARMED: u8 = 1;
const FIRED: u8 = 2;

/// Bits of `Trigger::coordinator`; 0: nobody coordinates.
const REPORTED: u8 = 1;
const DRAINED: u8 = 2;
const BUSY: u8 = 4;

/// Wakes the one flusher, which registers a waker before it looks: its thread's, or its task's.
/// Lock-free, as far as the waker is.
#[derive(Debug)]
pub(crate) struct Signal {
    pub(crate) waker: AtomicWaker,
}

impl Signal {
    fn new() -> Self {
        Self { waker: AtomicWaker::new() }
    }

    pub(crate) fn notify(&self) {
        count(Step::Notification);
        // A waker is the user's code, and this thread may be coordinating: its panic must not
        // leave the role taken.
        let _ = caught(|| self.waker.wake());
    }
}

/// How busy a shard was lately; written and read by the coordinator alone.
#[derive(Debug)]
struct Share {
    /// Contexts that came between the last two drains.
    rate: unmodelled::AtomicU32,
    /// Tail at the last drain.
    tail: unmodelled::AtomicU64,
}

/// The trigger of one collector.
#[derive(Debug)]
pub(crate) struct TriggerState {
    /// Contexts that make a batch; at least 1.
    size: u32,
    /// [`REPORTED`], [`DRAINED`], [`BUSY`]. Set bits are notes for the coordinator.
    coordinator: AtomicU8,
    /// [`NOTHING`], [`ARMED`] or [`FIRED`]; written by the coordinator alone.
    told: AtomicU8,
    /// When a push was reported of which the flusher had been told nothing (see [`Clock`]). Written by
    /// the coordinator alone. It lets the delay begin with the first context, not with the flusher's
    /// last look, which may be long ago.
    armed_at: AtomicU64,
    /// Somebody asked for a flush and the flusher has not taken notice yet.
    flush_asked: AtomicBool,
    shares: Box<[Share]>,
    pub(crate) signal: Signal,
    pub(crate) clock: Clock,
}

impl TriggerState {
    pub(crate) fn new<T>(size: u32, rings: &[Ring<T>]) -> Self {
        let shares = rings.iter().map(|ring| Share {
            rate: unmodelled::AtomicU32::new(0),
            tail: unmodelled::AtomicU64::new(ring.snapshot().tail),
        });
        Self {
            size,
            coordinator: AtomicU8::new(0),
            told: AtomicU8::new(NOTHING),
            armed_at: AtomicU64::new(0),
            flush_asked: AtomicBool::new(false),
            shares: shares.collect(),
            signal: Signal::new(),
            clock: Clock::new(),
        }
    }

    /// A producer claimed past its limit and has published.
    #[cold]
    #[inline(never)]
    pub(crate) fn report<T>(&self, rings: &[Ring<T>]) {
        // Release: the claim happens before the scan of whoever reads this note.
        // Acquire: pairs with the Release that ends a coordination; `told`, read below, is then not
        // older than that. (A coordinator's swap acquires for itself.)
        count(Step::Coordination);
        // A read-modify-write even if the note is there already: it orders this report before
        // the coordinator's next swap, which therefore sees this claim.
        let notes = self.coordinator.fetch_or(REPORTED, Ordering::AcqRel);
        if notes == 0 {
            // Before the scan, which may be held up; and only by who reports: what is found pending after
            // a drain came after the flusher's last look, whose time the flusher knows.
            if self.told.load(Ordering::Relaxed) == NOTHING {
                self.armed_at.store(self.clock.now(), Ordering::Relaxed);
            }
            self.coordinate(rings, true);
        } else if self.told.load(Ordering::Relaxed) == NOTHING {
            // Whoever coordinates may have been suspended before it could tell: then nobody has
            // started the timer for the context reported here.
            self.signal.notify();
        }
    }

    /// The flusher has drained and is about to look again.
    pub(crate) fn drained<T>(&self, rings: &[Ring<T>]) {
        count(Step::Coordination);
        // Release: as in `report`; what the next scan must see is the new heads. The swap that
        // follows acquires.
        if self.coordinator.fetch_or(DRAINED, Ordering::Release) == 0 {
            // The flusher looks before it sleeps: it need not wake itself.
            self.coordinate(rings, false);
        }
    }

    /// Whether somebody coordinates. If so the limits may be old ones, under which producers can
    /// pass without a word; if not, the next push after an empty look reports.
    pub(crate) fn is_busy(&self) -> bool {
        // Relaxed: nothing is read under it. This thread's own note comes before, so 0 means that
        // a scan has handled it; a push that the last look missed either came before that scan,
        // which then wakes the flusher, or meets its limits.
        self.coordinator.load(Ordering::Relaxed) != 0
    }

    fn coordinate<T>(&self, rings: &[Ring<T>], wake: bool) {
        loop {
            // The swap below and the exchange at the end.
            count(Step::Coordination);
            count(Step::Coordination);
            // Acquire: pairs with the Release of every `fetch_or` whose note is taken here.
            let notes = self.coordinator.swap(BUSY, Ordering::Acquire);
            if notes & DRAINED != 0 {
                self.told.store(NOTHING, Ordering::Relaxed);
                self.measure_rates(rings);
            }
            while !self.scan(rings, wake) {}
            // Release: hands `told` and `shares` to the next coordinator. Fails if there is a
            // note: then it is ours to handle.
            if self.coordinator.compare_exchange(BUSY, 0, Ordering::Release, Ordering::Relaxed).is_ok() {
                return;
            }
        }
    }

    /// One scan. False if somebody passed a limit unseen meanwhile.
    fn scan<T>(&self, rings: &[Ring<T>], wake: bool) -> bool {
        count(Step::Scan);
        let snapshots: ArrayVec<Snapshot, MAX_SHARDS> = rings.iter().map(|ring| ring.snapshot()).collect();
        let pending = snapshots.iter().map(|shard| u64::from(shard.pending())).sum::<u64>();
        // Before the limits: a producer that passes quietly must find the flusher told, even
        // if this thread is suspended in between.
        self.tell(pending, wake);
        let mut all_seen = true;
        if pending == 0 {
            for (ring, shard) in rings.iter().zip(&snapshots) {
                all_seen &= ring.allow(shard.tail);
            }
        } else if pending >= u64::from(self.size) {
            for (ring, shard) in rings.iter().zip(&snapshots) {
                all_seen &= ring.allow(shard.head + u64::from(ring.capacity()));
            }
        } else {
            // Below `size`, so it fits.
            let spare = self.size - 1 - pending as u32;
            for ((ring, shard), allowance) in rings.iter().zip(&snapshots).zip(self.divide(spare, &snapshots))
            {
                all_seen &= ring.allow(shard.tail + u64::from(allowance));
            }
        }
        all_seen
    }

    /// Tells the flusher what it does not know yet.
    fn tell(&self, pending: u64, wake: bool) {
        let news = match pending {
            0 => return,
            _ if pending >= u64::from(self.size) => FIRED,
            _ => ARMED,
        };
        if news <= self.told.load(Ordering::Relaxed) {
            return;
        }
        if wake {
            self.signal.notify();
        }
        // Last: until it is stored, other reporters wake the flusher themselves.
        self.told.store(news, Ordering::Relaxed);
    }

    /// Divides `spare` among the shards: in proportion to how many contexts each had lately, so
    /// that they run into their limits as late, and as rarely, as possible. Any division is
    /// correct as long as its sum is not above `spare`.
    fn divide(&self, spare: u32, snapshots: &[Snapshot]) -> ArrayVec<u32, MAX_SHARDS> {
        let weights: ArrayVec<u64, MAX_SHARDS> = self
            .shares
            .iter()
            .zip(snapshots)
            .map(|(share, shard)| u64::from(share.rate.load(Ordering::Relaxed)) + u64::from(shard.pending()))
            .collect();
        // Not 0: something is pending when limits are divided.
        let total = weights.iter().sum::<u64>().max(1);
        // Fixed point, rounded down: one division in all. No product is above spare · 2³¹.
        let per_weight = (u64::from(spare) << 31) / total;
        let mut left = spare;
        let mut allowances: ArrayVec<u32, MAX_SHARDS> = weights
            .iter()
            .map(|weight| {
                let allowance = ((weight * per_weight) >> 31) as u32;
                left -= allowance;
                allowance
            })
            .collect();
        // What rounding left over goes one by one to the shards that are due: first those that are
        // behind the one with the most pending.
        let most = snapshots.iter().map(|shard| shard.pending()).max().unwrap_or(0);
        for behind in [true, false] {
            for ((allowance, weight), shard) in allowances.iter_mut().zip(&weights).zip(snapshots) {
                if left > 0 && *weight > 0 && (shard.pending() < most) == behind {
                    *allowance += 1;
                    left -= 1;
                }
            }
        }
        allowances
    }

    fn measure_rates<T>(&self, rings: &[Ring<T>]) {
        for (share, ring) in self.shares.iter().zip(rings) {
            let tail = ring.snapshot().tail;
            let arrived = tail - share.tail.load(Ordering::Relaxed);
            share.rate.store(u32::try_from(arrived).unwrap_or(u32::MAX), Ordering::Relaxed);
            share.tail.store(tail, Ordering::Relaxed);
        }
    }

    /// When something was last pending of which the flusher had not been told; 0: never.
    pub(crate) fn armed_at(&self) -> u64 {
        self.armed_at.load(Ordering::Relaxed)
    }

    /// Asks the flusher to deliver what is pending now.
    pub(crate) fn ask_flush(&self) {
        // Release: pairs with the Acquire in `take_flush_request`; the flusher then finds
        // everything that was pushed before. A read-modify-write, so that it continues the release
        // sequence of one who asked before and whom the flusher has not heard yet.
        self.flush_asked.swap(true, Ordering::Release);
        self.signal.notify();
    }

    /// True once per request (several at once count as one).
    pub(crate) fn take_flush_request(&self) -> bool {
        // The load keeps the common case free of a read-modify-write.
        // Acquire: pairs with the Release in `ask_flush`.
        self.flush_asked.load(Ordering::Relaxed) && self.flush_asked.swap(false, Ordering::Acquire)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    impl TriggerState {
        /// As a coordinator leaves it that was suspended.
        pub(crate) fn pretend_to_coordinate(&self) {
            self.coordinator.store(BUSY, Ordering::Relaxed);
        }

        fn rates(&self) -> Vec<u32> {
            self.shares.iter().map(|share| share.rate.load(Ordering::Relaxed)).collect()
        }
    }

    /// While the coordinator is suspended every report wakes the flusher, unless it was told.
    #[test]
    fn a_report_wakes_the_flusher_if_the_coordinator_may_not_have() {
        use std::sync::Arc;
        use std::sync::atomic::AtomicUsize;
        use std::task::{Wake, Waker};

        struct Wakes(AtomicUsize);
        impl Wake for Wakes {
            fn wake(self: Arc<Self>) {
                self.0.fetch_add(1, Ordering::Relaxed);
            }
        }

        let (rings, _consumers) = Ring::<()>::shards(1, 8);
        for (notes, told, woken) in [
            (BUSY, NOTHING, 1),
            (BUSY | DRAINED, NOTHING, 1),
            (REPORTED, NOTHING, 1),
            (DRAINED, NOTHING, 1),
            (BUSY | REPORTED, NOTHING, 1),
            (BUSY | REPORTED | DRAINED, NOTHING, 1),
            (BUSY, ARMED, 0),
            (BUSY, FIRED, 0),
        ] {
            let trigger = TriggerState::new(8, &rings);
            trigger.coordinator.store(notes, Ordering::Relaxed);
            trigger.told.store(told, Ordering::Relaxed);
            let wakes = Arc::new(Wakes(AtomicUsize::new(0)));
            trigger.signal.waker.register(&Waker::from(Arc::clone(&wakes)));
            trigger.report(&rings);
            assert_eq!(wakes.0.load(Ordering::Relaxed), woken, "notes {notes:03b}, told {told}");
            assert!(trigger.is_busy());
            assert_eq!(trigger.coordinator.load(Ordering::Relaxed), notes | REPORTED);
        }
        assert!(!TriggerState::new(8, &rings).is_busy());
    }

    /// In proportion to rate and pending; what rounding leaves goes to shards that are behind the
    /// fullest, then to the others, one each, and none to a shard that nobody uses.
    #[test]
    fn what_is_spare_is_divided_by_use() {
        for (rates, pending, spare, expected) in [
            (&[30, 10][..], &[0, 10_u32][..], 10, &[6, 4][..]),
            (&[3, 1], &[0, 1], 5, &[3, 2]),
            (&[0, 10, 10], &[0, 0, 1], 2, &[0, 1, 1]),
            (&[10, 10], &[1, 0], 2, &[1, 1]),
            (&[5, 5], &[1, 1], 0, &[0, 0]),
        ] {
            let (rings, _consumers) = Ring::<()>::shards(rates.len(), 64);
            let trigger = TriggerState::new(64, &rings);
            for (share, rate) in trigger.shares.iter().zip(rates) {
                share.rate.store(*rate, Ordering::Relaxed);
            }
            let snapshots: Vec<_> =
                pending.iter().map(|&pending| Snapshot { head: 5, tail: 5 + u64::from(pending) }).collect();
            let allowances = trigger.divide(spare, &snapshots);
            assert_eq!(
                allowances.as_slice(),
                expected,
                "rates {rates:?}, pending {pending:?}, spare {spare}"
            );
        }
    }

    #[test]
    fn a_rate_is_what_came_between_two_drains() {
        let (rings, _consumers) = Ring::<()>::shards(2, 64);
        let trigger = TriggerState::new(64, &rings);
        for (counts, rates) in [([3, 0], [3, 0]), ([0, 1], [0, 1]), ([0, 0], [0, 0])] {
            for (ring, count) in rings.iter().zip(counts) {
                for _ in 0..count {
                    let _ = ring.claim(1).expect("room").publish(|| ());
                }
            }
            trigger.drained(&rings);
            assert_eq!(trigger.rates(), rates);
        }
    }
}
