//! What batch and item spans say of failures, whose status stays, and when they end.

use super::common::*;
use super::support::*;
use batchlink::processor::CallError;
use opentelemetry::Context;
use opentelemetry::trace::{Status, TraceContextExt, TracerProvider};
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{SdkTracerProvider, Span, SpanData, SpanProcessor};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

/// The type and message of each exception, as recorded.
fn exceptions(span: &SpanData) -> Vec<String> {
    let exceptions = span.events.iter().filter(|event| event.name == "exception");
    let part = |attributes, key| text(attributes, key).unwrap_or_default();
    exceptions
        .map(|event| {
            let (kind, message) = ("exception.type", "exception.message");
            format!("{}: {}", part(&event.attributes, kind), part(&event.attributes, message))
        })
        .collect()
}

/// A library sets a status only on failure.
#[test]
fn success_leaves_status_unset() {
    let (_provider, tracer, exporter) = telemetry();
    let (submitter, mut processor) = of_size(1, tracer);
    submitter.submit(1).unwrap();
    processor.next_batch().unwrap().succeed_all(|n| *n);
    submitter.submit(2).unwrap();
    submitter.close();
    processor.run_each(|n, _| Ok(n));
    let statuses: Vec<_> =
        exporter.get_finished_spans().unwrap().into_iter().map(|span| span.status).collect();
    assert_eq!(statuses, [const { Status::Unset }; 3]);
}

/// Whatever the outcome, and whichever text sorts first: the SDK keeps the greater one of two
/// errors.
#[test]
fn user_status_stays() {
    let set = [Status::error("a: partial"), Status::error("z: partial"), Status::Ok];
    for (status, fails) in
        set.into_iter().flat_map(|status| [(status.clone(), false), (status, true)])
    {
        let (_provider, tracer, exporter) = telemetry();
        let (submitter, mut processor) = of_size(1, tracer);
        let result = move |n| if fails { Err("m: failed") } else { Ok(n) };
        submitter.submit(1).unwrap();
        let batch = processor.next_batch().unwrap();
        batch.context().span().set_status(status.clone());
        batch.complete([result(1)]);
        submitter.submit(2).unwrap();
        submitter.close();
        processor.run_each(|n, cx| {
            cx.span().set_status(status.clone());
            result(n)
        });
        assert_eq!(spans(&exporter, "batch")[0].status, status, "fails: {fails}");
        assert_eq!(spans(&exporter, "process_item")[0].status, status, "fails: {fails}");
    }
}

#[test]
fn user_error_type_stays() {
    let (_provider, tracer, exporter) = telemetry();
    let (submitter, mut processor) = of_size(1, tracer);
    submitter.submit(1).unwrap();
    submitter.close();
    processor.run_each(|_, cx| {
        cx.span().set_attribute(opentelemetry::KeyValue::new("error.type", "timeout"));
        Err("no answer")
    });
    let [item] = spans(&exporter, "process_item").try_into().unwrap();
    let types: Vec<_> =
        item.attributes.iter().filter(|attribute| attribute.key.as_str() == "error.type").collect();
    assert_eq!(types.len(), 1, "{types:?}");
    assert_eq!(text(&item.attributes, "error.type").as_deref(), Some("timeout"));
}

/// All failures are counted, the first one is told.
#[test]
fn fail_all_tells_first_error() {
    let (_provider, tracer, exporter) = telemetry();
    let (submitter, mut processor) = of_size(4, tracer);
    (0..4).for_each(|n| submitter.submit(n).unwrap());
    processor.next_batch().unwrap().fail_all(|n| if *n == 0 { "disk full" } else { "other" });
    let [batch] = spans(&exporter, "batch").try_into().unwrap();
    assert_eq!(batch.status, Status::error("4 items failed, first: disk full"));
    assert_eq!(exceptions(&batch), ["&str: disk full"]);
    assert_eq!(text(&batch.attributes, "error.type").as_deref(), Some("_OTHER"));
}

/// Items that had no answer yet are failed; the exception says why.
#[test]
fn handler_panic_is_recorded() {
    for answered in [0, 1, 4] {
        let (_provider, tracer, exporter) = telemetry();
        let (submitter, mut processor) = of_size(4, tracer);
        (0..4).for_each(|n| submitter.submit(n).unwrap());
        submitter.close();
        processor.run(|batch| {
            let mut items = batch.into_iter();
            items.by_ref().take(answered).for_each(|item| item.succeed(0));
            panic!("on purpose");
        });
        let [batch] = spans(&exporter, "batch").try_into().unwrap();
        let status = ["4 items failed, first: ", "3 items failed, first: ", "", "", ""][answered];
        assert_eq!(batch.status, Status::error(format!("{status}panicked: on purpose")));
        assert_eq!(exceptions(&batch), ["panic: panicked: on purpose"]);
        assert_eq!(text(&batch.attributes, "error.type").as_deref(), Some("panicked"));
        assert_eq!(submitter.stats().failed(), 4 - answered as u64);
        assert_eq!(submitter.stats().queue().handler_panics(), 1);
    }
}

/// An item's exception is on the item's span, and not once more on the batch's.
#[test]
fn item_exception_is_recorded_once() {
    let (_provider, tracer, exporter) = telemetry();
    let (submitter, mut processor) = of_size(2, tracer);
    (0..2).for_each(|n| submitter.submit(n).unwrap());
    submitter.close();
    processor.run_each(|n, _| if n == 0 { Err("out of stock") } else { panic!("on purpose") });
    let [batch] = spans(&exporter, "batch").try_into().unwrap();
    assert_eq!(exceptions(&batch), [""; 0]);
    assert_eq!(batch.status, Status::error("2 items failed, first: out of stock"));
    let items = spans(&exporter, "process_item");
    let of_items: Vec<_> = items.iter().flat_map(exceptions).collect();
    assert_eq!(of_items, ["&str: out of stock", "panic: panicked: on purpose"]);
    let types: Vec<_> =
        items.iter().map(|item| text(&item.attributes, "error.type").unwrap()).collect();
    assert_eq!(types, ["_OTHER", "panicked"]);
}

#[test]
fn unanswered_items_say_so() {
    let (_provider, tracer, exporter) = telemetry();
    let (submitter, mut processor) = of_size(2, tracer);
    (0..2).for_each(|n| submitter.submit(n).unwrap());
    drop(processor.next_batch());
    let [batch] = spans(&exporter, "batch").try_into().unwrap();
    assert_eq!(
        batch.status,
        Status::error("2 items failed, first: the handler gave no answer for the item")
    );
    assert_eq!(text(&batch.attributes, "error.type").as_deref(), Some("unanswered"));
    assert_eq!(exceptions(&batch), [""; 0]);
}

/// At a character's end, though the error goes on for ever.
#[test]
fn endless_error_is_cut() {
    struct Endless;
    impl std::fmt::Display for Endless {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("a")?;
            loop {
                f.write_str("ä")?;
            }
        }
    }
    let (_provider, tracer, exporter) = telemetry();
    let (submitter, mut processor) =
        batchlink::processor::BatchProcessor::<u64, u64, Endless>::builder("batch")
            .with_max_batch_size(1)
            .build(tracer)
            .unwrap();
    submitter.submit(1).unwrap();
    processor.next_batch().unwrap().fail_all(|_| Endless);
    let [batch] = spans(&exporter, "batch").try_into().unwrap();
    let cut = format!("1 item failed: a{}…", "ä".repeat(2047));
    assert_eq!(batch.status, Status::error(cut));
}

/// Where the SDK's limit is told and the set is full, the span itself counts what was cut.
#[test]
fn truncated_links_are_counted() {
    let (_provider, tracer, exporter) = telemetry();
    let policy = batchlink::LinkPolicy::default().with_span_link_limit(128);
    let (submitter, mut processor) =
        batchlink::processor::BatchProcessor::<u64, u64, Text>::builder("batch")
            .with_max_batch_size(130)
            .with_link_policy(policy.with_max_links(128))
            .with_shards(1)
            .build(tracer)
            .unwrap();
    (1..=130).for_each(|n| submitter.submit_with_context(n, &context(n)).unwrap());
    processor.next_batch().unwrap().succeed_all(|n| *n);
    let [batch] = spans(&exporter, "batch").try_into().unwrap();
    assert_eq!((batch.links.len(), batch.links.dropped_count), (128, 2));
}

/// A span processor that lets no span of this name go before a caller has its answer.
#[derive(Debug)]
struct Holding {
    name: Text,
    answered: Mutex<mpsc::Receiver<()>>,
    in_time: Arc<AtomicU64>,
}

impl SpanProcessor for Holding {
    fn on_start(&self, _: &mut Span, _: &Context) {}

    fn on_end(&self, span: SpanData) {
        if span.name == self.name {
            let answered = self.answered.lock().unwrap().recv_timeout(Duration::from_secs(5));
            self.in_time.fetch_add(u64::from(answered.is_ok()), Ordering::Relaxed);
        }
    }

    fn force_flush(&self) -> OTelSdkResult {
        Ok(())
    }

    fn shutdown_with_timeout(&self, _: Duration) -> OTelSdkResult {
        Ok(())
    }
}

/// An exporter that blocks holds up no answer, and the counters are up to date by then.
#[test]
fn answer_precedes_export() {
    for name in ["batch", "process_item"] {
        let _watchdog = watchdog();
        let (answer, answered) = mpsc::channel();
        let in_time = Arc::new(AtomicU64::new(0));
        let holding =
            Holding { name, answered: Mutex::new(answered), in_time: Arc::clone(&in_time) };
        let provider = SdkTracerProvider::builder().with_span_processor(holding).build();
        let (submitter, processor) = of_size(1, provider.tracer("test"));
        let handle = match name {
            "batch" => processor.spawn(|batch| match *batch.items()[0].payload() {
                1 => batch.succeed_all(|n| *n),
                2 => batch.fail_all(|_| "no"),
                _ => drop(batch),
            }),
            _ => processor.spawn_each(|n, _| match n {
                1 => Ok(n),
                2 => Err("no"),
                _ => panic!("on purpose"),
            }),
        };
        let handle = handle.unwrap();
        let last = if name == "batch" { CallError::Unanswered } else { CallError::Panicked };
        for (n, expected) in [(1, Ok(1)), (2, Err(CallError::Failed("no"))), (3, Err(last))] {
            assert_eq!(submitter.call_blocking(n), expected);
            let stats = submitter.stats();
            assert_eq!((stats.succeeded(), stats.failed()), (1, n - 1));
            answer.send(()).unwrap();
        }
        handle.shutdown().unwrap();
        assert_eq!(in_time.load(Ordering::Relaxed), 3, "{name}");
    }
}

/// So that what the handler starts is below it, without a word of the handler.
#[test]
fn batch_span_is_current() {
    let (_provider, tracer, _exporter) = telemetry();
    let (submitter, mut processor) = of_size(1, tracer);
    submitter.submit(1).unwrap();
    submitter.close();
    let mut checked = 0;
    processor.run(|batch| {
        let current = Context::current();
        let span = batch.context().span().span_context().clone();
        assert!(span.is_valid());
        batch.succeed_all(|n| *n);
        assert_eq!(current.span().span_context(), &span);
        checked += 1;
    });
    assert_eq!(checked, 1);
    assert!(!Context::current().has_active_span(), "it is current no longer");
}

/// After an await too, and as long as the handler runs it has not ended.
#[cfg(feature = "tokio")]
#[tokio::test]
async fn batch_span_is_current_async() {
    let (_provider, tracer, exporter) = telemetry();
    let (submitter, mut processor) = of_size(1, tracer);
    submitter.submit(1).unwrap();
    submitter.close();
    let handle = |batch: batchlink::processor::Batch<u64, u64, Text>| async {
        let span = batch.context().span().span_context().clone();
        tokio::task::yield_now().await;
        batch.succeed_all(|n| *n);
        assert_eq!(Context::current().span().span_context(), &span);
        assert_eq!(spans(&exporter, "batch").len(), 0);
    };
    processor.run_async(handle).await;
    assert_eq!(spans(&exporter, "batch").len(), 1);
    assert_eq!(submitter.stats().queue().handler_panics(), 0);
}
