//! How the one consumer waits, in a task (feature `tokio`). (`receiver.rs`: on a thread.)

use crate::panic::caught;
use crate::queue::drain::Step;
use crate::queue::receiver::{Due, Receiver, SETTLE_NANOS};
use crate::queue::timer::Timer;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};

/// Polls that yield for a claim in flight before they set a timer for it; with shuttle, whose time stands
/// still while a claimant may be held up for long, they never do.
const SETTLE_POLLS: u32 = if cfg!(batchlink_shuttle) { u32::MAX } else { 16 };

/// What an async wait keeps between polls. None of it is needed for correctness: a wait that is
/// cancelled loses nothing.
#[derive(Default)]
pub(crate) struct Waiting {
    timer: Timer,
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::queue::Queue;
    use std::time::Duration;

    /// An executor that runs nothing else would spin until the claim in flight is published.
    #[test]
    fn unpublished_claim_yields_then_sleeps() {
        let (queue, consumers) = Queue::new(1, 8, 8, 0);
        let shared = crate::sync::Arc::clone(queue.queue());
        let mut receiver = Receiver::new(shared, consumers, 8, Duration::from_secs(3600));
        queue.trigger.pretend_to_coordinate();
        let cx = &mut Context::from_waker(Waker::noop());
        for _ in 0..SETTLE_POLLS + 4 {
            assert!(receiver.poll(cx).is_pending());
        }
        assert_eq!(receiver.waiting.settling, SETTLE_POLLS);
        queue.shard(0).push(|| ()).expect("room");
        assert!(receiver.poll(cx).is_pending());
        assert_eq!(receiver.waiting.settling, 0, "it waits for a batch now");
        assert!(!receiver.waiting.timer.gave_up_on_tokio(), "without a runtime there is nothing to ask");
    }
}
