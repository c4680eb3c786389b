//! The tests of `processor`, one process.
#![cfg(feature = "processor")]
#![allow(clippy::unwrap_used)] // in the helpers of tests, as in tests

#[path = "../common/mod.rs"]
mod common;
#[cfg(feature = "tokio")]
#[path = "../common/exported.rs"]
mod exported;
#[cfg(feature = "tokio")]
#[path = "../common/processor_calls.rs"]
mod processor_calls;

mod answers;
mod back_links;
mod baggage;
mod batches;
mod canceled;
mod coalescing;
mod coalescing_panics;
mod coalescing_spans;
#[cfg(feature = "tokio")]
mod concurrent;
#[cfg(feature = "tokio")]
mod key_batches;
#[cfg(feature = "tokio")]
mod oracle;
mod outcomes;
mod panics;
mod payloads;
mod reporting;
mod shutdown;
mod start;
mod stress;
mod submitting;
mod support;
mod suppression;
#[cfg(feature = "tokio")]
mod tasks;
#[cfg(feature = "tokio")]
mod waits;
mod wakers;
mod weight;
mod yielding;
