#![cfg_attr(docsrs, feature(doc_cfg))]
//! Links the span of a batch to the traces of the requests that it served.
//!
//! Producers push the [`SpanContext`](opentelemetry::trace::SpanContext)s of their requests into a
//! sharded, lock-free queue. A flush fires at exactly `max_batch_size` pending contexts, or when
//! the first of them has waited for `max_delay`. The flusher then hands out a [`LinkBatch`]: a
//! bounded, de-duplicated set of links for one batch span, with an account of every context that is
//! not in it.
//!
//! ```
//! use batchlink::LinkCollector;
//! use opentelemetry::{global, trace::Tracer};
//! use std::time::Duration;
//!
//! let (collector, flusher) = LinkCollector::builder()
//!     .with_max_batch_size(128)                   // contexts
//!     .with_max_delay(Duration::from_millis(200)) // from the first pending context
//!     .build()?;
//! let handle = flusher.spawn(|batch| {
//!     let _span = batch.start(&global::tracer("writer"), "insert_batch");
//!     // ... the work of the batch
//! })?;
//!
//! // On any thread, in the span of a request:
//! global::tracer("api").in_span("request", |_cx| collector.push_current())?;
//!
//! handle.shutdown_with_timeout(Duration::from_secs(5))?; // delivers everything accepted
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # The life of a context
//!
//! ```text
//! producers                           one flusher                       OpenTelemetry
//! push(&SpanContext) ─► shard's ring ─► trigger ─► drain ─► LinkSet ─► LinkBatch ─► batch span
//!        collector            queue                          link_set
//! ```
//!
//! # Where to start
//!
//! | situation | use |
//! |---|---|
//! | requests on many threads, one writer that batches | [`LinkCollector`] |
//! | items to batch, a result for each caller | `processor::BatchProcessor` (feature `processor`) |
//! | a batch you already hold, as of a Kafka poll | [`LinkSet`], [`messaging`], [`carrier`] |
//! | retries; compensations; fan-out and fan-in | [`patterns`] |
//! | links with a meaning, link templates | [`links`] |
//!
//! The [`guide`] has the guarantees in full, settings and how to choose them, and questions. It has
//! a [cookbook](guide::cookbook) with a recipe for each use, and a page on [cost and
//! limits](guide::limits).
//!
//! # Features
//!
//! None is on by default.
//!
//! | feature | adds |
//! |---|---|
//! | `tokio` | `Flusher::next`, `Stream`; the processor's `run_async` and `run_each_async` |
//! | | where tasks are polled: blocking calls are refused, a handle's drop does not wait |
//! | `processor` | module `processor`: payloads in batches, with a result for each caller |
//! | `tower` | `tower::BatchService`, `tower::BatchLayer`: a processor as a Tower service |
//! | `serde` | `carrier::json`, `carrier::json::otlp`: contexts in JSON |
//! | `cache` | `links::LinkCache`: link templates by source |
//! | `metrics` | `with_metrics` of the builders; module `metrics` has the instruments |
//! | `tracing` | `push_tracing`, `LinkBatch::link_tracing`: spans of the crate `tracing` |
//! | `sdk` | `sampler::LinkedSampler`: a batch span is recorded when its requests are |
//! | `internal-logs` | warnings by OpenTelemetry's own logging: refusals once, losses at the end |
//!
//! Without an SDK, or a tracer provider, every span is a no-op and nothing is linked. The README
//! has a complete program.

// From what users hold down to what everything stands on. Imports go downwards only: ci/layers.sh
// checks it, and docs/DESIGN.md has the picture.
mod bridges;

pub mod patterns;
#[cfg(feature = "processor")]
pub mod processor;

pub mod messaging;

mod collector;

pub mod carrier;
mod link_set;
pub mod links;

mod meter;

mod queue;
mod stats;

mod error;
mod panic;
mod span;
mod sync;

pub mod guide {
    // The guide has links of its own for these, which hold without the feature.
    #![cfg_attr(
        feature = "processor",
        doc = "[`BatchProcessor`]: crate::processor::BatchProcessor",
        doc = "[`BatchProcessor::builder`]: crate::processor::BatchProcessor::builder",
        doc = "[`CallError`]: crate::processor::CallError",
        doc = "[`Submitter::producer`]: crate::processor::Submitter::producer",
        doc = "[`WeakSubmitter`]: crate::processor::WeakSubmitter",
        doc = ""
    )]
    #![doc = include_str!("../docs/GUIDE.md")]

    #[doc = include_str!("../docs/COOKBOOK.md")]
    pub mod cookbook {}

    #[doc = include_str!("../docs/LIMITS.md")]
    pub mod limits {}
}

#[cfg(feature = "metrics")]
pub mod metrics {
    #![doc = include_str!("../docs/METRICS.md")]
}

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

#[cfg(feature = "sdk")]
pub use bridges::sampler;
#[cfg(feature = "tower")]
pub use bridges::tower;
pub use collector::Producer;
#[cfg(any(batchlink_loom, batchlink_hooks))]
pub use collector::StalledPush;
#[cfg(batchlink_hooks)]
pub use collector::StalledReport;
pub use collector::{FlushPolicy, Flusher, FlusherHandle, LinkCollector, LinkCollectorBuilder};
pub use error::{ConfigError, FlushError, PushError, PushLinkError, RejectedLink};
pub use error::{ShutdownError, Timeout, TimeoutError};
pub use link_set::{
    Dedup, Invalid, LinkBatch, LinkPages, LinkPolicy, LinkSet, LinkSetBuilder, Outcome, Overflow,
    Parent, Truncation, Unsampled,
};
#[cfg(batchlink_count)]
pub use queue::steps::{StepCounts, take_step_counts};
pub use stats::{Counts, Stats, StatsHandle, Trigger};
