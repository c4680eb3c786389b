//! The one consumer: decides from what it finds in the rings what is due, and takes it.
//!
//! Knows nothing of waiting; [`Step`] says what to wait for.

use crate::queue::Queue;
use crate::queue::ring::{Consumer, Take};
use crate::stats::Trigger;
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

/// What all shards together have.
struct Look {
    claimed: u32,
    published: u32,
    /// Every shard is closed. (A shard that is closed has its final number of claims in the same
    /// word, so nothing can come between the two.)
    closed: bool,
    /// The time before the look.
    now: u64,
}

struct Shard<T> {
    consumer: Consumer<T>,
    /// Everything below this position is to be delivered without waiting for size or timeout.
    flush_to: u64,
    /// All that is pending was claimed after this time, and as little after it as is known.
    since: u64,
    /// All that was claimed from this position on was claimed after `marked_at`.
    mark: u64,
    marked_at: u64,
    /// There was nothing here then.
    was_empty: bool,
}

pub(crate) struct Drain<T> {
    queue: Arc<Queue<T>>,
    shards: Vec<Shard<T>>,
    size: u32,
    /// Nanoseconds.
    max_delay: u64,
    /// Where the next batch begins, so that no shard is always first.
    first: usize,
    /// A time before the last look.
    looked_at: u64,
}

impl<T> Shard<T> {
    /// Keeps the mark ahead of what was taken. `looked_at` is a time before the last look.
    fn move_mark(&mut self, looked_at: u64, armed_at: u64) {
        if self.mark <= self.consumer.position() {
            // An entry that comes into an empty shard is the one just reported, or later than it.
            self.since = if self.was_empty { self.marked_at.max(armed_at) } else { self.marked_at };
            self.mark = self.consumer.claimed_position();
            self.marked_at = looked_at;
            self.was_empty = self.consumer.claimed() == 0;
        }
    }

    /// Whether somebody waits for what is in here now.
    fn is_flushed(&self) -> bool {
        self.flush_to > self.consumer.position()
    }
}

impl<T> Drain<T> {
    pub(crate) fn new(queue: Arc<Queue<T>>, consumers: Vec<Consumer<T>>, size: u32, max_delay: u64) -> Self {
        let now = queue.trigger.clock.now();
        let shard = |consumer: Consumer<T>| {
            let mark = consumer.position();
            Shard { consumer, flush_to: 0, since: now, mark, marked_at: now, was_empty: true }
        };
        let shards = consumers.into_iter().map(shard).collect();
        Self { queue, shards, size, max_delay, first: 0, looked_at: now }
    }

    pub(crate) fn queue(&self) -> &Arc<Queue<T>> {
        &self.queue
    }

    /// Looks at all shards and decides. `now` is at least `not_before`, for a caller whose timer
    /// has fired already.
    pub(crate) fn step(&mut self, not_before: u64) -> Step {
        // The weight before the look: the look then finds all that it counts.
        let heavy = self.queue.weight.is_reached();
        let Look { claimed, published, closed, now } = self.look();
        if claimed == 0 {
            return match closed {
                true => Step::Closed,
                // The scan that will let the next push report is not over.
                false if self.queue.trigger.is_busy() => Step::Settle,
                false => Step::Wait { deadline: None },
            };
        }
        if published >= self.size {
            return Step::Take { count: self.size, trigger: Trigger::Size };
        }
        // An entry that is due but not published holds up its shard; that must not make others due.
        let now = now.max(not_before);
        let (mut flushed, mut overdue, mut held_up, mut deadline) = (false, false, false, u64::MAX);
        for shard in self.shards.iter().filter(|shard| shard.consumer.claimed() > 0) {
            let until = shard.since.saturating_add(self.max_delay);
            match (shard.consumer.published() > 0, shard.is_flushed(), now >= until) {
                (true, true, _) => flushed = true,
                (true, _, true) => overdue = true,
                (false, true, _) | (false, _, true) => held_up = true,
                (_, false, false) => deadline = deadline.min(until),
            }
        }
        let trigger = if heavy && published > 0 {
            Trigger::Weight
        } else if closed && published > 0 {
            Trigger::Shutdown
        } else if flushed {
            Trigger::Manual
        } else if overdue {
            Trigger::Timeout
        } else if heavy || held_up || closed || claimed >= self.size {
            return Step::Settle;
        } else {
            return Step::Wait { deadline: Some(deadline) };
        };
        Step::Take { count: published, trigger }
    }

    /// How many entries one batch could take right now.
    pub(crate) fn available(&mut self) -> u32 {
        self.look().published.min(self.size)
    }

    fn look(&mut self) -> Look {
        let trigger = &self.queue.trigger;
        // The request before the look: the look then finds all that was pushed before it.
        let asked = trigger.take_flush_request();
        let (now, armed_at) = (trigger.clock.now(), trigger.armed_at());
        self.looked_at = now;
        let mut look = Look { claimed: 0, published: 0, closed: true, now };
        for shard in &mut self.shards {
            shard.consumer.look();
            shard.move_mark(now, armed_at);
            if asked {
                shard.flush_to = shard.consumer.claimed_position();
            }
            look.claimed += shard.consumer.claimed();
            look.published += shard.consumer.published();
            look.closed &= shard.consumer.closed();
        }
        look
    }

    /// Takes `count` entries, of those that the last look found published; fewer if `run` leaves
    /// some of what it is given for later.
    pub(crate) fn take(&mut self, count: u32, mut run: impl FnMut(&mut Take<'_, T>)) {
        let shards = self.shards.len();
        let mut left = count;
        for step in 0..shards {
            let consumer = &mut self.shards[(self.first + step) % shards].consumer;
            let part = consumer.published().min(left);
            if part > 0 {
                run(&mut consumer.take(part));
                left -= part;
            }
        }
        self.first = (self.first + 1) % shards;
        for shard in &mut self.shards {
            shard.move_mark(self.looked_at, 0);
        }
        self.queue.drained();
    }
}

impl<T> Drop for Drain<T> {
    fn drop(&mut self) {
        self.queue.close();
        self.queue.consumer_gone();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::queue::Handle;

    /// In nanoseconds.
    const HOUR: u64 = 3_600_000_000_000;

    /// Two shards; batches of `size`.
    fn drain(size: u32) -> (Handle<()>, Drain<()>) {
        let (queue, consumers) = Queue::new(2, 8, size, 0);
        let drain = Drain::new(Arc::clone(queue.queue()), consumers, size, HOUR);
        (queue, drain)
    }

    fn push(queue: &Handle<()>, shard: usize) {
        queue.shard(shard).push(|| ()).expect("room");
    }

    fn deadline(step: Step) -> u64 {
        let Step::Wait { deadline: Some(deadline) } = step else { panic!("{step:?}") };
        deadline
    }

    /// Otherwise a context that comes after a long quiet time would be late at once.
    #[test]
    fn the_delay_does_not_begin_while_nothing_is_pending() {
        let (queue, mut drain) = drain(8);
        for _ in 0..3 {
            assert_eq!(drain.step(0), Step::Wait { deadline: None });
            let before = queue.trigger.clock.now();
            push(&queue, 0);
            let due = deadline(drain.step(0));
            assert!(due >= before + HOUR);
            assert_eq!(deadline(drain.step(due - 1)), due, "it does not move");
            assert_eq!(drain.step(due), Step::Take { count: 1, trigger: Trigger::Timeout });
            drain.take(1, |records| assert_eq!(records.count(), 1));
        }
    }

    /// What a batch leaves behind has the delay of its own time, under load for ever, too.
    #[test]
    fn who_was_left_behind_is_not_older_than_it_is() {
        let (queue, mut drain) = drain(2);
        push(&queue, 0);
        for _ in 0..5 {
            let before = queue.trigger.clock.now();
            push(&queue, 0);
            push(&queue, 0);
            assert_eq!(drain.step(0), Step::Take { count: 2, trigger: Trigger::Size });
            drain.take(2, |records| assert_eq!(records.count(), 2));
            // Known to be later than the look before the last.
            assert!(drain.shards[0].since < queue.trigger.clock.now());
            if drain.shards[0].marked_at > before {
                assert!(deadline(drain.step(0)) > HOUR);
            }
        }
        let since = drain.shards[0].since;
        let before = queue.trigger.clock.now();
        push(&queue, 0);
        assert_eq!(drain.step(0), Step::Take { count: 2, trigger: Trigger::Size });
        drain.take(2, |records| assert_eq!(records.count(), 2));
        push(&queue, 0);
        assert!(deadline(drain.step(0)) >= before + HOUR && since < before);
    }

    /// An entry that is due but was never published makes nobody else due, and is looked for.
    #[test]
    fn a_claim_in_flight_makes_others_no_older() {
        let (queue, mut drain) = drain(8);
        let claim = queue.rings[0].claim(1).expect("room");
        let overdue = deadline(drain.step(0));
        assert_eq!(drain.step(overdue), Step::Settle);
        push(&queue, 1);
        queue.trigger.ask_flush();
        assert_eq!(drain.step(0), Step::Take { count: 1, trigger: Trigger::Manual });
        drain.take(1, |records| assert_eq!(records.count(), 1));
        assert_eq!(drain.step(0), Step::Settle, "the flush is for the claim, too");
        push(&queue, 1);
        assert_eq!(drain.step(0), Step::Settle, "and not for what came later");
        let _ = claim.publish(|| ());
        assert_eq!(drain.step(0), Step::Take { count: 2, trigger: Trigger::Manual });
    }

    /// Its addition crossed the limit and notified; whoever publishes before it notifies nobody.
    #[test]
    fn weight_behind_a_claim_in_flight_is_looked_for() {
        let (queue, consumers) = Queue::new(1, 8, 8, 10);
        let mut drain = Drain::new(Arc::clone(queue.queue()), consumers, 8, HOUR);
        let claim = queue.rings[0].claim(1).expect("room");
        push(&queue, 0);
        queue.weigh(10);
        assert_eq!(drain.step(0), Step::Settle);
        queue.shard(0).finish(claim, || ());
        assert_eq!(drain.step(0), Step::Take { count: 2, trigger: Trigger::Weight });
    }

    /// What comes while a batch is taken does not wait until it was for its delay to begin.
    #[test]
    fn the_time_a_batch_takes_is_no_part_of_the_delay() {
        let (queue, mut drain) = drain(8);
        push(&queue, 0);
        queue.trigger.ask_flush();
        assert_eq!(drain.step(0), Step::Take { count: 1, trigger: Trigger::Manual });
        let mut pushed = 0;
        drain.take(1, |records| {
            assert_eq!(records.count(), 1);
            push(&queue, 1);
            pushed = queue.trigger.clock.now();
            while queue.trigger.clock.now() == pushed {}
        });
        assert!(deadline(drain.step(0)) <= pushed + HOUR);
    }

    /// Nobody notifies of what is published last.
    #[test]
    fn a_claim_in_flight_is_looked_for_when_it_completes_a_batch_or_the_end() {
        let (queue, mut drain) = drain(2);
        let claim = queue.rings[0].claim(1).expect("room");
        let _ = deadline(drain.step(0));
        push(&queue, 0);
        assert_eq!(drain.step(0), Step::Settle);
        let _ = claim.publish(|| ());
        assert_eq!(drain.step(0), Step::Take { count: 2, trigger: Trigger::Size });
        drain.take(2, |records| assert_eq!(records.count(), 2));
        let claim = queue.rings[0].claim(1).expect("room");
        queue.close();
        assert_eq!(drain.step(0), Step::Settle);
        let _ = claim.publish(|| ());
        assert_eq!(drain.step(0), Step::Take { count: 1, trigger: Trigger::Shutdown });
    }

    #[test]
    fn a_flusher_does_not_sleep_while_somebody_coordinates() {
        let (queue, mut drain) = drain(8);
        queue.trigger.pretend_to_coordinate();
        assert_eq!(drain.step(0), Step::Settle);
        queue.close();
        assert_eq!(drain.step(0), Step::Closed);
    }
}
