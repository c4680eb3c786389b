//! The thread that runs a flusher or a processor, and its shutdown.

use crate::collector::log::logged;
use crate::error::ShutdownError;
use crate::panic::caught;
use crate::queue::Queue;
use crate::queue::ring::Entry;
use crate::queue::watch::Watch;
use crate::stats::Stats;
use crate::sync::thread::{self, ThreadId};
use crate::sync::{Arc, AtomicBool, Ordering, polls_tasks};
use std::time::Duration;
use std::{fmt, io};

/// How long a dropped [`FlusherHandle`] waits for its thread.
const DROP_TIMEOUT: Duration = Duration::from_secs(5);

/// A handle to the thread of a [`Flusher`](crate::Flusher) or a `BatchProcessor`.
///
/// Dropping it shuts down: it closes the collector and **blocks** the thread for up to 5 seconds
/// until everything accepted was handled. A shutdown that was called before is not repeated. What
/// was left is logged (feature `internal-logs`).
///
/// **Dropped in a task or in `block_on`, it closes and does not wait** (feature `tokio`), because
/// the handler may need the thread. Await [`shutdown_async`](Self::shutdown_async) before that, or
/// what is pending is lost when the process ends.
///
/// [`detach`](Self::detach) lets the thread run until the collector is closed in another way.
///
/// ```
/// use batchlink::{LinkCollector, Trigger};
/// use std::time::Duration;
///
/// let (collector, flusher) = LinkCollector::builder().build()?;
/// let handle = flusher.spawn(|batch| println!("{} links", batch.linked()))?;
/// collector.push_current()?;
/// let stats = handle.shutdown_with_timeout(Duration::from_secs(5))?;
/// assert_eq!((stats.pushed(), stats.pending()), (1, 0));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// It must be bound:
///
/// ```compile_fail
/// #![deny(unused_must_use)]
/// let (_collector, flusher) = batchlink::LinkCollector::builder().build().unwrap();
/// flusher.spawn(|batch| drop(batch)).unwrap();
/// ```
#[must_use = "bind it to a variable, such as `let handle`, or call `detach()`: its drop shuts down"]
pub struct FlusherHandle {
    queue: Box<dyn Control>,
    run: Arc<Watch<Run>>,
    thread: ThreadId,
    /// A shutdown was called, or the handle detached: its drop has nothing to do.
    settled: AtomicBool,
}

/// How the thread is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Run {
    Running,
    Ended,
    Panicked,
    /// Ended, and a shutdown has returned how.
    Reported,
}

/// What a handle does with a queue, whatever is in it.
pub(crate) trait Control: Send + Sync {
    /// Closes the queue.
    fn close(&self);
    /// Returns a snapshot of the counters.
    fn stats(&self) -> Stats;
    /// Returns how many entries were taken from the queue and are not finished.
    fn in_flight(&self) -> u64;
}

impl<T: Entry + Send> Control for Arc<Queue<T>> {
    fn close(&self) {
        Queue::close(self);
    }

    fn stats(&self) -> Stats {
        Queue::stats(self)
    }

    fn in_flight(&self) -> u64 {
        self.progress.in_flight()
    }
}

impl FlusherHandle {
    /// Calls `run`, which consumes `queue`, on a thread of its own.
    pub(crate) fn spawn(
        queue: impl Control + 'static,
        run: impl FnOnce() + Send + 'static,
    ) -> io::Result<Self> {
        let watch = Arc::new(Watch::new(Run::Running));
        let ended = Arc::clone(&watch);
        let thread = thread::Builder::new().name("batchlink-flusher".into()).spawn(move || {
            // With the handler, which it drops. The thread is not joined: its locals are dropped
            // later, and may take their time.
            let end = if caught(run).is_some() { Run::Ended } else { Run::Panicked };
            ended.update(|run| *run = end);
        })?;
        let thread = thread.thread().id();
        Ok(Self { queue: Box::new(queue), run: watch, thread, settled: AtomicBool::new(false) })
    }

    /// **Blocks** the thread: closes the collector, waits until everything accepted was handled,
    /// and returns the final counters.
    ///
    /// **On a thread of an async runtime the handler may wait for what this stops**: use
    /// [`shutdown_async`](Self::shutdown_async) there. A call that timed out can be repeated.
    /// Called by the handler itself it cannot wait: it closes and times out at once.
    ///
    /// ```
    /// use batchlink::{LinkCollector, ShutdownError};
    /// use std::time::Duration;
    ///
    /// let (_collector, flusher) = LinkCollector::builder().build()?;
    /// let handle = flusher.spawn(|batch| drop(batch))?;
    /// match handle.shutdown_with_timeout(Duration::from_secs(5)) {
    ///     Ok(stats) => println!("{} contexts in {} batches", stats.received(), stats.batches()),
    ///     Err(ShutdownError::Timeout { pending, .. }) => println!("{pending} still queued"),
    ///     Err(error) => println!("{error}"),
    /// }
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// - [`ShutdownError::Timeout`] with what is not handled yet; the thread continues.
    /// - [`ShutdownError::Panicked`] if the thread ended by a panic.
    /// - [`ShutdownError::AlreadyShutdown`] if an earlier call has returned how the thread ended.
    pub fn shutdown_with_timeout(&self, timeout: Duration) -> Result<Stats, ShutdownError> {
        let timeout = self.begin(timeout)?;
        let end = self.run.wait(timeout, Run::report);
        self.conclude(end)
    }

    /// **Blocks** the thread for at most 5 seconds, and shuts down as
    /// [`shutdown_with_timeout`](Self::shutdown_with_timeout) does.
    ///
    /// # Errors
    ///
    /// [`ShutdownError::Timeout`], [`ShutdownError::Panicked`], [`ShutdownError::AlreadyShutdown`].
    pub fn shutdown(&self) -> Result<Stats, ShutdownError> {
        self.shutdown_with_timeout(DROP_TIMEOUT)
    }

    /// Shuts down as [`shutdown_with_timeout`](Self::shutdown_with_timeout) does, in a task of any
    /// executor.
    ///
    /// Closes when it is first polled. Cancel-safe: one that was dropped or that timed out can be
    /// called again. The timeout is kept by the process's one timer thread;
    /// [`Duration::MAX`] needs none, for use inside a runtime's own timeout.
    ///
    /// ```
    /// # futures_util::FutureExt::now_or_never(async {
    /// use batchlink::{LinkCollector, ShutdownError};
    /// use std::time::Duration;
    ///
    /// let (_collector, flusher) = LinkCollector::builder().build()?;
    /// let handle = flusher.spawn(|batch| drop(batch))?;
    /// let stats = handle.shutdown_async(Duration::from_secs(5)).await?;
    /// # drop(stats);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// # });
    /// ```
    ///
    /// # Errors
    ///
    /// [`ShutdownError::Timeout`], [`ShutdownError::Panicked`], [`ShutdownError::AlreadyShutdown`].
    pub async fn shutdown_async(&self, timeout: Duration) -> Result<Stats, ShutdownError> {
        let timeout = self.begin(timeout)?;
        let end = self.run.wait_async(timeout, Run::report).await;
        self.conclude(end)
    }

    /// Returns whether the thread is done: it handled everything after a close, or panicked.
    ///
    /// ```
    /// let (_collector, flusher) = batchlink::LinkCollector::builder().build()?;
    /// let handle = flusher.spawn(|batch| drop(batch))?;
    /// assert!(!handle.is_finished());
    /// handle.shutdown()?;
    /// assert!(handle.is_finished());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn is_finished(&self) -> bool {
        self.run.with(|run| *run != Run::Running)
    }

    /// Lets the thread run until the collector is closed and everything was handled.
    ///
    /// ```
    /// let (collector, flusher) = batchlink::LinkCollector::builder().build()?;
    /// flusher.spawn(|batch| println!("{} links", batch.linked()))?.detach();
    /// drop(collector); // ends the thread
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn detach(self) {
        self.settled.store(true, Ordering::Relaxed);
    }

    /// Returns a snapshot of the counters, as
    /// [`LinkCollector::stats`](crate::LinkCollector::stats) does.
    pub fn stats(&self) -> Stats {
        self.queue.stats()
    }

    /// Closes, and returns how long to wait.
    fn begin(&self, timeout: Duration) -> Result<Duration, ShutdownError> {
        // Relaxed: read by the drop, which is exclusive.
        self.settled.store(true, Ordering::Relaxed);
        if self.run.with(|run| *run == Run::Reported) {
            return Err(ShutdownError::AlreadyShutdown);
        }
        self.queue.close();
        // The flusher's thread would wait for itself.
        Ok(if thread::current().id() == self.thread { Duration::ZERO } else { timeout })
    }

    fn conclude(&self, end: Option<Run>) -> Result<Stats, ShutdownError> {
        let stats = self.stats();
        match end {
            Some(Run::Ended) => Ok(stats),
            Some(Run::Panicked) => Err(ShutdownError::Panicked { pending: stats.pending() }),
            Some(Run::Reported) => Err(ShutdownError::AlreadyShutdown),
            Some(Run::Running) | None => Err(ShutdownError::Timeout {
                pending: stats.pending(),
                in_flight: self.queue.in_flight(),
            }),
        }
    }
}

impl Run {
    /// Returns how the thread ended, to one caller.
    fn report(&mut self) -> Option<Self> {
        match *self {
            Self::Running => None,
            ended => {
                *self = Self::Reported;
                Some(ended)
            }
        }
    }
}

impl Drop for FlusherHandle {
    fn drop(&mut self) {
        if self.settled.load(Ordering::Relaxed) {
            return;
        }
        let timeout = patience();
        let ended = self.shutdown_with_timeout(timeout);
        let nothing_left = Err(ShutdownError::Timeout { pending: 0, in_flight: 0 });
        match ended {
            Err(error) if !(timeout.is_zero() && ended == nothing_left) => logged(|| {
                opentelemetry::otel_warn!(name: "FlusherHandle.Drop", error = format!("{error}"));
            }),
            _ => {}
        }
    }
}

/// How long a drop waits. Not at all where tokio polls tasks: the handler may need this thread's
/// timers or I/O.
fn patience() -> Duration {
    if polls_tasks() { Duration::ZERO } else { DROP_TIMEOUT }
}

impl fmt::Debug for FlusherHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FlusherHandle").field("stats", &self.stats()).finish_non_exhaustive()
    }
}

#[cfg(all(test, feature = "tokio"))]
mod tests {
    use super::*;

    #[test]
    fn drop_in_task_returns() {
        assert_eq!(patience(), DROP_TIMEOUT);
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        let _entered = runtime.enter();
        assert_eq!(runtime.block_on(async { patience() }), Duration::ZERO);
        assert_eq!(patience(), DROP_TIMEOUT);
    }
}
