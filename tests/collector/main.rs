//! The tests of `collector`, one process.
#![allow(clippy::unwrap_used)] // in the helpers of tests, as in tests

#[path = "../common/mod.rs"]
mod common;

#[cfg(feature = "tokio")]
mod async_next;
mod conservation;
mod fidelity;
mod flush;
mod invalid;
mod no_panic;
mod oracle;
mod order;
#[cfg(feature = "tokio")]
mod policies;
mod push_wait;
mod shutdown;
mod stats;
#[cfg(feature = "tokio")]
mod timers;
mod trigger;
#[cfg(feature = "tokio")]
mod waits;
#[cfg(feature = "tokio")]
mod yielding;
