//! What a batch span says beside what it carries: never more links than the SDK keeps of it.

use super::common::*;
use batchlink::{LinkBatch, LinkPolicy, LinkSet};
use opentelemetry::trace::{SpanContext, TraceFlags, TracerProvider};
use opentelemetry::{KeyValue, Value};
use opentelemetry_sdk::trace::{InMemorySpanExporter, SdkTracerProvider, SpanData};
use std::env;
use std::process::Command;

/// The SDK's limit.
const LIMIT: &str = "OTEL_SPAN_LINK_COUNT_LIMIT";
/// Set in a process that [`environment_limit_is_known`] starts.
const CHILD: &str = "BATCHLINK_TEST_SPAN_LIMIT";

fn batch(policy: LinkPolicy, contexts: u64) -> LinkBatch {
    let mut set = LinkSet::builder().with_link_policy(policy).build().unwrap();
    set.extend((1..=contexts).map(context));
    set.finish()
}

/// As an SDK exports it that keeps `limit` links, or its default.
fn exported_by(limit: Option<u32>, batch: LinkBatch) -> SpanData {
    let exporter = InMemorySpanExporter::default();
    let provider = SdkTracerProvider::builder().with_simple_exporter(exporter.clone());
    let provider = match limit {
        Some(limit) => provider.with_max_links_per_span(limit),
        None => provider,
    };
    let provider = provider.build();
    drop(batch.start(&provider.tracer("test"), "batch"));
    exporter.get_finished_spans().unwrap().remove(0)
}

fn int(span: &SpanData, key: &str) -> Option<i64> {
    let found = span.attributes.iter().find(|attribute| attribute.key.as_str() == key);
    found.map(|attribute| match attribute.value {
        Value::I64(number) => number,
        _ => panic!("{attribute:?} is no count"),
    })
}

/// The SDK is at its default, the set is not.
#[test]
fn span_says_what_it_carries() {
    let span = exported_by(None, batch(LinkPolicy::new().with_max_links(500), 490));
    assert_eq!((span.links.len(), span.links.dropped_count), (128, 362));
    assert_eq!(int(&span, "batch.size"), Some(490));
    assert_eq!(int(&span, "batch.links"), Some(128));
    assert_eq!(int(&span, "links.original_count"), Some(490));
    assert!(span.attributes.contains(&KeyValue::new("links.truncated", true)));

    let whole = exported_by(None, batch(LinkPolicy::new().with_max_links(500), 128));
    assert_eq!((whole.links.len(), int(&whole, "batch.links")), (128, Some(128)));
    assert_eq!(int(&whole, "links.original_count"), None);
}

/// What a batch has no link for is counted by reason.
#[test]
fn span_explains_missing_links() {
    let mut set = LinkSet::builder().with_max_links(2).build().unwrap();
    set.extend([1, 1, 2, 1, 3].map(context));
    set.insert(&with_flags(4, TraceFlags::default()));
    set.insert(&SpanContext::NONE);
    let span = exported(set.finish());
    let count = |key| int(&span, key);
    assert_eq!((count("batch.size"), count("batch.links")), (Some(7), Some(2)));
    assert_eq!((count("links.duplicates"), count("links.unsampled")), (Some(2), Some(1)));
    assert_eq!((count("links.invalid"), count("links.original_count")), (Some(1), Some(3)));

    set.extend([1, 2].map(context));
    let attributes = set.finish().attributes();
    assert!(!attributes.iter().any(|attribute| attribute.key.as_str().starts_with("links.")));
}

/// A span that is full counts each empty link as dropped: so truncated contexts arrive in OTLP's
/// own count, if the limit is known to be the SDK's.
#[test]
fn told_limit_counts_truncated() {
    let told = |links| LinkPolicy::new().with_span_link_limit(links);
    for (sdk, policy, contexts, linked, dropped) in [
        (Some(32), told(32).with_max_links(32), 50, 32, 18),
        (None, told(128), 300, 128, 172),
        // The SDK cuts some, the set others.
        (Some(10), told(10).with_max_links(20), 25, 10, 15),
        (Some(0), told(0), 3, 0, 3),
        // Within all limits.
        (Some(32), told(32).with_max_links(32), 32, 32, 0),
        // The span has room, and must not be given an empty link.
        (Some(32), told(32).with_max_links(20), 30, 20, 0),
        // Not told: nor must this, if the SDK was set to keep more.
        (Some(1000), LinkPolicy::new(), 300, 128, 0),
        (None, LinkPolicy::new(), 300, 128, 0),
    ] {
        let span = exported_by(sdk, batch(policy, contexts));
        let says = format!("{contexts} contexts, SDK {sdk:?}");
        assert_eq!((span.links.len(), span.links.dropped_count), (linked, dropped), "{says}");
        assert!(span.links.iter().all(|link| link.span_context.is_valid()), "{says}");
        assert_eq!(int(&span, "batch.links"), Some(linked as i64), "{says}");
        let original = (contexts > linked as u64).then_some(contexts as i64);
        assert_eq!(int(&span, "links.original_count"), original, "{says}");
    }
}

/// No more than 65 536 calls for one span.
#[test]
fn counting_truncated_is_bounded() {
    let span = exported_by(
        Some(1),
        batch(LinkPolicy::new().with_span_link_limit(1).with_max_links(1), 70_000),
    );
    assert_eq!((span.links.len(), span.links.dropped_count), (1, 1 << 16));
    assert_eq!(int(&span, "links.original_count"), Some(70_000));
}

/// What the SDK takes from the environment is what the span says.
#[test]
fn environment_limit_is_known() {
    if env::var_os(CHILD).is_some() {
        let span = exported_by(None, batch(LinkPolicy::new().with_max_links(500), 490));
        assert_eq!(int(&span, "batch.links"), Some(span.links.len() as i64));
        return println!("carried: {}", span.links.len());
    }
    for (value, carried) in
        [("64", 64), ("0", 0), ("1000", 490), (" 64", 128), ("many", 128), ("", 128)]
    {
        let mut command = Command::new(env::current_exe().unwrap());
        command.args(["--exact", "span_limit::environment_limit_is_known", "--nocapture"]);
        let output = command.env(CHILD, "1").env(LIMIT, value).output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(text.contains(&format!("carried: {carried}\n")), "{value:?}: {text}");
    }
}
