//! Patterns of work whose spans are joined by links: retries, compensation, fan-out and fan-in.
//!
//! Built on [`LinkSet`](crate::LinkSet) and [`links`](crate::links) alone.

mod attempts;
mod fan_out;
mod operation;
mod saga;

pub use attempts::{Attempts, RetryOutcome};
pub use fan_out::{FanCounts, FanOut, WorkersError};
pub use operation::SpanGuard;
pub use saga::{CompensationFailure, Saga, SagaOutcome, UndoStep, UndoSteps};
