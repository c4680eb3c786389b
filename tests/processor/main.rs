//! The tests of `processor`, one process.
#![cfg(feature = "processor")]
#![allow(clippy::unwrap_used)] // in the helpers of tests, as in tests

#[path = "../common/mod.rs"]
mod common;
#[path = "../common/exported.rs"]
mod exported;
#[path = "../common/processor_calls.rs"]
mod processor_calls;

#[cfg(all(feature = "processor", feature = "tokio"))]
mod oracle;
mod outcomes;
mod reporting;
mod service;
mod shutdown;
mod submitting;
mod support;
mod suppression;
