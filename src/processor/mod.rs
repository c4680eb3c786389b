//! Batches of payloads: the same rings and the same trigger, with items instead of contexts.
//!
//! ```text
//! submit / call ─► ring ─► trigger ─► drain ─► Batch (span, links) ─► handler ─► answers
//!   submitter.rs   the collector's own, with another T    batch.rs       run.rs    answer.rs
//! ```

mod answer;
mod batch;
mod builder;
mod run;
#[cfg(feature = "tokio")]
mod run_async;
mod span;
mod submitter;

pub use answer::{Answer, CallError};
pub use batch::{Batch, BatchItem};
pub use builder::BatchProcessorBuilder;
pub use run::BatchProcessor;
pub use submitter::{SubmitError, Submitter};

use crate::link_set::record::Bounded;
use crate::stats::Stats;
use crate::sync::{AtomicU64, Ordering};
use answer::Caller;

/// An item on its way.
struct Item<T, R, E> {
    payload: T,
    request: Bounded,
    /// It was submitted where telemetry is suppressed.
    suppressed: bool,
    weight: u64,
    /// Who waits for the result, if somebody does.
    caller: Option<Caller<R, E>>,
}

/// What became of the items of ended batches. Statistics only: `Relaxed`.
#[derive(Debug, Default)]
struct Outcomes {
    succeeded: AtomicU64,
    failed: AtomicU64,
}

/// What happened so far; see [`Submitter::stats`].
///
/// `queue().pushed()` items were submitted; `queue().received()` of them are in batches; of those
/// `succeeded() + failed()` have ended, and the others are being processed. Items without a span are
/// queued like all others, so `queue().invalid()` is 0; [`Batch::counts`] has how many came without.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ProcessorStats {
    queue: Stats,
    succeeded: u64,
    failed: u64,
}

impl ProcessorStats {
    fn new(queue: Stats, outcomes: &Outcomes) -> Self {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Self { queue, succeeded: get(&outcomes.succeeded), failed: get(&outcomes.failed) }
    }

    /// Submissions, refusals, batches and links, in items.
    pub fn queue(&self) -> &Stats {
        &self.queue
    }

    /// Items that were processed well.
    pub fn succeeded(&self) -> u64 {
        self.succeeded
    }

    /// Items that failed: the handler said so, panicked, or gave no answer, or the processor was
    /// dropped before it gave them out.
    pub fn failed(&self) -> u64 {
        self.failed
    }
}
