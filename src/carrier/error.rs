//! What was wrong with a text from outside.

use arrayvec::ArrayString;
use std::error::Error;
use std::fmt;

/// Bytes of a refused value that are shown.
const SHOWN: usize = 64;

/// A text that is no context.
///
/// Its own text names the field, the value and what is allowed. The value comes from outside: of a
/// long one the first 64 bytes are kept, and control characters are escaped when it is shown. Making one
/// does not allocate.
///
/// ```
/// let error = batchlink::carrier::parse_traceparent("00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01", None);
/// assert_eq!(
///     error.unwrap_err().to_string(),
///     "invalid trace_id: \"0AF7651916CD43DD8448EB211C80319C\" (allowed: 32 lower-case hex digits, not all zero)",
/// );
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CarrierError {
    field: &'static str,
    value: ArrayString<SHOWN>,
    /// `value` is not all there was.
    cut: bool,
    allowed: &'static str,
}

impl CarrierError {
    pub(super) fn new(field: &'static str, value: &str, allowed: &'static str) -> Self {
        let mut shown = ArrayString::new();
        let cut = value.chars().any(|character| shown.try_push(character).is_err());
        Self { field, value: shown, cut, allowed }
    }

    /// What was wrong: `traceparent`, `version`, `trace_id`, `span_id`, `trace_flags`, `tracestate`.
    pub fn field(&self) -> &'static str {
        self.field
    }

    /// The value that was given, at most its first 64 bytes.
    pub fn value(&self) -> &str {
        &self.value
    }

    /// What is allowed instead.
    pub fn allowed(&self) -> &'static str {
        self.allowed
    }
}

impl fmt::Display for CarrierError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let more = if self.cut { "…" } else { "" };
        write!(f, "invalid {}: {:?}{more} (allowed: {})", self.field, &*self.value, self.allowed)
    }
}

impl Error for CarrierError {}
