//! Batches work items, with one linked span a batch and a result for each caller.
//!
//! Threads and tasks submit items through a [`Submitter`]. A [`BatchProcessor`] takes them in
//! batches and calls a handler, which answers item by item or for all at once. The batch's span
//! links the request of every item and counts how the items ended. Size, delay, queue and links are
//! those of a [`LinkCollector`](crate::LinkCollector).
//!
//! ```text
//! submit, call ─► queue ─► trigger ─► Batch (span, links) ─► handler ─► results to the callers
//! ```
//!
//! ```
//! use batchlink::processor::BatchProcessor;
//! use opentelemetry::global;
//! use std::{io, time::Duration};
//!
//! # fn insert_all(rows: &[&String]) -> io::Result<Vec<u64>> { Ok(vec![1; rows.len()]) }
//! let (submitter, processor) = BatchProcessor::<String, u64, String>::builder("insert_batch")
//!     .with_max_batch_size(64)
//!     .build(global::tracer("writer"))?;
//! let handle = processor.spawn(|batch| {
//!     let rows: Vec<&String> = batch.payloads().collect();
//!     match insert_all(&rows) {
//!         Ok(ids) => batch.complete(ids.into_iter().map(Ok)),
//!         Err(error) => batch.fail_all(|_row| error.to_string()),
//!     }
//! })?;
//!
//! // On any thread, in the span of a request; in a task it is `call(…).await`.
//! let id = submitter.call_blocking("a row".to_owned()).map_err(|error| error.to_string())?;
//! assert_eq!(id, 1);
//! handle.shutdown_with_timeout(Duration::from_secs(5))?; // handles everything accepted
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

// submitter.rs and call.rs put items in, run.rs and run_async.rs take batches out, answer.rs is the
// way back to the callers. Rings, trigger and drain are the collector's own, with another `T`.

mod answer;
mod back_link;
mod batch;
mod builder;
mod call;
mod coalesce;
mod failure;
#[cfg(feature = "tokio")]
mod in_flight;
mod keys;
mod options;
mod parts;
mod reply;
mod request;
mod run;
#[cfg(feature = "tokio")]
mod run_async;
mod scope;
mod span;
mod submit_error;
mod submitter;
mod triggers;
mod weak;

pub use answer::{Answer, CallError};
pub use back_link::BackLink;
pub use batch::{Batch, BatchItem};
pub use builder::BatchProcessorBuilder;
pub use run::BatchProcessor;
pub use submit_error::SubmitError;
pub use submitter::Submitter;
pub use weak::WeakSubmitter;

use crate::link_set::record::Bounded;
use crate::meter::{Items, Measured};
use crate::queue::ring::Entry;
use crate::stats::Stats;
use crate::sync::{AtomicU64, Ordering};
use reply::Caller;
use request::Extra;
use std::convert::Infallible;
use std::time::Duration;

/// A payload on its way to its batch.
struct Item<T, R, E> {
    payload: T,
    /// The span that its batch links; invalid if there was none.
    request: Bounded,
    /// What options add to it.
    extra: Option<Box<Extra>>,
    /// The weight, and in the highest bit whether it was submitted where telemetry is suppressed:
    /// a flag of its own would cost most slots 16 bytes.
    weight: u64,
    /// When it was submitted, by the queue's clock; 0 if waits are not measured.
    submitted_at: u64,
    /// `None` if the item was only submitted.
    caller: Option<Caller<R, E>>,
}

impl<T, R, E> Entry for Item<T, R, E> {
    type Beside = Infallible;
}

impl<T, R, E> Item<T, R, E> {
    const SUPPRESSED: u64 = 1 << 63;

    /// Returns how long it has waited at `now`, if that is measured.
    fn wait(&self, now: u64) -> Option<Duration> {
        let measured = self.submitted_at != 0;
        measured.then(|| Duration::from_nanos(now.saturating_sub(self.submitted_at)))
    }

    /// Returns at most [`MAX_WEIGHT`](crate::queue::MAX_WEIGHT); 0 if weight is no trigger.
    #[inline]
    fn weight(&self) -> u64 {
        self.weight & !Self::SUPPRESSED
    }

    /// Returns whether it was submitted where telemetry is suppressed.
    #[inline]
    fn is_suppressed(&self) -> bool {
        self.weight & Self::SUPPRESSED != 0
    }

    /// Returns whether its caller has left.
    fn is_canceled(&self) -> bool {
        self.caller.as_ref().is_some_and(|caller| !caller.is_awaited())
    }
}

/// How the items of all batches ended. Statistics only: `Relaxed`.
#[derive(Debug, Default)]
struct Outcomes {
    succeeded: AtomicU64,
    failed: AtomicU64,
    canceled: AtomicU64,
    coalesced: AtomicU64,
}

/// A snapshot of a processor's counters; see [`Submitter::stats`].
///
/// `queue().pushed()` items were submitted, and `queue().received()` of them were taken from the
/// queue. Of these `succeeded() + failed()` have ended, [`canceled`](Self::canceled) were dropped,
/// and [`in_flight`](Self::in_flight) are being processed. Items without a span are queued like all
/// others, so `queue().invalid()` is 0; [`Batch::counts`] has their number.
///
/// ```
/// # use batchlink::processor::BatchProcessor;
/// # use opentelemetry::trace::noop::NoopTracer;
/// # let tracer = NoopTracer::new();
/// let (submitter, mut processor) =
///     BatchProcessor::<u32, (), String>::builder("send").build(tracer)?;
/// (1..=3).for_each(|n| submitter.submit(n).unwrap());
/// assert_eq!(submitter.stats().queue().pending(), 3);
///
/// let mut items = processor.next_batch().expect("three are pending").into_iter();
/// items.next().expect("the first").succeed(());
/// items.next().expect("the second").fail("offline".into());
/// let stats = submitter.stats();
/// assert_eq!((stats.succeeded(), stats.failed(), stats.in_flight()), (1, 1, 1));
/// # Ok::<(), batchlink::ConfigError>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ProcessorStats {
    queue: Stats,
    succeeded: u64,
    failed: u64,
    canceled: u64,
    coalesced: u64,
}

impl ProcessorStats {
    fn new(queue: Stats, outcomes: &Outcomes) -> Self {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Self {
            queue,
            succeeded: get(&outcomes.succeeded),
            failed: get(&outcomes.failed),
            canceled: get(&outcomes.canceled),
            coalesced: get(&outcomes.coalesced),
        }
    }

    /// Returns the submissions, refusals, batches and links, in items.
    pub fn queue(&self) -> &Stats {
        &self.queue
    }

    /// Returns the number of items that succeeded.
    pub fn succeeded(&self) -> u64 {
        self.succeeded
    }

    /// Returns the number of items that failed: the handler said so, panicked, or gave no answer,
    /// or the processor was dropped before it handed them out.
    pub fn failed(&self) -> u64 {
        self.failed
    }

    /// Returns the number of items that were taken from the queue and dropped, because their
    /// callers had left; see [`with_skip_canceled`](BatchProcessorBuilder::with_skip_canceled).
    pub fn canceled(&self) -> u64 {
        self.canceled
    }

    /// Returns the number of items that share the answer of another item of their batch; see
    /// [`with_coalescing`](BatchProcessorBuilder::with_coalescing). They are counted when their
    /// batch begins, and count as succeeded or failed besides.
    pub fn coalesced(&self) -> u64 {
        self.coalesced
    }

    /// Returns the number of items that were taken from the queue and have not ended.
    pub fn in_flight(&self) -> u64 {
        // Read one by one, so an item that ends meanwhile may be counted as ended only.
        self.queue.received().saturating_sub(self.succeeded + self.failed + self.canceled)
    }
}

impl Measured for ProcessorStats {
    fn queue(&self) -> &Stats {
        &self.queue
    }

    fn items(&self) -> Option<Items> {
        let Self { succeeded, failed, canceled, .. } = *self;
        Some(Items { succeeded, failed, canceled, in_flight: self.in_flight() })
    }
}
