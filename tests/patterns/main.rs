//! The tests of `patterns`, one process.
#![allow(clippy::unwrap_used)] // in the helpers of tests, as in tests

#[path = "../common/mod.rs"]
mod common;
#[path = "../common/exported.rs"]
mod exported;
#[path = "../common/operations_calls.rs"]
mod operations_calls;

mod attempts;
mod fan_out;
mod oracle;
mod panics;
mod saga;
