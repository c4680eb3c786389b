//! One shard: a bounded ring with many producers and one consumer.
//!
//! **Position.** A count of entries since the ring was made. Its low 31 bits name it in the
//! packed word, its low bits modulo the capacity name its slot.
//!
//! **One word** (`closed:1 | limit:31 | tail:31`) holds all that producers decide on. `tail`
//! is the next position to claim; `limit` is how far producers may claim without reporting.
//! Every write to the word is a read-modify-write (invariant `one-word`), so every release on it
//! heads a release sequence that reaches every later reader.
//!
//! **A slot's life.** *Free*, claimed by moving `tail` over it, *written*, *published* by storing
//! its position in `seq`, *taken* by the consumer, *free* again once `head` has moved over it.
//!
//! | step | ordering | partner |
//! |---|---|---|
//! | claim (fast) | word CAS, Acquire | Release of the word CAS in [`Ring::allow`] |
//! | claim (slow) | `head` load, Acquire, [`Ring::load_consistent`] | Release in [`Take`]'s drop |
//! | load | word load, Acquire | Release of both CASes that raise the limit |
//! | publish | `seq` store, Release | Acquire in [`Consumer::poll`] |
//! | take | `head` store, Release | `head` load, Acquire, [`Ring::load_consistent`] |
//! | make cells | `first` CAS, Release | `first` load, Acquire, [`Cells::at`] |
//!
//! This is the only module with `unsafe`.
#![allow(unsafe_code)]

use crate::error::PushError;
use crate::panic::caught;
use crate::queue::steps::{Counter, count};
use crate::queue::word::{MASK, Word, distance};
use crate::sync::{
    Arc, AtomicPtr, AtomicU32, AtomicU64, Ordering, UnsafeCell, arc_slice, unmodelled,
};
use crossbeam_utils::CachePadded;
use std::mem::MaybeUninit;
use std::{ptr, slice};

/// Set in `seq` so that a slot that was never used matches no position.
const PUBLISHED: u32 = 1 << 31;

/// The first position of every ring is just below the wrap-around of 31 bits: every test and every
/// user crosses it within the first few entries instead of after 2³¹ of them.
const FIRST: u64 = MASK as u64 - 1;

/// The most slots of one ring: half the span of positions, so that the order of any two live
/// positions is defined.
pub(crate) const MAX_CAPACITY: u32 = 1 << 30;

/// How many claims ahead a line is prefetched.
const AHEAD: u32 = 16;

/// What a ring holds.
pub(crate) trait Entry {
    /// What few entries have besides. It is kept beside the slot, so that the others stay small.
    type Beside: Send;
}

/// 32-byte alignment keeps a 32-byte slot within one cache line, two to the line.
#[repr(align(32))]
struct Slot<T> {
    /// Low 31 bits of the position published here, with [`PUBLISHED`] set; 0 before first use.
    /// Written by the producer that claimed the slot, read by the consumer.
    seq: AtomicU32,
    /// Written by the claimant between claim and publish; read once, by the consumer.
    value: UnsafeCell<MaybeUninit<T>>,
}

/// Pushes that did not enter the ring, by reason. Counted per shard: a counter for all would bring
/// back the shared cache line that sharding removed. Statistics only: `Relaxed`.
#[derive(Default)]
pub(crate) struct Refusals {
    pub(crate) full: unmodelled::AtomicU64,
    pub(crate) closed: unmodelled::AtomicU64,
    pub(crate) invalid: unmodelled::AtomicU64,
}

/// Prefetches the line of the slot [`AHEAD`] behind `slot` in memory, in a state in which it can be
/// written. Does nothing on other processors and under checkers.
///
/// The consumer read that line last. A claim is a locked instruction, which waits until earlier
/// stores have their lines; asked for in time, those waits overlap.
#[inline(always)]
fn prefetch_ahead<T>(slot: &Slot<T>) {
    #[allow(unused_imports)] // on other processors
    use std::arch::asm;
    // Not wrapped around at the end of the ring, where it is another allocation's line.
    let line = std::ptr::from_ref(slot).wrapping_add(AHEAD as usize).addr();
    // In assembly: `_mm_prefetch` compiles to the read form on baseline x86-64, and aarch64's is
    // not stable.
    // SAFETY: a prefetch is a hint; it reads and writes no memory, and faults at no address.
    #[cfg(all(target_arch = "x86_64", not(any(miri, batchlink_loom, batchlink_shuttle))))]
    unsafe {
        asm!("prefetchw [{}]", in(reg) line, options(nomem, nostack, preserves_flags));
    }
    // SAFETY: as above.
    #[cfg(all(target_arch = "aarch64", not(any(miri, batchlink_loom, batchlink_shuttle))))]
    unsafe {
        asm!("prfm pstl1keep, [{}]", in(reg) line, options(nomem, nostack, preserves_flags));
    }
    let _ = line;
}

/// The cells beside the slots, one for each, made when the first is needed. Invariant `one-owner`
/// holds for a cell as for its slot.
struct Cells<B> {
    /// The first of `count`; null until they are made.
    first: AtomicPtr<UnsafeCell<Option<B>>>,
    count: usize,
}

impl<B> Cells<B> {
    /// Makes the cells, if that was not done yet. Lock-free: threads that come at once each make
    /// them, and all but one throw theirs away.
    fn make(&self) {
        // Relaxed: `at` acquires.
        if !self.first.load(Ordering::Relaxed).is_null() {
            return;
        }
        let cells: Box<[UnsafeCell<Option<B>>]> =
            (0..self.count).map(|_| UnsafeCell::new(None)).collect();
        let first = Box::into_raw(cells).cast();
        let null = ptr::null_mut();
        // Release: pairs with the Acquire in `at`.
        let set = self.first.compare_exchange(null, first, Ordering::Release, Ordering::Relaxed);
        if set.is_err() {
            // SAFETY: of the box above, which no other thread has seen.
            drop(unsafe { Box::from_raw(ptr::slice_from_raw_parts_mut(first, self.count)) });
        }
    }

    /// Returns the cell beside the slot of a position, if the cells were made.
    fn at(&self, position: u32) -> Option<&UnsafeCell<Option<B>>> {
        // Acquire: pairs with the Release in `make`.
        let first = self.first.load(Ordering::Acquire);
        if first.is_null() {
            return None;
        }
        // SAFETY: `first` is of a box of `count` cells, which lives as long as `self`.
        let cells = unsafe { slice::from_raw_parts(first, self.count) };
        Some(&cells[position as usize & (cells.len() - 1)])
    }
}

impl<B> Drop for Cells<B> {
    fn drop(&mut self) {
        // Relaxed: as in the drop of the ring.
        let first = self.first.load(Ordering::Relaxed);
        if !first.is_null() {
            // SAFETY: of a box of `count` cells, and `&mut self` is the last to have it.
            drop(unsafe { Box::from_raw(ptr::slice_from_raw_parts_mut(first, self.count)) });
        }
    }
}

/// One shard.
pub(crate) struct Ring<T: Entry> {
    /// Never written, so both sides cache it: it must not share a line with a field that is
    /// written more than once.
    slots: Box<[Slot<T>]>,
    beside: Cells<T::Beside>,
    /// The packed [`Word`]; written by producers, on a line of its own.
    word: CachePadded<AtomicU64>,
    /// Position of the next entry to take; all bits, so that it also counts what was taken.
    /// Written by the consumer alone.
    head: CachePadded<AtomicU64>,
    pub(crate) refusals: CachePadded<Refusals>,
}

// SAFETY: invariant `one-owner`:
// - values of `T` and `T::Beside`, which is `Send`, move from producer threads to the consumer
//   thread, which needs `T: Send`;
// - no reference to one is shared between threads, so `Sync` is not needed;
// - a slot's value, and the cell beside it, is accessed by one thread at a time: by its claimant
//   before the Release store of `seq`, by the one `Consumer` after the Acquire load of it, and by
//   the next claimant after the consumer moved `head` past it.
unsafe impl<T: Entry + Send> Sync for Ring<T> {}
// SAFETY: as above; owning a ring is owning the values in it.
unsafe impl<T: Entry + Send> Send for Ring<T> {}

/// Head and tail of one shard, as they were at one moment; all 64 bits of both positions.
#[derive(Clone, Copy)]
pub(crate) struct Snapshot {
    pub(crate) head: u64,
    pub(crate) tail: u64,
}

impl Snapshot {
    /// Returns the number of entries taken since the ring was made.
    pub(crate) fn taken(self) -> u64 {
        self.head - FIRST
    }

    /// Returns the number of entries claimed and not yet taken: at most the capacity.
    pub(crate) fn pending(self) -> u32 {
        (self.tail - self.head) as u32
    }
}

impl<T: Entry> Ring<T> {
    /// Makes `shards` rings of `capacity` slots each (a power of two up to [`MAX_CAPACITY`]), and
    /// the one consumer of each.
    ///
    /// The allowance of a new ring is 0: its very first push reports.
    pub(crate) fn shards(shards: usize, capacity: u32) -> (Arc<[Self]>, Vec<Consumer<T>>) {
        assert!(capacity.is_power_of_two() && capacity <= MAX_CAPACITY, "capacity {capacity}");
        let rings: Arc<[Self]> = arc_slice((0..shards).map(|_| Self::new(capacity)).collect());
        let consumer = |index| Consumer {
            rings: Arc::clone(&rings),
            index,
            head: FIRST,
            published: 0,
            claimed: 0,
            closed: false,
        };
        let consumers = (0..shards).map(consumer).collect();
        (rings, consumers)
    }

    fn new(capacity: u32) -> Self {
        let slots = (0..capacity)
            .map(|_| Slot { seq: AtomicU32::new(0), value: UnsafeCell::new(MaybeUninit::uninit()) })
            .collect();
        let first = FIRST as u32 & MASK;
        Self {
            slots,
            beside: Cells { first: AtomicPtr::new(ptr::null_mut()), count: capacity as usize },
            word: CachePadded::new(AtomicU64::new(Word::new(first, first).0)),
            head: CachePadded::new(AtomicU64::new(FIRST)),
            refusals: CachePadded::default(),
        }
    }

    pub(crate) fn capacity(&self) -> u32 {
        // At most MAX_CAPACITY by construction.
        self.slots.len() as u32
    }

    #[inline(always)]
    fn slot(&self, position: u32) -> &Slot<T> {
        let slots = &self.slots;
        &slots[position as usize & (slots.len() - 1)]
    }

    /// Allocates the cells beside the slots, if that was not done yet. Called before a claim that
    /// needs one.
    // Invariant: bare-claim.
    pub(crate) fn prepare_beside(&self) {
        self.beside.make();
    }

    /// Claims up to `wanted` (at least 1) consecutive positions.
    ///
    /// Costs one read-modify-write if no other thread pushes to this shard. Lock-free: it repeats
    /// only if another thread's claim, or a change of the limit, succeeded in between.
    // Invariant: claim-once.
    #[inline]
    pub(crate) fn claim(&self, wanted: u32) -> Result<Claim<'_, T>, PushError> {
        let mut word = Word(self.word.load(Ordering::Relaxed));
        loop {
            let granted = wanted.min(word.allowance());
            if granted == 0 {
                return self.claim_and_report(wanted);
            }
            let first = word.tail();
            let next = word.with_tail(first.wrapping_add(granted));
            count(Counter::Claim);
            // Acquire: pairs with the Release in `allow`, which had seen the consumer leave the
            // slots of these positions. Release is not needed: the CAS continues the release
            // sequence of the limit's CAS, which already publishes the newest `head` this thread
            // has observed.
            match self.word.compare_exchange_weak(
                word.0,
                next.0,
                Ordering::Acquire,
                Ordering::Relaxed,
            ) {
                Ok(_) => {
                    // At most the capacity, and AHEAD: no overflow.
                    let prefetch = word.allowance() >= AHEAD + granted;
                    return Ok(Claim {
                        ring: self,
                        first,
                        count: granted,
                        report: false,
                        prefetch,
                    });
                }
                Err(current) => word = Word(current),
            }
        }
    }

    /// The slow path, at the limit: refuses, or claims past the limit and owes a report.
    // Invariants: limit-or-report, full-was-full.
    #[cold]
    #[inline(never)]
    fn claim_and_report(&self, wanted: u32) -> Result<Claim<'_, T>, PushError> {
        count(Counter::SlowPath);
        loop {
            let (word, snapshot) = self.load_consistent();
            if word.closed() {
                return Err(PushError::Closed);
            }
            let free = self.capacity() - snapshot.pending();
            if free == 0 {
                return Err(PushError::Full);
            }
            let first = word.tail();
            let granted = wanted.min(free);
            let tail = first.wrapping_add(granted);
            let next = word.with_tail(tail);
            // The limit moves only as far as this claim: no other claim may pass under it
            // unreported.
            let next = if granted > word.allowance() { next.with_limit(tail) } else { next };
            count(Counter::Claim);
            // Release: pairs with the Acquire load of the word in `load_consistent`, which must
            // find the head that freed the slots of this claim. (Acquire is not needed: the load of
            // `head` proved the slots free, and no other claim relies on the limit written here.)
            let swapped =
                self.word.compare_exchange(word.0, next.0, Ordering::Release, Ordering::Relaxed);
            if swapped.is_ok() {
                return Ok(Claim {
                    ring: self,
                    first,
                    count: granted,
                    report: true,
                    prefetch: false,
                });
            }
        }
    }

    /// Loads the word, and head and tail as they were at one moment. Repeats only if the consumer
    /// took entries in between.
    // Invariant: head-before-tail.
    #[inline]
    fn load_consistent(&self) -> (Word, Snapshot) {
        loop {
            // `head` first: the consumer had seen every claim below it, so the tail read next is
            // not behind it.
            // Acquire: pairs with the Release in `Take`'s drop; slots below head + capacity may
            // then be written by a claim that relies on this load.
            let head = self.head.load(Ordering::Acquire);
            // Acquire: pairs with the Release of the CAS that let the tail come this far, in
            // `claim_and_report` or `allow`, so that the next load finds no head older than the one
            // that freed its slots.
            let word = Word(self.word.load(Ordering::Acquire));
            // Unmoved, in all its bits: word and head are of one moment, however long this thread
            // was suspended between the loads, and the tail is within the capacity.
            if self.head.load(Ordering::Relaxed) == head {
                let pending = distance(head as u32, word.tail());
                debug_assert!(pending <= self.capacity());
                return (word, Snapshot { head, tail: head + u64::from(pending) });
            }
        }
    }

    /// Returns head and tail, for a scan and for statistics.
    pub(crate) fn snapshot(&self) -> Snapshot {
        self.load_consistent().1
    }

    /// Returns whether no claim succeeds any more.
    #[cfg(feature = "tower")]
    pub(crate) fn is_closed(&self) -> bool {
        self.load_consistent().0.closed()
    }

    /// Lets producers claim up to `limit` without a report: at most the capacity above a head that
    /// was observed. Returns false if the tail had already passed `limit`: the allowance is then 0,
    /// and the caller must scan again.
    ///
    /// Called by the coordinator alone.
    // Invariant: limit-bounds.
    pub(crate) fn allow(&self, limit: u64) -> bool {
        loop {
            let (word, snapshot) = self.load_consistent();
            if word.closed() {
                return true;
            }
            let within = snapshot.tail <= limit;
            let next = word.with_limit(limit.max(snapshot.tail) as u32);
            // Nothing to change: the current limit was published with a head that freed the slots
            // below it. Only a reporting producer and this coordinator move it.
            if next == word {
                return within;
            }
            count(Counter::Limit);
            // Release: pairs with the Acquire in `claim` and in `load_consistent`; passes on the
            // Acquire load of `head`, from which `limit` was computed.
            let swapped = self.word.compare_exchange_weak(
                word.0,
                next.0,
                Ordering::Release,
                Ordering::Relaxed,
            );
            if swapped.is_ok() {
                return within;
            }
        }
    }

    /// Closes the ring: no claim succeeds after this. The flag shares the word with the tail, so
    /// none slips through.
    // Invariant: closed-is-final.
    pub(crate) fn close(&self) {
        let mut word = Word(self.word.load(Ordering::Relaxed));
        while !word.closed() {
            let next = Word(word.with_limit(word.tail()).0 | Word::CLOSED);
            match self.word.compare_exchange_weak(
                word.0,
                next.0,
                Ordering::Relaxed,
                Ordering::Relaxed,
            ) {
                Ok(_) => return,
                Err(current) => word = Word(current),
            }
        }
    }
}

// Invariant: drop-once.
impl<T: Entry> Drop for Ring<T> {
    fn drop(&mut self) {
        // Relaxed: `&mut self` came through the last `Arc`, whose drop acquires all others'.
        let head = self.head.load(Ordering::Relaxed) as u32 & MASK;
        let tail = Word(self.word.load(Ordering::Relaxed)).tail();
        for step in 0..distance(head, tail) {
            let position = head.wrapping_add(step) & MASK;
            let slot = self.slot(position);
            // A claim that was never published (its thread died) left no value behind, but in its
            // cell.
            if slot.seq.load(Ordering::Relaxed) == position | PUBLISHED {
                // SAFETY:
                // - initialised because it was published;
                // - not taken because it is at or above `head`;
                // - unaliased because of `&mut self`: no claimant and no consumer is left.
                let value = slot.value.with(|value| unsafe { (*value).assume_init_read() });
                // A drop that panics must not keep the others from theirs.
                let _ = caught(|| drop(value));
            }
        }
    }
}

/// Consecutive positions that belong to one producer until it publishes them.
///
/// Nothing that can panic, block or allocate may come between claim and publish (invariant
/// `bare-claim`): every later entry of this shard waits for it.
#[must_use = "a claim that is never published holds up its shard"]
pub(crate) struct Claim<'a, T: Entry> {
    ring: &'a Ring<T>,
    first: u32,
    count: u32,
    report: bool,
    /// Whether the slots up to [`AHEAD`] behind the last position are free.
    prefetch: bool,
}

impl<T: Entry> Claim<'_, T> {
    /// Returns the number of positions; at least 1.
    pub(crate) fn len(&self) -> usize {
        self.count as usize
    }

    /// Publishes what `make` returns, for a claim of one. `make` must not panic; it is a closure so
    /// that a record is written into its slot field by field and never copied.
    ///
    /// Returns true if this claim went past the limit: the caller must now report to the trigger.
    #[inline(always)]
    #[must_use = "a claim past the limit must be reported"]
    pub(crate) fn publish(self, make: impl FnOnce() -> T) -> bool {
        debug_assert_eq!(self.count, 1);
        self.put(self.first, make);
        self.report
    }

    /// Writes the cell beside the slot, for a claim of one that is published next. The cells were
    /// [prepared](Ring::prepare_beside). `make` is as for [`publish`](Self::publish).
    #[inline(always)]
    pub(crate) fn put_beside(&mut self, make: impl FnOnce() -> T::Beside) {
        debug_assert_eq!(self.count, 1);
        let cell = self.ring.beside.at(self.first);
        debug_assert!(cell.is_some(), "the cells are prepared");
        if let Some(cell) = cell {
            // SAFETY: as in `put`, by the same claim; the consumer reads the cell after it has
            // acquired the slot, and before it frees that.
            cell.with_mut(|cell| unsafe {
                // Filled only if a consumer panicked before it took what was there.
                *cell = None;
                cell.write(Some(make()));
            });
        }
    }

    /// Publishes what `make` returns for each of `values`, of which there are [`len`](Self::len).
    /// Otherwise as [`publish`](Self::publish).
    #[inline]
    #[must_use = "a claim past the limit must be reported"]
    pub(crate) fn publish_all<V>(self, values: &[V], make: impl Fn(&V) -> T) -> bool {
        debug_assert_eq!(self.len(), values.len());
        for (index, value) in (0..self.count).zip(values) {
            self.put(self.first.wrapping_add(index) & MASK, || make(value));
        }
        self.report
    }

    #[inline(always)]
    fn put(&self, position: u32, make: impl FnOnce() -> T) {
        let slot = self.ring.slot(position);
        if self.prefetch {
            prefetch_ahead(slot);
        }
        // SAFETY:
        // - `position` was claimed by this producer alone (invariant `claim-once`);
        // - it is below head + capacity, so the slot is free, and the consumer's read of its former
        //   value happened before this write: through the Acquire in `claim`, or in
        //   `load_consistent` for `claim_and_report`;
        // - the consumer does not read the slot before the store below.
        slot.value.with_mut(|cell| unsafe { (*cell).write(make()) });
        // Release: pairs with the Acquire in `Consumer::poll`.
        slot.seq.store(position | PUBLISHED, Ordering::Release);
    }
}

/// The one consumer of a ring: made with it, not clonable.
pub(crate) struct Consumer<T: Entry> {
    rings: Arc<[Ring<T>]>,
    /// Which of `rings`.
    index: usize,
    /// The ring's head; this is the only writer (invariant `consumer-owns-head`).
    head: u64,
    /// Entries from `head` on that are known to be published.
    published: u32,
    /// Entries from `head` on that were claimed, as of the last poll.
    claimed: u32,
    /// Whether the shard was closed, as of the last poll.
    closed: bool,
}

impl<T: Entry> Consumer<T> {
    /// Reads how far producers have come. Does not wait.
    ///
    /// The tail is read once, so a producer that keeps pushing cannot prolong this.
    // Invariant: bounded-pass.
    pub(crate) fn poll(&mut self) {
        let ring = &self.rings[self.index];
        // Relaxed: the word only bounds the walk; entries are acquired slot by slot.
        let word = Word(ring.word.load(Ordering::Relaxed));
        let head = self.head as u32 & MASK;
        self.claimed = distance(head, word.tail());
        self.closed = word.closed();
        while self.published < self.claimed {
            let position = head.wrapping_add(self.published) & MASK;
            // Acquire: pairs with the Release store of `seq` in `Claim::put`.
            if ring.slot(position).seq.load(Ordering::Acquire) != position | PUBLISHED {
                break;
            }
            self.published += 1;
        }
    }

    /// Returns the number of entries that can be taken, as of the last poll.
    pub(crate) fn published(&self) -> u32 {
        self.published
    }

    /// Returns the number of entries claimed and not taken, as of the last poll.
    pub(crate) fn claimed(&self) -> u32 {
        self.claimed
    }

    /// Returns whether the shard was closed, as of the last poll: `claimed` is then final.
    pub(crate) fn closed(&self) -> bool {
        self.closed
    }

    /// Returns the first position that was not claimed, as of the last poll.
    pub(crate) fn first_unclaimed(&self) -> u64 {
        self.head + u64::from(self.claimed)
    }

    /// Returns the position of the next entry to take.
    pub(crate) fn position(&self) -> u64 {
        self.head
    }

    /// Takes the next `count` entries (at most [`published`](Self::published)) in order.
    ///
    /// Dropping the iterator frees the slots together, by one store. Entries it did not yield stay.
    // Invariant: fifo-shard.
    #[inline]
    pub(crate) fn take(&mut self, count: u32) -> Take<'_, T> {
        let Self { rings, index, head, published, claimed, .. } = self;
        let (first, count) = (*head, count.min(*published));
        let end = first + u64::from(count);
        // Given back in the drop: one that is forgotten leaks entries, and none is read twice.
        (*head, *published, *claimed) = (end, *published - count, *claimed - count);
        Take { ring: &rings[*index], first, next: first, end, head, published, claimed }
    }
}

/// See [`Consumer::take`]. Positions are kept here until the drop, where they fit in registers.
pub(crate) struct Take<'a, T: Entry> {
    ring: &'a Ring<T>,
    first: u64,
    /// The position of the next entry to yield.
    next: u64,
    end: u64,
    head: &'a mut u64,
    published: &'a mut u32,
    claimed: &'a mut u32,
}

impl<T: Entry> Take<'_, T> {
    #[inline(always)]
    fn slot(&self) -> &Slot<T> {
        self.ring.slot(self.next as u32 & MASK)
    }

    /// Takes what is beside the slot of the entry that [`next`](Iterator::next) returned last, and
    /// that says so.
    pub(crate) fn beside(&mut self) -> Option<T::Beside> {
        if self.next == self.first {
            return None;
        }
        let cell = self.ring.beside.at((self.next - 1) as u32)?;
        // SAFETY: as in `next`: its slot was read by this iterator and is not freed before the
        // store of `head` in `drop`.
        cell.with_mut(|cell| unsafe { (*cell).take() })
    }

    /// Returns the next entry, if there is one and `wanted` returns true for it.
    #[cfg_attr(not(feature = "processor"), expect(dead_code))]
    pub(crate) fn next_if(&mut self, wanted: impl FnOnce(&T) -> bool) -> Option<T> {
        if self.next == self.end {
            return None;
        }
        // SAFETY: as in `next`; the value stays in its slot during the borrow because only `next`
        // takes it, through `&mut self`.
        let take = self.slot().value.with(|cell| wanted(unsafe { (*cell).assume_init_ref() }));
        if take { self.next() } else { None }
    }
}

impl<T: Entry> Iterator for Take<'_, T> {
    type Item = T;

    #[inline(always)]
    fn next(&mut self) -> Option<T> {
        if self.next == self.end {
            return None;
        }
        // SAFETY:
        // - initialised because it is within `published`: `poll` has acquired the write of the
        //   value;
        // - read once because `next` moves on with it, and becomes the head;
        // - unaliased because no producer writes the slot before the store of `head` in `drop`.
        let value = self.slot().value.with(|cell| unsafe { (*cell).assume_init_read() });
        self.next += 1;
        Some(value)
    }
}

impl<T: Entry> Drop for Take<'_, T> {
    #[inline]
    fn drop(&mut self) {
        // At most what was taken off in `take`.
        let left = (self.end - self.next) as u32;
        *self.head = self.next;
        *self.published += left;
        *self.claimed += left;
        // Release: pairs with the Acquire load of `head` in `load_consistent`; the reads of the
        // slots below it happen before the next writes to them.
        self.ring.head.store(self.next, Ordering::Release);
    }
}

#[cfg(test)]
mod tests;
