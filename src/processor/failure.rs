//! Why an item or a batch failed, as its span says it.

use super::answer::CallError;
use crate::panic::error_text;
use crate::span::OTHER;
use std::any::{Any, type_name};
use std::fmt::Display;

/// Why an item or a batch failed.
#[derive(Clone, Debug)]
pub(super) struct Failure {
    /// The span's `error.type`.
    pub(super) kind: &'static str,
    pub(super) text: String,
    /// The `exception.type`, if the user's code returned an error or panicked.
    pub(super) exception: Option<&'static str>,
}

impl Failure {
    /// The handler returned an error.
    pub(super) fn error<E: Display>(error: &E) -> Self {
        // The user can set an `error.type` of the error's own.
        Self { kind: OTHER, text: error_text(error), exception: Some(type_name::<E>()) }
    }

    /// The handler panicked.
    pub(super) fn panic(panic: &(dyn Any + Send)) -> Self {
        let message = match (panic.downcast_ref::<&str>(), panic.downcast_ref::<String>()) {
            (Some(text), _) => text,
            (_, Some(text)) => text.as_str(),
            _ => "(no message)",
        };
        let text = error_text(format_args!("panicked: {message}"));
        Self { kind: PANICKED, text, exception: Some("panic") }
    }

    /// The item has no answer of the handler's own.
    pub(super) fn of<E>(error: &CallError<E>) -> Self {
        let kind = match error {
            CallError::Panicked => PANICKED,
            CallError::ResultCount { .. } => "result_count",
            CallError::ClonePanicked => "clone_panicked",
            _ => "unanswered",
        };
        Self { kind, text: error.reason().into_owned(), exception: None }
    }

    /// The handler's future was dropped.
    pub(super) fn dropped() -> Self {
        Self { kind: "dropped", text: "dropped before it finished".into(), exception: None }
    }
}

pub(super) const PANICKED: &str = "panicked";

#[cfg(test)]
mod tests {
    use super::*;

    fn message(panic: &(dyn Any + Send)) -> String {
        Failure::panic(panic).text
    }

    #[test]
    fn panic_text_is_found() {
        assert_eq!(message(&"a literal"), "panicked: a literal");
        assert_eq!(message(&"a string".to_owned()), "panicked: a string");
        assert_eq!(message(&7), "panicked: (no message)");
        assert_eq!(message(&"x".repeat(5000)), format!("panicked: {}…", "x".repeat(4086)));
    }
}
