#![cfg_attr(docsrs, feature(doc_cfg))]
#![doc = include_str!("../README.md")]

// In the order in which a context passes through them.
mod batch;
mod collector;
mod config;
mod count;
mod drain;
mod error;
mod flusher;
mod link_set;
#[cfg(feature = "tokio")]
mod poll;
mod queue;
mod record;
mod ring;
mod stats;
mod sync;
mod trigger;
mod unwind;

pub use batch::{Counts, LinkBatch, Trigger};
#[cfg(any(batchlink_loom, batchlink_hooks))]
pub use collector::StalledPush;
pub use collector::{LinkCollector, Producer};
pub use config::LinkCollectorBuilder;
#[cfg(batchlink_count)]
pub use count::{StepCounts, take_step_counts};
pub use error::{ConfigError, PushError, RejectedLink, ShutdownError, Timeout};
pub use flusher::{Flusher, FlusherHandle};
pub use link_set::{Duplicates, LinkSet, LinkSetBuilder, Outcome, Unsampled};
pub use stats::Stats;
