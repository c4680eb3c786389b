//! What an item takes from the context of its submission.

use super::Outcomes;
use super::back_link::{BackLink, Batches};
use super::builder::Weigh;
use super::options::Options;
use crate::link_set::record::{Bounded, Ids};
use crate::links::context::baggage;
use crate::panic::caught;
use crate::sync::Arc;
use opentelemetry::Context;
use opentelemetry::baggage::Baggage;
use opentelemetry::trace::{SpanContext, TraceContextExt};

/// What submitters have besides their handle.
pub(super) struct Inner<T> {
    /// The index of a producer's shard. `None`: the shard of the calling thread.
    pub(super) shard: Option<usize>,
    pub(super) outcomes: Arc<Outcomes>,
    pub(super) weigh: Option<Weigh<T>>,
    pub(super) options: Options,
    /// Where the batches of all items are entered.
    pub(super) batches: Option<Arc<Batches>>,
}

/// What an item takes from the context of its submission.
pub(super) struct Request {
    /// Invalid without a span, and if telemetry is suppressed.
    pub(super) context: Bounded,
    pub(super) suppressed: bool,
    /// The whole context, if the call is to be linked back. Stays with the caller.
    origin: Option<Context>,
    pub(super) extra: Option<Box<Extra>>,
}

/// What options add to an item. Holds no span.
#[derive(Default)]
pub(super) struct Extra {
    /// Where the item's batch is entered.
    pub(super) batches: Option<Arc<Batches>>,
    pub(super) baggage: Option<Baggage>,
    /// Those of the items that this one stands for.
    pub(super) requests: Vec<Bounded>,
}

impl<T> Inner<T> {
    /// Reads the current context.
    #[inline]
    pub(super) fn request(&self) -> Request {
        self.read(|cx| Bounded::new(cx.span().span_context()))
    }

    /// Takes a given span instead of the current one.
    #[inline]
    pub(super) fn request_of(&self, context: &SpanContext) -> Request {
        let mut request = self.read(|_| Bounded::NONE);
        if !request.suppressed {
            request.context = Bounded::new(context);
        }
        request
    }

    /// For a future at its first poll: returns this, or the current context if this has no span.
    #[inline]
    pub(super) fn or_current(&self, request: Request) -> Request {
        if request.suppressed || request.context.context.is_valid() {
            request
        } else {
            self.request()
        }
    }

    #[inline]
    fn read(&self, context: impl FnOnce(&Context) -> Bounded) -> Request {
        // Written in place: returned through both closures it would be copied twice.
        let mut request =
            Request { context: Bounded::NONE, suppressed: false, origin: None, extra: None };
        if let Some(batches) = &self.batches {
            request.extra.get_or_insert_default().batches = Some(Arc::clone(batches));
        }
        // A thread that ends may have lost its current context; reading it then panics.
        let _ = caught(|| {
            Context::map_current(|cx| {
                request.suppressed = cx.is_telemetry_suppressed();
                if !request.suppressed {
                    request.context = context(cx);
                }
                if self.options.back_links {
                    request.origin = Some(cx.clone());
                }
                if let Some(baggage) = self.options.baggage.then(|| baggage(cx)).flatten() {
                    request.extra.get_or_insert_default().baggage = Some(baggage);
                }
            });
        });
        request
    }
}

impl<T> Clone for Inner<T> {
    fn clone(&self) -> Self {
        Self {
            shard: self.shard,
            outcomes: Arc::clone(&self.outcomes),
            weigh: self.weigh.clone(),
            options: self.options,
            batches: self.batches.clone(),
        }
    }
}

impl Request {
    /// Returns the link of a call to its batch, for the caller to hold while it waits: if the
    /// option asks for it, and the context that was current is that of the request.
    pub(super) fn link_back(&mut self) -> Option<BackLink> {
        let origin = self.origin.take()?;
        let own = Ids::of(origin.span().span_context()) == Ids::of(&self.context.context);
        if !own || self.suppressed {
            return None;
        }
        let batches = &mut self.extra.get_or_insert_default().batches;
        // The user's own is enough.
        if batches.is_some() {
            return None;
        }
        let back = BackLink::new(origin);
        *batches = Some(back.batches());
        Some(back)
    }
}
