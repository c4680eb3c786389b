//! Links beyond those of the batch span, on spans of their own.

use super::common::*;
use super::exported::Exporter;
use super::otlp::{Receiver, number};
use batchlink::patterns::{Attempts, FanOut};
use batchlink::{LinkBatch, LinkCollector, LinkPolicy, LinkSet, Overflow, Truncation};
use opentelemetry::trace::{
    Link, SpanContext, SpanKind, TraceFlags, TraceId, Tracer, TracerProvider,
};
use opentelemetry::{Context, KeyValue};
use opentelemetry_proto::tonic::trace::v1::Span;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{
    InMemorySpanExporter, SamplingDecision, SamplingResult, SdkTracerProvider, ShouldSample,
    SpanData, SpanProcessor,
};
use std::collections::HashSet;
use std::env;
use std::process::Command;
use std::time::Duration;

/// Set in a process that [`environment_sizes_pages`] starts.
const CHILD: &str = "BATCHLINK_TEST_PAGES";
const PAGES: Overflow = Overflow::Spans { max_pages: 8 };

fn paged(max_pages: usize) -> LinkPolicy {
    LinkPolicy::new().with_overflow(Overflow::Spans { max_pages })
}

fn batch(policy: LinkPolicy, contexts: impl IntoIterator<Item = u64>) -> LinkBatch {
    let mut set = LinkSet::builder().with_link_policy(policy).build().unwrap();
    set.extend(contexts.into_iter().map(context));
    set.finish()
}

/// Starts a batch's span, and returns all spans by their pages.
fn pages(batch: LinkBatch) -> Vec<SpanData> {
    let exporter = Exporter::default();
    drop(batch.start(&exporter.tracer(), "batch"));
    sorted(exporter.spans())
}

fn sorted(mut spans: Vec<SpanData>) -> Vec<SpanData> {
    spans.sort_by_key(|span| int(span, "batch.page"));
    spans
}

fn int(span: &SpanData, key: &str) -> Option<i64> {
    let attribute = span.attributes.iter().find(|own| own.key.as_str() == key)?;
    match attribute.value {
        opentelemetry::Value::I64(number) => Some(number),
        _ => panic!("{attribute:?} is no count"),
    }
}

fn lengths(spans: &[SpanData]) -> Vec<usize> {
    spans.iter().map(|span| span.links.len()).collect()
}

/// Returns the numbers of all links, in order.
fn linked(spans: &[SpanData]) -> Vec<u64> {
    let links = spans.iter().flat_map(|span| &span.links.links);
    links.map(|link| u64::from_be_bytes(link.span_context.span_id().to_bytes())).collect()
}

/// Checks what a receiver got of a batch of a thousand contexts.
fn assert_thousand(mut spans: Vec<Span>) {
    assert_eq!(spans.len(), 8);
    spans.sort_by_key(|span| number(span, "batch.page"));
    let root = spans[0].clone();
    assert!(root.parent_span_id.is_empty());
    for (span, page) in spans.iter().zip(1..) {
        let links = if page < 8 { 128 } else { 1000 - 7 * 128 };
        assert_eq!((span.links.len(), span.dropped_links_count), (links, 0));
        assert_eq!(number(span, "batch.links"), Some(links as i64));
        assert_eq!(
            (number(span, "batch.page"), number(span, "batch.pages")),
            (Some(page), Some(8))
        );
        assert_eq!(number(span, "links.original_count"), None, "nothing is truncated");
        if page > 1 {
            assert_eq!(span.name, "insert links");
            assert_eq!((&span.trace_id, &span.parent_span_id), (&root.trace_id, &root.span_id));
        }
    }
    assert_eq!((&*root.name, number(&root, "batch.size")), ("insert", Some(1000)));
    let links: HashSet<_> = spans
        .iter()
        .flat_map(|span| &span.links)
        .map(|link| (&link.trace_id, &link.span_id))
        .collect();
    assert_eq!(links.len(), 1000);
}

/// 1 000 contexts are 8 spans and 1 000 links at an OTLP receiver, from a set and from a flusher.
#[test]
fn thousand_links_reach_receiver() {
    let from_set = || batch(LinkPolicy::new().with_overflow(PAGES), 1..=1000);
    let from_flusher = || {
        let policy = LinkPolicy::new().with_overflow(PAGES);
        let builder = LinkCollector::builder().with_link_policy(policy);
        let built = builder.with_max_batch_size(1000).with_queue_capacity(1000).with_shards(1);
        let (collector, mut flusher) = built.build().unwrap();
        assert_eq!(collector.push_all(&(1..=1000).map(context).collect::<Vec<_>>()), 1000);
        flusher.next_batch().unwrap()
    };
    for batch in [from_set(), from_flusher()] {
        let receiver = Receiver::start();
        let provider = receiver.provider();
        drop(batch.start(&provider.tracer("test"), "insert"));
        provider.shutdown().unwrap();
        assert_thousand(receiver.end());
    }
}

/// So are 1 000 items of a processor.
#[cfg(feature = "processor")]
#[test]
fn processor_links_reach_receiver() {
    use batchlink::processor::BatchProcessor;
    let receiver = Receiver::start();
    let provider = receiver.provider();
    let policy = LinkPolicy::new().with_overflow(PAGES);
    let builder = BatchProcessor::<u64, (), String>::builder("insert").with_link_policy(policy);
    let builder = builder.with_max_batch_size(1000).with_queue_capacity(1000).with_shards(1);
    let (submitter, mut processor) = builder.build(provider.tracer("test")).unwrap();
    for number in 1..=1000 {
        submitter.submit_with_context(number, &context(number)).unwrap();
    }
    processor.next_batch().unwrap().succeed_all(|_| ());
    drop((submitter, processor));
    provider.shutdown().unwrap();
    let spans = receiver.end();
    assert_eq!(spans.iter().filter_map(|span| number(span, "batch.succeeded")).sum::<i64>(), 1000);
    assert_thousand(spans);
}

/// What is over the last page is truncated, and counted as ever.
#[test]
fn pages_are_bounded() {
    let spans = pages(batch(paged(3), 1..=1000));
    assert_eq!(lengths(&spans), [128; 3]);
    assert_eq!(linked(&spans), (1..=384).collect::<Vec<_>>());
    assert_eq!(int(&spans[0], "links.original_count"), Some(1000));
    assert!(spans[0].attributes.contains(&KeyValue::new("links.truncated", true)));
    assert!(spans.iter().all(|span| span.links.dropped_count == 0));
    // The SDK counts them, if the limit is known to be its own.
    let told = pages(batch(paged(3).with_span_link_limit(128), 1..=1000));
    let dropped = told.iter().map(|span| span.links.dropped_count).collect::<Vec<_>>();
    assert_eq!((lengths(&told), dropped), (vec![128; 3], vec![616, 0, 0]));
    let one = pages(batch(paged(1), 1..=1000));
    assert_eq!((lengths(&one), int(&one[0], "batch.pages")), (vec![128], None));
}

/// What is not linked takes no place on a page, and no page is empty.
#[test]
fn pages_hold_links_alone() {
    for contexts in [0, 1, 127, 128, 129, 256, 257, 1000] {
        let mut set = LinkSet::builder().with_link_policy(paged(8)).build().unwrap();
        for number in 1..=contexts {
            set.insert(&context(number));
            set.insert(&context(1 + number / 2));
            set.insert(&with_flags(5000 + number, TraceFlags::default()));
            set.insert(&SpanContext::NONE);
        }
        let batch = set.finish();
        assert_account(&batch);
        assert_eq!((batch.linked(), batch.truncated()), (contexts, 0));
        let spans = pages(batch);
        let full = contexts as usize / 128;
        let mut expected = vec![128; full];
        expected.extend(Some(contexts as usize % 128).filter(|&rest| rest > 0 || full == 0));
        assert_eq!(lengths(&spans), expected, "{contexts} contexts");
        assert_eq!(linked(&spans).into_iter().collect::<HashSet<_>>(), (1..=contexts).collect());
        assert!(spans.iter().all(|span| int(span, "links.original_count").is_none()));
    }
}

/// The smaller of `max_links` and the SDK's limit is the size of a page.
#[test]
fn limit_sizes_pages() {
    let policy = |links| paged(4).with_max_links(links);
    assert_eq!(lengths(&pages(batch(policy(500), 1..=300))), [128, 128, 44]);
    assert_eq!(lengths(&pages(batch(policy(100), 1..=300))), [100; 3]);
    let told = batch(policy(500).with_span_link_limit(32), 1..=300);
    assert_eq!((told.linked(), told.truncated()), (128, 172));
    let memory = InMemorySpanExporter::default();
    let provider = SdkTracerProvider::builder().with_simple_exporter(memory.clone());
    let tracer = provider.with_max_links_per_span(32).build().tracer("test");
    drop(told.start(&tracer, "batch"));
    assert_eq!(lengths(&memory.get_finished_spans().unwrap()), [32; 4]);
    // Where spans have no links, further ones do not help.
    let none = batch(policy(50).with_span_link_limit(0), 1..=300);
    assert_eq!((none.linked(), none.truncated()), (50, 250));
    assert_eq!(pages(none).len(), 1);
}

/// The SDK's limit is that of the environment, and no link is lost with any.
#[test]
fn environment_sizes_pages() {
    if env::var_os(CHILD).is_some() {
        let spans = pages(batch(paged(490).with_max_links(500), 1..=490));
        assert!(spans.iter().all(|span| span.links.dropped_count == 0));
        assert_eq!(linked(&spans), (1..=490).collect::<Vec<_>>());
        return println!("spans: {}", spans.len());
    }
    for (limit, spans) in [("64", 8), ("1000", 1), ("1", 490), ("many", 4)] {
        let mut command = Command::new(env::current_exe().unwrap());
        command.args(["--exact", "overflow::environment_sizes_pages", "--nocapture"]);
        command.env(CHILD, "1").env("OTEL_SPAN_LINK_COUNT_LIMIT", limit);
        let text = String::from_utf8(command.output().unwrap().stdout).unwrap();
        assert!(text.contains(&format!("spans: {spans}\n")), "{limit}: {text}");
    }
}

#[test]
fn page_count_is_checked() {
    for (links, pages, allowed) in
        [(128, 0, 8192), (128, 8193, 8192), (1000, 0, 8192), (1, 1 << 21, 1 << 20)]
    {
        let policy = paged(pages).with_max_links(links);
        let error = LinkSet::builder().with_link_policy(policy.clone()).build().unwrap_err();
        let expected = format!("invalid max_pages: {pages} (allowed: 1 to {allowed})");
        assert_eq!(error.to_string(), expected);
        let error = LinkCollector::builder().with_link_policy(policy).build().unwrap_err();
        assert_eq!(error.to_string(), expected);
    }
    assert!(LinkSet::builder().with_link_policy(paged(8192)).build().is_ok());
}

/// Drops the spans of this name, and samples all others.
#[derive(Clone, Debug)]
struct Without(&'static str);

impl ShouldSample for Without {
    fn should_sample(
        &self,
        _parent: Option<&Context>,
        _trace: TraceId,
        name: &str,
        _kind: &SpanKind,
        _attributes: &[KeyValue],
        _links: &[Link],
    ) -> SamplingResult {
        let decision = match name == self.0 {
            true => SamplingDecision::Drop,
            false => SamplingDecision::RecordAndSample,
        };
        SamplingResult { decision, attributes: Vec::new(), trace_state: Default::default() }
    }
}

#[test]
fn unsampled_batch_has_no_pages() {
    let memory = InMemorySpanExporter::default();
    let provider = SdkTracerProvider::builder()
        .with_simple_exporter(memory.clone())
        .with_sampler(Without("batch"))
        .build();
    let tracer = provider.tracer("test");
    for (name, spans) in [("batch", 0), ("other", 8)] {
        drop(batch(paged(8), 1..=1000).start(&tracer, name));
        assert_eq!(memory.get_finished_spans().unwrap().len(), spans, "{name}");
    }
}

/// What moved to the batch span is said on the links that are elsewhere.
#[test]
fn pages_keep_hoisted_attributes() {
    let mut set = LinkSet::builder().with_link_policy(paged(8)).build().unwrap();
    let topic = KeyValue::new("topic", "orders");
    let links = (1..=200).map(|number| Link::new(context(number), vec![topic.clone()], 0));
    set.extend(links.clone());
    let spans = pages(set.finish().hoist());
    assert!(spans[0].attributes.contains(&topic) && !spans[1].attributes.contains(&topic));
    assert!(spans[0].links.iter().all(|link| !link.attributes.contains(&topic)));
    assert!(spans[1].links.iter().all(|link| link.attributes.contains(&topic)));

    // Of a part of the batch, nothing is known of the rest.
    set.extend(links);
    let mut batch = set.finish();
    drop(batch.take_pages());
    let batch = batch.hoist();
    assert!(batch.links().iter().all(|link| link.attributes.contains(&topic)));
}

/// A batch span that was started without the pages says which links it has.
#[test]
fn untaken_pages_are_told() {
    let exporter = Exporter::default();
    drop(batch(paged(8), 1..=1000).span_builder("batch").start(&exporter.tracer()));
    let span = exporter.span("batch");
    assert_eq!((span.links.len(), span.links.dropped_count), (128, 872));
    assert_eq!((int(&span, "batch.links"), int(&span, "batch.pages")), (Some(128), None));
    assert_eq!(int(&span, "links.original_count"), Some(1000));

    let mut taken = batch(paged(8), 1..=1000);
    let pages = taken.take_pages().named("own");
    assert_eq!(taken.links().len(), 128);
    let span = exporter.tracer().build(taken.span_builder("own"));
    pages.start(&exporter.tracer(), opentelemetry::trace::Span::span_context(&span));
    drop(span);
    let spans = exporter.spans().split_off(1);
    assert_eq!(lengths(&sorted(spans)), [128, 128, 128, 128, 128, 128, 128, 104]);
}

/// The choice is made before the pages.
#[test]
fn truncation_chooses_before_paging() {
    let policy = paged(2).with_max_links(10).with_truncation(Truncation::KeepLast);
    let spans = pages(batch(policy, 1..=100));
    assert_eq!((lengths(&spans), linked(&spans)), (vec![10, 10], (81..=100).collect()));
}

#[test]
fn fan_out_pages_workers() {
    let exporter = Exporter::default();
    let set = LinkSet::builder().with_link_policy(paged(8)).build().unwrap();
    let fan = FanOut::with_link_set(&context(1), set);
    for number in 2..=300 {
        fan.collect("resize", &context(number), Ok::<_, String>(()));
    }
    let (merge, _) = fan.aggregate(&exporter.tracer(), "merge");
    merge.succeed();
    let mut spans = exporter.spans();
    spans.sort_by_key(|span| int(span, "batch.page"));
    assert_eq!(lengths(&spans), [128, 128, 44]);
    assert_eq!(linked(&spans), (1..=300).collect::<Vec<_>>());
    assert!(spans[1..].iter().all(|span| span.name == "merge links"));
}

/// Each attempt has one span for its links.
#[test]
fn attempts_have_no_pages() {
    let exporter = Exporter::default();
    let policy = paged(8).with_max_links(4).with_truncation(Truncation::KeepLast);
    let set = LinkSet::builder().with_link_policy(policy.with_link_count()).build().unwrap();
    let attempts = Attempts::new("try").with_link_set(set);
    for _ in 0..10 {
        attempts.start(&exporter.tracer()).fail("503");
    }
    let spans = exporter.spans();
    assert_eq!(lengths(&spans), [0, 1, 2, 3, 4, 4, 4, 4, 4, 4]);
    let ids: Vec<_> = spans.iter().map(|span| span.span_context.span_id()).collect();
    let last: Vec<_> = spans[9].links.iter().map(|link| link.span_context.span_id()).collect();
    assert_eq!(last, [ids[0], ids[6], ids[7], ids[8]]);
    assert_eq!(int(&spans[9], "links.original_count"), Some(9));
}

/// Panics when the span of a page starts.
#[derive(Debug)]
struct Explosive;

impl SpanProcessor for Explosive {
    fn on_start(&self, span: &mut opentelemetry_sdk::trace::Span, _parent: &Context) {
        let pages = span.exported_data().map(|data| data.name.ends_with(" links"));
        assert!(pages != Some(true), "a page");
    }

    fn on_end(&self, _span: SpanData) {}

    fn force_flush(&self) -> OTelSdkResult {
        Ok(())
    }

    fn shutdown_with_timeout(&self, _timeout: Duration) -> OTelSdkResult {
        Ok(())
    }
}

#[test]
fn panicking_page_spares_batch() {
    let provider = SdkTracerProvider::builder().with_span_processor(Explosive).build();
    let span = batch(paged(8), 1..=1000).start(&provider.tracer("test"), "batch");
    assert!(opentelemetry::trace::Span::is_recording(&span));
}
