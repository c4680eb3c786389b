//! The work: collect references to span contexts, drain them in batches, de-duplicate by trace id
//! and span id, keep at most 128 as links, and count what became of each.

use opentelemetry::trace::{Link, SpanContext};

/// The bound of the set of links, the same for every contestant.
pub const MAX_LINKS: usize = 128;

/// What a contestant is opened with.
#[derive(Clone, Copy, Debug)]
pub struct Setup {
    /// Contexts that make a batch.
    pub batch: usize,
    /// Contexts that can wait.
    pub capacity: usize,
    pub producers: usize,
}

impl Setup {
    pub fn single(batch: usize) -> Self {
        Self { batch, capacity: (4 * batch).max(2048), producers: 1 }
    }
}

/// What became of the contexts of a batch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    pub received: u64,
    pub linked: u64,
    pub duplicates: u64,
    pub truncated: u64,
}

impl std::ops::AddAssign for Counts {
    fn add_assign(&mut self, other: Self) {
        self.received += other.received;
        self.linked += other.linked;
        self.duplicates += other.duplicates;
        self.truncated += other.truncated;
    }
}

#[derive(Debug, PartialEq)]
pub struct Batch {
    pub links: Vec<Link>,
    pub counts: Counts,
}

/// A way to do the work.
pub trait Contestant: 'static {
    type Producer: Producer;
    type Consumer: Consumer;

    fn open(setup: Setup) -> (Vec<Self::Producer>, Self::Consumer);

    /// Before the consumer takes, for the one contestant (the floor) that shares nothing.
    #[inline(always)]
    fn hand_over(_producer: &mut Self::Producer, _consumer: &mut Self::Consumer) {}
}

/// Producers close when they are dropped: after the last one, the consumer comes to its end.
pub trait Producer: Send + 'static {
    /// Whether it was taken; false: full.
    fn push(&mut self, context: &SpanContext) -> bool;

    /// As `push`, for a link with attributes.
    fn push_link(&mut self, link: &Link) -> bool;

    /// How many were taken, from the first on.
    fn push_all(&mut self, contexts: &[SpanContext]) -> usize {
        contexts.iter().take_while(|context| self.push(context)).count()
    }
}

pub trait Consumer: Send + 'static {
    /// A batch of what is there now.
    fn take(&mut self) -> Option<Batch>;

    /// Waits for a full batch; the rest once all producers are gone, and then `None`.
    fn wait(&mut self) -> Option<Batch>;

    /// How often it was woken, if the contestant counts that.
    fn wake_ups(&self) -> Option<u64> {
        None
    }
}
