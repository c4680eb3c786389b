//! The flusher in async code: `next().await` and `Stream` (feature `tokio`).

use crate::batch::LinkBatch;
use crate::drain::Step;
use crate::flusher::{Flusher, SETTLE_NANOS};
use futures_core::Stream;
use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll};

/// Polls that yield for a claim in flight before they set a timer for it.
const SETTLE_POLLS: u32 = 16;

/// What an async wait keeps between polls. None of it is needed for correctness: a wait that is
/// cancelled loses nothing.
#[derive(Default)]
pub(crate) struct Waiting {
    timer: timer::Timer,
    /// Polls in a row that found a claim not yet published.
    settling: u32,
    /// The last poll was left pending, so the next one is a wake-up.
    asleep: bool,
}

impl Flusher {
    /// Waits until a batch is due; `None` once the collector is closed and everything was
    /// delivered.
    ///
    /// Cancel-safe: a future that is dropped has taken nothing. The delay is timed by tokio; on a
    /// thread without a tokio runtime (or with one whose time is not enabled) by a helper thread
    /// per wait, which is slower and otherwise the same.
    pub async fn next(&mut self) -> Option<LinkBatch> {
        poll_fn(|cx| self.poll_next_batch(cx)).await
    }

    /// [`next`](Self::next) for those who write their own `poll`.
    pub fn poll_next_batch(&mut self, cx: &mut Context<'_>) -> Poll<Option<LinkBatch>> {
        if std::mem::take(&mut self.waiting.asleep) {
            self.drain.queue().totals.add_wake_up();
        }
        // Before the look: a notification after it then finds this waker.
        self.drain.queue().trigger.signal.waker.register(cx.waker());
        let mut not_before = 0;
        loop {
            let (wake_at, deadline) = match self.drain.step(not_before) {
                Step::Take { count, trigger } => return Poll::Ready(Some(self.take(count, trigger))),
                Step::Closed => return Poll::Ready(None),
                Step::Settle if self.waiting.settling < SETTLE_POLLS => {
                    self.waiting.settling += 1;
                    cx.waker().wake_by_ref();
                    return Poll::Pending;
                }
                Step::Settle => {
                    (Some(self.drain.queue().trigger.clock.now().saturating_add(SETTLE_NANOS)), None)
                }
                Step::Wait { deadline } => {
                    self.waiting.settling = 0;
                    (deadline, deadline)
                }
            };
            let instant = wake_at.and_then(|at| self.drain.queue().trigger.clock.instant(at));
            let queue = self.drain.queue();
            if instant.is_none_or(|at| self.waiting.timer.poll(at, queue, cx).is_pending()) {
                self.waiting.asleep = true;
                return Poll::Pending;
            }
            // The timer's word counts, so that tokio's paused clock works as its users expect.
            not_before = deadline.unwrap_or(0);
        }
    }
}

impl Stream for Flusher {
    type Item = LinkBatch;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<LinkBatch>> {
        self.get_mut().poll_next_batch(cx)
    }
}

#[cfg(not(batchlink_loom))]
mod timer {
    use crate::queue::Queue;
    use crate::sync::Arc;
    use std::future::Future;
    use std::panic::catch_unwind;
    use std::pin::Pin;
    use std::task::{Context, Poll};
    use std::thread;
    use std::time::Instant;
    use tokio::time::{Sleep, sleep_until};

    /// One timer, set again for every wait.
    #[derive(Default)]
    pub(crate) struct Timer {
        /// Kept between waits: allocated once.
        sleep: Option<Pin<Box<Sleep>>>,
        /// What `sleep`, or the helper thread, is set to.
        at: Option<Instant>,
        /// tokio cannot time for us here.
        no_tokio: bool,
    }

    impl Timer {
        pub(crate) fn poll<T: Send + 'static>(
            &mut self,
            at: Instant,
            queue: &Arc<Queue<T>>,
            cx: &mut Context<'_>,
        ) -> Poll<()> {
            let again = self.at.replace(at) == Some(at);
            if !self.no_tokio {
                match self.sleep_until(at, again) {
                    Some(sleep) => return sleep.poll(cx),
                    None => self.no_tokio = true,
                }
            }
            let left = at.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Poll::Ready(());
            }
            if again {
                return Poll::Pending;
            }
            // Through the signal, which knows the waker of the latest poll.
            let queue = Arc::clone(queue);
            let helper = move || {
                thread::sleep(left);
                queue.trigger.signal.notify();
            };
            if thread::Builder::new().name("batchlink-timer".into()).spawn(helper).is_err() {
                // No thread to be had: look again as soon as the executor lets us.
                self.at = None;
                cx.waker().wake_by_ref();
            }
            Poll::Pending
        }

        fn sleep_until(&mut self, at: Instant, again: bool) -> Option<Pin<&mut Sleep>> {
            if self.sleep.is_none() {
                tokio::runtime::Handle::try_current().ok()?;
                // Panics if the runtime's time is not enabled, and there is no other way to ask.
                self.sleep = catch_unwind(|| Box::pin(sleep_until(at.into()))).ok();
            } else if !again {
                self.sleep.as_mut()?.as_mut().reset(at.into());
            }
            self.sleep.as_mut().map(|sleep| sleep.as_mut())
        }
    }
}

#[cfg(batchlink_loom)]
mod timer {
    use crate::queue::Queue;
    use crate::sync::Arc;
    use std::task::{Context, Poll};
    use std::time::Instant;

    /// Time stands still in a model.
    #[derive(Default)]
    pub(crate) struct Timer;

    impl Timer {
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
