//! The thread that runs a flusher or a processor, and its shutdown.

use crate::collector::flusher::logged;
use crate::error::ShutdownError;
use crate::panic::caught;
use crate::queue::Queue;
use crate::stats::Stats;
use crate::sync::thread::{self, JoinHandle};
use crate::sync::{Arc, Mutex, mpsc};
use std::sync::PoisonError;
use std::time::Duration;
use std::{fmt, io};

/// How long a dropped [`FlusherHandle`] waits for its thread.
const DROP_TIMEOUT: Duration = Duration::from_secs(5);

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
