//! A processor in tokio tasks.

use super::common::*;
use super::support::*;
use batchlink::processor::CallError;
use futures_util::StreamExt;
use opentelemetry::Context;
use opentelemetry::trace::{Status, TraceContextExt};
use std::time::Duration;

#[tokio::test]
async fn batches_run_in_task() {
    let (_provider, tracer, exporter) = telemetry();
    let (submitter, mut processor) = of_size(2, tracer);
    let run = tokio::spawn(async move {
        processor
            .run_async(|batch| async move {
                tokio::task::yield_now().await;
                assert!(batch.payloads().all(|n| *n != 3), "on purpose");
                batch.succeed_all(|n| n * 2);
            })
            .await;
    });
    let (one, two) = tokio::join!(submitter.call(1), submitter.call(2));
    assert_eq!((one, two), (Ok(2), Ok(4)));
    let (three, four) = tokio::join!(submitter.call(3), submitter.call_wait(4));
    assert_eq!((three, four), (Err(CallError::Panicked), Err(CallError::Panicked)));
    submitter.close();
    run.await.unwrap();
    assert_eq!(spans(&exporter, "batch").len(), 2);
    assert_eq!(submitter.stats().queue().handler_panics(), 1);
}

#[tokio::test]
async fn items_run_in_task() {
    let (_provider, tracer, exporter) = telemetry();
    let (submitter, mut processor) = of_size(3, tracer.clone());
    let run = tokio::spawn(async move {
        processor
            .run_each_async(|n, cx| async move {
                tokio::task::yield_now().await;
                // The item's span is current after an await, too.
                assert_eq!(Context::current().span().span_context(), cx.span().span_context());
                match n {
                    1 => Err("no"),
                    2 => panic!("on purpose"),
                    n => Ok(n),
                }
            })
            .await;
    });
    let results = tokio::join!(submitter.call(0), submitter.call(1), submitter.call(2));
    assert_eq!(results, (Ok(0), Err(CallError::Failed("no")), Err(CallError::Panicked)));
    drop(submitter);
    run.await.unwrap();
    let statuses: Vec<Status> =
        spans(&exporter, "process_item").into_iter().map(|span| span.status).collect();
    assert_eq!(
        statuses,
        [Status::Unset, Status::error("no"), Status::error("panicked: on purpose")]
    );
}

/// Which is a stream of batches, that ends when it is closed and empty.
#[tokio::test]
async fn task_waits_for_slots() {
    let _watchdog = watchdog();
    let (_provider, tracer, _exporter) = telemetry();
    let (submitter, processor) = room_for_two::<u64>(tracer);
    let submit = async {
        for n in 1..=6 {
            submitter.submit_wait_async(n).await.unwrap();
        }
        submitter.close();
        submitter.submit_wait_async(7).await.unwrap_err().into_item()
    };
    let served =
        processor.map(|batch| batch.payloads().copied().collect::<Vec<_>>()).collect::<Vec<_>>();
    let (refused, served) = tokio::join!(submit, served);
    assert_eq!((refused, served), (7, vec![vec![1, 2], vec![3, 4], vec![5, 6]]));
}

#[tokio::test]
async fn other_tasks_answer_items() {
    let (_provider, tracer, exporter) = telemetry();
    let (submitter, mut processor) = of_size(3, tracer);
    let calls = async { tokio::join!(submitter.call(1), submitter.call(2), submitter.call(3)) };
    let serve = async {
        for item in processor.next().await.unwrap() {
            tokio::spawn(async move {
                tokio::task::yield_now().await;
                let (payload, answer) = item.into_parts();
                assert!(answer.is_awaited());
                assert_eq!(format!("{answer:?}"), "Answer { is_awaited: true, .. }");
                answer.succeed(payload);
            });
        }
    };
    let (results, ()) = tokio::join!(calls, serve);
    assert_eq!(results, (Ok(1), Ok(2), Ok(3)));
    tokio::task::yield_now().await;
    assert_eq!(spans(&exporter, "batch").len(), 1);
}

#[tokio::test]
async fn leaving_caller_spares_batch() {
    let (_provider, tracer, _exporter) = telemetry();
    let (submitter, mut processor) = of_size(2, tracer);
    let stays = submitter.call(2);
    let leaves = tokio::time::timeout(Duration::from_millis(1), submitter.call(1));
    assert!(leaves.await.is_err());
    let serve = async {
        let batch = processor.next().await.unwrap();
        let awaited: Vec<bool> = batch.items().iter().map(|item| item.is_awaited()).collect();
        assert_eq!(awaited, [false, true]);
        batch.succeed_all(|n| *n);
    };
    let (stays, ()) = tokio::join!(stays, serve);
    assert_eq!(stays, Ok(2));
    assert_eq!(submitter.stats().succeeded(), 2);
}
