//! The parts that publishers and consumers share, whatever the broker.

mod batch;
mod headers;
mod journal;
mod orders;
mod store;
mod telemetry;

pub use batch::{BatchWriter, Received};
pub use headers::{NatsHeaders, NatsHeadersMut};
pub use journal::Journal;
pub use orders::{Order, Orders};
pub use store::Store;
pub use telemetry::Telemetry;

/// The error type of `main` and of everything below it.
pub type Error = Box<dyn std::error::Error + Send + Sync>;
/// A result with that error.
pub type Result<T = ()> = std::result::Result<T, Error>;

/// The subject, or topic, that is published to and consumed from.
pub const DESTINATION: &str = "orders";
/// The consumers that share the work.
pub const GROUP: &str = "writers";
