//! The timer of an async wait.

#[cfg(not(any(batchlink_loom, batchlink_shuttle)))]
mod real {
    use crate::queue::Queue;
    use crate::sync::Arc;
    use std::future::Future;
    use std::panic::{AssertUnwindSafe, catch_unwind};
    use std::pin::Pin;
    use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
    use std::task::{Context, Poll};
    use std::thread;
    use std::time::Instant;
    use tokio::runtime::Handle;
    use tokio::time::{Sleep, sleep_until};

    /// One timer, set again with every poll.
    #[derive(Default)]
    pub(crate) struct Timer {
        /// Boxed once, with the first timer that is set. A timer belongs to the runtime in which it was set.
        sleep: Option<Pin<Box<Option<Sleep>>>>,
        /// A runtime was met whose time is not enabled; asking again would panic again.
        no_tokio: bool,
        /// The thread that keeps the time without tokio, once there is one.
        thread: Option<Sender<Option<Instant>>>,
    }

    impl Timer {
        pub(crate) fn poll<T: Send + 'static>(
            &mut self,
            at: Instant,
            queue: &Arc<Queue<T>>,
            cx: &mut Context<'_>,
        ) -> Poll<()> {
            if let Some(sleep) = self.set(at) {
                // Panics if the runtime is being shut down.
                if let Ok(poll) = catch_unwind(AssertUnwindSafe(|| sleep.poll(cx))) {
                    return poll;
                }
            }
            if at <= Instant::now() {
                return Poll::Ready(());
            }
            let thread = self.thread.take().or_else(|| start(Arc::clone(queue)));
            self.thread = thread.filter(|thread| thread.send(Some(at)).is_ok());
            if self.thread.is_none() {
                // No thread to be had: look again as soon as the executor lets us.
                cx.waker().wake_by_ref();
            }
            Poll::Pending
        }

        /// No time is waited for any more: one that was must not wake anybody.
        pub(crate) fn stop(&mut self) {
            if let Some(sleep) = &mut self.sleep {
                sleep.set(None);
            }
            self.thread = self.thread.take().filter(|thread| thread.send(None).is_ok());
        }

        /// Anew each time: the flusher may have moved to another runtime since the last poll.
        fn set(&mut self, at: Instant) -> Option<Pin<&mut Sleep>> {
            if self.no_tokio || Handle::try_current().is_err() {
                return None;
            }
            // Panics if the runtime's time is not enabled, and there is no other way to ask.
            let Ok(sleep) = catch_unwind(|| sleep_until(at.into())) else {
                self.no_tokio = true;
                return None;
            };
            let kept = self.sleep.get_or_insert_with(|| Box::pin(None));
            kept.set(Some(sleep));
            kept.as_mut().as_pin_mut()
        }
    }

    #[cfg(test)]
    impl Timer {
        pub(crate) fn gave_up_on_tokio(&self) -> bool {
            self.no_tokio
        }
    }

    /// Starts a thread that notifies the flusher at the last time it was told, until the timer
    /// is dropped.
    fn start<T: Send + 'static>(queue: Arc<Queue<T>>) -> Option<Sender<Option<Instant>>> {
        let (tell, told) = channel();
        let run = move || keep_time(&told, &queue);
        thread::Builder::new().name("batchlink-timer".into()).spawn(run).ok().map(|_| tell)
    }

    fn keep_time<T>(told: &Receiver<Option<Instant>>, queue: &Queue<T>) {
        let mut alarm: Option<Instant> = None;
        loop {
            let news = match alarm {
                None => told.recv().map_err(RecvTimeoutError::from),
                Some(at) => told.recv_timeout(at.saturating_duration_since(Instant::now())),
            };
            alarm = match news {
                Ok(at) => at,
                Err(RecvTimeoutError::Timeout) => {
                    queue.trigger.signal.notify();
                    None
                }
                Err(RecvTimeoutError::Disconnected) => return,
            };
        }
    }
}

#[cfg(not(any(batchlink_loom, batchlink_shuttle)))]
pub(crate) use real::Timer;

#[cfg(any(batchlink_loom, batchlink_shuttle))]
mod model {
    use crate::queue::Queue;
    use crate::sync::Arc;
    use std::task::{Context, Poll};
    use std::time::Instant;

    /// Time stands still in a model.
    #[derive(Default)]
    pub(crate) struct Timer;

    impl Timer {
        pub(crate) fn stop(&mut self) {}

        pub(crate) fn poll<T>(
            &mut self,
            _at: Instant,
            _queue: &Arc<Queue<T>>,
            _cx: &mut Context<'_>,
        ) -> Poll<()> {
            Poll::Pending
        }
    }
}

#[cfg(any(batchlink_loom, batchlink_shuttle))]
pub(crate) use model::Timer;
