//! How the one consumer waits for what is due, on a thread. (`poll.rs`: in a task.)

use crate::error::Timeout;
use crate::queue::Queue;
use crate::queue::drain::{Drain, Step};
use crate::queue::ring::Consumer;
use crate::stats::Trigger;
use crate::sync::{Arc, Backoff, Parker};
use std::time::Duration;

/// How often to look for a claim that was not published yet, once yielding did not help: its
/// thread lost the processor in the middle of a push.
pub(crate) const SETTLE_NANOS: u64 = 1_000_000;

/// The consumer's end of a queue.
pub(crate) struct Receiver<T> {
    pub(crate) drain: Drain<T>,
    #[cfg(feature = "tokio")]
    pub(crate) waiting: crate::queue::poll::Waiting,
}

/// Take this many, for this reason.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Due {
    pub(crate) count: u32,
    pub(crate) trigger: Trigger,
}

impl<T> Receiver<T> {
    pub(crate) fn new(
        queue: Arc<Queue<T>>,
        consumers: Vec<Consumer<T>>,
        size: u32,
        max_delay: Duration,
    ) -> Self {
        Self {
            drain: Drain::new(queue, consumers, size, nanos(max_delay)),
            #[cfg(feature = "tokio")]
            waiting: Default::default(),
        }
    }

    pub(crate) fn queue(&self) -> &Arc<Queue<T>> {
        self.drain.queue()
    }

    /// What is pending right now, up to one batch.
    pub(crate) fn available(&mut self) -> Option<Due> {
        match self.drain.available() {
            0 => None,
            count => Some(Due { count, trigger: Trigger::Manual }),
        }
    }

    /// Waits until something is due; `None` once closed and empty.
    pub(crate) fn wait(&mut self) -> Option<Due> {
        // Without a limit there is no timeout.
        self.wait_until(None).unwrap_or(None)
    }

    pub(crate) fn wait_timeout(&mut self, timeout: Duration) -> Result<Option<Due>, Timeout> {
        let now = self.queue().trigger.clock.now();
        self.wait_until(Some(now.saturating_add(nanos(timeout))))
    }

    fn wait_until(&mut self, until: Option<u64>) -> Result<Option<Due>, Timeout> {
        let (backoff, parker) = (Backoff::new(), Parker::new());
        loop {
            // Before the look: a notification after it then finds this waker.
            self.queue().trigger.signal.waker.register(parker.waker());
            let step = self.drain.step(0);
            let clock = &self.drain.queue().trigger.clock;
            let deadline = match step {
                Step::Take { count, trigger } => return Ok(Some(Due { count, trigger })),
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
            parker.park(deadline.and_then(|deadline| clock.instant(deadline)));
            self.drain.queue().totals.add_wake_up();
        }
    }
}

impl<T> Receiver<T> {
    /// Closes, and gives what is left to `each`, which must not panic. Waits for claims in flight, so
    /// that none is left behind where nobody looks any more.
    #[cfg(feature = "processor")]
    pub(crate) fn discard(&mut self, each: impl Fn(T)) {
        self.queue().close();
        while let Some(Due { count, .. }) = self.wait() {
            self.drain.take(count, |take| take.for_each(&each));
        }
    }
}

/// Whole nanoseconds, at most `u64::MAX` (584 years).
fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
