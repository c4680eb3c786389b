//! Attributes that a closure makes for each link.

use super::batch::add_new;
use crate::panic::caught;
use opentelemetry::KeyValue;
use opentelemetry::trace::{Link, SpanContext};
use std::fmt;
use std::panic::{RefUnwindSafe, UnwindSafe};
use std::sync::Arc;

/// The closure that makes attributes for one link, given its index in the batch.
#[derive(Clone)]
pub(super) struct LinkAttributes(Arc<Make>);

type Make = dyn Fn(&SpanContext, usize, &mut Vec<KeyValue>) + Send + Sync;

// A panic in it is caught here, and the link restored.
impl UnwindSafe for LinkAttributes {}
impl RefUnwindSafe for LinkAttributes {}

impl LinkAttributes {
    pub(super) fn new<A: IntoIterator<Item = KeyValue>>(
        make: impl Fn(&SpanContext, usize) -> A + Send + Sync + 'static,
    ) -> Self {
        Self(Arc::new(move |cx: &SpanContext, index, attributes: &mut Vec<KeyValue>| {
            add_new(attributes, make(cx, index));
        }))
    }

    /// Adds all attributes or, if the closure panics, none.
    #[inline(never)]
    pub(super) fn add_to(&self, link: &mut Link, index: usize) -> bool {
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
