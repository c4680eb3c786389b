//! Panics of the user's code around the handler.

use super::common::*;
use super::support::*;
use batchlink::processor::{Batch, BatchProcessor, BatchProcessorBuilder, CallError};
use opentelemetry::Context;
use opentelemetry::trace::{Status, TracerProvider};
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{SdkTracerProvider, Span, SpanData, SpanProcessor};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

/// What a processor calls besides the handler is the user's code, too: where it panics, that costs
/// the one item or nothing, and the processor goes on.
#[test]
fn user_panics_cost_one_item() {
    /// Panics when it is dropped, hashed or shown, if it is 1.
    #[derive(Clone, Debug, PartialEq, Eq)]
    struct Bad(u64);
    impl Bad {
        fn panic_if_one(&self) {
            if self.0 == 1 && !thread::panicking() {
                on_purpose();
            }
        }
    }
    impl std::hash::Hash for Bad {
        fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
            self.panic_if_one();
            self.0.hash(state);
        }
    }
    impl std::fmt::Display for Bad {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            self.panic_if_one();
            write!(f, "{}", self.0)
        }
    }
    struct BadDrop(u64);
    impl std::fmt::Display for BadDrop {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            write!(f, "{}", self.0)
        }
    }
    impl Drop for BadDrop {
        fn drop(&mut self) {
            Bad(self.0).panic_if_one();
        }
    }

    let _watchdog = watchdog();
    let (_provider, tracer, exporter) = telemetry();
    fn build<R: Send + 'static, E: Send + 'static>() -> BatchProcessorBuilder<u64, R, E> {
        BatchProcessor::builder("batch").with_max_batch_size(1).with_max_delay(NEVER)
    }

    // The text of an error.
    let (submitter, processor) = build().build(tracer.clone()).unwrap();
    let handle = processor.spawn_each(|n: u64, _| Err::<(), _>(Bad(n))).unwrap();
    for n in [1, 2] {
        assert_eq!(submitter.call_blocking(n), Err(CallError::Failed(Bad(n))));
    }
    handle.shutdown().unwrap();
    let texts: Vec<_> =
        spans(&exporter, "process_item").into_iter().map(|span| span.status).collect();
    assert_eq!(texts, [Status::error("(its text panicked)"), Status::error("2")]);

    // The hash of a key.
    let (submitter, processor) = build().with_key(|n: &u64| Bad(*n)).build(tracer.clone()).unwrap();
    let handle = processor.spawn_each(|n: u64, _| Ok::<_, Text>(n)).unwrap();
    for n in [1, 2] {
        assert_eq!(submitter.call_blocking(n), Ok(n));
    }
    handle.shutdown().unwrap();

    // The drop of a result, or of an error, that no caller waits for any more.
    for fails in [false, true] {
        let (submitter, processor) = build().build(tracer.clone()).unwrap();
        let (go, gone) = mpsc::channel();
        let handle = processor
            .spawn_each(move |n: u64, _| {
                gone.recv().unwrap();
                if fails { Err(BadDrop(n)) } else { Ok(BadDrop(n)) }
            })
            .unwrap();
        let submit = |n| {
            let call = submitter.call_blocking_timeout(n, Duration::from_millis(1));
            assert!(
                matches!(call, Err(CallError::Timeout)),
                "nobody answers before the caller gives up"
            );
            go.send(()).unwrap();
        };
        [1, 2].into_iter().for_each(submit);
        handle.shutdown().unwrap();
        let stats = submitter.stats();
        assert_eq!((stats.succeeded(), stats.failed()), if fails { (0, 2) } else { (2, 0) });
    }
}

/// The result, or error, of an item that was only submitted has no caller, and is dropped.
#[test]
fn unawaited_result_drop_panics() {
    struct BadDrop;
    impl std::fmt::Display for BadDrop {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("bad")
        }
    }
    impl Drop for BadDrop {
        fn drop(&mut self) {
            on_purpose();
        }
    }

    let (_provider, tracer, exporter) = telemetry();
    let builder = BatchProcessor::<u64, BadDrop, BadDrop>::builder("batch").with_max_batch_size(2);
    let (submitter, mut processor) =
        builder.with_shards(1).with_max_delay(NEVER).build(tracer).unwrap();
    (1..=4).for_each(|n| submitter.submit(n).unwrap());
    submitter.close();
    processor.next_batch().unwrap().complete([Ok(BadDrop), Err(BadDrop)]);
    processor.run_each(|n, _| if n == 3 { Ok(BadDrop) } else { Err(BadDrop) });
    let stats = submitter.stats();
    assert_eq!((stats.succeeded(), stats.failed(), stats.queue().handler_panics()), (2, 2, 0));
    let ends: Vec<_> =
        spans(&exporter, "process_item").into_iter().map(|span| span.status).collect();
    assert_eq!(ends, [Status::Unset, Status::error("bad")]);
}

/// The drop of a payload that was answered costs no item its answer, however the batch is answered.
#[test]
fn answered_payload_drop_panics() {
    struct BadDrop;
    impl Drop for BadDrop {
        fn drop(&mut self) {
            on_purpose();
        }
    }

    let (_provider, tracer, _exporter) = telemetry();
    let builder = BatchProcessor::<BadDrop, (), Text>::builder("batch").with_max_batch_size(2);
    let (submitter, mut processor) =
        builder.with_shards(1).with_max_delay(NEVER).build(tracer).unwrap();
    let mut answer = |with: fn(Batch<BadDrop, (), Text>)| {
        (0..2).for_each(|_| submitter.submit(BadDrop).unwrap());
        with(processor.next_batch().unwrap());
        (submitter.stats().succeeded(), submitter.stats().failed())
    };
    assert_eq!(answer(|batch| batch.succeed_all(|_| ())), (2, 0));
    assert_eq!(answer(|batch| batch.fail_all(|_| "bad")), (2, 2));
    assert_eq!(answer(|batch| batch.complete([Ok(()), Err("bad")])), (3, 3));
    assert_eq!(answer(|batch| batch.complete([Ok(())])), (3, 5));
    assert_eq!(answer(|batch| batch.into_iter().for_each(|item| item.succeed(()))), (5, 5));
    assert_eq!(answer(|batch| batch.into_iter().for_each(|item| item.fail("bad"))), (5, 7));
}

/// Of payloads that were divided and not given out, as of those in the rings.
#[test]
fn dropped_processor_counts_parts() {
    struct Payload(Arc<AtomicU64>);
    impl Drop for Payload {
        fn drop(&mut self) {
            self.0.fetch_add(1, Ordering::Relaxed);
            on_purpose();
        }
    }

    let (_provider, tracer, _exporter) = telemetry();
    let mut key = 0;
    let (submitter, mut processor) = BatchProcessor::<Payload, (), Text>::builder("batch")
        .with_max_batch_size(3)
        .with_shards(1)
        .with_key(move |_| {
            key += 1;
            key
        })
        .build(tracer)
        .unwrap();
    let dropped = Arc::new(AtomicU64::new(0));
    (0..5).for_each(|_| submitter.submit(Payload(Arc::clone(&dropped))).unwrap());
    let mut batch = processor.next_batch().unwrap().into_iter();
    let (payload, answer) = batch.next().unwrap().into_parts();
    answer.succeed(());
    drop(batch);
    let _ = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| drop(payload)));
    drop(processor);
    assert_eq!(dropped.load(Ordering::Relaxed), 5);
    let stats = submitter.stats();
    assert_eq!((stats.queue().received(), stats.succeeded(), stats.failed()), (5, 1, 4));
}

/// A sampler or span processor that panics costs spans, not items, nor the process while a handler
/// unwinds.
#[test]
fn telemetry_panics_cost_spans() {
    #[derive(Clone, Copy, Debug, PartialEq)]
    enum Panics {
        Start,
        End,
    }
    #[derive(Debug)]
    struct Broken(Panics);
    impl SpanProcessor for Broken {
        fn on_start(&self, _: &mut Span, _: &Context) {
            if self.0 == Panics::Start {
                on_purpose();
            }
        }
        fn on_end(&self, _: SpanData) {
            if self.0 == Panics::End {
                on_purpose();
            }
        }
        fn force_flush(&self) -> OTelSdkResult {
            Ok(())
        }
        fn shutdown_with_timeout(&self, _: Duration) -> OTelSdkResult {
            Ok(())
        }
    }

    let _watchdog = watchdog();
    for panics in [Panics::Start, Panics::End] {
        let provider = SdkTracerProvider::builder().with_span_processor(Broken(panics)).build();
        let (submitter, processor) = of_size(1, provider.tracer("test"));
        let handle = processor
            .spawn(|batch| {
                if batch.payloads().next() == Some(&1) {
                    on_purpose();
                }
                batch.succeed_all(|n| n + 1);
            })
            .unwrap();
        assert_eq!(submitter.call_blocking(1), Err(CallError::Panicked));
        assert_eq!(submitter.call_blocking(2), Ok(3));
        handle.shutdown().unwrap();
        let (submitter, processor) = of_size(1, provider.tracer("test"));
        let handle = processor.spawn_each(|n, _| Ok(n + 1)).unwrap();
        assert_eq!([1, 2].map(|n| submitter.call_blocking(n)), [Ok(2), Ok(3)]);
        handle.shutdown().unwrap();
    }
}

/// A span that is not the SDK's may panic when it is dropped.
#[test]
fn span_drop_panics() {
    use opentelemetry::KeyValue;
    use opentelemetry::trace::{self, SpanBuilder, SpanContext, Tracer};
    use std::borrow::Cow;
    use std::time::SystemTime;

    #[derive(Debug)]
    struct BadSpan(SpanContext);
    impl Drop for BadSpan {
        fn drop(&mut self) {
            on_purpose();
        }
    }
    impl trace::Span for BadSpan {
        fn add_event_with_timestamp<N: Into<Cow<'static, str>>>(
            &mut self,
            _: N,
            _: SystemTime,
            _: Vec<KeyValue>,
        ) {
        }
        fn span_context(&self) -> &SpanContext {
            &self.0
        }
        fn is_recording(&self) -> bool {
            true
        }
        fn set_attribute(&mut self, _: KeyValue) {}
        fn set_status(&mut self, _: Status) {}
        fn update_name<N: Into<Cow<'static, str>>>(&mut self, _: N) {}
        fn add_link(&mut self, _: SpanContext, _: Vec<KeyValue>) {}
        fn end_with_timestamp(&mut self, _: SystemTime) {}
    }
    struct BadTracer;
    impl Tracer for BadTracer {
        type Span = BadSpan;
        fn build_with_context(&self, _: SpanBuilder, _: &Context) -> BadSpan {
            BadSpan(context(1))
        }
    }

    let builder = BatchProcessor::<u64, u64, Text>::builder("batch").with_max_batch_size(1);
    let (submitter, mut processor) =
        builder.with_max_delay(NEVER).with_shards(1).build(BadTracer).unwrap();
    (1..=3).for_each(|n| submitter.submit(n).unwrap());
    submitter.close();
    processor.next_batch().unwrap().succeed_all(|n| *n);
    processor.run_each(|n, _| Ok(n));
    assert_eq!(submitter.stats().succeeded(), 3);
}
