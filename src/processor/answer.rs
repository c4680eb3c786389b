//! The way back: every caller gets exactly one answer.

use super::batch::BatchSpan;
use crate::sync::Arc;
use crate::unwind::caught;
use std::error::Error;
use std::fmt;

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
        self.caller.as_ref().is_some_and(|caller| !caller.is_closed())
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

/// The caller may have given up: then the reply is dropped here. That, and waking the caller, is the
/// user's code, whose panic must not cost others their answers.
fn send<R, E>(caller: Caller<R, E>, reply: Reply<R, E>) {
    // Out of the channel first, which a panic would leak.
    let _ = caught(|| drop(caller.send(reply).map_err(oneshot::SendError::into_inner)));
}

impl<R, E> fmt::Debug for Answer<R, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Answer").field("is_awaited", &self.is_awaited()).finish_non_exhaustive()
    }
}
