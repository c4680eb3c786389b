//! Links ready made: constructors, templates, and the names of their attributes.
//!
//! Whatever makes it, a [`Link`] can go into [`push_link`](crate::LinkCollector::push_link) or
//! [`insert_link`](crate::LinkSet::insert_link), or straight to a span. Each says its
//! [`Relation`] in `link.type`, which a set or collector then leaves as it is.
//!
//! | attribute | type | set by |
//! |---|---|---|
//! | `link.type` ([`LINK_TYPE`]) | string | all of them |
//! | `link.reason` ([`LINK_REASON`]) | string | [`follows_from`], [`causal`], [`compensation`] |
//! | `item.index` ([`ITEM_INDEX`]) | int, from 0 | [`batch_item`], [`batch_member`] |
//! | `item.id` ([`ITEM_ID`]) | string | [`batch_member`] |
//! | `retry.attempt_number` ([`RETRY_ATTEMPT_NUMBER`]) | int, from 1 | [`retry`] |
//! | `aggregation.source` ([`AGGREGATION_SOURCE`]) | string | [`aggregate`] |
//! | `link.description` ([`LINK_DESCRIPTION`]) | string | [`LinkTemplate::with_description`] |
//! | `source.service` ([`SOURCE_SERVICE`]) | string | [`LinkTemplate::with_source`] |
//! | `source.operation` ([`SOURCE_OPERATION`]) | string | [`LinkTemplate::with_source`] |
//! | `correlation.id` ([`CORRELATION_ID`]) | string | [`LinkTemplate::with_correlation_id`] |
//! | `business.entity.type` ([`BUSINESS_ENTITY_TYPE`]) | string | [`LinkTemplate::with_business_entity`] |
//! | `business.entity.id` ([`BUSINESS_ENTITY_ID`]) | string | [`LinkTemplate::with_business_entity`] |
//!
//! A string that is not `&'static` is copied into every link; an `Arc<str>` is shared.
//!
//! Contexts that may be missing need no `if`: wherever a sequence of contexts is taken, here and in
//! [`LinkSet`](crate::LinkSet), its items are anything that is a [`MaybeContext`].
//!
//! ```
//! use batchlink::{LinkSet, links::{self, Relation}};
//! # use opentelemetry::trace::{SpanContext, SpanId, TraceFlags, TraceId, TraceState};
//! # let context = |n: u64| SpanContext::new(TraceId::from(7u128), SpanId::from(n), TraceFlags::SAMPLED, true, TraceState::NONE);
//! struct Row {
//!     origin: Option<SpanContext>, // rows that came without a trace have none
//! }
//! let rows = [Row { origin: Some(context(1)) }, Row { origin: None }, Row { origin: Some(context(3)) }];
//!
//! // Straight into a Vec ...
//! let links = links::from_contexts(rows.iter().map(|row| &row.origin), Relation::DerivedFrom);
//! assert_eq!(links.len(), 2);
//! links::validate(&links)?;
//!
//! // ... or de-duplicated, bounded and counted, each with its place in the batch.
//! let mut set = LinkSet::builder().build()?;
//! set.extend(rows.iter().enumerate().filter_map(|(index, row)| {
//!     row.origin.as_ref().map(|origin| links::batch_item(origin, index))
//! }));
//! let batch = set.finish();
//! assert_eq!(batch.links()[1].attributes[1].to_owned(), opentelemetry::KeyValue::new("item.index", 2));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

#[cfg(feature = "cache")]
mod cache;
mod context;
pub(crate) mod relation;
mod template;
mod validate;

#[cfg(feature = "cache")]
pub use cache::LinkCache;
pub use context::MaybeContext;
pub use relation::{ParseRelationError, Relation};
pub use template::LinkTemplate;
pub use validate::{InvalidLink, InvalidLinkReason, validate};

use opentelemetry::trace::{Link, SpanContext, SpanId, TraceFlags, TraceId, TraceState};
use opentelemetry::{KeyValue, StringValue, Value};

/// The [`Relation`] of the link: `link.type`.
pub const LINK_TYPE: &str = "link.type";
/// The other name in use for [`LINK_TYPE`]: `link.relationship`. See
/// [`with_link_type_key`](crate::LinkPolicy::with_link_type_key).
pub const LINK_RELATIONSHIP: &str = "link.relationship";
/// Why the spans are linked: `link.reason`.
pub const LINK_REASON: &str = "link.reason";
/// What the link is for, to be read by people: `link.description`.
pub const LINK_DESCRIPTION: &str = "link.description";
/// The item's place in its batch, from 0: `item.index`.
pub const ITEM_INDEX: &str = "item.index";
/// The item's identity: `item.id`.
pub const ITEM_ID: &str = "item.id";
/// The number of the attempt that the linking span makes; the first one is 1: `retry.attempt_number`.
pub const RETRY_ATTEMPT_NUMBER: &str = "retry.attempt_number";
/// What the aggregated part came from: `aggregation.source`.
pub const AGGREGATION_SOURCE: &str = "aggregation.source";
/// The service of the linked span: `source.service`.
pub const SOURCE_SERVICE: &str = "source.service";
/// The operation that the linked span stands for: `source.operation`.
pub const SOURCE_OPERATION: &str = "source.operation";
/// The id that one business transaction carries through all systems: `correlation.id`.
pub const CORRELATION_ID: &str = "correlation.id";
/// What kind of thing the work is about, such as `order`: `business.entity.type`.
pub const BUSINESS_ENTITY_TYPE: &str = "business.entity.type";
/// Which of them: `business.entity.id`.
pub const BUSINESS_ENTITY_ID: &str = "business.entity.id";

/// A link of this type and no other attributes.
pub fn typed(cx: &SpanContext, relation: Relation) -> Link {
    Link::new(cx.clone(), vec![KeyValue::new(LINK_TYPE, relation)], 0)
}

/// To one of the items that a batch is made of: [`Relation::BatchItem`], at `index` from 0.
pub fn batch_item(cx: &SpanContext, index: usize) -> Link {
    with(cx, Relation::BatchItem, [KeyValue::new(ITEM_INDEX, int(index))])
}

/// As [`batch_item`], for items with an identity: [`Relation::BatchMember`].
pub fn batch_member(cx: &SpanContext, id: impl Into<StringValue>, index: usize) -> Link {
    let attributes = [KeyValue::new(ITEM_ID, id.into()), KeyValue::new(ITEM_INDEX, int(index))];
    with(cx, Relation::BatchMember, attributes)
}

/// To what came before and did not wait: [`Relation::FollowsFrom`].
pub fn follows_from(cx: &SpanContext, reason: impl Into<StringValue>) -> Link {
    with(cx, Relation::FollowsFrom, [KeyValue::new(LINK_REASON, reason.into())])
}

/// To what led to this span: [`Relation::CausedBy`].
pub fn causal(cx: &SpanContext, reason: impl Into<StringValue>) -> Link {
    with(cx, Relation::CausedBy, [KeyValue::new(LINK_REASON, reason.into())])
}

/// To an earlier attempt at the same work: [`Relation::Retry`]. `attempt` is the number of the
/// attempt that links, not of the one that is linked: the first retry is attempt 2.
pub fn retry(cx: &SpanContext, attempt: u32) -> Link {
    with(cx, Relation::Retry, [KeyValue::new(RETRY_ATTEMPT_NUMBER, i64::from(attempt))])
}

/// To one of the parts that this span puts together: [`Relation::Aggregation`], with where the
/// part came from.
pub fn aggregate(cx: &SpanContext, source: impl Into<StringValue>) -> Link {
    with(cx, Relation::Aggregation, [KeyValue::new(AGGREGATION_SOURCE, source.into())])
}

/// To the step that this span undoes: [`Relation::Compensation`], with why.
pub fn compensation(cx: &SpanContext, reason: impl Into<StringValue>) -> Link {
    with(cx, Relation::Compensation, [KeyValue::new(LINK_REASON, reason.into())])
}

/// To a trace as a whole, not to one of its spans: [`Relation::AggregatedTrace`], with a span id of
/// zero.
///
/// Such a context is invalid by OpenTelemetry's definition, though its specification wants the link
/// recorded. A collector or set drops it unless [`with_invalid`](crate::LinkPolicy::with_invalid)
/// says otherwise, and so does `SpanBuilder::with_links`; `Span::add_link` and the span builder of a
/// [`LinkBatch`](crate::LinkBatch) do not. Its flags are zero: nothing is known of them.
pub fn whole_trace(trace_id: TraceId) -> Link {
    let cx = SpanContext::new(trace_id, SpanId::INVALID, TraceFlags::default(), false, TraceState::NONE);
    typed(&cx, Relation::AggregatedTrace)
}

/// A link of this type to each context that is there, in order, valid or not; [`validate`] tells.
/// For de-duplication and a bound use a [`LinkSet`](crate::LinkSet).
pub fn from_contexts<C: MaybeContext>(
    contexts: impl IntoIterator<Item = C>,
    relation: Relation,
) -> Vec<Link> {
    let template = LinkTemplate::new(relation);
    contexts.into_iter().filter_map(|cx| cx.with(|cx| template.link(cx))).collect()
}

fn with<const N: usize>(cx: &SpanContext, relation: Relation, attributes: [KeyValue; N]) -> Link {
    let mut all = Vec::with_capacity(1 + N);
    all.push(KeyValue::new(LINK_TYPE, relation));
    all.extend(attributes);
    Link::new(cx.clone(), all, 0)
}

/// A count as an attribute's value. OpenTelemetry's integers are signed.
pub(crate) fn int(count: impl TryInto<i64>) -> Value {
    Value::I64(count.try_into().unwrap_or(i64::MAX))
}
