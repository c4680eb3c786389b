//! The flusher in async code: `next().await` and `Stream` (feature `tokio`).

use crate::batch::LinkBatch;
use crate::drain::Step;
use crate::flusher::Flusher;
use crate::unwind::caught;
use crate::wait::{Due, Receiver, SETTLE_NANOS};
use futures_core::Stream;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};

/// Polls that yield for a claim in flight before they set a timer for it; with shuttle, whose time stands
/// still while a claimant may be held up for long, they never do.
const SETTLE_POLLS: u32 = if cfg!(batchlink_shuttle) { u32::MAX } else { 16 };

/// What an async wait keeps between polls. None of it is needed for correctness: a wait that is
/// cancelled loses nothing.
#[derive(Default)]
pub(crate) struct Waiting {
    timer: timer::Timer,
    /// Polls in a row that found a claim not yet published.
    settling: u32,
    /// The last poll was left pending, so the next one is a wake-up.
    asleep: bool,
    /// Kept to be allocated once: most tasks always come with the same waker.
    alarm: Option<Arc<Alarm>>,
}

impl Waiting {
    /// What to register: it wakes the task.
    fn alarm(&mut self, task: &Waker) -> Waker {
        let alarm =
            self.alarm.take().filter(|alarm| alarm.task.as_ref().is_some_and(|kept| kept.will_wake(task)));
        let alarm = alarm.unwrap_or_else(|| Arc::new(Alarm { task: Some(task.clone()) }));
        self.alarm.insert(alarm).clone().into()
    }
}

/// A task's waker, which is the user's code, behind one that does not panic when it is cloned or
/// dropped: [`AtomicWaker`](crate::sync::AtomicWaker) would never register another after that.
struct Alarm {
    /// `None` only while it is dropped.
    task: Option<Waker>,
}

impl Wake for Alarm {
    fn wake(self: Arc<Self>) {
        if let Some(task) = &self.task {
            task.wake_by_ref();
        }
    }
}

impl Drop for Alarm {
    fn drop(&mut self) {
        let task = self.task.take();
        let _ = caught(|| drop(task));
    }
}

impl Flusher {
    /// Waits until a batch is due; `None` once the collector is closed and everything was
    /// delivered.
    ///
    /// Cancel-safe: a future that is dropped has taken nothing. The delay is timed by tokio; on a
    /// thread without a tokio runtime (or with one whose time is not enabled) by a helper thread,
    /// which is slower and otherwise the same.
    pub async fn next(&mut self) -> Option<LinkBatch> {
        poll_fn(|cx| self.poll_next_batch(cx)).await
    }

    /// [`next`](Self::next) for those who write their own `poll`.
    pub fn poll_next_batch(&mut self, cx: &mut Context<'_>) -> Poll<Option<LinkBatch>> {
        self.receiver.poll(cx).map(|due| due.map(|due| self.take(due)))
    }
}

impl Stream for Flusher {
    type Item = LinkBatch;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<LinkBatch>> {
        self.get_mut().poll_next_batch(cx)
    }
}

impl<T: Send + 'static> Receiver<T> {
    /// As [`wait`](Self::wait), for a task.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Due>> {
        if std::mem::take(&mut self.waiting.asleep) {
            self.drain.queue().totals.add_wake_up();
        }
        // Before the look: a notification after it then finds this waker.
        let alarm = self.waiting.alarm(cx.waker());
        self.drain.queue().trigger.signal.waker.register(&alarm);
        let mut not_before = 0;
        loop {
            let (wake_at, deadline) = match self.drain.step(not_before) {
                Step::Take { count, trigger } => {
                    self.waiting.settling = 0;
                    return Poll::Ready(Some(Due { count, trigger }));
                }
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
            let Waiting { timer, .. } = &mut self.waiting;
            let pending = match instant {
                Some(at) => timer.poll(at, queue, cx).is_pending(),
                None => {
                    timer.stop();
                    true
                }
            };
            if pending {
                self.waiting.asleep = true;
                return Poll::Pending;
            }
            // The timer's word counts, so that tokio's paused clock works as its users expect.
            not_before = deadline.unwrap_or(0);
        }
    }
}

#[cfg(not(any(batchlink_loom, batchlink_shuttle)))]
mod timer {
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

#[cfg(any(batchlink_loom, batchlink_shuttle))]
mod timer {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::collector::LinkCollector;
    use opentelemetry::trace::{SpanContext, SpanId, TraceFlags, TraceId, TraceState};
    use std::task::Waker;

    /// An executor that runs nothing else would spin until the claim in flight is published.
    #[test]
    fn a_flusher_yields_some_times_before_it_sleeps() {
        let (collector, mut flusher) = LinkCollector::builder().build().expect("valid");
        flusher.receiver.queue().trigger.pretend_to_coordinate();
        let cx = &mut Context::from_waker(Waker::noop());
        for _ in 0..SETTLE_POLLS + 4 {
            assert!(flusher.poll_next_batch(cx).is_pending());
        }
        assert_eq!(flusher.receiver.waiting.settling, SETTLE_POLLS);
        let ids = (TraceId::from(1_u128), SpanId::from(1));
        let context = SpanContext::new(ids.0, ids.1, TraceFlags::SAMPLED, false, TraceState::NONE);
        collector.push(&context).expect("room");
        assert!(flusher.poll_next_batch(cx).is_pending());
        assert_eq!(flusher.receiver.waiting.settling, 0, "it waits for a batch now");
        assert!(
            !flusher.receiver.waiting.timer.gave_up_on_tokio(),
            "without a runtime there is nothing to ask"
        );
    }
}
