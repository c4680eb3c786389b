//! When to flush: at exactly the `max_batch_size`-th pending entry, after `max_delay`, or on
//! request.
//!
//! **The idea.** Producers may claim up to their shard's limit without reporting. Limits are
//! divided so that all allowances together stay one short of the batch size. Hence the entry that
//! completes a batch had to be claimed past a limit, and a claim past a limit is reported.
//!
//! **The level** says what the flusher was woken for since its last drain: *idle* → *armed*
//! (something is pending: start the timer) → *fired* (a batch is complete: take it). A drain lowers
//! it to *idle*, or under load to *timed*: the flusher's timer runs anyway, and *armed* needs no
//! wake-up. Every wake-up is a hint: the flusher decides from what it finds in the rings, so a
//! stale wake-up costs a poll, never an early batch.
//!
//! **One coordinator.** A report that finds no coordinator makes its thread the coordinator; any
//! other report sets a pending flag and returns. The coordinator leaves only when no flag is
//! pending, so no report is lost and no thread waits. A report comes *after* the publication of its
//! entry.
//!
//! **A scan** counts what is pending, raises the level, then sets the limits. A tail found past its
//! new limit moved under the old one, unreported: the scan starts over. When it ends, every shard
//! is within its limit, and the allowances sum to at most `size − 1 − pending`, or the level is
//! *fired*.

use crate::panic::caught;
use crate::queue::ring::{Entry, Ring, Snapshot};
use crate::queue::steps::{Counter, count};
use crate::sync::unmodelled;
use crate::sync::{AtomicBool, AtomicU8, AtomicWaker, Clock, Ordering};
use arrayvec::ArrayVec;

/// The most shards of one queue: a scan keeps its snapshots on the stack.
pub(crate) const MAX_SHARDS: usize = 128;

/// Values of [`TriggerState::level`], in rising order.
const IDLE: u8 = 0;
const TIMED: u8 = 1;
const ARMED: u8 = 2;
const FIRED: u8 = 3;

/// Flags of [`TriggerState::coordinator`]; 0: there is no coordinator.
const REPORTED: u8 = 1;
const DRAINED: u8 = 2;
const BUSY: u8 = 4;

/// Decides when the flusher is woken, and how far producers may claim without a report.
#[derive(Debug)]
pub(crate) struct TriggerState {
    /// Entries that make a batch; at least 1.
    size: u32,
    /// [`BUSY`] while a thread coordinates; [`REPORTED`] and [`DRAINED`] are pending for it.
    coordinator: AtomicU8,
    /// [`IDLE`], [`TIMED`], [`ARMED`] or [`FIRED`]; written by the coordinator alone.
    level: AtomicU8,
    /// Whether the flusher's timer runs though nothing may be pending. Written by the flusher,
    /// before the flag of its drain.
    timed: AtomicBool,
    /// When a push was last reported below level [`ARMED`] (see [`Clock`]); 0: never. Written by
    /// reporting producers, by maximum; read by the flusher. It lets the delay begin with the first
    /// entry, not with the flusher's last poll, which may be long ago.
    armed_at: unmodelled::AtomicU64,
    /// A flush was requested and the flusher has not taken the request yet.
    flush_requested: AtomicBool,
    shares: Box<[Share]>,
    pub(crate) signal: Signal,
    pub(crate) clock: Clock,
}

/// Wakes the one flusher, which registers a waker before it polls: its thread's, or its task's.
/// Lock-free, as far as the waker is.
#[derive(Debug)]
pub(crate) struct Signal {
    pub(crate) waker: AtomicWaker,
}

/// How busy a shard was lately; written and read by the coordinator alone.
#[derive(Debug)]
struct Share {
    /// Entries claimed between the last two drains.
    rate: unmodelled::AtomicU32,
    /// The tail at the last drain.
    tail: unmodelled::AtomicU64,
}

impl Signal {
    pub(crate) fn notify(&self) {
        count(Counter::Notification);
        // A waker is the user's code, and this thread may be coordinating: a panic must not leave
        // the role taken.
        let _ = caught(|| self.waker.wake());
    }
}

impl TriggerState {
    pub(crate) fn new<T: Entry>(size: u32, rings: &[Ring<T>]) -> Self {
        let shares = rings.iter().map(|ring| Share {
            rate: unmodelled::AtomicU32::new(0),
            tail: unmodelled::AtomicU64::new(ring.snapshot().tail),
        });
        Self {
            size,
            coordinator: AtomicU8::new(0),
            level: AtomicU8::new(IDLE),
            timed: AtomicBool::new(false),
            armed_at: unmodelled::AtomicU64::new(0),
            flush_requested: AtomicBool::new(false),
            shares: shares.collect(),
            signal: Signal { waker: AtomicWaker::new() },
            clock: Clock::new(),
        }
    }

    /// Reports a claim past its limit, after its publication.
    #[cold]
    #[inline(never)]
    pub(crate) fn report<T: Entry>(&self, rings: &[Ring<T>]) {
        if self.announce() {
            self.coordinate(rings, true);
        }
    }

    /// The first half of a report. Returns true if this thread must coordinate now.
    // Invariants: armed-time, report-not-lost.
    pub(super) fn announce(&self) -> bool {
        // Before the flag is set, and by every reporter: this thread, or the coordinator, may then
        // be suspended for as long as it likes. By maximum: an older reading must not replace a
        // newer one.
        // Relaxed: the level is not older than the limit past which was claimed; the flusher takes
        // any value for a hint.
        if self.level.load(Ordering::Relaxed) < ARMED {
            count(Counter::Coordination);
            self.armed_at.fetch_max(self.clock.now(), Ordering::Relaxed);
        }
        count(Counter::Coordination);
        // Release: pairs with the Acquire of the coordinator's swap; the claim happens before the
        // scan.
        // Acquire: pairs with the Release that ends a coordination; `level`, read below, is then
        // not older than that. (A coordinator's swap acquires for itself.)
        // A read-modify-write even if the flag is set already: it orders this report before the
        // coordinator's next swap, which therefore sees this claim.
        let flags = self.coordinator.fetch_or(REPORTED, Ordering::AcqRel);
        if flags != 0 && self.level.load(Ordering::Relaxed) < ARMED {
            // The coordinator may have been suspended before it could raise the level. Then the
            // timer was not started for the entry reported here, and a later report may replace its
            // arming time before the flusher's own timer has it look.
            self.signal.notify();
        }
        flags == 0
    }

    /// Reports that the flusher has drained and is about to poll again. If `timed`, it will not
    /// sleep for longer than the delay before it drains again, or reports that it is not timed.
    // Invariant: timed-sleep.
    pub(crate) fn drained<T: Entry>(&self, rings: &[Ring<T>], timed: bool) {
        count(Counter::Coordination);
        // Relaxed: published by the flag. A coordinator that reads it before the flag acts on a
        // later intent of the flusher, which is awake now and will set the flag.
        self.timed.store(timed, Ordering::Relaxed);
        // Release: pairs with the Acquire of the coordinator's swap; the new heads happen before
        // the scan. Acquire is not needed: the swap that follows acquires.
        if self.coordinator.fetch_or(DRAINED, Ordering::Release) == 0 {
            // The flusher polls before it sleeps: it need not wake itself.
            self.coordinate(rings, false);
        }
    }

    /// Returns whether a thread coordinates. If so, the limits may be old ones, under which
    /// producers pass unreported; if not, the next push after a poll that found nothing reports.
    // Invariant: no-sleep-in-scan.
    pub(crate) fn is_busy(&self) -> bool {
        // Relaxed: nothing is read under it. This thread's own flag came before, so 0 means that a
        // scan has handled it. A push that the last poll missed either came before that scan, which
        // then wakes the flusher, or meets its limits.
        self.coordinator.load(Ordering::Relaxed) != 0
    }

    /// The second half of a report, for the one thread whose flag found none set.
    // Invariant: one-coordinator.
    pub(super) fn coordinate<T: Entry>(&self, rings: &[Ring<T>], wake: bool) {
        loop {
            // The swap below and the exchange at the end.
            count(Counter::Coordination);
            count(Counter::Coordination);
            // Acquire: pairs with the Release of every `fetch_or` whose flag is taken here.
            let flags = self.coordinator.swap(BUSY, Ordering::Acquire);
            let mut drained = flags & DRAINED != 0;
            if drained {
                // Invariant: drain-resets-level.
                let timed = self.timed.load(Ordering::Relaxed);
                self.level.store(if timed { TIMED } else { IDLE }, Ordering::Relaxed);
            }
            while !self.scan(rings, wake, std::mem::take(&mut drained)) {}
            // Release: hands `level` and `shares` to the next coordinator. Fails if a flag is
            // pending: it is this thread's to handle.
            if self
                .coordinator
                .compare_exchange(BUSY, 0, Ordering::Release, Ordering::Relaxed)
                .is_ok()
            {
                return;
            }
        }
    }

    /// Scans once. Returns false if a claim has passed a limit unreported meanwhile.
    // Invariants: raise-before-limits, limits-sum, rescan-if-passed.
    fn scan<T: Entry>(&self, rings: &[Ring<T>], wake: bool, drained: bool) -> bool {
        count(Counter::Scan);
        let snapshots: ArrayVec<Snapshot, MAX_SHARDS> =
            rings.iter().map(|ring| ring.snapshot()).collect();
        if drained {
            self.measure_rates(&snapshots);
        }
        let pending = snapshots.iter().map(|shard| u64::from(shard.pending())).sum::<u64>();
        // Before the limits: a producer that passes unreported must find the flusher woken, even if
        // this thread is suspended in between.
        self.raise(pending, wake);
        let mut within = true;
        if pending == 0 {
            for (ring, shard) in rings.iter().zip(&snapshots) {
                within &= ring.allow(shard.tail);
            }
        } else if pending >= u64::from(self.size) {
            // The others keep their limits, and their lines: a push there reports once.
            for ((ring, shard), weight) in rings.iter().zip(&snapshots).zip(self.weigh(&snapshots))
            {
                if weight > 0 {
                    within &= ring.allow(shard.head + u64::from(ring.capacity()));
                }
            }
        } else {
            // Below `size`, so it fits.
            let spare = self.size - 1 - pending as u32;
            for ((ring, shard), allowance) in
                rings.iter().zip(&snapshots).zip(self.divide(spare, &snapshots))
            {
                within &= ring.allow(shard.tail + u64::from(allowance));
            }
        }
        within
    }

    /// Raises the level to what `pending` entries call for, and wakes the flusher if that is
    /// higher.
    fn raise(&self, pending: u64, wake: bool) {
        let level = match pending {
            0 => return,
            _ if pending >= u64::from(self.size) => FIRED,
            _ => ARMED,
        };
        let former = self.level.load(Ordering::Relaxed);
        if level <= former {
            return;
        }
        // A timer that runs comes in time for what was just pushed.
        if wake && (former, level) != (TIMED, ARMED) {
            self.signal.notify();
        }
        // After the wake-up: until it is stored, other reporters wake the flusher themselves.
        self.level.store(level, Ordering::Relaxed);
    }

    /// Returns the entries of each shard of late; 0 if it is not in use.
    fn weigh<'a>(&'a self, snapshots: &'a [Snapshot]) -> impl Iterator<Item = u64> + 'a {
        self.shares.iter().zip(snapshots).map(|(share, shard)| {
            u64::from(share.rate.load(Ordering::Relaxed)) + u64::from(shard.pending())
        })
    }

    /// Divides `spare` among the shards in proportion to their entries of late, so that producers
    /// meet their limits as rarely as possible. Any division whose sum is at most `spare` is
    /// correct.
    fn divide(&self, spare: u32, snapshots: &[Snapshot]) -> ArrayVec<u32, MAX_SHARDS> {
        let weights: ArrayVec<u64, MAX_SHARDS> = self.weigh(snapshots).collect();
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
        // The remainder goes one by one to the shards in use: first to those that have fewer
        // pending than the fullest.
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

    /// Keeps how many entries each shard got since the last drain, if there were any.
    fn measure_rates(&self, snapshots: &[Snapshot]) {
        let unmoved =
            |(share, now): (&Share, &Snapshot)| now.tail == share.tail.load(Ordering::Relaxed);
        // The end of a timed sleep says nothing of the shards.
        if self.shares.iter().zip(snapshots).all(unmoved) {
            return;
        }
        for (share, Snapshot { tail, .. }) in self.shares.iter().zip(snapshots) {
            let claimed = tail - share.tail.load(Ordering::Relaxed);
            share.rate.store(u32::try_from(claimed).unwrap_or(u32::MAX), Ordering::Relaxed);
            share.tail.store(*tail, Ordering::Relaxed);
        }
    }

    /// Returns when a push was last reported below level *armed*; 0: never.
    pub(crate) fn armed_at(&self) -> u64 {
        // Relaxed: a hint. Missing the newest value makes a batch early, never late.
        self.armed_at.load(Ordering::Relaxed)
    }

    /// Asks the flusher to deliver what is pending now.
    pub(crate) fn ask_flush(&self) {
        // Release: pairs with the Acquire in `take_flush_request`; the flusher then finds
        // everything that was pushed before the request. A read-modify-write, so that it continues
        // the release sequence of an earlier request that the flusher has not taken yet.
        self.flush_requested.swap(true, Ordering::Release);
        self.signal.notify();
    }

    /// Takes the request, if there is one; several requests at once count as one.
    pub(crate) fn take_flush_request(&self) -> bool {
        // Relaxed: the load keeps the common case free of a read-modify-write.
        // Acquire: pairs with the Release in `ask_flush`.
        self.flush_requested.load(Ordering::Relaxed)
            && self.flush_requested.swap(false, Ordering::Acquire)
    }
}

#[cfg(test)]
mod tests;
