//! The tests of `bridges`, one process.
#![allow(clippy::unwrap_used)] // in the helpers of tests, as in tests

#[path = "../common/mod.rs"]
mod common;

#[cfg(feature = "sdk")]
mod sampler;
