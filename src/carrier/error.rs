//! The error of a text that is no context.

use arrayvec::ArrayString;
use std::error::Error;
use std::fmt;

/// Bytes of a refused value that are kept.
const SHOWN: usize = 64;

/// The error of a text that is no context.
///
/// Its text names the field, the value and what is allowed. The value comes from outside: the first
/// 64 bytes of a long one are kept, and control characters are escaped in the text. Making an error
/// does not allocate.
///
/// ```
/// let header = "00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01";
/// let error = batchlink::carrier::parse_traceparent(header, None);
/// assert_eq!(
///     error.unwrap_err().to_string(),
///     "invalid trace_id: \"0AF7651916CD43DD8448EB211C80319C\" \
///      (allowed: 32 lower-case hex digits, not all zero)",
/// );
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CarrierError {
    field: &'static str,
    value: ArrayString<SHOWN>,
    /// Whether the value was longer.
    cut: bool,
    allowed: &'static str,
}

impl CarrierError {
    pub(super) fn new(field: &'static str, value: &str, allowed: &'static str) -> Self {
        let mut shown = ArrayString::new();
        let cut = value.chars().any(|character| shown.try_push(character).is_err());
        Self { field, value: shown, cut, allowed }
    }

    /// Returns the name of the field: `traceparent`, `version`, `trace_id`, `span_id`,
    /// `trace_flags` or `tracestate`; of an X-Ray header `AWSTraceHeader`, `Root`, `Parent` or
    /// `Sampled`.
    ///
    /// ```
    /// use batchlink::carrier::parse_tracestate;
    ///
    /// assert_eq!(parse_tracestate("a").unwrap_err().field(), "tracestate");
    /// ```
    pub fn field(&self) -> &'static str {
        self.field
    }

    /// Returns the refused value, at most its first 64 bytes.
    ///
    /// ```
    /// use batchlink::carrier::parse_tracestate;
    ///
    /// assert_eq!(parse_tracestate("a=1,b").unwrap_err().value(), "b");
    /// ```
    pub fn value(&self) -> &str {
        &self.value
    }

    /// Returns what is allowed instead.
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
