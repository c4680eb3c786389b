//! Why an item or a batch failed, as its span says it.

use super::answer::CallError;
use crate::panic::caught;
use std::any::{Any, type_name};
use std::fmt::{self, Display, Write};

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
        let mut text = Text(String::new());
        // Where the text is cut, writing it fails.
        let written = caught(|| write!(text, "{error}").unwrap_or_default());
        let text = written.map_or_else(|| "(its text panicked)".into(), |()| text.0);
        // The conventions' value for an error without a type of its own; the user can set one.
        Self { kind: "_OTHER", text, exception: Some(type_name::<E>()) }
    }

    /// The handler panicked.
    pub(super) fn panic(panic: &(dyn Any + Send)) -> Self {
        let message = match (panic.downcast_ref::<&str>(), panic.downcast_ref::<String>()) {
            (Some(text), _) => text,
            (_, Some(text)) => text.as_str(),
            _ => "(no message)",
        };
        let mut text = Text("panicked: ".into());
        let _ = text.write_str(message);
        Self { kind: PANICKED, text: text.0, exception: Some("panic") }
    }

    /// The item has no answer of the handler's own.
    pub(super) fn of<E>(error: &CallError<E>) -> Self {
        let kind = match error {
            CallError::Panicked => PANICKED,
            CallError::ResultCount { .. } => "result_count",
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

/// A text of at most [`MAX`](Self::MAX) bytes, and an ellipsis where it was cut.
struct Text(String);

impl Text {
    const MAX: usize = 1024;
}

impl Write for Text {
    fn write_str(&mut self, more: &str) -> fmt::Result {
        let space = Self::MAX.checked_sub(self.0.len()).ok_or(fmt::Error)?;
        if more.len() <= space {
            self.0.push_str(more);
            return Ok(());
        }
        let cut = (0..=space).rev().find(|&at| more.is_char_boundary(at)).unwrap_or(0);
        self.0.push_str(&more[..cut]);
        self.0.push('…');
        Err(fmt::Error)
    }
}

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
        assert_eq!(message(&"x".repeat(2000)), format!("panicked: {}…", "x".repeat(1014)));
    }
}
