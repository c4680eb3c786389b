//! Which batches are not finished, for a flush that waits.
//!
//! A batch takes its ticket before its entries leave the rings. A flush that finds everything taken
//! therefore finds the tickets of all batches that took it, and waits until these are gone.

use crate::error::FlushError;
use crate::queue::Queue;
use crate::queue::ring::Entry;
use crate::queue::watch::Watch;
use crate::sync::Arc;
use std::time::Duration;

/// The batches of one queue.
pub(crate) struct Progress(Watch<State>);

#[derive(Default)]
struct State {
    /// The number of the next batch.
    next: u64,
    /// Number and size of each batch that was taken and is not finished, in order.
    unfinished: Vec<(u64, u32)>,
    /// The head of each shard when the consumer was dropped: nothing is delivered after it.
    last_heads: Option<Vec<u64>>,
    /// The consumer has discarded what it leaves, too.
    over: bool,
}

/// A batch that is not finished. Dropping it finishes the batch.
pub(crate) struct Ticket {
    progress: Arc<Progress>,
    number: u64,
}

impl Ticket {
    /// Corrects the size of the batch, once its entries have been taken.
    #[cfg(feature = "processor")]
    pub(crate) fn resize(&self, taken: u32) {
        self.progress.0.with(|state| {
            let own = state.unfinished.iter_mut().find(|(number, _)| *number == self.number);
            own.into_iter().for_each(|(_, size)| *size = taken);
        });
    }

    /// Adds entries to the batch, once they have been taken under a later ticket.
    #[cfg(feature = "processor")]
    pub(crate) fn grow(&self, entries: u32) {
        self.progress.0.with(|state| {
            let own = state.unfinished.iter_mut().find(|(number, _)| *number == self.number);
            own.into_iter().for_each(|(_, size)| *size += entries);
        });
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.progress
            .0
            .update(|state| state.unfinished.retain(|(number, _)| *number != self.number));
    }
}

impl Progress {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self(Watch::new(State::default())))
    }

    /// Begins a batch of `size` entries; to be called before they are taken.
    // Invariant: ticket-before-take.
    pub(crate) fn begin(progress: &Arc<Self>, size: u32) -> Ticket {
        let number = progress.0.with(|state| {
            state.next += 1;
            state.unfinished.push((state.next, size));
            state.next
        });
        Ticket { progress: Arc::clone(progress), number }
    }

    /// Returns the entries of all batches that are not finished.
    pub(crate) fn in_flight(&self) -> u64 {
        self.0.with(|state| state.in_flight())
    }

    /// Returns whether the consumer is gone and every batch is finished.
    pub(super) fn is_over(&self) -> bool {
        self.0.with(|state| state.over && state.unfinished.is_empty())
    }
}

impl State {
    fn in_flight(&self) -> u64 {
        self.unfinished.iter().map(|(_, size)| u64::from(*size)).sum()
    }
}

/// What one flush waits for.
struct Flush {
    /// The tail of each shard when it was asked for.
    tails: Vec<u64>,
    /// Batches above this number hold nothing of what was pending then. Known once all was taken.
    last_batch: Option<u64>,
}

impl Flush {
    /// Entries in the rings that were there when the flush was asked for.
    fn pending<T: Entry>(&self, queue: &Queue<T>, last_heads: Option<&Vec<u64>>) -> u64 {
        let heads = queue.rings.iter().enumerate().map(|(index, ring)| {
            // Entries that are left to a consumer's drop are not delivered by it.
            last_heads.map_or_else(|| ring.snapshot().head, |heads| heads[index])
        });
        self.tails.iter().zip(heads).map(|(tail, head)| tail.saturating_sub(head)).sum()
    }

    fn check<T: Entry>(
        &mut self,
        queue: &Queue<T>,
        state: &State,
    ) -> Option<Result<(), FlushError>> {
        if self.last_batch.is_none() {
            match (self.pending(queue, state.last_heads.as_ref()), &state.last_heads) {
                (0, _) => self.last_batch = Some(state.next),
                (pending, Some(_)) => return Some(Err(FlushError::Closed { pending })),
                (_, None) => return None,
            }
        }
        let first = state.unfinished.first().map(|(number, _)| *number);
        (first > self.last_batch || first.is_none()).then_some(Ok(()))
    }
}

impl<T: Entry> Queue<T> {
    /// Asks the consumer to take what is pending, and waits until all of it was taken and the
    /// batches that hold it are finished. Blocks the thread.
    pub(crate) fn flush_and_wait(&self, timeout: Duration) -> Result<(), FlushError> {
        let mut flush = self.ask_flush();
        let done = self.progress.0.wait(timeout, |state| flush.check(self, state));
        done.unwrap_or_else(|| Err(self.timed_out(&flush)))
    }

    /// Waits as [`flush_and_wait`](Self::flush_and_wait) does, in a task. Cancel-safe.
    pub(crate) async fn flush_and_wait_async(&self, timeout: Duration) -> Result<(), FlushError> {
        let mut flush = self.ask_flush();
        let done = self.progress.0.wait_async(timeout, |state| flush.check(self, state)).await;
        done.unwrap_or_else(|| Err(self.timed_out(&flush)))
    }

    fn ask_flush(&self) -> Flush {
        let tails = self.rings.iter().map(|ring| ring.snapshot().tail).collect();
        // After the tails: the consumer then finds all of it to be flushed.
        self.trigger.ask_flush();
        Flush { tails, last_batch: None }
    }

    fn timed_out(&self, flush: &Flush) -> FlushError {
        self.progress.0.with(|state| FlushError::Timeout {
            pending: flush.pending(self, state.last_heads.as_ref()),
            in_flight: state.in_flight(),
        })
    }

    /// The consumer delivers nothing more, and with `over` discards nothing more.
    pub(super) fn consumer_gone(&self, over: bool) {
        let heads = self.rings.iter().map(|ring| ring.snapshot().head).collect();
        self.progress.0.update(|state| {
            state.last_heads.get_or_insert(heads);
            state.over |= over;
        });
    }
}
