//! An HTTP service (axum) that stores the items of many requests at once: one writer, one
//! transaction per batch in a SQLite database, and every response waits for its own row to be
//! committed. Requests are `tracing` spans, and the span of each batch links those that it served.
//!
//! `telemetry.rs` sets up OpenTelemetry and `tracing`, `server.rs` submits the rows, `store.rs`
//! inserts them. `bin/service.rs` is the service, to be copied. `bin/demo` sends it requests in one
//! process and shows how they were joined.

pub mod metrics;
pub mod server;
pub mod store;
pub mod telemetry;

/// The name of a batch's span.
pub const BATCH_SPAN: &str = "insert_batch";

pub type Result<T = ()> = std::result::Result<T, Box<dyn std::error::Error>>;
