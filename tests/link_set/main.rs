//! The tests of `link_set`, one process.
#![allow(clippy::unwrap_used)] // in the helpers of tests, as in tests

#[path = "../common/mod.rs"]
mod common;
#[path = "../common/exported.rs"]
mod exported;
#[path = "../common/otlp.rs"]
mod otlp;

mod hoist;
mod link_attributes;
mod overflow;
mod parent;
mod policies;
mod proptest_oracle;
mod set;
mod span_limit;
