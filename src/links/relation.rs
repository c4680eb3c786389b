//! How the linking span and the linked one relate.

use opentelemetry::{StringValue, Value};
use std::borrow::Cow;
use std::error::Error;
use std::fmt;
use std::str::FromStr;

/// The type of a link: how the span that carries it relates to the linked span.
///
/// It is the value of the attribute `link.type`, or of another key set by [`with_link_type_key`].
/// OpenTelemetry prescribes no values. These are the ones in use, and [`Custom`](Self::Custom)
/// stands for all others.
///
/// | the linked span … | use |
/// |---|---|
/// | is one of those whose work this batch does | [`BatchItem`], the default |
/// | is one of those, with an identity such as a message id | [`BatchMember`] |
/// | came before, and did not wait for this one | [`FollowsFrom`] |
/// | made this one happen by what it did | [`CausedBy`] |
/// | made this one happen on purpose: a timer, a webhook, an event | [`TriggeredBy`] |
/// | is an earlier attempt at the same work | [`Retry`] or [`RetryOf`] |
/// | did what this one undoes | [`Compensation`] or [`Compensates`] |
/// | gave one of the results that this one puts together | [`Aggregation`] or [`Aggregates`] |
/// | is not one span but a whole trace | [`AggregatedTrace`], with [`whole_trace`] |
/// | made the data that this one transforms | [`DerivedFrom`] |
/// | started this one in a trace of its own | [`SpawnedFrom`] |
/// | sent the message that this one receives | [`ConsumedFrom`] |
/// | would be its parent, had it none already | [`ChildOf`] |
/// | has to do with it in no other way | [`RelatedOperation`] |
///
/// Of two names for one relation, the noun names the kind of link and the verb reads as a sentence:
/// *this span retries that one*. Both are in use: keep to what your queries look for. The
/// constructors in [`links`](crate::links) use the noun.
///
/// # Parent or link?
///
/// Use a parent if this span is part of exactly one other, in the same trace, which waits for it or
/// at least started it for itself alone. Use a link in every other case: several origins (a batch),
/// an origin in another trace, an origin that ended long ago (a queue, a retry by a scheduler), or
/// work that would make its origin's trace grow without end. A span with a natural parent and
/// further origins gets both.
///
/// ```
/// use batchlink::{LinkPolicy, links::Relation};
///
/// assert_eq!(Relation::RetryOf.as_str(), "retry_of");
/// assert_eq!("retry_of".parse(), Ok(Relation::RetryOf));
/// assert!(!"shard_of".parse::<Relation>()?.is_standard());
///
/// let policy = LinkPolicy::new().with_link_type(Relation::ConsumedFrom);
/// # drop(policy);
/// # Ok::<(), batchlink::links::ParseRelationError>(())
/// ```
///
/// [`BatchItem`]: Self::BatchItem
/// [`BatchMember`]: Self::BatchMember
/// [`FollowsFrom`]: Self::FollowsFrom
/// [`CausedBy`]: Self::CausedBy
/// [`TriggeredBy`]: Self::TriggeredBy
/// [`Retry`]: Self::Retry
/// [`RetryOf`]: Self::RetryOf
/// [`Compensation`]: Self::Compensation
/// [`Compensates`]: Self::Compensates
/// [`Aggregation`]: Self::Aggregation
/// [`Aggregates`]: Self::Aggregates
/// [`AggregatedTrace`]: Self::AggregatedTrace
/// [`DerivedFrom`]: Self::DerivedFrom
/// [`SpawnedFrom`]: Self::SpawnedFrom
/// [`ConsumedFrom`]: Self::ConsumedFrom
/// [`ChildOf`]: Self::ChildOf
/// [`RelatedOperation`]: Self::RelatedOperation
/// [`whole_trace`]: crate::links::whole_trace
/// [`with_link_type_key`]: crate::LinkPolicy::with_link_type_key
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Relation {
    /// `follows_from`: came before, without waiting for this span.
    FollowsFrom,
    /// `child_of`: a parent beside the parent.
    ChildOf,
    /// `caused_by`: its effects led to this span.
    CausedBy,
    /// `triggered_by`: it started this span on purpose.
    TriggeredBy,
    /// `batch_item`: one of those whose work this batch does.
    BatchItem,
    /// `batch_member`: the same, for members with an identity.
    BatchMember,
    /// `retry`: an earlier attempt at the same work.
    Retry,
    /// `retry_of`: the same, as a sentence.
    RetryOf,
    /// `compensation`: did what this span undoes.
    Compensation,
    /// `compensates`: the same, as a sentence.
    Compensates,
    /// `aggregation`: gave a part of what this span puts together.
    Aggregation,
    /// `aggregates`: the same, as a sentence.
    Aggregates,
    /// `aggregated_trace`: not a span but a whole trace.
    AggregatedTrace,
    /// `derived_from`: made the data that this span transforms.
    DerivedFrom,
    /// `spawned_from`: started this span in a trace of its own.
    SpawnedFrom,
    /// `consumed_from`: sent the message that this span receives.
    ConsumedFrom,
    /// `related_operation`: related in a way that has no name here.
    RelatedOperation,
    /// Any other name. A custom relation with a standard name is not equal to the standard one,
    /// though it reads the same; [`parse`](str::parse) gives the standard one.
    Custom(Cow<'static, str>),
}

impl Relation {
    /// All relations but custom ones, in the order of their declaration.
    pub const STANDARD: &[Self] = &[
        Self::FollowsFrom,
        Self::ChildOf,
        Self::CausedBy,
        Self::TriggeredBy,
        Self::BatchItem,
        Self::BatchMember,
        Self::Retry,
        Self::RetryOf,
        Self::Compensation,
        Self::Compensates,
        Self::Aggregation,
        Self::Aggregates,
        Self::AggregatedTrace,
        Self::DerivedFrom,
        Self::SpawnedFrom,
        Self::ConsumedFrom,
        Self::RelatedOperation,
    ];

    /// Returns the name, as in the attribute.
    pub fn as_str(&self) -> &str {
        match self.name() {
            Cow::Borrowed(name) => name,
            Cow::Owned(name) => name,
        }
    }

    /// Returns whether it is one of [`STANDARD`](Self::STANDARD).
    pub fn is_standard(&self) -> bool {
        !matches!(self, Self::Custom(_))
    }

    fn name(&self) -> &Cow<'static, str> {
        match self {
            Self::FollowsFrom => &Cow::Borrowed("follows_from"),
            Self::ChildOf => &Cow::Borrowed("child_of"),
            Self::CausedBy => &Cow::Borrowed("caused_by"),
            Self::TriggeredBy => &Cow::Borrowed("triggered_by"),
            Self::BatchItem => &Cow::Borrowed("batch_item"),
            Self::BatchMember => &Cow::Borrowed("batch_member"),
            Self::Retry => &Cow::Borrowed("retry"),
            Self::RetryOf => &Cow::Borrowed("retry_of"),
            Self::Compensation => &Cow::Borrowed("compensation"),
            Self::Compensates => &Cow::Borrowed("compensates"),
            Self::Aggregation => &Cow::Borrowed("aggregation"),
            Self::Aggregates => &Cow::Borrowed("aggregates"),
            Self::AggregatedTrace => &Cow::Borrowed("aggregated_trace"),
            Self::DerivedFrom => &Cow::Borrowed("derived_from"),
            Self::SpawnedFrom => &Cow::Borrowed("spawned_from"),
            Self::ConsumedFrom => &Cow::Borrowed("consumed_from"),
            Self::RelatedOperation => &Cow::Borrowed("related_operation"),
            Self::Custom(name) => name,
        }
    }
}

impl fmt::Display for Relation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// Parses standard names to their relation, all others to [`Relation::Custom`]. Case matters.
impl FromStr for Relation {
    type Err = ParseRelationError;

    /// # Errors
    ///
    /// [`ParseRelationError`] if the name is empty or blank.
    fn from_str(name: &str) -> Result<Self, ParseRelationError> {
        if name.trim().is_empty() {
            return Err(ParseRelationError);
        }
        let standard = Self::STANDARD.iter().find(|relation| relation.as_str() == name);
        Ok(standard.cloned().unwrap_or_else(|| Self::Custom(name.to_owned().into())))
    }
}

impl From<Relation> for Cow<'static, str> {
    fn from(relation: Relation) -> Self {
        match relation {
            Relation::Custom(name) => name,
            standard => standard.name().clone(),
        }
    }
}

impl From<Relation> for StringValue {
    fn from(relation: Relation) -> Self {
        Cow::from(relation).into()
    }
}

impl From<Relation> for Value {
    fn from(relation: Relation) -> Self {
        Self::String(relation.into())
    }
}

/// A name that is no [`Relation`], because it is empty or blank.
///
/// ```
/// use batchlink::links::{ParseRelationError, Relation};
///
/// assert_eq!(" ".parse::<Relation>(), Err(ParseRelationError));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ParseRelationError;

impl fmt::Display for ParseRelationError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("invalid relation: an empty or blank name (allowed: any other text)")
    }
}

impl Error for ParseRelationError {}
