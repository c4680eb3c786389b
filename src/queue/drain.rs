//! The one consumer: decides from what it finds in the rings what is due, and takes it.
//!
//! Does not wait; [`Action`] says what to wait for.

use crate::queue::Queue;
use crate::queue::ring::{Consumer, Entry, Take};
use crate::queue::rules::{Early, QUIET_POLLS, Rules};
use crate::stats::{Trigger, Wait};
use crate::sync::{Arc, Ordering};
use std::time::Duration;

/// What is to be done next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    /// Take this many entries: a batch is due.
    Take { count: u32, trigger: Trigger },
    /// Sleep until this time (`None`: until a wake-up).
    Wait { deadline: Option<u64> },
    /// A push or a scan is in progress: poll again soon, no wake-up will come.
    // Invariant: await-publish.
    AwaitPublish,
    /// Closed, and everything was taken.
    Closed,
}

/// Decides what is due, and takes it.
pub(crate) struct Drain<T: Entry> {
    queue: Arc<Queue<T>>,
    shards: Vec<ShardState<T>>,
    rules: Rules,
    /// Nothing was pending at some poll since the last take.
    idle: bool,
    /// The consumer holds entries of its own, which are due at this time, by a flush, or when the
    /// queue is closed.
    pub(crate) held_until: Option<u64>,
    /// A flush was requested since the last take.
    flushed: bool,
    /// Batches are in flight elsewhere: the consumer is not idle. Set around a poll.
    pub(crate) busy: bool,
    /// The sum of all tails at the last poll.
    tails: u64,
    /// When a poll last found more claims than the one before.
    moved_at: u64,
    /// The shard at which the next batch begins, so that no shard is always first.
    first: usize,
    /// A time before the last poll.
    polled_at: u64,
    /// The last batch was complete, so the next push is near.
    // Invariant: timed-sleep.
    timed: bool,
    /// Pushes refused as full, when the last batch was taken.
    refused: u64,
    /// Pushes were refused between the last two batches.
    refuses: bool,
    /// Until when the consumer is timed; `None`: not asked yet.
    timed_until: Option<u64>,
}

/// What the consumer knows of one shard.
struct ShardState<T: Entry> {
    consumer: Consumer<T>,
    /// Entries below this position are due without waiting for size or timeout.
    flush_to: u64,
    /// All pending entries were claimed after this time, and as little after it as is known.
    since: u64,
    /// `since` is when the first of them was pushed.
    exact: bool,
    /// Entries from this position on were claimed after `checkpoint_at`.
    checkpoint: u64,
    checkpoint_at: u64,
    /// The shard was empty at the checkpoint.
    was_empty: bool,
    /// Slots that the last batch freed.
    freed: u32,
}

/// What a poll found in all shards together.
struct Found {
    claimed: u32,
    published: u32,
    /// Every shard is closed. (The flag is in one word with the final number of claims, so no claim
    /// comes between the two.)
    closed: bool,
}

impl<T: Entry> ShardState<T> {
    /// Keeps the checkpoint ahead of the entries taken. `polled_at` is a time before the last poll.
    // Invariant: checkpoint.
    fn move_checkpoint(&mut self, polled_at: u64, armed_at: u64) {
        if self.checkpoint <= self.consumer.position() {
            // An entry in a shard that was empty is the one reported last, or later than it.
            let armed = self.was_empty && armed_at >= self.checkpoint_at;
            let since = if armed { armed_at } else { self.checkpoint_at };
            // Another thread may have another clock, in a test that pauses tokio's.
            self.since = since.min(polled_at);
            self.exact = armed && since <= polled_at;
            self.checkpoint = self.consumer.first_unclaimed();
            self.checkpoint_at = polled_at;
            self.was_empty = self.consumer.claimed() == 0;
        }
    }

    /// Returns whether a flush was requested for the next entry.
    fn is_flushed(&self) -> bool {
        self.flush_to > self.consumer.position()
    }
}

impl<T: Entry> Drain<T> {
    pub(crate) fn new(queue: Arc<Queue<T>>, consumers: Vec<Consumer<T>>, rules: Rules) -> Self {
        let now = queue.trigger.clock.now();
        let shard = |consumer: Consumer<T>| {
            let checkpoint = consumer.position();
            let (since, checkpoint_at) = (now, now);
            ShardState {
                consumer,
                flush_to: 0,
                since,
                exact: false,
                checkpoint,
                checkpoint_at,
                was_empty: true,
                freed: 0,
            }
        };
        let shards = consumers.into_iter().map(shard).collect();
        Self {
            queue,
            shards,
            rules,
            idle: false,
            held_until: None,
            flushed: false,
            busy: false,
            tails: 0,
            moved_at: now,
            first: 0,
            polled_at: now,
            timed: false,
            refused: 0,
            refuses: false,
            timed_until: None,
        }
    }

    pub(crate) fn queue(&self) -> &Arc<Queue<T>> {
        &self.queue
    }

    /// Polls all shards and decides. `now` was read from the clock before this call.
    // Invariants: size-of-published, own-shard-only.
    pub(crate) fn step(&mut self, now: u64) -> Action {
        // The weight before the poll: the poll then finds all items that it counts.
        // Invariant: weight-before-poll.
        let heavy = self.queue.weight.is_reached();
        let Found { claimed, published, closed } = self.poll(now);
        if let Some(until) = self.held_until {
            let trigger = match (self.flushed, closed && claimed == 0) {
                (true, _) => Some(Trigger::Manual),
                (_, true) => Some(Trigger::Shutdown),
                _ => (now >= until).then_some(Trigger::Timeout),
            };
            if let Some(trigger) = trigger {
                return Action::Take { count: published.min(self.rules.size), trigger };
            }
        }
        if claimed == 0 {
            return match closed {
                true => Action::Closed,
                // The scan that will make the next push report is not over.
                false if self.queue.trigger.is_busy() => Action::AwaitPublish,
                // What the consumer holds has a time of its own.
                false if self.held_until.is_some() => Action::Wait { deadline: self.held_until },
                false => self.rest(now),
            };
        }
        if published >= self.rules.size {
            return Action::Take { count: self.rules.size, trigger: Trigger::Size };
        }
        // An entry that is due but not published delays its own shard; it must not make others due.
        let (mut flushed, mut overdue, mut unpublished, mut deadline) =
            (false, false, false, u64::MAX);
        for shard in self.shards.iter().filter(|shard| shard.consumer.claimed() > 0) {
            let until = shard.since.saturating_add(self.rules.max_delay);
            match (shard.consumer.published() > 0, shard.is_flushed(), now >= until) {
                (true, true, _) => flushed = true,
                (true, _, true) => overdue = true,
                (false, true, _) | (false, _, true) => unpublished = true,
                (_, false, false) => deadline = deadline.min(until),
            }
        }
        // Due by the policy, once so many are published; and when to poll again otherwise.
        let (early, enough, again) = match self.rules.early {
            Early::Never => (false, 1, u64::MAX),
            Early::Enough(_) if self.idle && !self.busy => (true, 1, u64::MAX),
            Early::Enough(entries) => (claimed >= entries, entries, u64::MAX),
            Early::Quiet(quiet) => {
                let until = self.moved_at.saturating_add(quiet);
                (now >= until, 1, until.min(now.saturating_add((quiet / QUIET_POLLS).max(1))))
            }
        };
        let trigger = if heavy && published > 0 {
            Trigger::Weight
        } else if closed && published > 0 {
            Trigger::Shutdown
        } else if flushed {
            Trigger::Manual
        } else if overdue {
            Trigger::Timeout
        } else if early && published >= enough {
            Trigger::Policy
        } else if heavy || unpublished || closed || early || claimed >= self.rules.size {
            return Action::AwaitPublish;
        } else {
            return Action::Wait { deadline: Some(deadline.min(again)) };
        };
        Action::Take { count: published, trigger }
    }

    /// What to do while nothing is pending: under load, sleep for one delay, which spares the next
    /// push a wake-up; then, until a wake-up.
    // Invariant: timed-sleep.
    fn rest(&mut self, now: u64) -> Action {
        if !self.timed {
            return Action::Wait { deadline: None };
        }
        let until = now.saturating_add(self.rules.max_delay);
        // Another thread may have another clock, in a test that pauses tokio's.
        let until = self.timed_until.map_or(until, |former| former.min(until));
        self.timed_until = Some(until);
        if now < until {
            return Action::Wait { deadline: Some(until) };
        }
        self.set_timed(false);
        self.queue.trigger.drained(&self.queue.rings, false);
        // Nothing came in time. What came since then must be found before a sleep without end.
        Action::AwaitPublish
    }

    /// Returns whether to yield before a sleep: the last batch was complete, and no push was
    /// refused before it. Producers that are refused may push on for as long as their time slices
    /// last. A thread that yields comes after them; one that sleeps comes before, when it is woken.
    pub(super) fn is_under_load(&self) -> bool {
        self.timed && !self.refuses
    }

    fn set_timed(&mut self, timed: bool) {
        self.timed = timed;
        self.timed_until = None;
    }

    /// Returns the number of entries that one batch could take right now. `now` is as in
    /// [`step`](Self::step).
    pub(crate) fn available(&mut self, now: u64) -> u32 {
        self.poll(now).published.min(self.rules.size)
    }

    /// Returns a time before the last poll.
    #[cfg(feature = "processor")]
    pub(crate) fn polled_at(&self) -> u64 {
        self.polled_at
    }

    // Invariants: flush-before-poll, bounded-pass.
    fn poll(&mut self, now: u64) -> Found {
        let trigger = &self.queue.trigger;
        // The request before the poll: the poll then finds everything that was pushed before it.
        let flush_requested = trigger.take_flush_request();
        let armed_at = trigger.armed_at();
        self.polled_at = now;
        self.flushed |= flush_requested;
        let mut found = Found { claimed: 0, published: 0, closed: true };
        let mut tails: u64 = 0;
        for shard in &mut self.shards {
            shard.consumer.poll();
            shard.move_checkpoint(now, armed_at);
            if flush_requested {
                shard.flush_to = shard.consumer.first_unclaimed();
            }
            tails = tails.wrapping_add(shard.consumer.first_unclaimed());
            found.claimed += shard.consumer.claimed();
            found.published += shard.consumer.published();
            found.closed &= shard.consumer.closed();
        }
        self.idle |= found.claimed == 0;
        if tails != self.tails {
            (self.tails, self.moved_at) = (tails, now);
        }
        found
    }

    /// Takes `count` of the entries that the last poll found published; fewer if `run` leaves some
    /// of what it is given. Returns how long they have waited.
    pub(crate) fn take(&mut self, count: u32, mut run: impl FnMut(Take<'_, T>)) -> Wait {
        let shards = self.shards.len();
        let mut left = count;
        let (mut since, mut exact, mut all) = (u64::MAX, false, true);
        let refused =
            self.queue.rings.iter().map(|ring| ring.refusals.full.load(Ordering::Relaxed));
        let refused = refused.sum();
        self.refuses = refused != std::mem::replace(&mut self.refused, refused);
        for step in 0..shards {
            let shard = &mut self.shards[(self.first + step) % shards];
            let part = shard.consumer.published().min(left);
            if part > 0 && shard.since < since {
                (since, exact) = (shard.since, shard.exact);
            }
            // The push that `since` is of may be in a shard that gives nothing.
            all &= part > 0 || shard.consumer.claimed() == 0;
            // The first entry goes.
            shard.exact &= part == 0;
            let ShardState { consumer, freed, .. } = shard;
            let before = consumer.position();
            if part > 0 {
                run(consumer.take(part));
                left -= part;
            }
            // At most `part`.
            *freed = (consumer.position() - before) as u32;
        }
        self.first = (self.first + 1) % shards;
        (self.idle, self.flushed) = (false, false);
        for shard in &mut self.shards {
            shard.move_checkpoint(self.polled_at, 0);
        }
        let Rules { size, max_delay, early } = self.rules;
        // A batch of one has no first push that it could spare a wake-up, and no delay no sleep. (A
        // model's delay is zero or endless: it has the end of the timed sleep with zero.)
        let spares = size > 1 && (max_delay > 0 || cfg!(batchlink_loom));
        // A policy that acts on the first push needs its wake-up.
        self.set_timed(count >= size && spares && matches!(early, Early::Never));
        self.queue.drained(self.shards.iter().map(|shard| shard.freed), self.timed);
        let bound = Duration::from_nanos(self.polled_at.saturating_sub(since));
        Wait { bound, exact: exact && all }
    }
}

impl<T: Entry> Drop for Drain<T> {
    fn drop(&mut self) {
        self.queue.close();
        self.queue.consumer_gone(true);
    }
}

#[cfg(test)]
mod tests;
