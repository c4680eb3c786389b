//! What became of one context.

#[cfg(doc)]
use super::{Dedup, Invalid, LinkSet, Truncation, Unsampled};
use std::fmt;

/// What became of a context given to a [`LinkSet`].
///
/// ```
/// use batchlink::{LinkSet, Outcome};
/// use opentelemetry::trace::SpanContext;
///
/// let mut set = LinkSet::builder().build()?;
/// let outcome = set.insert(&SpanContext::NONE);
/// assert_eq!((outcome, outcome.to_string().as_str()), (Outcome::Invalid, "invalid"));
/// # Ok::<(), batchlink::ConfigError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Outcome {
    /// It is a link of the batch. A [`Truncation`] other than `KeepFirst` may take the link back
    /// for a later context. The counts of the batch are final.
    Linked,
    /// It is a duplicate of a link of the batch, by the policy's [`Dedup`].
    Duplicate,
    /// The batch has as many links as the policy allows, and this would be one more.
    Truncated,
    /// Its trace id or span id is zero, and the policy ([`Invalid`]) does not keep it.
    Invalid,
    /// Its sampled flag is off, and the policy is [`Unsampled::Drop`].
    Unsampled,
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Linked => "linked",
            Self::Duplicate => "duplicate",
            Self::Truncated => "truncated",
            Self::Invalid => "invalid",
            Self::Unsampled => "unsampled",
        })
    }
}
