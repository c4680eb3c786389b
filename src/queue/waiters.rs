//! Producers that wait for a free slot of their shard.
//!
//! A producer that finds its shard full registers a waiter and retries. Freeing slots wakes as many
//! waiters of that shard, in the order in which they came. A waiter that was woken and leaves
//! without a push passes its wake-up on, so none is lost. Closing wakes all.
//!
//! A lock is fine here: a producer that waits may wait for it, too, and the flusher takes it only
//! if a waiter is registered.

use crate::error::PushError;
use crate::panic::{caught, unpoisoned};
use crate::queue::coop;
use crate::sync::{AtomicUsize, Mutex, Ordering, Parker, polls_tasks};
use std::collections::BTreeMap;
use std::future::poll_fn;
use std::task::{Poll, Waker, ready};
use std::time::Instant;

/// The waiters of all shards.
pub(crate) struct Waiters {
    /// The number of registered waiters, changed under the lock by read-modify-writes alone. Their
    /// order decides: a waiter that registers before slots are freed is woken, one that registers
    /// afterwards finds them.
    // Invariant: register-before-retry.
    registered: AtomicUsize,
    lists: Mutex<Lists>,
}

struct Lists {
    next_id: u64,
    /// By shard: the wakers of its waiters, by id.
    shards: Box<[BTreeMap<u64, Waker>]>,
}

/// A producer that waits for a slot of one shard. Dropping it removes its registration.
struct Waiter<'a> {
    waiters: &'a Waiters,
    shard: usize,
    /// `None` before the first registration. Registering again keeps it, and with it the turn.
    id: Option<u64>,
    /// Registered since the last attempt that was made without: a wake-up given meanwhile may not
    /// be used up.
    registered: bool,
}

impl Waiters {
    pub(super) fn new(shards: usize) -> Self {
        let shards = (0..shards).map(|_| BTreeMap::new()).collect();
        Self { registered: AtomicUsize::new(0), lists: Mutex::new(Lists { next_id: 0, shards }) }
    }

    fn with_lists<R>(&self, act: impl FnOnce(&mut Lists) -> R) -> R {
        let mut lists = unpoisoned(self.lists.lock());
        act(&mut lists)
    }

    /// Wakes one waiter per slot that was freed; `freed` has the number for each shard. Costs one
    /// read-modify-write if no waiter is registered.
    pub(super) fn wake(&self, freed: impl Iterator<Item = u32>) {
        // Adds nothing, but takes its place in the order of registrations.
        // Release: pairs with the Acquire in `register`; a waiter that registers later finds the
        // slots.
        // Acquire: pairs with the Release in `register`; a waiter that registered is in its list.
        if self.registered.fetch_add(0, Ordering::AcqRel) == 0 {
            return;
        }
        let mut woken = Vec::new();
        self.with_lists(|lists| {
            for (list, freed) in lists.shards.iter_mut().zip(freed) {
                let first = (0..freed).map_while(|_| list.pop_first());
                woken.extend(first.map(|(_, waker)| waker));
            }
            self.remove(woken.len());
        });
        wake_all(woken);
    }

    /// Wakes every waiter: the queue was closed.
    pub(super) fn wake_all(&self) {
        self.wake(std::iter::repeat(u32::MAX));
    }

    /// Counts `count` waiters less. Called under the lock.
    fn remove(&self, count: usize) {
        // Relaxed: the lock orders it before the next registration, and the release sequences go
        // on.
        self.registered.fetch_sub(count, Ordering::Relaxed);
    }

    /// Repeats `attempt` until it returns something else than [`PushError::Full`], or until
    /// `deadline`. Blocks the thread.
    pub(super) fn wait(
        &self,
        shard: usize,
        deadline: Option<Instant>,
        mut attempt: impl FnMut() -> Result<(), PushError>,
    ) -> Result<(), PushError> {
        let attempted = attempt();
        if attempted != Err(PushError::Full) {
            return attempted;
        }
        let parker = Parker::new();
        let mut waiter = Waiter::new(self, shard);
        loop {
            let attempted = waiter.retry(parker.waker(), &mut attempt);
            let late = || deadline.is_some_and(|deadline| Instant::now() >= deadline);
            if attempted != Err(PushError::Full) || late() || polls_tasks() {
                return attempted;
            }
            parker.park(deadline);
        }
    }

    /// Repeats `attempt` until it returns something else than [`PushError::Full`], for tasks of any
    /// executor. Cancel-safe: dropped before it is ready, no attempt of it succeeded.
    pub(super) async fn wait_async(
        &self,
        shard: usize,
        mut attempt: impl FnMut() -> Result<(), PushError>,
    ) -> Result<(), PushError> {
        let mut waiter = Waiter::new(self, shard);
        poll_fn(|cx| {
            // Before the attempt, which cannot be undone.
            ready!(coop::poll_proceed(cx, coop::PUSH));
            match waiter.retry(cx.waker(), &mut attempt) {
                Err(PushError::Full) => Poll::Pending,
                done => Poll::Ready(done),
            }
        })
        .await
    }
}

// Invariant: unlocked-user-code.
fn wake_all(wakers: impl IntoIterator<Item = Waker>) {
    for waker in wakers {
        // A waker is the user's code, and the others must be woken, too.
        let _ = caught(|| waker.wake());
    }
}

impl<'a> Waiter<'a> {
    fn new(waiters: &'a Waiters, shard: usize) -> Self {
        Self { waiters, shard, id: None, registered: false }
    }

    /// Attempts, and if that returns [`PushError::Full`], registers `waker` and attempts again.
    ///
    /// The first attempt is made unregistered. Were it registered and successful, a wake-up that
    /// comes later could not be told from the one that was used up, and would be lost to the
    /// others.
    fn retry(
        &mut self,
        waker: &Waker,
        attempt: &mut impl FnMut() -> Result<(), PushError>,
    ) -> Result<(), PushError> {
        if std::mem::take(&mut self.registered) {
            self.unregister(false);
        }
        match attempt() {
            Err(PushError::Full) => {
                self.register(waker);
                attempt()
            }
            done => done,
        }
    }

    fn register(&mut self, waker: &Waker) {
        // Cloned before the lock: wakers are the user's code.
        let waker = waker.clone();
        self.waiters.with_lists(|lists| {
            let id = *self.id.get_or_insert_with(|| {
                lists.next_id += 1;
                lists.next_id
            });
            lists.shards[self.shard].insert(id, waker);
            // Release, Acquire: pair with the `fetch_add` in `wake`.
            self.waiters.registered.fetch_add(1, Ordering::AcqRel);
        });
        self.registered = true;
    }

    /// Removes the registration, if no wake-up has. A wake-up that was given is passed on if
    /// `pass_on`.
    // Invariant: wake-passes-on.
    fn unregister(&self, pass_on: bool) {
        let Some(id) = self.id else { return };
        let (own, next) = self.waiters.with_lists(|lists| {
            let list = &mut lists.shards[self.shard];
            let own = list.remove(&id);
            let next = if own.is_none() && pass_on { list.pop_first() } else { None };
            self.waiters.remove(usize::from(own.is_some() || next.is_some()));
            (own, next)
        });
        // After the lock: wakers are the user's code.
        let _ = caught(|| drop(own));
        wake_all(next.map(|(_, waker)| waker));
    }
}

impl Drop for Waiter<'_> {
    fn drop(&mut self) {
        if self.registered {
            self.unregister(true);
        }
    }
}
