//! A state behind a lock, and threads and tasks that wait until it meets a condition.
//!
//! For rare waits: the end of a thread, the end of a batch. Producers take no such lock.

use crate::panic::{caught, unpoisoned};
use crate::queue::timer::Timer;
use crate::sync::{Mutex, Parker, task_now};
use std::collections::BTreeMap;
use std::future::poll_fn;
use std::task::{Poll, Waker};
use std::time::{Duration, Instant};

pub(crate) struct Watch<S>(Mutex<Inner<S>>);

struct Inner<S> {
    state: S,
    /// The id of the next waiter.
    next: u64,
    wakers: BTreeMap<u64, Waker>,
}

/// One that waits. Dropping it removes its waker.
struct Waiter<'a, S> {
    watch: &'a Watch<S>,
    id: Option<u64>,
}

impl<S> Watch<S> {
    pub(crate) fn new(state: S) -> Self {
        Self(Mutex::new(Inner { state, next: 0, wakers: BTreeMap::new() }))
    }

    fn lock<R>(&self, act: impl FnOnce(&mut Inner<S>) -> R) -> R {
        let mut inner = unpoisoned(self.0.lock());
        act(&mut inner)
    }

    /// Reads, or changes what no condition depends on.
    pub(crate) fn with<R>(&self, act: impl FnOnce(&mut S) -> R) -> R {
        self.lock(|inner| act(&mut inner.state))
    }

    /// Changes the state and wakes all waiters.
    // Invariant: unlocked-user-code.
    pub(crate) fn update(&self, act: impl FnOnce(&mut S)) {
        let wakers = self.lock(|inner| {
            act(&mut inner.state);
            std::mem::take(&mut inner.wakers)
        });
        for waker in wakers.into_values() {
            let _ = caught(|| waker.wake());
        }
    }

    /// Waits until `check` returns something, and returns that; `None` if `timeout` passed first.
    /// Blocks the thread.
    pub(crate) fn wait<R>(
        &self,
        timeout: Duration,
        mut check: impl FnMut(&mut S) -> Option<R>,
    ) -> Option<R> {
        // `None` beyond what `Instant` can hold.
        let (deadline, parker) = (Instant::now().checked_add(timeout), Parker::new());
        let mut waiter = Waiter { watch: self, id: None };
        loop {
            // Read before the check, which then covers all that happened in time.
            let late = deadline.is_some_and(|deadline| Instant::now() >= deadline);
            let result = waiter.check_or_register(parker.waker(), &mut check);
            if late || result.is_some() {
                return result;
            }
            parker.park(deadline);
        }
    }

    /// Waits as [`wait`](Self::wait) does, in a task of any executor. Cancel-safe, if `check`
    /// changes the state only when it returns something.
    pub(crate) async fn wait_async<R>(
        &self,
        timeout: Duration,
        mut check: impl FnMut(&mut S) -> Option<R>,
    ) -> Option<R> {
        let deadline = task_now().checked_add(timeout);
        let mut waiter = Waiter { watch: self, id: None };
        let mut timer = Timer::default();
        poll_fn(|cx| {
            let now = task_now();
            let late = deadline.is_some_and(|deadline| now >= deadline);
            let result = waiter.check_or_register(cx.waker(), &mut check);
            if late || result.is_some() {
                return Poll::Ready(result);
            }
            if let Some(deadline) = deadline {
                timer.set(deadline - now, cx.waker());
            }
            Poll::Pending
        })
        .await
    }
}

impl<S> Waiter<'_, S> {
    /// Registers `waker` unless `check` returns something, in one critical section: no update is
    /// missed.
    fn check_or_register<R>(
        &mut self,
        waker: &Waker,
        check: &mut impl FnMut(&mut S) -> Option<R>,
    ) -> Option<R> {
        // Cloned before the lock, and the former one dropped after it: wakers are user code.
        let waker = waker.clone();
        let (result, unused) = self.watch.lock(|inner| match check(&mut inner.state) {
            Some(result) => (Some(result), Some(waker)),
            None => {
                let id = *self.id.get_or_insert_with(|| {
                    inner.next += 1;
                    inner.next
                });
                (None, inner.wakers.insert(id, waker))
            }
        });
        let _ = caught(|| drop(unused));
        result
    }
}

impl<S> Drop for Waiter<'_, S> {
    fn drop(&mut self) {
        if let Some(id) = self.id {
            let waker = self.watch.lock(|inner| inner.wakers.remove(&id));
            let _ = caught(|| drop(waker));
        }
    }
}
