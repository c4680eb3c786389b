//! How contexts become links: which of them, and with which attributes.

use crate::error::{ConfigError, within};
use crate::link_set::batch::add_new;
use crate::link_set::{DEFAULT_MAX_LINKS, MAX_LINKS};
use crate::links::LINK_TYPE;
use crate::panic::caught;
use opentelemetry::trace::{Link, SpanContext, SpanId, TraceId};
use opentelemetry::{Key, KeyValue};
use std::borrow::Cow;
use std::fmt;
use std::panic::{RefUnwindSafe, UnwindSafe};
use std::sync::Arc;

/// What a [`LinkSet`](crate::LinkSet) does with a context whose sampled flag is off.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Unsampled {
    /// Count it as unsampled and do not link it (the default): its span is not recorded, so the
    /// link would lead nowhere, and would take the place of one that does not.
    #[default]
    Drop,
    /// Link it like any other, flags and all: for backends that decide on sampling later.
    Keep,
}

/// What a [`LinkSet`](crate::LinkSet) does with a context whose trace id and span id it has linked already.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Duplicates {
    /// Count it as a duplicate and keep the first link, with its attributes (the default).
    #[default]
    Drop,
    /// Link it again: for links that differ in their attributes, such as message ids.
    Keep,
}

/// What a collector or [`LinkSet`](crate::LinkSet) does with an invalid context: one whose trace id
/// or span id is zero.
///
/// One that is kept goes the way of all others: it is accepted, received, and then linked, a
/// duplicate or truncated. Two things differ. Its sampled flag is not looked at, as there is no span
/// that it could speak of. And without a trace id it is never a duplicate, as nothing says of what.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Invalid {
    /// Count it as invalid and do not link it (the default).
    #[default]
    Drop,
    /// Link it if it was given with attributes or trace state, as OpenTelemetry's specification
    /// asks; count it as invalid otherwise. Attributes that set or collector would add do not count.
    ///
    /// This is what [`links::whole_trace`](crate::links::whole_trace) needs.
    KeepWithAttributes,
    /// Link it also if it has nothing but a trace id or a span id. Only a context with neither, nor
    /// attributes, nor trace state (such as that of no active span) is counted as invalid.
    Keep,
}

impl Invalid {
    /// Whether a link to an invalid context is kept.
    pub(crate) fn keeps(self, link: &Link) -> bool {
        let cx = &link.span_context;
        let says_more = || !link.attributes.is_empty() || cx.trace_state().into_iter().next().is_some();
        match self {
            Self::Drop => false,
            Self::KeepWithAttributes => says_more(),
            Self::Keep => cx.trace_id() != TraceId::INVALID || cx.span_id() != SpanId::INVALID || says_more(),
        }
    }
}

/// How contexts become links.
#[derive(Clone, Debug)]
pub(crate) struct LinkPolicy {
    pub(crate) max_links: usize,
    pub(crate) unsampled: Unsampled,
    pub(crate) duplicates: Duplicates,
    pub(crate) invalid: Invalid,
    pub(crate) link_type: Option<Cow<'static, str>>,
    /// `None`: `link.type`.
    pub(crate) link_type_key: Option<Key>,
    pub(crate) attributes: Option<LinkAttributes>,
}

impl LinkPolicy {
    /// Adds the attributes that links get here. `false` if the closure for them panicked.
    #[inline(always)]
    pub(crate) fn complete(&self, link: &mut Link, index: usize) -> bool {
        let whole = self.attributes.as_ref().is_none_or(|attributes| attributes.add_to(link, index));
        self.add_type(link);
        whole
    }

    /// Adds the link's type, unless it says its own.
    #[inline(always)]
    fn add_type(&self, link: &mut Link) {
        let Some(link_type) = &self.link_type else {
            return;
        };
        let name = self.link_type_key.as_ref().map_or(LINK_TYPE, Key::as_str);
        if link.attributes.iter().any(|attribute| attribute.key.as_str() == name) {
            return;
        }
        let key = match &self.link_type_key {
            None => Key::from_static_str(LINK_TYPE),
            Some(key) => {
                // Said with the usual key, by `links` for instance, where this one is in use.
                if let Some(own) = link.attributes.iter_mut().find(|own| own.key.as_str() == LINK_TYPE) {
                    own.key = key.clone();
                    return;
                }
                key.clone()
            }
        };
        // Exactly one more: a `Vec` that grows by itself starts with room for four.
        link.attributes.reserve_exact(1);
        link.attributes.push(KeyValue::new(key, link_type.clone()));
    }
}

impl LinkPolicy {
    pub(crate) fn validate(self) -> Result<Self, ConfigError> {
        within("max_links", self.max_links, 1..=MAX_LINKS)?;
        if self.link_type_key.as_ref().is_some_and(|key| key.as_str().is_empty()) {
            return Err(ConfigError::new("link_type_key", "an empty text", "any other text"));
        }
        Ok(self)
    }
}

impl Default for LinkPolicy {
    fn default() -> Self {
        Self {
            max_links: DEFAULT_MAX_LINKS,
            unsampled: Unsampled::default(),
            duplicates: Duplicates::default(),
            invalid: Invalid::default(),
            link_type: Some(Cow::Borrowed("batch_item")),
            link_type_key: None,
            attributes: None,
        }
    }
}

/// The closure that makes attributes for one link, given its place among the batch's links.
#[derive(Clone)]
pub(crate) struct LinkAttributes(Arc<Make>);

type Make = dyn Fn(&SpanContext, usize, &mut Vec<KeyValue>) + Send + Sync;

// A panic in it is caught here, and the link put right.
impl UnwindSafe for LinkAttributes {}
impl RefUnwindSafe for LinkAttributes {}

impl LinkAttributes {
    pub(crate) fn new<A: IntoIterator<Item = KeyValue>>(
        make: impl Fn(&SpanContext, usize) -> A + Send + Sync + 'static,
    ) -> Self {
        Self(Arc::new(move |cx: &SpanContext, index, attributes: &mut Vec<KeyValue>| {
            add_new(attributes, make(cx, index));
        }))
    }

    /// All of them or, if the closure panics, none.
    #[inline(never)]
    fn add_to(&self, link: &mut Link, index: usize) -> bool {
        let own = link.attributes.len();
        let made = caught(|| (self.0)(&link.span_context, index, &mut link.attributes)).is_some();
        if !made {
            link.attributes.truncate(own);
        }
        made
    }
}

impl fmt::Debug for LinkAttributes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LinkAttributes").finish_non_exhaustive()
    }
}
