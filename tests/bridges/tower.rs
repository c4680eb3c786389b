//! A processor as a Tower service, and before one.

use batchlink::processor::{Batch, BatchProcessor, CallError, Submitter};
use batchlink::tower::{BatchLayer, BatchService};
use opentelemetry::Context;
use opentelemetry::trace::noop::NoopTracer;
use opentelemetry::trace::{FutureExt, TraceContextExt, Tracer, TracerProvider};
use opentelemetry_sdk::trace::{InMemorySpanExporter, SdkTracerProvider};
use std::future::ready;
use std::sync::{Arc, Mutex};
use std::task::{self, Poll, Waker};
use std::time::Duration;
use tower::{Layer, Service, ServiceBuilder, ServiceExt, service_fn};

type Text = &'static str;
type Pair = (Submitter<u64, u64, Text>, BatchProcessor<u64, u64, Text>);

/// Batches of two, and no more room than that.
fn pair() -> Pair {
    BatchProcessor::builder("batch")
        .with_max_batch_size(2)
        .with_queue_capacity(2)
        .with_shards(1)
        .build(NoopTracer::new())
        .unwrap()
}

fn poll<F: Future + Unpin>(future: &mut F) -> Poll<F::Output> {
    std::pin::Pin::new(future).poll(&mut task::Context::from_waker(Waker::noop()))
}

fn poll_ready<S: Service<u64>>(service: &mut S) -> Poll<Result<(), S::Error>> {
    service.poll_ready(&mut task::Context::from_waker(Waker::noop()))
}

/// A full queue is waited for by the response, not by `poll_ready`, and refuses nothing. Each
/// response is that of its own request.
#[test]
fn response_waits_for_slot() {
    let (submitter, mut processor) = pair();
    let mut service = BatchService::new(submitter);
    let mut responses: Vec<_> = (1..=4)
        .map(|item| {
            assert_eq!(poll_ready(&mut service), Poll::Ready(Ok(())));
            service.call(item)
        })
        .collect();
    assert!(responses.iter_mut().all(|response| poll(response).is_pending()));
    assert_eq!(service.submitter().unwrap().stats().queue().pending(), 2);
    assert_eq!(poll_ready(&mut service), Poll::Ready(Ok(())), "the queue is full");
    let mut squares = Vec::new();
    for _ in 0..2 {
        processor.try_next().unwrap().succeed_all(|n| n * n);
        responses.retain_mut(|response| match poll(response) {
            Poll::Ready(square) => {
                squares.push(square);
                false
            }
            Poll::Pending => true,
        });
    }
    assert_eq!(squares, [1, 4, 9, 16].map(Ok));
    let stats = service.submitter().unwrap().stats();
    assert_eq!((stats.succeeded(), stats.queue().rejected_full()), (4, 0));
}

/// With a limit of the queue's capacity before it, `poll_ready` is the back-pressure.
#[test]
fn concurrency_limit_is_back_pressure() {
    let (submitter, mut processor) = pair();
    let inner = BatchService::new(submitter);
    let mut service = ServiceBuilder::new().concurrency_limit(2).service(inner);
    let mut responses = Vec::new();
    for item in 1..=2 {
        assert!(poll_ready(&mut service).is_ready());
        responses.push(Box::pin(service.call(item)));
    }
    assert!(responses.iter_mut().all(|response| poll(response).is_pending()));
    assert!(poll_ready(&mut service).is_pending());
    processor.try_next().unwrap().succeed_all(|n| *n);
    responses.retain_mut(|response| poll(response).is_pending());
    assert_eq!(responses.len(), 0);
    assert!(poll_ready(&mut service).is_ready());
}

#[test]
fn closed_service_is_not_ready() {
    let (submitter, processor) = pair();
    let mut service = BatchService::new(submitter);
    let mut late = service.call(1);
    drop(processor);
    assert_eq!(poll_ready(&mut service), Poll::Ready(Err(CallError::Closed)));
    assert_eq!(poll(&mut late), Poll::Ready(Err(CallError::Closed)));
    assert_eq!(poll(&mut service.call(2)), Poll::Ready(Err(CallError::Closed)));
}

/// An item's error is the response's. A timeout before the service leaves the queue by option.
#[tokio::test(start_paused = true)]
async fn errors_reach_the_response() {
    let (submitter, mut processor) = BatchProcessor::<u64, u64, Text>::builder("batch")
        .with_skip_canceled(true)
        .build(NoopTracer::new())
        .unwrap();
    let service = BatchService::new(submitter);
    // `Timeout` wants an error that is one.
    let inner = service.clone().map_err(|error| error.to_string());
    let timed = ServiceBuilder::new().timeout(Duration::from_secs(1)).service(inner);
    assert!(timed.oneshot(1).await.unwrap_err().is::<tower::timeout::error::Elapsed>());
    let failing = tokio::spawn(service.clone().oneshot(2));
    tokio::task::yield_now().await;
    let batch = processor.next().await.unwrap();
    assert_eq!(batch.payloads().copied().collect::<Vec<_>>(), [2]);
    batch.fail_all(|_| "no");
    assert_eq!(failing.await.unwrap(), Err(CallError::Failed("no")));
    assert_eq!(service.submitter().unwrap().stats().canceled(), 1);
}

/// The request is linked that was active at `call`, and not where the response is awaited. In the
/// inner service the batch's span is current.
#[tokio::test]
async fn layer_links_requests() {
    let exporter = InMemorySpanExporter::default();
    let provider = SdkTracerProvider::builder().with_simple_exporter(exporter.clone()).build();
    let tracer = provider.tracer("test");
    let currents = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&currents);
    let inner = service_fn(move |batch: Batch<u64, u64, Text>| {
        let current = Context::map_current(|cx| cx.span().span_context().clone());
        seen.lock().unwrap().push(current);
        batch.succeed_all(|n| n * n);
        ready(Ok::<(), Text>(()))
    });
    let layer =
        BatchLayer::new(tracer.clone(), || BatchProcessor::builder("batch").with_max_batch_size(2));
    let mut service = layer.unwrap().layer(inner);
    let (response, request) =
        tracer.in_span("request", |cx| (service.call(3), cx.span().span_context().clone()));
    let elsewhere = Context::new().with_span(tracer.start("elsewhere"));
    assert_eq!(response.with_context(elsewhere).await, Ok(9));
    let submitter = service.submitter().unwrap().downgrade();
    drop(service); // the last one: its task ends
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    assert!(submitter.upgrade().is_none());
    let spans = exporter.get_finished_spans().unwrap();
    let batch = spans.iter().find(|span| span.name == "batch").unwrap();
    assert_eq!(batch.links[0].span_context, request);
    let expected = std::slice::from_ref(&batch.span_context);
    assert_eq!(currents.lock().unwrap().as_slice(), expected);
}

/// A batch for which the inner service has failed, or which it drops, leaves no caller waiting.
/// Each of the layer's services has an inner one of its own.
#[tokio::test]
async fn failed_inner_service_answers() {
    #[derive(Clone)]
    struct Broken;
    impl Service<Batch<u64, u64, Text>> for Broken {
        type Response = ();
        type Error = Text;
        type Future = std::future::Ready<Result<(), Text>>;

        fn poll_ready(&mut self, _: &mut task::Context<'_>) -> Poll<Result<(), Text>> {
            Poll::Ready(Err("broken"))
        }

        fn call(&mut self, _: Batch<u64, u64, Text>) -> Self::Future {
            unreachable!("it is not ready")
        }
    }
    let layer = BatchLayer::new(NoopTracer::new(), || BatchProcessor::builder("batch")).unwrap();
    let service = layer.layer(Broken);
    assert_eq!(service.clone().oneshot(1).await, Err(CallError::Unanswered));
    let dropped = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&dropped);
    let dropping = service_fn(move |batch: Batch<u64, u64, Text>| {
        seen.lock().unwrap().extend(batch.payloads().copied());
        ready(Err::<(), Text>("dropped"))
    });
    assert_eq!(layer.layer(dropping).oneshot(2).await, Err(CallError::Unanswered));
    assert_eq!(*dropped.lock().unwrap(), [2]);
}

/// Nothing panics outside of a runtime, or if the configuration changes to an invalid one.
#[test]
fn service_without_processor_is_closed() {
    let sizes = Mutex::new([2, 0].into_iter());
    let configure = move || {
        let size = sizes.lock().unwrap().next().unwrap_or(0);
        BatchProcessor::<u64, u64, Text>::builder("batch").with_max_batch_size(size)
    };
    let layer = BatchLayer::new(NoopTracer::new(), configure).unwrap();
    let inner = service_fn(|batch: Batch<u64, u64, Text>| {
        batch.succeed_all(|n| *n);
        ready(Ok::<(), Text>(()))
    });
    let mut service = layer.layer(inner);
    assert!(service.submitter().is_none());
    assert_eq!(poll_ready(&mut service), Poll::Ready(Err(CallError::Closed)));
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let _entered = runtime.enter();
    let mut service = layer.layer(inner);
    assert_eq!(poll(&mut service.call(1)), Poll::Ready(Err(CallError::Closed)));
}

/// A layer that was only made reports no metrics: there is no processor yet.
#[cfg(feature = "metrics")]
#[test]
fn unused_layer_reports_nothing() {
    let metered = crate::metrics::Metered::new();
    let meter = metered.meter();
    let configure =
        move || BatchProcessor::<u64, u64, Text>::builder("batch").with_metrics(&meter, "batch");
    let layer = BatchLayer::new(NoopTracer::new(), configure).unwrap();
    let values = metered.read();
    assert!(values.is_empty(), "{values:?}");
    drop(layer);
}
