#![cfg_attr(docsrs, feature(doc_cfg))]
#![doc = include_str!("../README.md")]

// In the order in which a context passes through them.
mod attempts;
mod batch;
#[cfg(feature = "cache")]
mod cache;
pub mod carrier;
mod collector;
mod config;
mod count;
mod drain;
mod error;
mod fan;
mod flusher;
mod link_set;
pub mod links;
pub mod messaging;
mod operation;
mod policy;
#[cfg(feature = "tokio")]
mod poll;
#[cfg(feature = "processor")]
mod processor;
mod queue;
mod record;
mod relation;
mod ring;
mod room;
mod saga;
mod stats;
mod sync;
mod trigger;
mod unwind;
mod wait;

pub use attempts::{Attempts, RetryOutcome};
pub use batch::{Counts, LinkBatch, Trigger};
#[cfg(feature = "cache")]
pub use cache::LinkCache;
#[cfg(any(batchlink_loom, batchlink_hooks))]
pub use collector::StalledPush;
pub use collector::{LinkCollector, Producer};
pub use config::LinkCollectorBuilder;
#[cfg(batchlink_count)]
pub use count::{StepCounts, take_step_counts};
pub use error::{ConfigError, PushError, RejectedLink, ShutdownError, Timeout};
pub use fan::{FanCounts, FanOut, WorkersFailed};
pub use flusher::{Flusher, FlusherHandle};
pub use link_set::{LinkSet, LinkSetBuilder, Outcome};
pub use operation::Operation;
pub use policy::{Duplicates, Invalid, Unsampled};
#[cfg(feature = "processor")]
pub use processor::{
    Answer, Batch, BatchItem, BatchProcessor, BatchProcessorBuilder, CallError, ProcessorStats, Rejected,
    Submitter,
};
pub use relation::{ParseRelationError, Relation};
pub use saga::{CompensationFailure, Saga, SagaOutcome, UndoStep, UndoSteps};
pub use stats::Stats;
