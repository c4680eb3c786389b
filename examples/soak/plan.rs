//! What is left to chance: the configuration of a collector, what is pushed into it, and how it
//! ends.

use crate::common::{NEVER, Random};
use batchlink::{ConfigError, Flusher, LinkCollector, LinkPolicy};
use std::time::Duration;

/// Bytes of trace state: small, large, the most that is kept, more than is kept.
pub(crate) const STATE_BYTES: [usize; 4] = [20, 300, 512, 700];
/// Members of the longest of them that is kept.
const STATE_MEMBERS: usize = 6;
/// Attributes of a link that has its own.
pub(crate) const ATTRIBUTES: usize = 2;
/// The most contexts in one `push_all`.
pub(crate) const LONGEST_RUN: u64 = 64;

/// One collector's life.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) batch_size: usize,
    pub(crate) max_links: usize,
    queue_capacity: usize,
    shards: usize,
    max_delay: Duration,
    link_type: bool,
    pub(crate) threads: u64,
    pub(crate) mix: Mix,
    pub(crate) way: Way,
    pub(crate) ending: Ending,
    pub(crate) phases: u64,
}

/// Of a hundred pushes, how many are something else than one plain new context.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Mix {
    pub(crate) with_state: u64,
    pub(crate) with_attributes: u64,
    pub(crate) runs: u64,
    pub(crate) invalid: u64,
    pub(crate) unsampled: u64,
    pub(crate) duplicates: u64,
    /// One batch in so many makes the handler panic; 0: none.
    pub(crate) panics: u64,
}

/// How the flusher is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    Spawned,
    Blocking,
    Impatient,
    Polling,
    #[cfg(feature = "tokio")]
    Async,
}

#[cfg(feature = "tokio")]
const WAYS: [Way; 5] = [Way::Spawned, Way::Blocking, Way::Impatient, Way::Polling, Way::Async];
#[cfg(not(feature = "tokio"))]
const WAYS: [Way; 4] = [Way::Spawned, Way::Blocking, Way::Impatient, Way::Polling];

/// How a collector ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    /// Closed while threads still push.
    CloseUnderLoad,
    Close,
    DropCollector,
    /// Of the handle; as `Close` for flushers that have none.
    Shutdown,
}

/// What goes on for a fraction of a second.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    Burst,
    /// About as much as a flusher can take.
    Steady,
    Trickle,
    Quiet,
    /// A burst, with a handler that takes its time.
    SlowHandler,
    /// A burst, with a thread that asks for flushes all the time.
    Flushes,
}

pub(crate) fn pick<T: Copy>(random: &mut Random, choices: &[T]) -> T {
    choices[random.below(choices.len() as u64) as usize]
}

impl Plan {
    pub(crate) fn new(random: &mut Random) -> Self {
        let batch_size = pick(random, &[1, 2, 7, 16, 100, 128, 512, 4096]);
        let micros = [0, 100, 1000, 20_000, 200_000];
        let max_delay = match random.below(6) {
            0 => NEVER,
            choice => Duration::from_micros(micros[choice as usize - 1]),
        };
        // Half of the collectors get what can be followed context by context to its link.
        let exact = random.below(2) == 0;
        let mut share = |most| if random.below(2) == 0 { 0 } else { random.below(most) };
        let mix = Mix {
            with_state: share(20),
            with_attributes: share(20),
            runs: share(20),
            invalid: share(10),
            unsampled: if exact { 0 } else { share(20) },
            duplicates: if exact { 0 } else { share(30) },
            panics: share(50),
        };
        let max_links =
            if exact { batch_size } else { pick(random, &[batch_size, batch_size / 2 + 1, 128]) };
        Self {
            batch_size,
            max_links,
            queue_capacity: (batch_size * pick(random, &[1, 2, 4, 16]))
                .max(pick(random, &[1, 64, 2048])),
            shards: pick(random, &[1, 2, 3, 8]),
            max_delay,
            link_type: random.below(2) == 0,
            threads: 1 + random.below(6),
            mix,
            way: pick(random, &WAYS),
            ending: pick(
                random,
                &[Ending::CloseUnderLoad, Ending::Close, Ending::DropCollector, Ending::Shutdown],
            ),
            phases: 2 + random.below(6),
        }
    }

    /// Whether every accepted context becomes a link of its own.
    pub(crate) fn is_exact(&self) -> bool {
        self.mix.unsampled == 0 && self.mix.duplicates == 0 && self.max_links >= self.batch_size
    }

    pub(crate) fn build(&self) -> Result<(LinkCollector, Flusher), ConfigError> {
        let builder = LinkCollector::builder()
            .with_max_batch_size(self.batch_size)
            .with_max_links(self.max_links)
            .with_queue_capacity(self.queue_capacity)
            .with_shards(self.shards)
            .with_max_delay(self.max_delay);
        if self.link_type {
            builder
        } else {
            builder.with_link_policy(LinkPolicy::new().without_link_type())
        }
        .build()
    }

    /// The bytes that docs/GUIDE.md says a collector of this kind holds at most.
    pub(crate) fn documented_bytes(&self) -> usize {
        let slots =
            self.queue_capacity.div_ceil(self.shards).max(self.batch_size).next_power_of_two();
        let slots = self.shards * slots;
        let links = self.max_links.min(self.batch_size);
        let state = if self.mix.with_state > 0 { 512 + 48 * STATE_MEMBERS } else { 0 };
        let attributes = if self.mix.with_attributes > 0 { 56 * ATTRIBUTES } else { 0 };
        // No context here has both.
        let more = state.max(attributes);
        let boxed = if more > 0 { 96 + more } else { 0 };
        let link_type = if self.link_type { 56 } else { 0 };
        640 + 640 * self.shards + (32 + boxed) * slots + (32 + 96 + link_type + more) * links
    }
}

impl Phase {
    pub(crate) fn new(random: &mut Random) -> (Self, Duration) {
        let phases = [
            Self::Burst,
            Self::Steady,
            Self::Steady,
            Self::Trickle,
            Self::Quiet,
            Self::SlowHandler,
            Self::Flushes,
        ];
        (pick(random, &phases), Duration::from_millis(20 + random.below(380)))
    }
}
