//! What the one consumer holds: blocking, async, or on a thread of its own.

use crate::batch::LinkBatch;
use crate::config::Config;
use crate::error::{ShutdownError, Timeout};
use crate::link_set::LinkSet;
use crate::queue::Queue;
use crate::record::Record;
use crate::ring::Consumer;
use crate::stats::Stats;
use crate::sync::thread::{self, JoinHandle};
use crate::sync::{Arc, Mutex, mpsc};
use crate::unwind::caught;
use crate::wait::{Due, Receiver};
use std::sync::PoisonError;
use std::time::Duration;
use std::{fmt, io};

/// How long a dropped [`FlusherHandle`] waits for its thread.
const DROP_TIMEOUT: Duration = Duration::from_secs(5);

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
            receiver: Receiver::new(queue, consumers, &config),
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
fn logged(log: impl FnOnce()) {
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

/// A flusher's thread.
///
/// Dropping it shuts down: it closes the collector and waits up to 5 seconds for what was accepted
/// to be delivered. [`detach`](Self::detach) it to let the thread go on until the collector is
/// closed in another way.
#[must_use = "dropping the handle shuts the flusher down"]
pub struct FlusherHandle {
    queue: Box<dyn Control>,
    /// `None` after a shutdown.
    running: Mutex<Option<Running>>,
}

/// What a handle does with a queue, whatever is in it.
trait Control: Send + Sync {
    fn close(&self);
    fn pending(&self) -> u64;
    fn stats(&self) -> Stats;
}

impl<T: Send> Control for Arc<Queue<T>> {
    fn close(&self) {
        Queue::close(self);
    }

    fn pending(&self) -> u64 {
        Queue::pending(self)
    }

    fn stats(&self) -> Stats {
        Queue::stats(self)
    }
}

struct Running {
    /// Says once how the thread ended.
    ended: mpsc::Receiver<Result<(), ()>>,
    thread: JoinHandle<()>,
}

impl FlusherHandle {
    /// Runs the consumer of `queue` on a thread of its own.
    pub(crate) fn spawn<T: Send + 'static>(
        queue: Arc<Queue<T>>,
        run: impl FnOnce() + Send + 'static,
    ) -> io::Result<Self> {
        let (running, ended) = mpsc::channel();
        let thread = thread::Builder::new().name("batchlink-flusher".into()).spawn(move || {
            // With the handler, which it drops. Not by joining the thread: its locals go after this,
            // and may take their time.
            let _ = running.send(caught(run).ok_or(()));
        })?;
        Ok(Self { queue: Box::new(queue), running: Mutex::new(Some(Running { ended, thread })) })
    }

    /// Closes the collector and waits until everything accepted has been handled.
    ///
    /// Called from the handler itself it cannot wait: it closes and returns at once, with
    /// [`ShutdownError::Timeout`].
    ///
    /// # Errors
    ///
    /// [`ShutdownError::Timeout`] with what is still pending if `timeout` is over first; the thread
    /// then goes on by itself. [`ShutdownError::AlreadyShutdown`] on every call but the first.
    pub fn shutdown_with_timeout(&self, timeout: Duration) -> Result<(), ShutdownError> {
        let running = self.running.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Running { ended, thread } = running.ok_or(ShutdownError::AlreadyShutdown)?;
        self.queue.close();
        let own_thread = thread.thread().id() == thread::current().id();
        let ended = match own_thread {
            true => Err(mpsc::RecvTimeoutError::Timeout),
            false => ended.recv_timeout(timeout),
        };
        let pending = || self.queue.pending();
        match ended {
            Ok(Ok(())) => Ok(()),
            Err(mpsc::RecvTimeoutError::Timeout) => Err(ShutdownError::Timeout { pending: pending() }),
            Ok(Err(())) | Err(mpsc::RecvTimeoutError::Disconnected) => {
                Err(ShutdownError::Panicked { pending: pending() })
            }
        }
    }

    /// As [`shutdown_with_timeout`](Self::shutdown_with_timeout) with 5 seconds.
    ///
    /// # Errors
    ///
    /// As there.
    pub fn shutdown(&self) -> Result<(), ShutdownError> {
        self.shutdown_with_timeout(DROP_TIMEOUT)
    }

    /// Lets the thread run until the collector is closed and everything was delivered.
    pub fn detach(self) {
        self.running.lock().unwrap_or_else(PoisonError::into_inner).take();
    }

    /// The counters so far, as [`LinkCollector::stats`](crate::LinkCollector::stats).
    pub fn stats(&self) -> Stats {
        self.queue.stats()
    }
}

impl Drop for FlusherHandle {
    fn drop(&mut self) {
        match self.shutdown() {
            Ok(()) | Err(ShutdownError::AlreadyShutdown) => {}
            Err(error) => {
                logged(|| {
                    opentelemetry::otel_warn!(name: "FlusherHandle.Drop", error = format!("{error}"));
                });
            }
        }
    }
}

impl fmt::Debug for FlusherHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FlusherHandle").field("stats", &self.stats()).finish_non_exhaustive()
    }
}
