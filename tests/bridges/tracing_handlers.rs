//! `#[instrument]`ed requests and handlers around a processor.

use crate::common::watchdog;
use crate::tracing::Traces;
use batchlink::processor::{Batch, BatchProcessor, Submitter};
use opentelemetry_sdk::trace::SpanData;
use std::collections::BTreeSet;
use std::time::Duration;
use tracing::instrument;

type Rows = Submitter<u64, u64, String>;

#[instrument(skip_all)]
fn insert(batch: Batch<u64, u64, String>) {
    tracing::info_span!("commit").in_scope(|| batch.succeed_all(|row| row + 1));
}

#[instrument(skip_all)]
fn request_blocking(rows: &Rows, row: u64) -> u64 {
    rows.call_blocking(row).expect("answered")
}

/// Checks that batches link exactly the requests, and are parents of what their handlers did.
fn assert_linked(traces: &Traces, request: &str, requests: usize) {
    let spans = traces.exported();
    let named =
        |name: &str| -> Vec<&SpanData> { spans.iter().filter(|span| span.name == name).collect() };
    let ids = |span: &SpanData| {
        (span.span_context.trace_id().to_string(), span.span_context.span_id().to_string())
    };
    let batches = named("batch");
    let linked: Vec<_> = (batches.iter())
        .flat_map(|batch| &batch.links.links)
        .map(|link| {
            (link.span_context.trace_id().to_string(), link.span_context.span_id().to_string())
        })
        .collect();
    assert_eq!(linked.len(), requests);
    let linked: BTreeSet<_> = linked.into_iter().collect();
    assert_eq!(linked, named(request).into_iter().map(ids).collect());
    assert_eq!(named("insert").len(), batches.len());
    for (child, parents) in [("insert", &batches), ("commit", &named("insert"))] {
        for span in named(child) {
            let parent = |of: &&&SpanData| of.span_context.span_id() == span.parent_span_id;
            let parent = parents.iter().find(parent).unwrap_or_else(|| panic!("{child}: {span:?}"));
            assert_eq!(parent.span_context.trace_id(), span.span_context.trace_id());
        }
    }
}

#[test]
fn instrumented_handler_is_child() {
    let _watchdog = watchdog();
    let traces = Traces::all();
    let dispatch = traces.dispatch();
    let (rows, processor) =
        BatchProcessor::builder("batch").with_max_batch_size(4).build(traces.tracer()).unwrap();
    let in_handler = dispatch.clone();
    let handle = processor
        .spawn(move |batch| tracing::dispatcher::with_default(&in_handler, || insert(batch)))
        .unwrap();
    std::thread::scope(|scope| {
        for thread in 0..3 {
            let (rows, dispatch) = (&rows, &dispatch);
            scope.spawn(move || {
                tracing::dispatcher::with_default(dispatch, || {
                    (0..10).for_each(|n| {
                        let row = thread * 10 + n;
                        assert_eq!(request_blocking(rows, row), row + 1);
                    });
                });
            });
        }
    });
    handle.shutdown_with_timeout(Duration::from_secs(60)).unwrap();
    assert_linked(&traces, "request_blocking", 30);
}

/// Requests and handlers are tasks of a runtime with several threads, so that spans move.
#[cfg(feature = "tokio")]
#[test]
fn instrumented_tasks_are_linked() {
    use tracing::instrument::WithSubscriber;

    #[instrument(skip_all)]
    async fn request(rows: &Rows, row: u64) -> u64 {
        tokio::task::yield_now().await;
        let answer = rows.call(row).await.expect("answered");
        tokio::task::yield_now().await;
        answer
    }

    #[instrument(name = "insert", skip_all)]
    async fn insert_async(batch: Batch<u64, u64, String>) {
        tokio::task::yield_now().await;
        let commit = async {
            tokio::task::yield_now().await;
            batch.succeed_all(|row| row + 1);
        };
        tracing::Instrument::instrument(commit, tracing::info_span!("commit")).await;
    }

    let _watchdog = watchdog();
    let traces = Traces::all();
    let dispatch = traces.dispatch();
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(3).enable_all().build().unwrap();
    runtime.block_on(async {
        let (rows, mut processor) =
            BatchProcessor::builder("batch").with_max_batch_size(4).build(traces.tracer()).unwrap();
        let run = async move { processor.run_async(insert_async).await };
        let run = tokio::spawn(run.with_subscriber(dispatch.clone()));
        let tasks: Vec<_> = (0..5)
            .map(|task| {
                let rows = rows.clone();
                let requests = async move {
                    for n in 0..10 {
                        let row = task * 10 + n;
                        assert_eq!(request(&rows, row).await, row + 1);
                    }
                };
                tokio::spawn(requests.with_subscriber(dispatch.clone()))
            })
            .collect();
        for task in tasks {
            task.await.unwrap();
        }
        drop(rows);
        run.await.unwrap();
    });
    assert_linked(&traces, "request", 50);
}
