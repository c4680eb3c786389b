//! What the one consumer holds: blocking, async, or on a thread of its own.

use crate::batch::{LinkBatch, Trigger};
use crate::config::Config;
use crate::drain::{Drain, Step};
use crate::error::{ShutdownError, Timeout};
use crate::link_set::LinkSet;
use crate::queue::Queue;
use crate::record::Record;
use crate::ring::Consumer;
use crate::stats::Stats;
use crate::sync::thread::{self, JoinHandle};
use crate::sync::{Arc, Backoff, Mutex, Parker, mpsc, park};
use crate::unwind::{caught, discard};
use std::sync::PoisonError;
use std::time::Duration;
use std::{fmt, io};

/// How often to look for a claim that was not published yet, once yielding did not help: its
/// thread lost the processor in the middle of a push.
pub(crate) const SETTLE_NANOS: u64 = 1_000_000;

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
    pub(crate) drain: Drain<Record>,
    set: LinkSet,
    parker: Parker,
    /// Refusals were reported in the log.
    #[cfg(feature = "internal-logs")]
    warned: bool,
    #[cfg(feature = "tokio")]
    pub(crate) waiting: crate::poll::Waiting,
}

impl Flusher {
    pub(crate) fn new(
        queue: Arc<Queue<Record>>,
        consumers: Vec<Consumer<Record>>,
        parker: Parker,
        config: Config,
    ) -> Self {
        let size = config.max_batch_size;
        let max_delay = nanos(config.max_delay);
        Self {
            drain: Drain::new(queue, consumers, size, max_delay),
            set: LinkSet::new(config.links, size as usize),
            parker,
            #[cfg(feature = "internal-logs")]
            warned: false,
            #[cfg(feature = "tokio")]
            waiting: Default::default(),
        }
    }

    /// What is pending right now, up to one batch ([`Trigger::Manual`]); `None` if nothing is.
    /// Never waits, and does not say whether the collector is closed: [`next_batch`](Self::next_batch)
    /// does.
    pub fn try_next(&mut self) -> Option<LinkBatch> {
        match self.drain.available() {
            0 => None,
            count => Some(self.take(count, Trigger::Manual)),
        }
    }

    /// Waits until a batch is due; `None` once the collector is closed and everything was
    /// delivered. Blocks the thread: in async code use [`next`](Self::next).
    pub fn next_batch(&mut self) -> Option<LinkBatch> {
        // Without a limit there is no timeout.
        self.wait(None).unwrap_or(None)
    }

    /// As [`next_batch`](Self::next_batch), but gives up after `timeout`. Zero only looks.
    ///
    /// # Errors
    ///
    /// [`Timeout`] if no batch was due by then. Nothing is lost by that.
    pub fn next_batch_timeout(&mut self, timeout: Duration) -> Result<Option<LinkBatch>, Timeout> {
        let now = self.drain.queue().trigger.clock.now();
        self.wait(Some(now.saturating_add(nanos(timeout))))
    }

    fn wait(&mut self, until: Option<u64>) -> Result<Option<LinkBatch>, Timeout> {
        let backoff = Backoff::new();
        loop {
            let step = self.drain.step(0);
            let clock = &self.drain.queue().trigger.clock;
            let deadline = match step {
                Step::Take { count, trigger } => return Ok(Some(self.take(count, trigger))),
                Step::Closed => return Ok(None),
                _ if until.is_some_and(|until| clock.now() >= until) => return Err(Timeout),
                Step::Settle if !backoff.is_completed() => {
                    backoff.snooze();
                    continue;
                }
                Step::Settle => Some(clock.now().saturating_add(SETTLE_NANOS)),
                Step::Wait { deadline } => {
                    backoff.reset();
                    deadline
                }
            };
            let deadline = deadline.into_iter().chain(until).min();
            park(&self.parker, deadline.and_then(|deadline| clock.instant(deadline)));
            self.drain.queue().totals.add_wake_up();
        }
    }

    /// Takes what the last look found.
    pub(crate) fn take(&mut self, count: u32, trigger: Trigger) -> LinkBatch {
        let set = &mut self.set;
        set.make_room(count as usize);
        self.drain.take(count, |records| set.insert_records(records));
        let batch = self.set.finish_as(trigger);
        self.drain.queue().totals.add_batch(&batch.counts(), trigger);
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
            opentelemetry::otel_warn!(
                name: "LinkCollector.ContextsRefused",
                message = "The flusher is behind and contexts are being refused. Raise queue_capacity or make the \
                           handler faster. This is logged once; the total follows when the flusher ends."
            );
        }
    }

    /// The counters so far, as [`LinkCollector::stats`](crate::LinkCollector::stats).
    pub fn stats(&self) -> Stats {
        self.drain.queue().stats()
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
        let queue = Arc::clone(self.drain.queue());
        // Disconnects when the thread ends, in whatever way.
        let (running, ended) = mpsc::channel::<()>();
        let thread = thread::Builder::new().name("batchlink-flusher".into()).spawn(move || {
            // Locals go in reverse order: it disconnects when the handler has been dropped too.
            let _running = running;
            let (mut flusher, mut handler) = (self, handler);
            while let Some(batch) = flusher.next_batch() {
                if caught(|| handler(batch)).is_none() {
                    flusher.drain.queue().totals.add_handler_panic();
                }
            }
        })?;
        Ok(FlusherHandle { queue, running: Mutex::new(Some(Running { ended, thread })) })
    }
}

impl Drop for Flusher {
    fn drop(&mut self) {
        let stats = self.stats();
        if stats.rejected_full() > 0 || stats.pending() > 0 {
            opentelemetry::otel_warn!(
                name: "Flusher.ContextsLost",
                rejected_full = stats.rejected_full(),
                pending = stats.pending()
            );
        }
    }
}

impl fmt::Debug for Flusher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Flusher").field("stats", &self.stats()).finish_non_exhaustive()
    }
}

/// Whole nanoseconds, at most `u64::MAX` (584 years).
fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// A flusher's thread.
///
/// Dropping it shuts down: it closes the collector and waits up to 5 seconds for what was accepted
/// to be delivered. [`detach`](Self::detach) it to let the thread go on until the collector is
/// closed in another way.
#[must_use = "dropping the handle shuts the flusher down"]
pub struct FlusherHandle {
    queue: Arc<Queue<Record>>,
    /// `None` after a shutdown.
    running: Mutex<Option<Running>>,
}

struct Running {
    ended: mpsc::Receiver<()>,
    thread: JoinHandle<()>,
}

impl FlusherHandle {
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
        // Nothing is ever sent: this ends when the thread does.
        if own_thread || ended.recv_timeout(timeout) == Err(mpsc::RecvTimeoutError::Timeout) {
            return Err(ShutdownError::Timeout { pending: self.queue.pending() });
        }
        thread.join().map_err(|panic| {
            discard(panic);
            ShutdownError::Panicked { pending: self.queue.pending() }
        })
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
                opentelemetry::otel_warn!(name: "FlusherHandle.Drop", error = format!("{error}"));
            }
        }
    }
}

impl fmt::Debug for FlusherHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FlusherHandle").field("stats", &self.stats()).finish_non_exhaustive()
    }
}
