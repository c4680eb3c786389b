//! Items that were submitted where telemetry is suppressed.

use super::common::*;
use super::support::*;
use batchlink::processor::{BatchProcessor, Submitter};
use opentelemetry::Context;
use opentelemetry::trace::{SpanId, TraceContextExt, Tracer, TracerProvider};
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{SdkTracerProvider, SpanData, SpanExporter};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

/// Submits as an exporter does.
fn suppressed(submitter: &Submitter<u64, u64, Text>, n: u64) {
    let _scope = Context::enter_telemetry_suppressed_scope();
    submitter.submit(n).unwrap();
}

/// Nor does what the handler starts, whichever way the items came in.
#[test]
fn suppressed_batch_has_no_span() {
    let (_provider, tracer, exporter) = telemetry();
    let (submitter, mut processor) = of_size(4, tracer.clone());
    let handle = |processor: &mut BatchProcessor<u64, u64, Text>, each: bool| {
        let tracer = tracer.clone();
        let start = move || drop(tracer.start("below"));
        match each {
            true => processor.run_each(move |n, cx| {
                assert!(cx.is_telemetry_suppressed());
                start();
                Ok(n)
            }),
            false => processor.run(move |batch| {
                assert!(batch.items().iter().all(|item| !item.span_context().is_valid()));
                assert_eq!((batch.counts().received, batch.counts().invalid), (4, 4));
                start();
                batch.succeed_all(|n| *n);
            }),
        }
    };
    let around = Context::new().with_remote_span_context(context(7)).attach();
    (0..2).for_each(|n| suppressed(&submitter, n));
    drop(around);
    let scope = Context::enter_telemetry_suppressed_scope();
    submitter.submit_with_context(2, &context(1)).unwrap();
    submitter.submit_wait(3).unwrap();
    drop(scope);
    submitter.close();
    handle(&mut processor, false);
    assert_eq!(submitter.stats().succeeded(), 4);

    let (submitter, mut processor) = of_size(4, tracer.clone());
    (0..4).for_each(|n| suppressed(&submitter, n));
    submitter.close();
    handle(&mut processor, true);
    assert_eq!(submitter.stats().succeeded(), 4);
    assert_eq!(exporter.get_finished_spans().unwrap().len(), 0);
}

/// One that has others in it counts all of them, and links those that are not suppressed.
#[test]
fn mixed_batch_has_a_span() {
    let (_provider, tracer, exporter) = telemetry();
    let (submitter, mut processor) = of_size(3, tracer);
    suppressed(&submitter, 0);
    submitter.submit_with_context(1, &context(1)).unwrap();
    suppressed(&submitter, 2);
    submitter.close();
    processor.run_each(|n, cx| {
        assert_eq!(cx.is_telemetry_suppressed(), n != 1);
        Ok(n)
    });
    let [batch] = spans(&exporter, "batch").try_into().unwrap();
    assert_eq!(account(&batch), "3 1 size_limit 1 3 0 1");
    assert_eq!(batch.links[0].span_context, context(1));
    let [item] = spans(&exporter, "process_item").try_into().unwrap();
    assert_eq!(text(&item.attributes, "item.index").as_deref(), Some("1"));
}

/// A span that is current where a suppressed batch is handled is not the batch's to change or end.
#[test]
fn suppressed_batch_spares_callers_span() {
    let (_provider, tracer, exporter) = telemetry();
    let (submitter, mut processor) = of_size(1, tracer.clone());
    suppressed(&submitter, 1);
    tracer.in_span("around", |cx| {
        processor.next_batch().unwrap().fail_all(|_| "no");
        assert!(cx.span().is_recording());
    });
    let [around] = exporter.get_finished_spans().unwrap().try_into().unwrap();
    assert_eq!((around.attributes.len(), around.parent_span_id), (0, SpanId::INVALID));
    assert_eq!(around.status, opentelemetry::trace::Status::Unset);
}

/// Submits one item for every export.
#[derive(Debug)]
struct Submitting(Arc<OnceLock<Submitter<u64, u64, Text>>>);

impl SpanExporter for Submitting {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        if let Some(submitter) = self.0.get() {
            submitter.submit(batch.len() as u64).unwrap();
        }
        Ok(())
    }
}

/// One that submits to a processor on its own provider comes to an end.
#[test]
fn exporter_does_not_feed_itself() {
    for simple in [true, false] {
        let _watchdog = watchdog();
        let to = Arc::new(OnceLock::new());
        let exporter = Submitting(Arc::clone(&to));
        let provider = match simple {
            true => SdkTracerProvider::builder().with_simple_exporter(exporter),
            false => SdkTracerProvider::builder().with_batch_exporter(exporter),
        };
        let provider = provider.build();
        let (submitter, mut processor) = of_size(1, provider.tracer("test"));
        to.set(submitter.clone()).unwrap();
        submitter.submit(1).unwrap();
        let mut batches = 0;
        while let Some(batch) = processor.try_next() {
            batches += 1;
            batch.succeed_all(|n| *n);
            assert!(batches < 10, "it goes on and on");
            let _ = provider.force_flush();
        }
        assert_eq!(batches, 2, "the item, and the one that its export submitted");
        let _ = provider.shutdown_with_timeout(Duration::from_secs(5));
    }
}
