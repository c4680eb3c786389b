//! Finds links that a backend cannot use.

use super::{LINK_RELATIONSHIP, LINK_TYPE};
use crate::links::relation::Relation;
use opentelemetry::Key;
use opentelemetry::trace::{Link, SpanId, TraceId};
use std::error::Error;
use std::fmt;

/// A link that leads nowhere or cannot be read; see [`validate`].
///
/// ```
/// use batchlink::links::{self, InvalidLinkReason};
/// use opentelemetry::trace::{Link, SpanContext};
///
/// let error = links::validate(&[Link::with_context(SpanContext::NONE)]).unwrap_err();
/// assert_eq!((error.index, error.reason), (0, InvalidLinkReason::ZeroTraceId));
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct InvalidLink {
    /// The index of the link, from 0.
    pub index: usize,
    /// The fault.
    pub reason: InvalidLinkReason,
}

/// The fault of an [`InvalidLink`].
///
/// ```
/// use batchlink::links::{self, InvalidLinkReason};
/// use opentelemetry::KeyValue;
/// use opentelemetry::trace::{Link, SpanContext, SpanId, TraceFlags, TraceId, TraceState};
///
/// let context = SpanContext::new(
///     TraceId::from(7), SpanId::from(1), TraceFlags::SAMPLED, true, TraceState::NONE);
/// let link = Link::new(context, vec![KeyValue::new("", 1)], 0);
/// let error = links::validate(&[link]).unwrap_err();
/// assert_eq!(error.reason, InvalidLinkReason::EmptyAttributeKey { attribute: 0 });
/// assert_eq!(error.reason.to_string(), "its attribute 0 has an empty key");
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum InvalidLinkReason {
    /// The trace id is zero.
    ZeroTraceId,
    /// The span id is zero, and the type is not [`Relation::AggregatedTrace`].
    ZeroSpanId,
    /// An attribute has an empty key.
    EmptyAttributeKey {
        /// The index of the attribute, from 0.
        attribute: usize,
    },
    /// Two attributes have the same key.
    RepeatedAttributeKey {
        /// The key.
        key: Key,
    },
}

/// Checks that each link leads somewhere and each of its attributes has a key of its own.
///
/// A span id of zero is allowed in a link of the type
/// [`aggregated_trace`](Relation::AggregatedTrace), under `link.type` or `link.relationship`.
///
/// # Errors
///
/// [`InvalidLink`] for the first link at fault.
///
/// ```
/// use batchlink::links::{self, Relation};
/// use opentelemetry::trace::{Link, SpanContext};
///
/// let error = links::validate(&[Link::with_context(SpanContext::NONE)]).unwrap_err();
/// assert_eq!(error.index, 0);
/// assert_eq!(error.to_string(), "link 0: its trace id is zero");
/// ```
pub fn validate(links: &[Link]) -> Result<(), InvalidLink> {
    links.iter().enumerate().try_for_each(|(index, link)| match fault(link) {
        Some(reason) => Err(InvalidLink { index, reason }),
        None => Ok(()),
    })
}

fn fault(link: &Link) -> Option<InvalidLinkReason> {
    if link.span_context.trace_id() == TraceId::INVALID {
        return Some(InvalidLinkReason::ZeroTraceId);
    }
    if link.span_context.span_id() == SpanId::INVALID && !is_whole_trace(link) {
        return Some(InvalidLinkReason::ZeroSpanId);
    }
    let keys = || link.attributes.iter().map(|attribute| &attribute.key);
    keys().enumerate().find_map(|(attribute, key)| {
        if key.as_str().is_empty() {
            return Some(InvalidLinkReason::EmptyAttributeKey { attribute });
        }
        let repeated = keys().take(attribute).any(|earlier| earlier == key);
        repeated.then(|| InvalidLinkReason::RepeatedAttributeKey { key: key.clone() })
    })
}

fn is_whole_trace(link: &Link) -> bool {
    link.attributes.iter().any(|attribute| {
        [LINK_TYPE, LINK_RELATIONSHIP].contains(&attribute.key.as_str())
            && attribute.value.as_str() == Relation::AggregatedTrace.as_str()
    })
}

impl fmt::Display for InvalidLink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "link {}: {}", self.index, self.reason)
    }
}

impl Error for InvalidLink {}

impl fmt::Display for InvalidLinkReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ZeroTraceId => f.write_str("its trace id is zero"),
            Self::ZeroSpanId => {
                f.write_str("its span id is zero, and it is not typed as an aggregated_trace")
            }
            Self::EmptyAttributeKey { attribute } => {
                write!(f, "its attribute {attribute} has an empty key")
            }
            Self::RepeatedAttributeKey { key } => write!(f, "it has the attribute {key} twice"),
        }
    }
}
