//! The way from a request's span to the batches that took its items.

use super::submitter::Submitter;
use crate::link_set::DEFAULT_MAX_LINKS;
use crate::link_set::record::Ids;
use crate::links::{LINK_TYPE, int};
use crate::panic::{caught, unpoisoned};
use crate::sync::Arc;
use opentelemetry::trace::{SpanContext, TraceContextExt};
use opentelemetry::{Context, KeyValue};
use std::fmt;
use std::sync::Mutex;

/// Links the span of a request back to the batches that take its items.
///
/// A batch span links its requests, and most viewers show that from the batch only. With a back
/// link the request's trace leads to the batch, too. Give it to a submitter by
/// [`with_back_link`](Submitter::with_back_link), and keep it while the request's span is open:
///
/// - [`batch`](Self::batch) returns the context of the batch span. After a `call` it is known.
/// - When the back link is dropped, and at [`link`](Self::link), the span gets one link to each
///   batch that has taken an item until then, with the `link.type` `batch`. If nothing was taken
///   yet, nothing is linked.
///
/// For calls alone, [`with_back_links`] does this by itself.
///
/// The back link holds the context that it was made from, and with it the span. Items in the queue
/// hold neither. A batch without a span (no provider, telemetry suppressed) is not linked, and a
/// span that has ended takes no link. A batch that was not sampled is linked, as its flags say.
///
/// Cost: two allocations for an item, and one short lock when its batch starts. A back link for
/// many items keeps 64 bytes for each of the first 128 batches, the SDK's default limit of links.
/// If there were more, the span says `links.truncated` and `links.original_count`.
///
/// ```
/// use batchlink::processor::{BackLink, BatchProcessor};
/// use opentelemetry::{Context, trace::{TraceContextExt, Tracer, TracerProvider}};
/// use opentelemetry_sdk::trace::{InMemorySpanExporter, SdkTracerProvider};
///
/// let exporter = InMemorySpanExporter::default();
/// let provider = SdkTracerProvider::builder().with_simple_exporter(exporter.clone()).build();
/// let tracer = provider.tracer("api");
/// let (submitter, processor) =
///     BatchProcessor::<u64, u64, String>::builder("square").build(tracer.clone())?;
/// let handle = processor.spawn(|batch| batch.succeed_all(|n| n * n))?;
///
/// tracer.in_span("request", |cx| {
///     let back = BackLink::new(cx);
///     assert_eq!(submitter.with_back_link(&back).call_blocking(3), Ok(9));
///     assert!(back.batch().is_some_and(|batch| batch.is_sampled()));
/// });
/// handle.shutdown()?;
/// let spans = exporter.get_finished_spans()?;
/// let request = spans.iter().find(|span| span.name == "request").expect("it ended");
/// let batch = spans.iter().find(|span| span.name == "square").expect("it ended");
/// assert_eq!(request.links[0].span_context, batch.span_context);
/// assert_eq!(batch.links[0].span_context, request.span_context);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// [`with_back_links`]: super::BatchProcessorBuilder::with_back_links
#[must_use = "dropping it links what was taken until then"]
pub struct BackLink {
    context: Context,
    batches: Arc<Batches>,
}

/// The batches that took items of one back link.
#[derive(Default)]
pub(super) struct Batches(Mutex<Entered>);

#[derive(Default)]
struct Entered {
    /// The first ones, in order.
    contexts: Vec<SpanContext>,
    /// How many of these the span was given.
    linked: usize,
    /// The last one, if it is over the bound.
    last: Option<SpanContext>,
    /// All that are over the bound.
    over: u64,
}

impl Batches {
    /// Enters the batch of an item.
    pub(super) fn enter(&self, batch: &SpanContext) {
        let same = |other: &SpanContext| Ids::of(other) == Ids::of(batch);
        let mut entered = unpoisoned(self.0.lock());
        if entered.contexts.iter().rev().chain(&entered.last).any(same) {
            return;
        }
        if entered.contexts.len() < DEFAULT_MAX_LINKS {
            entered.contexts.push(batch.clone());
        } else {
            entered.last = Some(batch.clone());
            entered.over += 1;
        }
    }
}

impl BackLink {
    /// Makes a back link from the span of `context`, which it holds.
    pub fn new(context: Context) -> Self {
        Self { context, batches: Arc::default() }
    }

    /// Returns the span context of the batch that took the last item; `None` while the item waits,
    /// or if the batch has no span.
    ///
    /// ```
    /// # use batchlink::processor::{BackLink, BatchProcessor};
    /// # use opentelemetry::{Context, trace::noop::NoopTracer};
    /// let (submitter, mut processor) =
    ///     BatchProcessor::<u64, (), String>::builder("send").build(NoopTracer::new())?;
    /// let back = BackLink::new(Context::current());
    /// submitter.with_back_link(&back).submit(3)?;
    /// processor.try_next().expect("an item").succeed_all(|_| ());
    /// assert_eq!(back.batch(), None); // this tracer makes no spans
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn batch(&self) -> Option<SpanContext> {
        let entered = unpoisoned(self.batches.0.lock());
        entered.last.as_ref().or(entered.contexts.last()).cloned()
    }

    /// Links the span to the batches that have taken items since the last call, now instead of when
    /// this is dropped.
    pub fn link(&self) {
        // The span is user code, and not called under the lock.
        let (new, over) = {
            let mut entered = unpoisoned(self.batches.0.lock());
            let new = entered.contexts[entered.linked..].to_vec();
            entered.linked = entered.contexts.len();
            (new, entered.over)
        };
        let _ = caught(|| {
            let span = self.context.span();
            for batch in new {
                span.add_link(batch, vec![KeyValue::new(LINK_TYPE, "batch")]);
            }
            if over > 0 {
                let all = DEFAULT_MAX_LINKS as u64 + over;
                span.set_attribute(KeyValue::new("links.truncated", true));
                span.set_attribute(KeyValue::new("links.original_count", int(all)));
            }
        });
    }

    /// Returns where batches are entered. Holds no context.
    pub(super) fn batches(&self) -> Arc<Batches> {
        Arc::clone(&self.batches)
    }
}

impl Drop for BackLink {
    fn drop(&mut self) {
        self.link();
        // It may be the last one that holds the span, which then ends: user code.
        let context = std::mem::take(&mut self.context);
        let _ = caught(|| drop(context));
    }
}

impl fmt::Debug for BackLink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BackLink").field("batch", &self.batch()).finish_non_exhaustive()
    }
}

impl<T, R, E> Submitter<T, R, E> {
    /// Returns a submitter whose items enter their batches in `back`.
    ///
    /// It counts as a submitter, which keeps the processor open. It does not keep the back link or
    /// its span.
    ///
    /// ```
    /// # use batchlink::processor::{BackLink, SubmitError, Submitter};
    /// # use opentelemetry::Context;
    /// # fn import(submitter: &Submitter<u64, (), String>) -> Result<(), SubmitError<u64>> {
    /// let back = BackLink::new(Context::current());
    /// let rows = submitter.with_back_link(&back);
    /// (0..1000).try_for_each(|row| rows.submit_wait(row))?;
    /// // ... `back` is dropped before the span ends: the batches until then are linked
    /// # Ok(())
    /// # }
    /// ```
    pub fn with_back_link(&self, back: &BackLink) -> Self {
        let mut linked = self.clone();
        linked.inner.batches = Some(back.batches());
        linked
    }
}
