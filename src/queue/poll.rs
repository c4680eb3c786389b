//! How the consumer waits in a task (feature `tokio`). (`receiver.rs`: on a thread.)

use crate::panic::caught;
use crate::queue::coop;
use crate::queue::drain::Action;
use crate::queue::receiver::{AWAIT_PUBLISH_NANOS, Due, Receiver};
use crate::queue::ring::Entry;
use crate::queue::timer::Timer;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

/// Polls that yield for an unpublished claim before they set a timer for it. With shuttle they
/// always yield: its time stands still while a claimant may be suspended for long.
const AWAIT_PUBLISH_POLLS: u32 = if cfg!(batchlink_shuttle) { u32::MAX } else { 16 };

/// What an async wait keeps between polls. It is not needed for correctness: a cancelled wait loses
/// nothing.
#[derive(Default)]
pub(super) struct AsyncWait {
    timer: Timer,
    /// Polls in a row that found an unpublished claim.
    awaiting: u32,
    /// The last poll returned `Pending`, so the next one is a wake-up.
    asleep: bool,
    /// Kept so that it is allocated once: most tasks always pass the same waker.
    alarm: Option<Arc<Alarm>>,
}

impl AsyncWait {
    /// Returns the waker to register: it wakes the task.
    fn alarm(&mut self, task: &Waker) -> Waker {
        let alarm = self
            .alarm
            .take()
            .filter(|alarm| alarm.task.as_ref().is_some_and(|kept| kept.will_wake(task)));
        let alarm = alarm.unwrap_or_else(|| Arc::new(Alarm { task: Some(task.clone()) }));
        self.alarm.insert(alarm).clone().into()
    }
}

/// A task's waker, which is the user's code, behind one that does not panic when it is cloned or
/// dropped: after a panic, [`AtomicWaker`](crate::sync::AtomicWaker) would never register another.
// Invariant: one-waker.
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

impl<T: Entry + Send + 'static> Receiver<T> {
    /// Waits as [`wait`](Self::wait) does, for a task.
    // Invariant: register-before-poll.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Due>> {
        let Self { drain, wait } = self;
        if std::mem::take(&mut wait.asleep) {
            drain.queue().totals.add_wake_up();
        }
        // Before the poll of the shards: a wake-up after it then finds this waker.
        let alarm = wait.alarm(cx.waker());
        drain.queue().trigger.signal.waker.register(&alarm);
        let now = drain.queue().trigger.clock.now();
        let deadline = match drain.step(now) {
            Action::Take { count, trigger } => {
                wait.awaiting = 0;
                wait.timer.stop();
                // A task that does not wait is not woken: it would be polled again ahead of others.
                drop(drain.queue().trigger.signal.waker.take());
                return coop::poll_proceed(cx, coop::BATCH).map(|()| Some(Due { count, trigger }));
            }
            Action::Closed => {
                wait.timer.stop();
                return Poll::Ready(None);
            }
            Action::AwaitPublish if wait.awaiting < AWAIT_PUBLISH_POLLS => {
                wait.awaiting += 1;
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            Action::AwaitPublish => Some(now.saturating_add(AWAIT_PUBLISH_NANOS)),
            Action::Wait { deadline } => {
                wait.awaiting = 0;
                deadline
            }
        };
        wait.asleep = true;
        match deadline {
            Some(at) => wait.timer.set(Duration::from_nanos(at.saturating_sub(now)), &alarm),
            None => wait.timer.stop(),
        }
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::queue::Queue;
    use crate::queue::rules::{Early, Rules};

    /// A wait for an unpublished claim yields first and then sets a timer: an executor that runs
    /// nothing else would spin.
    #[test]
    fn unpublished_claim_yields_then_sleeps() {
        let (queue, consumers) = Queue::new(1, 8, 8, 0);
        let shared = crate::sync::Arc::clone(queue.queue());
        let rules = Rules { size: 8, max_delay: u64::MAX, early: Early::Never };
        let mut receiver = Receiver::new(shared, consumers, rules);
        queue.trigger.suspend_coordinator();
        let cx = &mut Context::from_waker(Waker::noop());
        for _ in 0..AWAIT_PUBLISH_POLLS + 4 {
            assert!(receiver.poll(cx).is_pending());
        }
        assert_eq!(receiver.wait.awaiting, AWAIT_PUBLISH_POLLS);
        queue.shard(0).push(|| ()).expect("a free slot");
        assert!(receiver.poll(cx).is_pending());
        assert_eq!(receiver.wait.awaiting, 0, "it waits for a batch now");
    }
}
