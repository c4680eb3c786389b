//! What a processor does only if it is asked for.

use super::builder::BatchProcessorBuilder;
#[cfg(doc)]
use super::{BatchProcessor, Submitter};
use opentelemetry::KeyValue;
use opentelemetry::trace::SpanKind;

/// How a processor runs; but for the last, what is off by default.
#[derive(Clone, Copy, Debug)]
pub(super) struct Options {
    /// Links the span of a call back to its batch.
    pub(super) back_links: bool,
    /// Takes the baggage along with each item.
    pub(super) baggage: bool,
    /// Drops items whose callers have left.
    pub(super) skip_canceled: bool,
    /// Items carry the time of their submission.
    pub(super) timed: bool,
    /// Spans say how long items waited.
    pub(super) states_wait: bool,
    /// Handlers that `run_async` and `run_each_async` await at the same time; at least 1.
    pub(super) max_concurrent_batches: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            back_links: false,
            baggage: false,
            skip_canceled: false,
            timed: false,
            states_wait: false,
            max_concurrent_batches: 1,
        }
    }
}

impl<T, R, E> BatchProcessorBuilder<T, R, E> {
    /// Sets the kind of the batch spans. Defaults to the API's own, `Internal`.
    pub fn with_span_kind(mut self, kind: SpanKind) -> Self {
        self.shape.kind = Some(kind);
        self
    }

    /// Sets attributes that a batch span has at its start, where samplers see them.
    ///
    /// `attributes` is called with the first payload of each batch: to have the key of
    /// [`with_key`](Self::with_key) on the span, or what all items have in common. Those that
    /// describe every batch need no payload. Keys that the span has already, such as `batch.size`,
    /// are left out. If it panics the span has none of them.
    ///
    /// ```
    /// # use batchlink::processor::BatchProcessor;
    /// # use opentelemetry::{KeyValue, trace::{SpanKind, noop::NoopTracer}};
    /// struct Message { destination: &'static str }
    ///
    /// let builder = BatchProcessor::<Message, (), String>::builder("send")
    ///     .with_key(|message| message.destination)
    ///     .with_span_kind(SpanKind::Producer)
    ///     .with_span_attributes(|first| [
    ///         KeyValue::new("messaging.system", "nats"),
    ///         KeyValue::new("messaging.destination.name", first.destination),
    ///     ]);
    /// let (submitter, processor) = builder.build(NoopTracer::new())?;
    /// # drop((submitter, processor));
    /// # Ok::<(), batchlink::ConfigError>(())
    /// ```
    pub fn with_span_attributes<A>(
        mut self,
        mut attributes: impl FnMut(&T) -> A + Send + 'static,
    ) -> Self
    where
        A: IntoIterator<Item = KeyValue>,
    {
        self.shape.describe = Some(Box::new(move |first| attributes(first).into_iter().collect()));
        self
    }

    /// Links the span that is active at a [`call`](Submitter::call) of any kind back to its batch.
    /// Defaults to `false`: the batch span links the request, and the request does not show its
    /// batch.
    ///
    /// The link is added when the call returns, or its future is dropped, if the batch has started
    /// by then. Does the same as a [`BackLink`](super::BackLink) around each call, which says what
    /// it costs. A call [with the context](Submitter::call_with_context) of another span than the
    /// active one gets no link.
    ///
    /// ```
    /// # use batchlink::processor::BatchProcessor;
    /// # use opentelemetry::trace::noop::NoopTracer;
    /// let builder = BatchProcessor::<String, u64, String>::builder("insert_batch");
    /// let (submitter, processor) = builder.with_back_links(true).build(NoopTracer::new())?;
    /// # drop((submitter, processor));
    /// # Ok::<(), batchlink::ConfigError>(())
    /// ```
    pub fn with_back_links(mut self, back_links: bool) -> Self {
        self.options.back_links = back_links;
        self
    }

    /// Drops items whose caller has left before their batch is taken from the queue, instead of
    /// processing them. Defaults to `false`: a write whose caller has timed out still happens.
    ///
    /// A caller leaves when the future of a [`call`](Submitter::call) is dropped, or a blocking one
    /// times out. Its item counts for the triggers, those of its key with
    /// [`with_key_batches`](Self::with_key_batches), is in no batch and has no link. It is counted
    /// in [`ProcessorStats::canceled`](super::ProcessorStats::canceled) alone. Items that are only
    /// submitted always stay. A caller that leaves later is a matter of the handler's:
    /// [`BatchItem::is_awaited`](super::BatchItem::is_awaited).
    ///
    /// ```
    /// # use batchlink::processor::{BatchProcessor, CallError};
    /// # use opentelemetry::trace::noop::NoopTracer;
    /// # use std::time::Duration;
    /// let (submitter, mut processor) = BatchProcessor::<u64, (), String>::builder("fetch")
    ///     .with_skip_canceled(true)
    ///     .build(NoopTracer::new())?;
    /// let timed_out = submitter.call_blocking_timeout(1, Duration::ZERO);
    /// assert_eq!(timed_out, Err(CallError::Timeout));
    /// assert!(processor.try_next().is_none());
    /// assert_eq!(submitter.stats().canceled(), 1);
    /// # Ok::<(), batchlink::ConfigError>(())
    /// ```
    pub fn with_skip_canceled(mut self, skip_canceled: bool) -> Self {
        self.options.skip_canceled = skip_canceled;
        self
    }

    /// Takes the [`Baggage`](opentelemetry::baggage::Baggage) of the current context along with
    /// each item. Defaults to `false`: a batch runs without the baggage of its callers.
    ///
    /// [`run_each`](BatchProcessor::run_each) and its like then call the handler with the item's
    /// own baggage in the current context, from where clients pass it on, and a span processor that
    /// copies baggage to spans finds it at the start of the item's span. An item without any has
    /// none, whatever the processor's own context has. For other handlers there is
    /// [`BatchItem::baggage`](super::BatchItem::baggage). The batch span is of all items, and has
    /// no item's baggage.
    ///
    /// Costs a copy of the baggage for an item that has some. It may leave the process: see the
    /// [API's warning](opentelemetry::baggage).
    ///
    /// ```
    /// use batchlink::processor::BatchProcessor;
    /// use opentelemetry::{Context, KeyValue, baggage::BaggageExt};
    /// # use opentelemetry::trace::noop::NoopTracer;
    ///
    /// let (submitter, mut processor) = BatchProcessor::<u64, String, String>::builder("send")
    ///     .with_baggage(true)
    ///     .build(NoopTracer::new())?;
    /// let cx = Context::current_with_baggage([KeyValue::new("tenant", "blue")]);
    /// let request = cx.attach();
    /// submitter.submit(7)?;
    /// # drop(request);
    /// submitter.close();
    /// processor.run_each(|_, cx| {
    ///     let tenant = cx.baggage().get("tenant").expect("it came with the item");
    ///     assert_eq!(tenant.as_str(), "blue");
    ///     Ok(tenant.to_string())
    /// });
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn with_baggage(mut self, baggage: bool) -> Self {
        self.options.baggage = baggage;
        self
    }
}
