//! What can go wrong, and how it is said.

use opentelemetry::trace::Link;
use std::borrow::Cow;
use std::error::Error;
use std::fmt;
use std::ops::RangeInclusive;

/// Why a context was not accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum PushError {
    /// The producer's shard is full: the flusher has been told to come and is behind. The newest
    /// context is the one refused; it is counted in [`Stats::rejected_full`](crate::Stats::rejected_full).
    Full,
    /// The collector was closed; counted in [`Stats::rejected_closed`](crate::Stats::rejected_closed).
    Closed,
}

impl fmt::Display for PushError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Full => "the shard's queue is full: the flusher is behind",
            Self::Closed => "the collector is closed",
        })
    }
}

impl Error for PushError {}

/// A link that was not accepted, given back as it was.
#[derive(Clone, Debug, PartialEq)]
pub struct RejectedLink {
    link: Box<Link>,
    reason: PushError,
}

impl RejectedLink {
    pub(crate) fn new(link: Link, reason: PushError) -> Self {
        Self { link: Box::new(link), reason }
    }

    /// The link, unchanged.
    pub fn into_link(self) -> Link {
        *self.link
    }

    /// Why it was refused.
    pub fn reason(&self) -> PushError {
        self.reason
    }
}

impl fmt::Display for RejectedLink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "link not accepted: {}", self.reason)
    }
}

impl Error for RejectedLink {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(&self.reason)
    }
}

/// A configuration that cannot be built.
///
/// The text names the field (or environment variable), the value and what is allowed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    field: Cow<'static, str>,
    value: String,
    allowed: String,
}

impl ConfigError {
    pub(crate) fn new(
        field: impl Into<Cow<'static, str>>,
        value: impl Into<String>,
        allowed: impl Into<String>,
    ) -> Self {
        Self { field: field.into(), value: value.into(), allowed: allowed.into() }
    }

    /// The field as in `with_<field>`, or the name of the environment variable.
    pub fn field(&self) -> &str {
        &self.field
    }

    /// The value that was given.
    pub fn value(&self) -> &str {
        &self.value
    }

    /// What is allowed instead.
    pub fn allowed(&self) -> &str {
        &self.allowed
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "invalid {}: {} (allowed: {})", self.field, self.value, self.allowed)
    }
}

impl Error for ConfigError {}

/// Checks one field against its range.
pub(crate) fn within(
    field: &'static str,
    value: usize,
    allowed: RangeInclusive<usize>,
) -> Result<usize, ConfigError> {
    if allowed.contains(&value) {
        return Ok(value);
    }
    Err(ConfigError::new(field, value.to_string(), format!("{} to {}", allowed.start(), allowed.end())))
}

/// [`Flusher::next_batch_timeout`](crate::Flusher::next_batch_timeout) waited that long in vain.
/// Nothing is lost: what is pending comes with a later call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Timeout;

impl fmt::Display for Timeout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("no batch was due within the given time")
    }
}

impl Error for Timeout {}

/// Why [`FlusherHandle::shutdown_with_timeout`](crate::FlusherHandle::shutdown_with_timeout) did
/// not end with everything delivered by this call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ShutdownError {
    /// A shutdown was called before.
    AlreadyShutdown,
    /// The time was over first. The flusher's thread goes on delivering until it is done or the
    /// process ends.
    Timeout {
        /// Accepted contexts that no batch had taken yet.
        pending: u64,
    },
    /// The flusher's thread died of a panic outside the handler's call, for instance in the
    /// handler's `Drop`.
    Panicked {
        /// Accepted contexts that no batch had taken.
        pending: u64,
    },
}

impl fmt::Display for ShutdownError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AlreadyShutdown => f.write_str("the flusher was already shut down"),
            Self::Timeout { pending } => {
                write!(f, "the flusher did not finish in time: {pending} contexts were not yet taken")
            }
            Self::Panicked { pending } => {
                write!(f, "the flusher's thread panicked: {pending} contexts were not taken")
            }
        }
    }
}

impl Error for ShutdownError {}
