//! The way back: every caller gets exactly one answer.

use super::batch::BatchSpan;
use crate::panic::caught;
use crate::sync::{Arc, Parker, oneshot};
use std::error::Error;
use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Instant;

/// Why a [`call`](super::Submitter::call) has no result.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum CallError<E> {
    /// The shard was full; the item was not accepted. `call_wait` waits instead.
    Full,
    /// The processor is closed, or went before it took the item.
    Closed,
    /// The handler failed this item.
    Failed(E),
    /// The handler panicked while it had this item.
    Panicked,
    /// The handler was done and had not answered.
    Unanswered,
    /// The time was over first. The item is processed all the same.
    Timeout,
}

impl<E: fmt::Display> fmt::Display for CallError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Full => f.write_str("the item was not accepted: the shard's queue is full"),
            Self::Closed => f.write_str("the item was not processed: the batch processor is closed"),
            Self::Failed(error) => write!(f, "the item failed: {error}"),
            Self::Panicked => f.write_str("the handler panicked while it had the item"),
            Self::Unanswered => f.write_str("the handler gave no answer for the item"),
            Self::Timeout => f.write_str("no answer within the given time"),
        }
    }
}

impl<E: Error + 'static> Error for CallError<E> {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Failed(error) => Some(error),
            _ => None,
        }
    }
}

pub(super) type Reply<R, E> = Result<R, CallError<E>>;

/// The handler's end of a caller's wait. Dropped, it says that the processor is closed.
pub(super) type Caller<R, E> = oneshot::Sender<Reply<R, E>>;

/// The caller's own end. If the handler's end goes without a word, it went with the queue: closed.
pub(super) struct Waiting<R, E>(oneshot::Receiver<Reply<R, E>>);

pub(super) fn channel<R, E>() -> (Caller<R, E>, Waiting<R, E>) {
    let (caller, waiting) = oneshot::channel();
    (caller, Waiting(waiting))
}

impl<R, E> Waiting<R, E> {
    /// Waits for the reply, at most until `deadline`. Blocks the thread.
    pub(super) fn wait(mut self, deadline: Option<Instant>) -> Reply<R, E> {
        let parker = Parker::new();
        let cx = &mut Context::from_waker(parker.waker());
        loop {
            // Before the look: a reply that was there in time is found by it.
            let late = deadline.is_some_and(|deadline| Instant::now() >= deadline);
            match Pin::new(&mut self).poll(cx) {
                Poll::Ready(reply) => return reply,
                Poll::Pending if late => return Err(CallError::Timeout),
                Poll::Pending => parker.park(deadline),
            }
        }
    }
}

impl<R, E> Future for Waiting<R, E> {
    type Output = Reply<R, E>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Reply<R, E>> {
        Pin::new(&mut self.0).poll(cx).map(|reply| reply.unwrap_or(Err(CallError::Closed)))
    }
}

/// The duty to say what became of one item.
///
/// Dropped without a word, it counts as failed if somebody waits for the answer
/// ([`CallError::Unanswered`], or [`CallError::Panicked`] while a panic unwinds), or if a panic
/// unwinds; otherwise the item was only submitted, the handler returned, and it counts as
/// succeeded.
#[must_use = "dropping it fails the caller"]
pub struct Answer<R, E> {
    caller: Option<Caller<R, E>>,
    /// `None` once answered.
    span: Option<Arc<BatchSpan>>,
}

impl<R, E> Answer<R, E> {
    pub(super) fn new(caller: Option<Caller<R, E>>, span: Arc<BatchSpan>) -> Self {
        Self { caller, span: Some(span) }
    }

    /// The item was processed well. Never blocks; whether the caller is still there does not
    /// matter.
    pub fn succeed(self, result: R) {
        self.give(Ok(result));
    }

    /// The item failed.
    pub fn fail(self, error: E) {
        self.give(Err(CallError::Failed(error)));
    }

    /// The handler panicked over the item.
    pub(super) fn panicked(self) {
        self.give(Err(CallError::Panicked));
    }

    /// As `result` says.
    pub fn complete(self, result: Result<R, E>) {
        self.give(result.map_err(CallError::Failed));
    }

    /// Whether somebody waits for the answer: nobody does if the item was only submitted, or the
    /// caller has given up. Work for nobody can be skipped.
    pub fn is_awaited(&self) -> bool {
        self.caller.as_ref().is_some_and(|caller| !caller.is_canceled())
    }

    fn give(mut self, reply: Reply<R, E>) {
        self.settle(reply.is_ok());
        if let Some(caller) = self.caller.take() {
            send(caller, reply);
        }
    }

    /// Counts the item, before its caller hears of it.
    fn settle(&mut self, succeeded: bool) {
        if let Some(span) = self.span.take() {
            span.count(succeeded);
        }
    }
}

impl<R, E> Drop for Answer<R, E> {
    fn drop(&mut self) {
        if self.span.is_none() {
            return;
        }
        let panicking = std::thread::panicking();
        self.settle(self.caller.is_none() && !panicking);
        if let Some(caller) = self.caller.take() {
            let error = if panicking { CallError::Panicked } else { CallError::Unanswered };
            send(caller, Err(error));
        }
    }
}

/// The caller may have given up, or do so now: then the reply is dropped here, or by the caller if it
/// leaves last. That, and waking the caller, is the user's code, whose panic must not cost others their
/// answers. (Where a waker that panics meets a caller who leaves, the reply may be leaked; and if the
/// reply's drop panics as well, that is a panic within a panic, which ends the process.)
fn send<R, E>(caller: Caller<R, E>, reply: Reply<R, E>) {
    let _ = caught(|| drop(caller.send(reply)));
}

impl<R, E> fmt::Debug for Answer<R, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Answer").field("is_awaited", &self.is_awaited()).finish_non_exhaustive()
    }
}
