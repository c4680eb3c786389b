//! The tests of `bridges`, one process.
#![allow(clippy::unwrap_used)] // in the helpers of tests, as in tests

#[path = "../common/mod.rs"]
mod common;

#[path = "../common/exported.rs"]
mod exported;
#[cfg(all(feature = "metrics", feature = "processor"))]
mod item_metrics;
#[cfg(feature = "metrics")]
mod metrics;
#[cfg(feature = "metrics")]
mod panicking_meter;
#[cfg(feature = "sdk")]
mod sampler;

#[cfg(feature = "tower")]
mod tower;
#[cfg(feature = "tracing")]
mod tracing;
#[cfg(all(feature = "tracing", feature = "processor"))]
mod tracing_handlers;
#[cfg(feature = "tracing")]
mod tracing_links;
