//! The one consumer: decides from what it finds in the rings what is due, and takes it.
//!
//! Knows nothing of waiting; [`Step`] says what to wait for.

use crate::batch::Trigger;
use crate::queue::Queue;
use crate::ring::{Consumer, Take};
use crate::sync::Arc;

/// What is to be done next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// Take this many: a batch is due.
    Take { count: u32, trigger: Trigger },
    /// Nothing before this time (`None`: before a notification).
    Wait { deadline: Option<u64> },
    /// Somebody is in the middle of a push or a scan: look again soon, nobody will notify.
    Settle,
    /// Closed, and everything was taken.
    Closed,
}

struct Shard<T> {
    consumer: Consumer<T>,
    /// Everything below this position is to be delivered without waiting for size or timeout.
    flush_to: u64,
}

pub(crate) struct Drain<T> {
    queue: Arc<Queue<T>>,
    shards: Vec<Shard<T>>,
    size: u32,
    /// Nanoseconds.
    max_delay: u64,
    /// Where the next batch begins, so that no shard is always first.
    first: usize,
    /// Since when something has been pending without a break.
    since: Option<u64>,
}

impl<T> Drain<T> {
    pub(crate) fn new(queue: Arc<Queue<T>>, consumers: Vec<Consumer<T>>, size: u32, max_delay: u64) -> Self {
        let shards = consumers.into_iter().map(|consumer| Shard { consumer, flush_to: 0 }).collect();
        Self { queue, shards, size, max_delay, first: 0, since: None }
    }

    pub(crate) fn queue(&self) -> &Arc<Queue<T>> {
        &self.queue
    }

    /// Looks at all shards and decides. `now` is at least `not_before`, for a caller whose timer
    /// has fired already.
    pub(crate) fn step(&mut self, not_before: u64) -> Step {
        let (claimed, published, closed) = self.look();
        if claimed == 0 {
            return match closed {
                true => Step::Closed,
                // The scan that will let the next push report is not over.
                false if self.queue.trigger.is_busy() => Step::Settle,
                false => Step::Wait { deadline: None },
            };
        }
        let clock = &self.queue.trigger.clock;
        // Set by the look, since something is pending.
        let deadline = self.since.map_or(u64::MAX, |since| since.saturating_add(self.max_delay));
        if published >= self.size {
            return Step::Take { count: self.size, trigger: Trigger::Size };
        }
        let trigger = if closed {
            Trigger::Shutdown
        } else if self.shards.iter().any(|shard| shard.flush_to > shard.consumer.position()) {
            Trigger::Manual
        } else if clock.now().max(not_before) >= deadline {
            Trigger::Timeout
        } else if claimed >= self.size {
            return Step::Settle;
        } else {
            return Step::Wait { deadline: Some(deadline) };
        };
        match published {
            0 => Step::Settle,
            count => Step::Take { count, trigger },
        }
    }

    /// How many entries one batch could take right now.
    pub(crate) fn available(&mut self) -> u32 {
        self.look().1.min(self.size)
    }

    /// Claimed, published, and whether every shard is closed. (A shard that is closed has its
    /// final number of claims in the same word, so nothing can come between the two.)
    fn look(&mut self) -> (u32, u32, bool) {
        // The request before the look: the look then finds all that was pushed before it.
        let asked = self.queue.trigger.take_flush_request();
        let (mut claimed, mut published, mut closed) = (0, 0, true);
        for Shard { consumer, flush_to } in &mut self.shards {
            consumer.look();
            if asked {
                *flush_to = consumer.claimed_position();
            }
            claimed += consumer.claimed();
            published += consumer.published();
            closed &= consumer.closed();
        }
        if claimed > 0 && self.since.is_none() {
            self.since = Some(self.queue.trigger.armed_at());
        }
        (claimed, published, closed)
    }

    /// Takes `count` entries, of those that the last look found published.
    pub(crate) fn take(&mut self, count: u32, mut run: impl FnMut(Take<'_, T>)) {
        let shards = self.shards.len();
        let mut left = count;
        for step in 0..shards {
            let consumer = &mut self.shards[(self.first + step) % shards].consumer;
            let part = consumer.published().min(left);
            if part > 0 {
                run(consumer.take(part));
                left -= part;
            }
        }
        self.first = (self.first + 1) % shards;
        // What is left keeps its deadline, so that nobody waits twice.
        if self.shards.iter().all(|shard| shard.consumer.claimed() == 0) {
            self.since = None;
            self.queue.trigger.disarm();
        }
        self.queue.drained();
    }
}

impl<T> Drop for Drain<T> {
    fn drop(&mut self) {
        self.queue.close();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sync::Parker;

    /// In nanoseconds.
    const HOUR: u64 = 3_600_000_000_000;

    /// Otherwise a context that comes after a long quiet time would be late at once.
    #[test]
    fn the_delay_does_not_begin_while_nothing_is_pending() {
        let (queue, consumers) = Queue::<()>::new(2, 8, 8, Parker::new().unparker().clone());
        let mut drain = Drain::new(Arc::clone(queue.queue()), consumers, 8, HOUR);
        assert_eq!(drain.step(0), Step::Wait { deadline: None });
        assert_eq!(drain.since, None);
        queue.finish(queue.claim(&queue.rings[0]).expect("room"), || ());
        let Step::Wait { deadline: Some(deadline) } = drain.step(0) else { panic!("one is pending") };
        assert_eq!(drain.since, Some(deadline - HOUR));
        assert_eq!(drain.step(deadline), Step::Take { count: 1, trigger: Trigger::Timeout });
        drain.take(1, |records| assert_eq!(records.count(), 1));
        assert_eq!(drain.since, None);
    }

    #[test]
    fn a_flusher_does_not_sleep_while_somebody_coordinates() {
        let (queue, consumers) = Queue::<()>::new(2, 8, 8, Parker::new().unparker().clone());
        let mut drain = Drain::new(Arc::clone(queue.queue()), consumers, 8, HOUR);
        queue.trigger.pretend_to_coordinate();
        assert_eq!(drain.step(0), Step::Settle);
        queue.close();
        assert_eq!(drain.step(0), Step::Closed);
    }
}
