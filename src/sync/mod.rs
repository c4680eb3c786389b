//! Everything that a model checker must see: atomics, cells, parking, threads, time.
//!
//! No other module names `std::sync::atomic`, so building with `--cfg batchlink_loom` or
//! `--cfg batchlink_shuttle` puts the whole protocol under that checker.

#[cfg(not(any(batchlink_loom, batchlink_shuttle)))]
mod real;
#[cfg(not(any(batchlink_loom, batchlink_shuttle)))]
pub(crate) use real::*;

#[cfg(any(batchlink_loom, batchlink_shuttle))]
mod model;
#[cfg(any(batchlink_loom, batchlink_shuttle))]
pub(crate) use model::*;

#[cfg(batchlink_loom)]
#[path = "loom.rs"]
mod checker;
#[cfg(batchlink_shuttle)]
#[path = "shuttle.rs"]
mod checker;

mod runtime;
pub(crate) use runtime::polls_tasks;

/// Atomics that checkers are *not* shown, because no step of the protocol depends on them:
/// statistics, what a user set on a span, and the shards' shares, which only the coordinator
/// touches and any value of which is correct. Modelling them would add interleavings and no
/// behaviour.
pub(crate) mod unmodelled {
    pub(crate) use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64};
}
