//! Spans of the crate `tracing`, which `tracing-opentelemetry` exports.

use crate::collector::{LinkCollector, Producer};
use crate::error::PushError;
use crate::link_set::LinkBatch;
use crate::links::sealed::Sealed;
use crate::panic::caught;
use opentelemetry::Context;
use opentelemetry::trace::{SpanContext, TraceContextExt};
use tracing::Span;
use tracing_opentelemetry::{OpenTelemetrySpanExt, get_otel_context};

impl LinkCollector {
    /// Pushes a `tracing` span, as it is exported by `tracing-opentelemetry` (feature `tracing`).
    ///
    /// | span | pushed |
    /// |---|---|
    /// | exported, entered or not | its context |
    /// | not sampled | its context; the batch counts it as unsampled |
    /// | disabled, or filtered from the OpenTelemetry layer | nothing; counted as invalid |
    /// | any, without such a layer or behind `reload` | nothing; counted as invalid |
    ///
    /// Starts the OpenTelemetry span if it has not been: its sampler decides now, and its parent,
    /// name and kind are final. So set the parent and add links before.
    ///
    /// For the span that the code is in, [`push_current`](Self::push_current) does the same and is
    /// cheaper. In a filtered span it pushes the exported one around it. It needs the layer's
    /// context activation, which is on by default. Without it, push `tracing::Span::current()`.
    ///
    /// Does not wait for the flusher. Takes the lock that `tracing-opentelemetry` has for this
    /// span, so do not call it from a sampler or span processor: that lock is held there.
    ///
    /// ```
    /// use batchlink::LinkCollector;
    /// use opentelemetry::trace::TracerProvider;
    /// use opentelemetry_sdk::trace::SdkTracerProvider;
    /// use tracing_subscriber::{Registry, layer::SubscriberExt};
    ///
    /// let tracer = SdkTracerProvider::default().tracer("api");
    /// let layer = tracing_opentelemetry::layer().with_tracer(tracer);
    /// let _default = tracing::subscriber::set_default(Registry::default().with(layer));
    ///
    /// let (collector, mut flusher) = LinkCollector::builder().build()?;
    /// collector.push_tracing(&tracing::info_span!("request"))?;
    /// collector.push_tracing(&tracing::Span::none())?; // counted as invalid
    /// assert_eq!(collector.stats().invalid(), 1);
    /// assert_eq!(flusher.try_next().unwrap().linked(), 1);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`PushError::Full`], [`PushError::Closed`].
    pub fn push_tracing(&self, span: &Span) -> Result<(), PushError> {
        with_context_of(span, |context| self.push(context))
    }
}

impl Producer {
    /// Pushes a `tracing` span; see
    /// [`LinkCollector::push_tracing`](crate::LinkCollector::push_tracing).
    ///
    /// # Errors
    ///
    /// [`PushError::Full`], [`PushError::Closed`].
    pub fn push_tracing(&self, span: &Span) -> Result<(), PushError> {
        with_context_of(span, |context| self.push(context))
    }
}

impl LinkBatch {
    /// Makes a `tracing` span the batch span (feature `tracing`): puts links and
    /// [`attributes`](Self::attributes) on it, and starts its OpenTelemetry span.
    ///
    /// Give it a span that was not entered, and has no links of its own. Links and attributes are
    /// then set at creation, so that samplers see them. On a span that was started before they are
    /// added late. Counts are those of [`start`](Self::start). A link to an invalid context that
    /// the policy kept, and the links after it, are always added late.
    ///
    /// With [`Overflow::Spans`](crate::Overflow), call [`take_pages`](Self::take_pages) before, and
    /// start the pages afterwards with a tracer, below this span's
    /// [`context`](tracing_opentelemetry::OpenTelemetrySpanExt::context).
    ///
    /// Returns whether the span records them. If it is disabled, filtered, not sampled or has
    /// ended, or if there is no OpenTelemetry layer, the links are dropped. The batch's work is
    /// then on no span.
    ///
    /// ```
    /// # use opentelemetry::trace::{SpanContext, SpanId, TraceFlags, TraceId, TraceState};
    /// # let context = |n: u64| SpanContext::new(
    /// #     TraceId::from(7u128), SpanId::from(n), TraceFlags::SAMPLED, true, TraceState::NONE);
    /// use batchlink::LinkSet;
    /// use opentelemetry::trace::TracerProvider;
    /// use opentelemetry_sdk::trace::SdkTracerProvider;
    /// use tracing_subscriber::{Registry, layer::SubscriberExt};
    ///
    /// let tracer = SdkTracerProvider::default().tracer("writer");
    /// let layer = tracing_opentelemetry::layer().with_tracer(tracer);
    /// let _default = tracing::subscriber::set_default(Registry::default().with(layer));
    ///
    /// let mut set = LinkSet::builder().build()?;
    /// set.insert(&context(1));
    /// let span = tracing::info_span!("insert_batch", otel.kind = "client");
    /// assert!(set.finish().link_tracing(&span));
    /// span.in_scope(|| { /* the work of the batch */ });
    /// # Ok::<(), batchlink::ConfigError>(())
    /// ```
    ///
    /// The span's parent is the one that `tracing` gave it, unless the policy
    /// ([`with_parent`](crate::LinkPolicy::with_parent)) names a request or none. A span that was
    /// started before keeps its parent.
    pub fn link_tracing(self, span: &Span) -> bool {
        let (attributes, uncounted) = (self.attributes(), self.uncounted());
        let parent = self.chosen_parent();
        let mut links = self.into_links();
        // These go by the OpenTelemetry span: `add_link_with_attributes` drops invalid contexts.
        let invalid = links.iter().position(|link| !link.span_context.is_valid());
        let late = links.split_off(invalid.unwrap_or(links.len()));
        let link = || {
            if let Some(parent) = parent {
                // Refused if the span was started before.
                let _ = span.set_parent(parent);
            }
            for attribute in attributes {
                span.set_attribute(attribute.key, attribute.value);
            }
            for link in links {
                span.add_link_with_attributes(link.span_context, link.attributes);
            }
            let context = started(span)?;
            let span = context.span();
            if span.is_recording() {
                for link in late {
                    span.add_link(link.span_context, link.attributes);
                }
                // The span is full and counts each as dropped.
                (0..uncounted).for_each(|_| span.add_link(SpanContext::NONE, Vec::new()));
            }
            Some(span.is_recording())
        };
        caught(link).flatten().unwrap_or(false)
    }
}

/// Its context, unless it is not exported.
impl Sealed for Span {
    fn with<R>(&self, work: impl FnOnce(&SpanContext) -> R) -> Option<R> {
        started(self)?.with(work)
    }
}

/// Calls `work` with the span's context, which is invalid if the span is not exported.
fn with_context_of<R>(span: &Span, work: impl FnOnce(&SpanContext) -> R) -> R {
    match started(span) {
        Some(context) => work(context.span().span_context()),
        None => work(&SpanContext::NONE),
    }
}

/// Starts the OpenTelemetry span, if it was not, and returns its context. `None` if there is none.
fn started(span: &Span) -> Option<Context> {
    // Samplers and span processors are user code. A span that was closed by hand panics.
    caught(|| span.with_subscriber(|(id, subscriber)| get_otel_context(id, subscriber)))??
}
