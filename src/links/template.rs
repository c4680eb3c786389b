//! Attributes that many links share.

use super::{
    BUSINESS_ENTITY_ID, BUSINESS_ENTITY_TYPE, CORRELATION_ID, LINK_DESCRIPTION, LINK_TYPE,
    SOURCE_OPERATION, SOURCE_SERVICE,
};
use crate::links::relation::Relation;
use opentelemetry::trace::{Link, SpanContext};
use opentelemetry::{KeyValue, StringValue};
use std::borrow::Cow;
use std::sync::Arc;

/// Fixed attributes for any number of links.
///
/// Each link costs one allocation. Strings set by the `with_*` methods are shared among the links;
/// those in attributes of your own are if they are `&'static str` or `Arc<str>`. A key has one
/// value: the last one that was set.
///
/// ```
/// use batchlink::links::{LinkTemplate, Relation};
/// # use opentelemetry::trace::{SpanContext, SpanId, TraceFlags, TraceId, TraceState};
/// # let cx = SpanContext::new(
/// #     TraceId::from(7u128), SpanId::from(1u64), TraceFlags::SAMPLED, true, TraceState::NONE);
///
/// let template = LinkTemplate::new(Relation::ConsumedFrom)
///     .with_description("an order to be shipped")
///     .with_source("shop", "place_order");
///
/// let link = template.link(&cx);
/// assert_eq!(link.attributes.len(), 4);
/// # // a second one, from the same template
/// # assert_eq!(template.link(&cx), link);
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct LinkTemplate {
    attributes: Vec<KeyValue>,
}

impl LinkTemplate {
    /// Returns a template with `link.type` only.
    pub fn new(relation: Relation) -> Self {
        Self { attributes: Vec::new() }.with_attribute(KeyValue::new(LINK_TYPE, shared(relation)))
    }

    /// Sets a description for readers: `link.description`.
    pub fn with_description(self, description: impl Into<Cow<'static, str>>) -> Self {
        self.with_attribute(KeyValue::new(LINK_DESCRIPTION, shared(description)))
    }

    /// Sets the linked span's service and operation: `source.service`, `source.operation`.
    pub fn with_source(
        self,
        service: impl Into<Cow<'static, str>>,
        operation: impl Into<Cow<'static, str>>,
    ) -> Self {
        self.with_attribute(KeyValue::new(SOURCE_SERVICE, shared(service)))
            .with_attribute(KeyValue::new(SOURCE_OPERATION, shared(operation)))
    }

    /// Sets the business transaction's id: `correlation.id`.
    pub fn with_correlation_id(self, id: impl Into<Cow<'static, str>>) -> Self {
        self.with_attribute(KeyValue::new(CORRELATION_ID, shared(id)))
    }

    /// Sets the entity that the work is about, such as `order` and its number:
    /// `business.entity.type`, `business.entity.id`.
    pub fn with_business_entity(
        self,
        kind: impl Into<Cow<'static, str>>,
        id: impl Into<Cow<'static, str>>,
    ) -> Self {
        self.with_attribute(KeyValue::new(BUSINESS_ENTITY_TYPE, shared(kind)))
            .with_attribute(KeyValue::new(BUSINESS_ENTITY_ID, shared(id)))
    }

    /// Sets an attribute of your own.
    pub fn with_attribute(mut self, attribute: KeyValue) -> Self {
        match self.attributes.iter_mut().find(|known| known.key == attribute.key) {
            Some(known) => *known = attribute,
            None => self.attributes.push(attribute),
        }
        self
    }

    /// Returns the attributes, in the order in which their keys were first set.
    pub fn attributes(&self) -> &[KeyValue] {
        &self.attributes
    }

    /// Makes a link with these attributes.
    pub fn link(&self, cx: &SpanContext) -> Link {
        Link::new(cx.clone(), self.attributes.clone(), 0)
    }

    /// Makes a link with these attributes and some of its own, which replace those with the same
    /// key.
    ///
    /// ```
    /// use batchlink::links::{LinkTemplate, Relation};
    /// use opentelemetry::KeyValue;
    /// # let cx = opentelemetry::trace::SpanContext::NONE;
    ///
    /// let template = LinkTemplate::new(Relation::ConsumedFrom).with_source("shop", "place_order");
    /// let link = template.link_with(&cx, [KeyValue::new("source.operation", "cancel_order")]);
    /// assert_eq!(link.attributes[2], KeyValue::new("source.operation", "cancel_order"));
    /// ```
    pub fn link_with(&self, cx: &SpanContext, own: impl IntoIterator<Item = KeyValue>) -> Link {
        Link::new(
            cx.clone(),
            own.into_iter().fold(self.clone(), Self::with_attribute).attributes,
            0,
        )
    }
}

/// Returns a string that all links share.
fn shared(text: impl Into<Cow<'static, str>>) -> StringValue {
    match text.into() {
        Cow::Borrowed(text) => text.into(),
        Cow::Owned(text) => Arc::<str>::from(text).into(),
    }
}
