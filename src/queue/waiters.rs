//! Where producers wait for a slot, if they choose to wait.
//!
//! Whoever finds its shard full joins the line and tries again; whoever makes room wakes the whole
//! line. Everybody is woken because nobody knows whose shard has room, and because one who was
//! woken may have given up. A lock is all right here: who waits anyway may wait for it, and the
//! flusher takes it only if somebody is in line.

use crate::error::PushError;
use crate::panic::caught;
use crate::sync::{AtomicBool, Mutex, Ordering, Parker};
use std::collections::BTreeMap;
use std::future::poll_fn;
use std::sync::PoisonError;
use std::task::{Poll, Waker};
use std::time::Instant;

pub(crate) struct Room {
    /// Somebody joined the line since room was last made. The order of its swaps decides who is
    /// first: whoever joins before room is made is woken, whoever joins after it finds the room.
    awaited: AtomicBool,
    line: Mutex<Line>,
}

/// Those who wait, in the order in which they came.
#[derive(Default)]
struct Line {
    next: u64,
    wakers: BTreeMap<u64, Waker>,
}

/// A place in the line; given up when it is dropped.
struct Place<'a> {
    room: &'a Room,
    ticket: Option<u64>,
}

impl Room {
    pub(crate) fn new() -> Self {
        Self { awaited: AtomicBool::new(false), line: Mutex::new(Line::default()) }
    }

    fn with_line<R>(&self, act: impl FnOnce(&mut Line) -> R) -> R {
        act(&mut self.line.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// There may be room now, or it has closed: everybody tries again. Costs one read-modify-write
    /// if nobody waits.
    pub(crate) fn open(&self) {
        // Release: pairs with the Acquire in `join`, so that who joins later finds the room made
        // before this. Acquire: pairs with the Release in `join`: who joined is in the line.
        if self.awaited.swap(false, Ordering::AcqRel) {
            for waker in self.with_line(|line| std::mem::take(&mut line.wakers)).into_values() {
                // A waker is the user's code, and the others must be woken too.
                let _ = caught(|| waker.wake());
            }
        }
    }

    /// Repeats `attempt` until it finds room, or something else than [`PushError::Full`], or until
    /// `deadline`. Blocks the thread.
    pub(crate) fn wait<R>(
        &self,
        deadline: Option<Instant>,
        mut attempt: impl FnMut() -> Result<R, PushError>,
    ) -> Result<R, PushError> {
        let mut attempted = attempt();
        if !matches!(attempted, Err(PushError::Full)) {
            return attempted;
        }
        let parker = Parker::new();
        let mut place = Place { room: self, ticket: None };
        loop {
            place.join(parker.waker());
            attempted = attempt();
            let late = deadline.is_some_and(|deadline| Instant::now() >= deadline);
            if late || !matches!(attempted, Err(PushError::Full)) {
                return attempted;
            }
            parker.park(deadline);
        }
    }

    /// As [`wait`](Self::wait), for tasks of any executor. Cancel-safe: dropped, it has attempted
    /// nothing that succeeded.
    pub(crate) async fn wait_async<R>(
        &self,
        mut attempt: impl FnMut() -> Result<R, PushError>,
    ) -> Result<R, PushError> {
        let mut place = Place { room: self, ticket: None };
        poll_fn(|cx| {
            let mut attempted = attempt();
            if matches!(attempted, Err(PushError::Full)) {
                place.join(cx.waker());
                attempted = attempt();
            }
            match attempted {
                Err(PushError::Full) => Poll::Pending,
                done => Poll::Ready(done),
            }
        })
        .await
    }
}

impl Place<'_> {
    /// To be woken from now on; the next attempt must come after it. Who joins again keeps the place.
    fn join(&mut self, waker: &Waker) {
        // Cloned before the lock and dropped after it: wakers are the user's code.
        let waker = waker.clone();
        let former = self.room.with_line(|line| {
            let ticket = self.ticket.get_or_insert_with(|| {
                line.next += 1;
                line.next
            });
            line.wakers.insert(*ticket, waker)
        });
        let _ = caught(|| drop(former));
        // Release, Acquire: see `open`.
        self.room.awaited.swap(true, Ordering::AcqRel);
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        if let Some(ticket) = self.ticket {
            // Dropped after the lock: the user's code.
            let waker = self.room.with_line(|line| line.wakers.remove(&ticket));
            let _ = caught(|| drop(waker));
        }
    }
}
