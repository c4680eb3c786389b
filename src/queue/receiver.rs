//! The consumer's end of a queue, and how it waits on a thread. (`poll.rs`: in a task.)

use crate::error::Timeout;
use crate::queue::Queue;
use crate::queue::drain::{Action, Drain};
use crate::queue::ring::{Consumer, Entry};
use crate::queue::rules::Rules;
use crate::stats::Trigger;
use crate::sync::{Arc, Backoff, Parker, thread};
use std::time::Duration;

/// How often an unpublished claim is polled for, once yielding did not help: its thread lost the
/// processor in the middle of a push.
pub(super) const AWAIT_PUBLISH_NANOS: u64 = 1_000_000;

/// How often the consumer gives way before it sleeps, after a complete batch. On a busy machine the
/// next batch is complete when its turn comes again, and no producer pays for a wake-up; on an idle
/// one this takes about a microsecond.
const YIELDS: u32 = if cfg!(any(batchlink_loom, batchlink_shuttle)) { 1 } else { 4 };

/// The consumer's end of a queue.
pub(crate) struct Receiver<T: Entry> {
    pub(crate) drain: Drain<T>,
    #[cfg(feature = "tokio")]
    pub(super) wait: crate::queue::poll::AsyncWait,
}

/// A batch is due: how many entries, and why.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Due {
    pub(crate) count: u32,
    pub(crate) trigger: Trigger,
}

impl<T: Entry> Receiver<T> {
    pub(crate) fn new(queue: Arc<Queue<T>>, consumers: Vec<Consumer<T>>, rules: Rules) -> Self {
        Self {
            drain: Drain::new(queue, consumers, rules),
            #[cfg(feature = "tokio")]
            wait: Default::default(),
        }
    }

    pub(crate) fn queue(&self) -> &Arc<Queue<T>> {
        self.drain.queue()
    }

    /// Returns what is pending right now, up to one batch.
    pub(crate) fn available(&mut self) -> Option<Due> {
        let now = self.queue().trigger.clock.now();
        match self.drain.available(now) {
            0 if self.drain.held_until.is_none() => None,
            count => Some(Due { count, trigger: Trigger::Manual }),
        }
    }

    /// Waits until a batch is due; `None` once closed and empty. Blocks the thread.
    pub(crate) fn wait(&mut self) -> Option<Due> {
        // Without a limit it cannot time out.
        self.wait_until(None).unwrap_or(None)
    }

    /// Waits as [`wait`](Self::wait) does, for at most `timeout`.
    pub(crate) fn wait_timeout(&mut self, timeout: Duration) -> Result<Option<Due>, Timeout> {
        let now = self.queue().trigger.clock.system_now();
        self.wait_until(Some(now.saturating_add(nanos(timeout))))
    }

    // Invariant: register-before-poll.
    fn wait_until(&mut self, until: Option<u64>) -> Result<Option<Due>, Timeout> {
        let (backoff, parker, mut yields) = (Backoff::new(), Parker::new(), 0);
        loop {
            // Before the poll: a wake-up after it then finds this waker.
            self.queue().trigger.signal.waker.register(parker.waker());
            // The system's clock, as a parked thread has no other.
            let now = self.queue().trigger.clock.system_now();
            let action = self.drain.step(now);
            let clock = &self.drain.queue().trigger.clock;
            let deadline = match action {
                Action::Take { count, trigger } => return Ok(Some(Due { count, trigger })),
                Action::Closed => return Ok(None),
                _ if until.is_some_and(|until| clock.system_now() >= until) => return Err(Timeout),
                Action::AwaitPublish if !backoff.is_completed() => {
                    backoff.snooze();
                    continue;
                }
                Action::AwaitPublish => {
                    Some(clock.system_now().saturating_add(AWAIT_PUBLISH_NANOS))
                }
                Action::Wait { .. } if yields < YIELDS && self.drain.is_under_load() => {
                    yields += 1;
                    thread::yield_now();
                    continue;
                }
                Action::Wait { deadline } => {
                    backoff.reset();
                    deadline
                }
            };
            let deadline = deadline.into_iter().chain(until).min();
            parker.park(deadline.and_then(|deadline| clock.instant(deadline)));
            self.drain.queue().totals.add_wake_up();
        }
    }

    /// Closes, and passes what is left to `each`, which must not panic. Waits for claims in flight,
    /// so that no entry is left where nothing polls any more. A flush that waits for these fails.
    // Invariant: nothing-left-behind.
    #[cfg(feature = "processor")]
    pub(crate) fn discard(&mut self, each: impl Fn(T)) {
        self.queue().close();
        self.queue().consumer_gone(false);
        while let Some(Due { count, .. }) = self.wait() {
            let _ = self.drain.take(count, |take| take.for_each(&each));
        }
    }
}

/// Whole nanoseconds, at most `u64::MAX` (584 years).
pub(crate) fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
