//! Patterns of work whose spans are joined by links: retries, compensation, fan-out and fan-in.
//!
//! | pattern | type | links |
//! |---|---|---|
//! | a retry | [`Attempts`] | each attempt → all earlier ones |
//! | a compensation | [`Saga`] | each compensation → the step that it undoes |
//! | a fan-out and fan-in | [`FanOut`] | each worker → the request; the aggregation → both |
//! | any other work that may fail | [`SpanGuard`] | those of its span |
//!
//! Built on [`LinkSet`](crate::LinkSet) and [`links`](crate::links) alone.

mod attempts;
mod fan_out;
mod history;
mod operation;
mod saga;
mod undo;

pub use attempts::{Attempts, RetryOutcome};
pub use fan_out::{FanCounts, FanOut, WorkersError};
pub use operation::SpanGuard;
pub use saga::{CompensationFailure, Saga, SagaOutcome};
pub use undo::{UndoStep, UndoSteps};
