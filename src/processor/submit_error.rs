//! The refusal of an item.

use super::Item;
use crate::error::PushError;
use std::error::Error;
use std::fmt;

/// An item that was not accepted, given back.
///
/// ```
/// use batchlink::PushError;
/// use batchlink::processor::BatchProcessor;
/// # use opentelemetry::trace::noop::NoopTracer;
///
/// # let tracer = NoopTracer::new();
/// let (submitter, processor) =
///     BatchProcessor::<String, (), String>::builder("send").build(tracer)?;
/// drop(processor);
/// let refused = submitter.submit("a letter".to_owned()).unwrap_err();
/// assert_eq!(refused.reason(), PushError::Closed);
/// assert_eq!(refused.into_item(), "a letter");
/// # Ok::<(), batchlink::ConfigError>(())
/// ```
pub struct SubmitError<T> {
    item: T,
    reason: PushError,
}

impl<T> SubmitError<T> {
    /// Returns the item, unchanged.
    pub fn into_item(self) -> T {
        self.item
    }

    /// Returns the reason of the refusal.
    pub fn reason(&self) -> PushError {
        self.reason
    }
}

impl<T, R, E> From<(Item<T, R, E>, PushError)> for SubmitError<T> {
    fn from((item, reason): (Item<T, R, E>, PushError)) -> Self {
        Self { item: item.payload, reason }
    }
}

impl<T> fmt::Debug for SubmitError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SubmitError").field("reason", &self.reason).finish_non_exhaustive()
    }
}

impl<T> fmt::Display for SubmitError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "item not accepted: {}", self.reason)
    }
}

impl<T> Error for SubmitError<T> {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(&self.reason)
    }
}
