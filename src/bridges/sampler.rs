//! A sampler that decides from links: a batch span is recorded when its requests are.
//!
//! The span of a batch is the root of a trace. A sampler that looks at the trace id alone, as
//! `TraceIdRatioBased(0.1)` does, drops nine batches of ten, and with them the links to requests
//! that it kept. [`LinkedSampler`] decides from the links instead.

use opentelemetry::trace::{Link, SpanKind, TraceId};
use opentelemetry::{Context, KeyValue, Value};
use opentelemetry_sdk::trace::{Sampler, SamplingResult, ShouldSample};

/// Decides from the links that a span is created with, and leaves spans without links to another
/// sampler.
///
/// Put it inside the SDK's parent-based sampler, as the root sampler:
///
/// ```
/// use batchlink::sampler::LinkedSampler;
/// use opentelemetry_sdk::trace::{Sampler, SdkTracerProvider};
///
/// let root = LinkedSampler::any_sampled(Sampler::TraceIdRatioBased(0.1));
/// let provider = SdkTracerProvider::builder().with_sampler(Sampler::parent_based(root)).build();
/// ```
///
/// One request of ten is then recorded with its spans, and every batch that one of these was in.
///
/// # What decides
///
/// | the span | is decided by |
/// |---|---|
/// | has links | its links alone: recorded and sampled, or dropped |
/// | has none, and says `links.unsampled` | as one whose links are all unsampled |
/// | has none | the inner sampler, whose result is returned as it is |
///
/// - **Links.** A link counts as sampled by the flag of its context. Links to invalid contexts do
///   not count. What the link set left out as unsampled counts, too: it is the attribute
///   `links.unsampled` of a batch span. Duplicates and truncated contexts do not count.
/// - **Parents.** The sampler does not look at the parent. Inside `Sampler::parent_based` a span
///   with a parent is decided by its parent, such as the item spans of a batch span, and a root
///   span by the `LinkedSampler`. To record a batch whose parent is unsampled, set it for such
///   parents, too: `.with_local_parent_not_sampled(…)` and `.with_remote_parent_not_sampled(…)`.
/// - **Trace state.** Where links decide, the parent's passes through unchanged, and no attribute
///   is added. `Sampler::ParentBased` drops the attributes of an inner sampler;
///   `Sampler::parent_based` keeps them.
///
/// # Links that are added later
///
/// A sampler sees what the span is created with, and [nothing that is added later][sampling], so
/// `Span::add_link` comes too late. batchlink's own spans have their links at creation:
/// [`LinkBatch::start`](crate::LinkBatch::start) and
/// [`span_builder`](crate::LinkBatch::span_builder), the batch and item spans of a
/// `BatchProcessor`, [`messaging`](crate::messaging) and [`patterns`](crate::patterns). A span that
/// you build yourself takes [`into_links`](crate::LinkBatch::into_links) by its builder.
///
/// [sampling]: https://opentelemetry.io/docs/specs/otel/trace/sdk/#shouldsample
///
/// Cost: one pass over the links at the start of a span; no allocation.
#[derive(Clone, Debug)]
pub struct LinkedSampler {
    rule: Rule,
    inner: Box<dyn ShouldSample>,
}

#[derive(Clone, Copy, Debug)]
enum Rule {
    Any,
    All,
    Ratio,
}

impl LinkedSampler {
    /// Returns a sampler that samples a span if at least one of its links is sampled. No request
    /// that is recorded lacks its batch.
    ///
    /// The larger the batches, the more of them are recorded: of batches of 128 requests, of which
    /// one in ten is sampled, all but one in 700 000.
    ///
    /// ```
    /// use batchlink::sampler::LinkedSampler;
    /// use opentelemetry_sdk::trace::Sampler;
    ///
    /// let sampler = LinkedSampler::any_sampled(Sampler::AlwaysOff); // no other root span
    /// ```
    pub fn any_sampled(inner: impl Into<Box<dyn ShouldSample>>) -> Self {
        Self { rule: Rule::Any, inner: inner.into() }
    }

    /// Returns a sampler that samples a span if all of its links are sampled. No link of a recorded
    /// batch leads to a request that is not.
    ///
    /// ```
    /// use batchlink::sampler::LinkedSampler;
    /// use opentelemetry_sdk::trace::Sampler;
    ///
    /// let sampler = LinkedSampler::all_sampled(Sampler::TraceIdRatioBased(0.5));
    /// ```
    pub fn all_sampled(inner: impl Into<Box<dyn ShouldSample>>) -> Self {
        Self { rule: Rule::All, inner: inner.into() }
    }

    /// Returns a sampler that samples a span with the probability of the sampled share of its
    /// links: always if all of them are sampled, never if none is.
    ///
    /// Bounds how many batches are recorded, and prefers those with many recorded requests. The
    /// decision is made by the trace id, as that of `TraceIdRatioBased` is, so the same span gets
    /// the same decision again.
    ///
    /// ```
    /// use batchlink::sampler::LinkedSampler;
    /// use opentelemetry_sdk::trace::Sampler;
    ///
    /// let sampler = LinkedSampler::ratio_of_sampled(Sampler::TraceIdRatioBased(0.1));
    /// ```
    pub fn ratio_of_sampled(inner: impl Into<Box<dyn ShouldSample>>) -> Self {
        Self { rule: Rule::Ratio, inner: inner.into() }
    }
}

impl ShouldSample for LinkedSampler {
    fn should_sample(
        &self,
        parent_context: Option<&Context>,
        trace_id: TraceId,
        name: &str,
        span_kind: &SpanKind,
        attributes: &[KeyValue],
        links: &[Link],
    ) -> SamplingResult {
        let (sampled, all) = requests(attributes, links);
        // A total of 0 has no share, and `all > 0` says that links decide.
        let share = sampled as f64 / all as f64;
        let by_links = match self.rule {
            Rule::Any if sampled > 0 => Sampler::AlwaysOn,
            Rule::All if sampled == all => Sampler::AlwaysOn,
            Rule::Any | Rule::All => Sampler::AlwaysOff,
            Rule::Ratio => Sampler::TraceIdRatioBased(share),
        };
        let decides: &dyn ShouldSample = if all > 0 { &by_links } else { &*self.inner };
        decides.should_sample(parent_context, trace_id, name, span_kind, attributes, links)
    }
}

/// Returns how many requests the span tells of that are sampled, and how many in all.
fn requests(attributes: &[KeyValue], links: &[Link]) -> (u64, u64) {
    let valid = links.iter().map(|link| &link.span_context).filter(|context| context.is_valid());
    let (sampled, linked) = valid.fold((0, 0), |(sampled, linked), context| {
        (sampled + u64::from(context.is_sampled()), linked + 1)
    });
    let left_out =
        attributes.iter().filter(|attribute| attribute.key.as_str() == "links.unsampled");
    let left_out = left_out.map(|attribute| match attribute.value {
        Value::I64(count) => u64::try_from(count).unwrap_or(0),
        _ => 0,
    });
    // Saturating, as any span may carry an attribute of that name.
    (sampled, left_out.fold(linked, u64::saturating_add))
}
