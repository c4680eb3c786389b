//! Errors and their texts.

use opentelemetry::trace::Link;
use std::borrow::Cow;
use std::error::Error;
use std::fmt;
use std::ops::RangeInclusive;

/// Why a context was refused.
///
/// ```
/// use batchlink::{LinkCollector, PushError};
/// # use opentelemetry::trace::{SpanContext, SpanId, TraceFlags, TraceId, TraceState};
/// # let context = SpanContext::new(
/// #     TraceId::from(1), SpanId::from(1), TraceFlags::SAMPLED, false, TraceState::NONE);
///
/// let builder = LinkCollector::builder().with_max_batch_size(1).with_queue_capacity(1);
/// let (collector, _flusher) = builder.with_shards(1).build()?;
/// assert_eq!(collector.push(&context), Ok(()));
/// assert_eq!(collector.push(&context), Err(PushError::Full));
/// collector.close();
/// assert_eq!(collector.push(&context), Err(PushError::Closed));
/// # Ok::<(), batchlink::ConfigError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum PushError {
    /// The producer's shard is full: the flusher was woken and is behind. The context that was
    /// offered is the one refused. Counted in
    /// [`Stats::rejected_full`](crate::Stats::rejected_full).
    Full,
    /// The collector is closed. Counted in
    /// [`Stats::rejected_closed`](crate::Stats::rejected_closed).
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

/// A link that was refused, returned unchanged.
///
/// ```
/// use batchlink::{LinkCollector, PushError, links};
/// # use opentelemetry::trace::{SpanContext, SpanId, TraceFlags, TraceId, TraceState};
/// # let context = SpanContext::new(
/// #     TraceId::from(1), SpanId::from(1), TraceFlags::SAMPLED, false, TraceState::NONE);
///
/// let (collector, _flusher) = LinkCollector::builder().build()?;
/// collector.close();
/// let refused = collector.push_link(links::batch_item(&context, 0)).unwrap_err();
/// assert_eq!(refused.reason(), PushError::Closed);
/// assert_eq!(refused.into_link().span_context, context);
/// # Ok::<(), batchlink::ConfigError>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct RejectedLink {
    link: Box<Link>,
    reason: PushError,
}

/// Names [`RejectedLink`] as the other errors are named.
///
/// ```
/// fn reason(error: batchlink::PushLinkError) -> batchlink::PushError {
///     error.reason()
/// }
/// ```
pub type PushLinkError = RejectedLink;

impl RejectedLink {
    pub(crate) fn new(link: Link, reason: PushError) -> Self {
        Self { link: Box::new(link), reason }
    }

    /// Returns the link, unchanged.
    pub fn into_link(self) -> Link {
        *self.link
    }

    /// Returns why the link was refused.
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

/// An invalid configuration.
///
/// The text names the field or environment variable, its value and what is allowed.
///
/// ```
/// let error = batchlink::LinkCollector::builder().with_shards(0).build().unwrap_err();
/// assert_eq!((error.field(), error.value(), error.allowed()), ("shards", "0", "1 to 128"));
/// assert_eq!(error.to_string(), "invalid shards: 0 (allowed: 1 to 128)");
/// ```
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

    /// Returns the field as in `with_<field>`, or the environment variable the value came from.
    pub fn field(&self) -> &str {
        &self.field
    }

    /// Returns the value that was given.
    pub fn value(&self) -> &str {
        &self.value
    }

    /// Returns what is allowed instead.
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
    Err(ConfigError::new(
        field,
        value.to_string(),
        format!("{} to {}", allowed.start(), allowed.end()),
    ))
}

/// [`Flusher::next_batch_timeout`](crate::Flusher::next_batch_timeout) timed out. Nothing is lost:
/// a later call returns what is pending.
///
/// ```
/// use batchlink::{LinkCollector, Timeout};
/// use std::time::Duration;
///
/// let (_collector, mut flusher) = LinkCollector::builder().build()?;
/// assert_eq!(flusher.next_batch_timeout(Duration::ZERO).unwrap_err(), Timeout);
/// # Ok::<(), batchlink::ConfigError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Timeout;

/// Names [`Timeout`] as the other errors are named.
///
/// ```
/// assert_eq!(batchlink::Timeout, batchlink::TimeoutError {});
/// ```
pub type TimeoutError = Timeout;

impl fmt::Display for Timeout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("timed out: no batch was due")
    }
}

impl Error for Timeout {}

/// Why a shutdown through [`FlusherHandle`](crate::FlusherHandle) did not report that everything
/// was handled.
///
/// ```
/// use batchlink::{LinkCollector, ShutdownError};
///
/// let (_collector, flusher) = LinkCollector::builder().build()?;
/// let handle = flusher.spawn(|batch| drop(batch))?;
/// handle.shutdown()?;
/// assert_eq!(handle.shutdown(), Err(ShutdownError::AlreadyShutdown));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ShutdownError {
    /// An earlier call already returned how the flusher ended.
    AlreadyShutdown,
    /// The shutdown timed out. The flusher's thread keeps delivering until it is done or the
    /// process ends, and the shutdown can be called again.
    Timeout {
        /// Accepted, and still in the queue.
        pending: u64,
        /// Taken from the queue, and not finished: the handler has not returned, or has not
        /// answered the items.
        in_flight: u64,
    },
    /// The flusher's thread ended by a panic outside the handler's call, for instance in the
    /// handler's `Drop`.
    Panicked {
        /// Accepted, and still in the queue. They are lost.
        pending: u64,
    },
}

impl fmt::Display for ShutdownError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AlreadyShutdown => f.write_str("the flusher was already shut down"),
            Self::Timeout { pending, in_flight } => write!(
                f,
                "the shutdown timed out: {pending} still in the queue, {in_flight} taken and not \
                 finished"
            ),
            Self::Panicked { pending } => {
                write!(f, "the flusher's thread panicked: {pending} left in the queue")
            }
        }
    }
}

impl Error for ShutdownError {}

/// Why a `flush_and_wait` did not see everything delivered that was accepted before the call.
///
/// ```
/// use batchlink::{FlushError, LinkCollector};
/// use std::time::Duration;
/// # use opentelemetry::trace::{SpanContext, SpanId, TraceFlags, TraceId, TraceState};
/// # let context = SpanContext::new(
/// #     TraceId::from(1), SpanId::from(1), TraceFlags::SAMPLED, false, TraceState::NONE);
///
/// let (collector, flusher) = LinkCollector::builder().build()?;
/// collector.push(&context)?;
/// // Nothing runs the flusher.
/// let error = collector.flush_and_wait(Duration::ZERO).unwrap_err();
/// assert_eq!(error, FlushError::Timeout { pending: 1, in_flight: 0 });
/// drop(flusher);
/// let error = collector.flush_and_wait(Duration::MAX).unwrap_err();
/// assert_eq!(error, FlushError::Closed { pending: 1 });
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum FlushError {
    /// The wait timed out. Delivery continues.
    Timeout {
        /// Accepted before the call, and still in the queue.
        pending: u64,
        /// Taken from the queue, whenever it was accepted, and not finished.
        in_flight: u64,
    },
    /// The flusher was dropped and delivers nothing more.
    Closed {
        /// Accepted before the call, and left in the queue. They are lost.
        pending: u64,
    },
}

impl fmt::Display for FlushError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Timeout { pending, in_flight } => write!(
                f,
                "the flush timed out: {pending} still in the queue, {in_flight} taken and not \
                 finished"
            ),
            Self::Closed { pending } => {
                write!(f, "the flusher was dropped: {pending} left in the queue")
            }
        }
    }
}

impl Error for FlushError {}
