//! The tests of `links`, one process.
#![allow(clippy::unwrap_used)] // in the helpers of tests, as in tests

#[path = "../common/mod.rs"]
mod common;

#[cfg(feature = "cache")]
mod cache;
mod constructors;
mod relation;
