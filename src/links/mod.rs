//! Constructors and templates of links, and the names of their attributes.
//!
//! A [`Link`] goes to [`push_link`](crate::LinkCollector::push_link), to
//! [`insert_link`](crate::LinkSet::insert_link) or straight to a span. Those made here have their
//! [`Relation`] in `link.type`, which a set or collector does not change.
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
//! | `business.entity.type` ([`BUSINESS_ENTITY_TYPE`]) | string | [`with_business_entity`] |
//! | `business.entity.id` ([`BUSINESS_ENTITY_ID`]) | string | [`with_business_entity`] |
//!
//! [`with_business_entity`]: LinkTemplate::with_business_entity
//!
//! A string that is not `&'static` is copied into every link; an `Arc<str>` is shared.
//!
//! Contexts that may be missing need no `if`: functions that take a sequence of contexts, here and
//! in [`LinkSet`](crate::LinkSet), take items of any type that is a [`MaybeContext`].
//!
//! ```
//! use batchlink::{LinkSet, links::{self, Relation}};
//! # use opentelemetry::trace::{SpanContext, SpanId, TraceFlags, TraceId, TraceState};
//! # let context = |n: u64| SpanContext::new(
//! #     TraceId::from(7u128), SpanId::from(n), TraceFlags::SAMPLED, true, TraceState::NONE);
//! struct Row {
//!     origin: Option<SpanContext>, // rows that came without a trace have none
//! }
//! let rows = [Some(context(1)), None, Some(context(3))].map(|origin| Row { origin });
//!
//! // Straight into a Vec ...
//! let links = links::from_contexts(rows.iter().map(|row| &row.origin), Relation::DerivedFrom);
//! assert_eq!(links.len(), 2);
//! links::validate(&links)?;
//!
//! // ... or de-duplicated, bounded and counted, each with its index in the batch.
//! let mut set = LinkSet::builder().build()?;
//! set.extend(rows.iter().enumerate().filter_map(|(index, row)| {
//!     row.origin.as_ref().map(|origin| links::batch_item(origin, index))
//! }));
//! let batch = set.finish();
//! let index = opentelemetry::KeyValue::new("item.index", 2);
//! assert_eq!(batch.links()[1].attributes[1], index);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

#[cfg(feature = "cache")]
mod cache;
pub(crate) mod context;
pub(crate) mod relation;
mod template;
mod validate;

#[cfg(feature = "cache")]
pub use cache::LinkCache;
pub use context::MaybeContext;
#[cfg(feature = "tracing")]
pub(crate) use context::sealed;
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
/// A description of the link for readers: `link.description`.
pub const LINK_DESCRIPTION: &str = "link.description";
/// The item's index in its batch, from 0: `item.index`.
pub const ITEM_INDEX: &str = "item.index";
/// The item's identity: `item.id`.
pub const ITEM_ID: &str = "item.id";
/// The number of the attempt that links, from 1: `retry.attempt_number`.
pub const RETRY_ATTEMPT_NUMBER: &str = "retry.attempt_number";
/// The source of the aggregated part: `aggregation.source`.
pub const AGGREGATION_SOURCE: &str = "aggregation.source";
/// The service of the linked span: `source.service`.
pub const SOURCE_SERVICE: &str = "source.service";
/// The operation of the linked span: `source.operation`.
pub const SOURCE_OPERATION: &str = "source.operation";
/// The id of a business transaction in all systems: `correlation.id`.
pub const CORRELATION_ID: &str = "correlation.id";
/// The kind of entity that the work is about, such as `order`: `business.entity.type`.
pub const BUSINESS_ENTITY_TYPE: &str = "business.entity.type";
/// The id of that entity: `business.entity.id`.
pub const BUSINESS_ENTITY_ID: &str = "business.entity.id";

/// Makes a link with this type and no other attributes.
///
/// ```
/// use batchlink::links::{self, Relation};
/// # use opentelemetry::trace::SpanContext;
/// # let cx = SpanContext::NONE;
/// let link = links::typed(&cx, Relation::TriggeredBy);
/// assert_eq!(link.attributes[0].value.as_str(), "triggered_by");
/// ```
pub fn typed(cx: &SpanContext, relation: Relation) -> Link {
    Link::new(cx.clone(), vec![KeyValue::new(LINK_TYPE, relation)], 0)
}

/// Makes a link to one of a batch's items: [`Relation::BatchItem`], at `index` from 0.
///
/// ```
/// # use opentelemetry::trace::SpanContext;
/// # let cx = SpanContext::NONE;
/// let link = batchlink::links::batch_item(&cx, 4);
/// assert_eq!(link.attributes[1], opentelemetry::KeyValue::new("item.index", 4));
/// ```
pub fn batch_item(cx: &SpanContext, index: usize) -> Link {
    with(cx, Relation::BatchItem, [KeyValue::new(ITEM_INDEX, int(index))])
}

/// Makes a link to an item with an identity: [`Relation::BatchMember`], at `index` from 0.
///
/// ```
/// # use opentelemetry::trace::SpanContext;
/// # let cx = SpanContext::NONE;
/// let link = batchlink::links::batch_member(&cx, "order-7", 0);
/// assert_eq!(link.attributes[1], opentelemetry::KeyValue::new("item.id", "order-7"));
/// ```
pub fn batch_member(cx: &SpanContext, id: impl Into<StringValue>, index: usize) -> Link {
    let attributes = [KeyValue::new(ITEM_ID, id.into()), KeyValue::new(ITEM_INDEX, int(index))];
    with(cx, Relation::BatchMember, attributes)
}

/// Makes a link to a span that came before and did not wait: [`Relation::FollowsFrom`].
///
/// ```
/// # use opentelemetry::{KeyValue, trace::SpanContext};
/// # let cx = SpanContext::NONE;
/// let link = batchlink::links::follows_from(&cx, "queued");
/// assert_eq!(link.attributes[1], KeyValue::new("link.reason", "queued"));
/// ```
pub fn follows_from(cx: &SpanContext, reason: impl Into<StringValue>) -> Link {
    with(cx, Relation::FollowsFrom, [KeyValue::new(LINK_REASON, reason.into())])
}

/// Makes a link to a span that led to this one: [`Relation::CausedBy`].
///
/// ```
/// # use opentelemetry::{KeyValue, trace::SpanContext};
/// # let cx = SpanContext::NONE;
/// let link = batchlink::links::causal(&cx, "cache miss");
/// assert_eq!(link.attributes[1], KeyValue::new("link.reason", "cache miss"));
/// ```
pub fn causal(cx: &SpanContext, reason: impl Into<StringValue>) -> Link {
    with(cx, Relation::CausedBy, [KeyValue::new(LINK_REASON, reason.into())])
}

/// Makes a link to an earlier attempt at the same work: [`Relation::Retry`]. `attempt` is the
/// number of the attempt that links, not of the linked one: the first retry is attempt 2.
///
/// ```
/// # use opentelemetry::trace::SpanContext;
/// # let first = SpanContext::NONE;
/// let link = batchlink::links::retry(&first, 2);
/// assert_eq!(link.attributes[1], opentelemetry::KeyValue::new("retry.attempt_number", 2));
/// ```
pub fn retry(cx: &SpanContext, attempt: u32) -> Link {
    with(cx, Relation::Retry, [KeyValue::new(RETRY_ATTEMPT_NUMBER, i64::from(attempt))])
}

/// Makes a link to one of the parts that this span aggregates: [`Relation::Aggregation`], with the
/// part's source.
///
/// ```
/// # use opentelemetry::{KeyValue, trace::SpanContext};
/// # let cx = SpanContext::NONE;
/// let link = batchlink::links::aggregate(&cx, "shard 3");
/// assert_eq!(link.attributes[1], KeyValue::new("aggregation.source", "shard 3"));
/// ```
pub fn aggregate(cx: &SpanContext, source: impl Into<StringValue>) -> Link {
    with(cx, Relation::Aggregation, [KeyValue::new(AGGREGATION_SOURCE, source.into())])
}

/// Makes a link to the step that this span undoes: [`Relation::Compensation`], with the reason.
///
/// ```
/// # use opentelemetry::{KeyValue, trace::SpanContext};
/// # let cx = SpanContext::NONE;
/// let link = batchlink::links::compensation(&cx, "payment declined");
/// assert_eq!(link.attributes[1], KeyValue::new("link.reason", "payment declined"));
/// ```
pub fn compensation(cx: &SpanContext, reason: impl Into<StringValue>) -> Link {
    with(cx, Relation::Compensation, [KeyValue::new(LINK_REASON, reason.into())])
}

/// Makes a link to a trace as a whole: [`Relation::AggregatedTrace`], with a span id of zero.
///
/// Such a context is invalid by OpenTelemetry's definition, though its specification wants the link
/// recorded. A collector or set drops it unless [`with_invalid`](crate::LinkPolicy::with_invalid)
/// says otherwise, and so does `SpanBuilder::with_links`; `Span::add_link` and the span builder of
/// a [`LinkBatch`](crate::LinkBatch) do not. Its flags are unknown, and zero.
///
/// ```
/// use batchlink::links;
/// use opentelemetry::trace::TraceId;
///
/// let link = links::whole_trace(TraceId::from(7u128));
/// assert!(!link.span_context.is_valid());
/// assert!(links::validate(&[link]).is_ok());
/// ```
pub fn whole_trace(trace_id: TraceId) -> Link {
    let cx =
        SpanContext::new(trace_id, SpanId::INVALID, TraceFlags::default(), false, TraceState::NONE);
    typed(&cx, Relation::AggregatedTrace)
}

/// Makes a link of this type to each context that is not missing, in order. Invalid contexts are
/// not left out; [`validate`] finds them. For de-duplication and a bound use a
/// [`LinkSet`](crate::LinkSet).
///
/// ```
/// use batchlink::links::{self, Relation};
/// # use opentelemetry::trace::SpanContext;
/// # let cx = SpanContext::NONE;
/// assert_eq!(links::from_contexts([Some(cx), None], Relation::DerivedFrom).len(), 1);
/// ```
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
