//! How the work is timed, bench by bench.

pub mod allocs;
pub mod contention;
pub mod cycle;
pub mod latency;
pub mod link_set;
pub mod push;
pub mod scaling;
pub mod timeout;
