//! What the one consumer holds: blocking, async, or on a thread of its own.

use crate::collector::config::Config;
use crate::collector::handle::FlusherHandle;
use crate::error::Timeout;
use crate::link_set::LinkBatch;
use crate::link_set::LinkSet;
use crate::link_set::record::Record;
use crate::panic::caught;
use crate::queue::Queue;
use crate::queue::receiver::{Due, Receiver};
use crate::queue::ring::Consumer;
use crate::stats::Stats;
use crate::sync::Arc;
use std::time::Duration;
use std::{fmt, io};

/// Turns what a collector was given into batches. There is one per collector.
///
/// Use it in one of four ways: [`spawn`](Self::spawn) a thread for it, wait with
/// [`next_batch`](Self::next_batch) on a thread of yours, await [`next`](Self::next) (feature
/// `tokio`), or ask with [`try_next`](Self::try_next) whenever it suits you.
///
/// Dropping it closes the collector; contexts still pending are then not delivered, and stay
/// visible in [`Stats::pending`].
///
/// Single consumer is a compile-time fact:
///
/// ```compile_fail,E0599
/// let (_collector, flusher) = batchlink::LinkCollector::builder().build().unwrap();
/// let _second = flusher.clone();
/// ```
///
/// and a batch is taken through `&mut`:
///
/// ```compile_fail,E0596
/// let (_collector, flusher) = batchlink::LinkCollector::builder().build().unwrap();
/// flusher.try_next();
/// ```
pub struct Flusher {
    pub(crate) receiver: Receiver<Record>,
    pub(crate) set: LinkSet,
    /// Refusals were reported in the log.
    #[cfg(feature = "internal-logs")]
    warned: bool,
}

impl Flusher {
    pub(crate) fn new(queue: Arc<Queue<Record>>, consumers: Vec<Consumer<Record>>, config: Config) -> Self {
        Self {
            receiver: Receiver::new(queue, consumers, config.max_batch_size, config.max_delay),
            set: LinkSet::new(config.links, config.max_batch_size as usize),
            #[cfg(feature = "internal-logs")]
            warned: false,
        }
    }

    /// What is pending right now, up to one batch ([`Trigger::Manual`](crate::Trigger::Manual)); `None` if nothing is.
    /// Never waits, and does not say whether the collector is closed: [`next_batch`](Self::next_batch)
    /// does.
    pub fn try_next(&mut self) -> Option<LinkBatch> {
        self.receiver.available().map(|due| self.take(due))
    }

    /// Waits until a batch is due; `None` once the collector is closed and everything was
    /// delivered. Blocks the thread: in async code use [`next`](Self::next).
    pub fn next_batch(&mut self) -> Option<LinkBatch> {
        self.receiver.wait().map(|due| self.take(due))
    }

    /// As [`next_batch`](Self::next_batch), but gives up after `timeout`. Zero only looks.
    ///
    /// # Errors
    ///
    /// [`Timeout`] if no batch was due by then. Nothing is lost by that.
    pub fn next_batch_timeout(&mut self, timeout: Duration) -> Result<Option<LinkBatch>, Timeout> {
        Ok(self.receiver.wait_timeout(timeout)?.map(|due| self.take(due)))
    }

    /// Takes what the last look found.
    pub(crate) fn take(&mut self, Due { count, trigger }: Due) -> LinkBatch {
        let set = &mut self.set;
        set.make_room(count as usize);
        self.receiver.drain.take(count, |records| set.insert_records(records));
        let batch = self.set.finish_as(trigger);
        self.receiver.queue().totals.add_batch(&batch.counts(), trigger);
        #[cfg(feature = "internal-logs")]
        self.warn_once_of_refusals();
        batch
    }

    /// Once: more would flood the log of a service that is in trouble already. The total comes when
    /// the flusher goes. Here and not in `push`, where a log could block.
    #[cfg(feature = "internal-logs")]
    fn warn_once_of_refusals(&mut self) {
        if !self.warned && self.stats().rejected_full() > 0 {
            self.warned = true;
            logged(|| {
                opentelemetry::otel_warn!(
                    name: "LinkCollector.ContextsRefused",
                    message = "The flusher is behind and contexts are being refused. Raise queue_capacity or make \
                               the handler faster. This is logged once; the total follows when the flusher ends."
                );
            });
        }
    }

    /// The counters so far, as [`LinkCollector::stats`](crate::LinkCollector::stats).
    pub fn stats(&self) -> Stats {
        self.receiver.queue().stats()
    }

    /// Moves the flusher to a thread of its own, named `batchlink-flusher`, that calls `handler`
    /// with every batch until the collector is closed and everything was delivered.
    ///
    /// A thread, not a task, because exporters that block stall or deadlock a small async
    /// runtime. If `handler` panics, that batch is its loss; the panic is counted in
    /// [`Stats::handler_panics`] and the next batch is delivered as usual.
    ///
    /// # Errors
    ///
    /// If the operating system has no thread to give. The collector is then closed.
    pub fn spawn(self, handler: impl FnMut(LinkBatch) + Send + 'static) -> io::Result<FlusherHandle> {
        let queue = Arc::clone(self.receiver.queue());
        let totals = Arc::clone(&queue);
        let (mut flusher, mut handler) = (self, handler);
        let run = move || {
            while let Some(batch) = flusher.next_batch() {
                if caught(|| handler(batch)).is_none() {
                    totals.totals.add_handler_panic();
                }
            }
        };
        FlusherHandle::spawn(queue, run)
    }
}

/// Logs, through the user's subscriber: its panic must not cost a batch, nor end the process when it
/// comes out of a drop.
pub(super) fn logged(log: impl FnOnce()) {
    let _ = caught(log);
}

impl Drop for Flusher {
    fn drop(&mut self) {
        let stats = self.stats();
        if stats.rejected_full() > 0 || stats.pending() > 0 {
            logged(|| {
                opentelemetry::otel_warn!(
                    name: "Flusher.ContextsLost",
                    rejected_full = stats.rejected_full(),
                    pending = stats.pending()
                );
            });
        }
    }
}

impl fmt::Debug for Flusher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Flusher").field("stats", &self.stats()).finish_non_exhaustive()
    }
}
