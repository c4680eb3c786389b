#![cfg_attr(docsrs, feature(doc_cfg))]
#![doc = include_str!("../README.md")]

// From what users hold down to what everything stands on. Imports go downwards only; `ci/layers.sh`
// checks it, and docs/DESIGN.md has the picture.
pub mod patterns;
#[cfg(feature = "processor")]
pub mod processor;

pub mod messaging;

mod collector;

pub mod carrier;
mod link_set;
pub mod links;

mod queue;
mod stats;

mod error;
mod panic;
mod sync;

#[cfg(any(batchlink_loom, batchlink_hooks))]
pub use collector::StalledPush;
pub use collector::{Flusher, FlusherHandle, LinkCollector, LinkCollectorBuilder, Producer};
pub use error::{ConfigError, PushError, RejectedLink, ShutdownError, Timeout};
pub use link_set::{Duplicates, Invalid, LinkBatch, LinkSet, LinkSetBuilder, Outcome, Unsampled};
#[cfg(batchlink_count)]
pub use queue::steps::{StepCounts, take_step_counts};
pub use stats::{Counts, Stats, Trigger};
