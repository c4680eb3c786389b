//! The cell that takes one answer to its caller.

use super::answer::{CallError, CallResult};
use crate::panic::{caught, unpoisoned};
use crate::sync::{Arc, Mutex, Parker};
use std::mem::{replace, swap};
use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use std::time::Instant;

/// What both ends share.
///
/// Every access is one move under the lock: user code, which drops and wakes, runs outside of it.
/// In the usual course one end alone takes it, once: the caller's waker is in the cell from the
/// beginning, and the caller finds itself alone with its answer.
enum State<R, E> {
    Waiting(Option<Waker>),
    Answered(CallResult<R, E>),
}

type Cell<R, E> = Arc<Mutex<State<R, E>>>;

/// The handler's end of a call. Dropping it without a reply answers `Closed`.
pub(super) struct Caller<R, E>(Option<Cell<R, E>>);

/// The caller's end of a call. If the other end is dropped without a reply, the queue was dropped:
/// `Closed`.
pub(super) struct Reply<R, E> {
    /// `None` once it was ready.
    cell: Option<Cell<R, E>>,
    /// The waker of the first poll is in the cell already.
    registered: bool,
}

/// Creates both ends of a call.
///
/// With a waker, the first poll of the reply is taken to be the poll that this waker is from, and
/// costs nothing.
pub(super) fn channel<R, E>(waker: Option<Waker>) -> (Caller<R, E>, Reply<R, E>) {
    let registered = waker.is_some();
    let cell = Arc::new(Mutex::new(State::Waiting(waker)));
    (Caller(Some(Arc::clone(&cell))), Reply { cell: Some(cell), registered })
}

impl<R, E> State<R, E> {
    fn replace(cell: &Mutex<Self>, state: Self) -> Self {
        replace(&mut *unpoisoned(cell.lock()), state)
    }

    fn into_poll(self) -> Poll<CallResult<R, E>> {
        match self {
            Self::Waiting(_) => Poll::Pending,
            Self::Answered(reply) => Poll::Ready(reply),
        }
    }
}

impl<R, E> Caller<R, E> {
    /// Gives the reply and wakes the caller. Drops the reply if the caller has left. Both are user
    /// code.
    pub(super) fn answer(mut self, reply: CallResult<R, E>) {
        self.put(reply);
    }

    pub(super) fn is_awaited(&self) -> bool {
        // The other one is the caller's, until it leaves.
        self.0.as_ref().is_some_and(|cell| Arc::strong_count(cell) > 1)
    }

    fn put(&mut self, reply: CallResult<R, E>) {
        let Some(cell) = self.0.take() else { return };
        let former = State::replace(&cell, State::Answered(reply));
        // Before the wake-up: the caller, being alone, needs no lock. If it left, this drops the
        // reply.
        drop(cell);
        if let State::Waiting(Some(waker)) = former {
            waker.wake();
        }
    }
}

impl<R, E> Drop for Caller<R, E> {
    fn drop(&mut self) {
        let _ = caught(|| self.put(Err(CallError::Closed)));
    }
}

impl<R, E> Reply<R, E> {
    /// Blocks the thread until the reply is there, at most until `deadline`.
    pub(super) fn wait(mut self, deadline: Option<Instant>) -> CallResult<R, E> {
        let parker = Parker::new();
        let cx = &mut Context::from_waker(parker.waker());
        loop {
            // Before the poll, which then finds a reply that was there in time.
            let late = deadline.is_some_and(|deadline| Instant::now() >= deadline);
            match Pin::new(&mut self).poll(cx) {
                Poll::Ready(reply) => return reply,
                Poll::Pending if late => return Err(CallError::Timeout),
                Poll::Pending => parker.park(deadline),
            }
        }
    }
}

impl<R, E> Future for Reply<R, E> {
    type Output = CallResult<R, E>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<CallResult<R, E>> {
        if replace(&mut self.registered, false) {
            return Poll::Pending;
        }
        let Some(cell) = self.cell.take() else { return Poll::Ready(Err(CallError::Closed)) };
        let cell = match Arc::try_unwrap(cell) {
            // The other end answers before it lets go.
            Ok(cell) => return unpoisoned(cell.into_inner()).into_poll(),
            Err(cell) => self.cell.insert(cell),
        };
        // User code, as the drop of the former one, and so not under the lock.
        let mut waker = Some(cx.waker().clone());
        let answered = match &mut *unpoisoned(cell.lock()) {
            State::Waiting(former) => {
                swap(former, &mut waker);
                None
            }
            state => Some(replace(state, State::Waiting(None))),
        };
        let _ = caught(|| drop(waker));
        let Some(state) = answered else { return Poll::Pending };
        self.cell = None;
        state.into_poll()
    }
}

impl<R, E> Drop for Reply<R, E> {
    fn drop(&mut self) {
        let Some(cell) = self.cell.take() else { return };
        // A waker, which must not stay until the item ends, or the reply.
        let former = State::replace(&cell, State::Waiting(None));
        let _ = caught(|| drop(former));
        // A reply that came meanwhile goes with the cell.
        let _ = caught(|| drop(cell));
    }
}
