//! Cooperation with an executor: a loop whose awaits are always ready yields all the same.
//!
//! An executor cannot take the thread from a task. Inside tokio, ready results therefore consume
//! the task's cooperative budget, as those of tokio's own types do; on any executor, a thread that
//! has seen [`LIMIT`] units of ready results makes the next future yield.

/// What a push costs, or one item that a handler processed.
pub(crate) const PUSH: u32 = 1;

/// What a batch costs: the work of its handler stands behind it.
#[cfg(feature = "tokio")]
pub(crate) const BATCH: u32 = 8;

/// Units of ready results on one thread between two yields.
#[cfg(not(any(batchlink_loom, batchlink_shuttle)))]
const LIMIT: u32 = 64;

/// tokio's units for one of these: its budget of 128 is for cheaper operations. Inside tokio its
/// budget is used up first, since it knows better than a self-wake-up when to look after timers.
#[cfg(all(feature = "tokio", not(any(batchlink_loom, batchlink_shuttle))))]
const TOKIO_UNITS: u32 = 4;

#[cfg(not(any(batchlink_loom, batchlink_shuttle)))]
mod real {
    use super::LIMIT;
    use std::cell::Cell;
    use std::task::{Context, Poll};

    /// Returns `Ready` if a result of `cost` units may be returned now. Otherwise the task has been
    /// scheduled to be polled again, after others.
    pub(crate) fn poll_proceed(cx: &mut Context<'_>, cost: u32) -> Poll<()> {
        thread_local!(static SPENT: Cell<u32> = const { Cell::new(0) });
        #[cfg(feature = "tokio")]
        for _ in 0..cost * super::TOKIO_UNITS {
            std::task::ready!(std::pin::pin!(tokio::task::consume_budget()).poll(cx));
        }
        // A thread that is ending may have lost its locals: it does not loop for long.
        let spent = SPENT.try_with(|spent| spent.replace(spent.get() % LIMIT + cost)).unwrap_or(0);
        if spent < LIMIT {
            return Poll::Ready(());
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

#[cfg(not(any(batchlink_loom, batchlink_shuttle)))]
pub(crate) use real::poll_proceed;

/// Checkers schedule as they like.
#[cfg(any(batchlink_loom, batchlink_shuttle))]
pub(crate) fn poll_proceed(_cx: &mut std::task::Context<'_>, _cost: u32) -> std::task::Poll<()> {
    std::task::Poll::Ready(())
}
