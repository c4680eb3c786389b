//! What counts as succeeded: only what the handler said (invariant `success-is-said`).

use super::common::*;
use super::support::*;
use batchlink::processor::CallError;
use opentelemetry::trace::Status;
use std::thread;

/// Five items of a handler that leaves by `?` at item 2 of 5.
#[test]
fn early_return_fails_rest() {
    let _watchdog = watchdog();
    let (_provider, tracer, exporter) = telemetry();
    let (submitter, mut processor) = of_size(5, tracer);
    (0..5).for_each(|n| submitter.submit(n).unwrap());
    submitter.close();
    processor.run(|batch| {
        let handle = || {
            for item in batch {
                if *item.payload() == 1 {
                    return Err("the connection is gone");
                }
                item.succeed(0);
            }
            Ok(())
        };
        assert!(handle().is_err());
    });
    let stats = submitter.stats();
    assert_eq!((stats.succeeded(), stats.failed()), (1, 4));
    let [batch] = spans(&exporter, "batch").try_into().unwrap();
    assert_eq!(account(&batch), "5 0 size_limit 1 1 4 0.2");
    assert!(matches!(batch.status, Status::Error { .. }), "{:?}", batch.status);
}

#[test]
fn dropped_batch_fails() {
    let (_provider, tracer, exporter) = telemetry();
    let (submitter, mut processor) = of_size(5, tracer);
    (0..5).for_each(|n| submitter.submit(n).unwrap());
    drop(processor.next_batch());
    let stats = submitter.stats();
    assert_eq!((stats.succeeded(), stats.failed()), (0, 5));
    let [batch] = spans(&exporter, "batch").try_into().unwrap();
    assert_eq!(account(&batch), "5 0 size_limit 1 0 5 0");
    assert!(matches!(batch.status, Status::Error { .. }), "{:?}", batch.status);
}

/// No caller gets the result of another's item.
#[test]
fn wrong_result_count_fails_all() {
    let _watchdog = watchdog();
    for (given, results, said) in [
        (0, 0, "0 results for 4 items"),
        (3, 3, "3 results for 4 items"),
        (5, 5, "5 or more results for 4 items"),
        (usize::MAX, 5, "5 or more results for 4 items"),
    ] {
        let (_provider, tracer, exporter) = telemetry();
        let (submitter, mut processor) = of_size(4, tracer);
        let calls: Vec<_> = (0..4)
            .map(|n| {
                let submitter = submitter.clone();
                thread::spawn(move || submitter.call_blocking(n))
            })
            .collect();
        // An iterator that does not know its length.
        let mut left = given;
        processor.next_batch().unwrap().complete(std::iter::from_fn(|| {
            left = left.checked_sub(1)?;
            Some(Ok(7))
        }));
        for call in calls {
            assert_eq!(call.join().unwrap(), Err(CallError::ResultCount { items: 4, results }));
        }
        let stats = submitter.stats();
        assert_eq!((stats.succeeded(), stats.failed()), (0, 4));
        let [batch] = spans(&exporter, "batch").try_into().unwrap();
        assert_eq!(
            batch.status,
            Status::error(format!("4 items failed, first: the handler gave {said}"))
        );
        assert_eq!(text(&batch.attributes, "error.type").as_deref(), Some("result_count"));
    }
}

#[cfg(feature = "tokio")]
mod cancelled {
    use super::*;
    use batchlink::processor::BatchProcessor;
    use futures_util::FutureExt;
    use opentelemetry_sdk::trace::InMemorySpanExporter;
    use std::future::pending;
    use std::sync::mpsc;

    type Processor = BatchProcessor<u64, u64, Text>;

    /// Five submitted items, and the processor that has them all in its next batch.
    fn five() -> (Processor, impl FnOnce(&InMemorySpanExporter), InMemorySpanExporter) {
        let (provider, tracer, exporter) = telemetry();
        let (submitter, processor) = of_size(5, tracer);
        (0..5).for_each(|n| submitter.submit(n).unwrap());
        let check = move |exporter: &InMemorySpanExporter| {
            let stats = submitter.stats();
            assert_eq!((stats.succeeded(), stats.failed()), (0, 5));
            let [batch] = spans(exporter, "batch").try_into().unwrap();
            assert_eq!(account(&batch), "5 0 size_limit 1 0 5 0");
            assert!(matches!(batch.status, Status::Error { .. }), "{:?}", batch.status);
            drop(provider);
        };
        (processor, check, exporter)
    }

    /// The item in flight has a span, which ends as failed.
    #[track_caller]
    fn check_item(exporter: &InMemorySpanExporter) {
        let [item] = spans(exporter, "process_item").try_into().unwrap();
        assert_eq!(item.status, Status::error("dropped before it finished"));
        assert_eq!(text(&item.attributes, "error.type").as_deref(), Some("dropped"));
    }

    #[test]
    fn dropped_run_each_fails() {
        let (mut processor, check, exporter) = five();
        assert!(processor.run_each_async(|_, _| pending()).now_or_never().is_none());
        check_item(&exporter);
        check(&exporter);
    }

    #[test]
    fn dropped_run_fails() {
        let (mut processor, check, exporter) = five();
        let run = processor.run_async(|batch| async move {
            pending::<()>().await;
            batch.succeed_all(|n| *n);
        });
        assert!(run.now_or_never().is_none());
        check(&exporter);
    }

    #[tokio::test]
    async fn select_fails_items() {
        let (mut processor, check, exporter) = five();
        tokio::select! {
            biased;
            () = processor.run_each_async(|_, _| pending()) => unreachable!("never done"),
            () = tokio::task::yield_now() => (),
        }
        check_item(&exporter);
        check(&exporter);
    }

    #[tokio::test]
    async fn aborted_task_fails() {
        let (mut processor, check, exporter) = five();
        let (started, starts) = mpsc::channel();
        let task = tokio::spawn(async move {
            let handle = |_, _| {
                started.send(()).unwrap();
                pending()
            };
            processor.run_each_async(handle).await;
        });
        while starts.try_recv().is_err() {
            tokio::task::yield_now().await;
        }
        task.abort();
        assert!(task.await.unwrap_err().is_cancelled());
        check_item(&exporter);
        check(&exporter);
    }

    #[test]
    fn dropped_runtime_fails() {
        let (mut processor, check, exporter) = five();
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let (started, starts) = mpsc::channel();
        runtime.spawn(async move {
            let handle = |_, _| {
                started.send(()).unwrap();
                pending()
            };
            processor.run_each_async(handle).await;
        });
        while starts.try_recv().is_err() {
            runtime.block_on(tokio::task::yield_now());
        }
        drop(runtime);
        check_item(&exporter);
        check(&exporter);
    }

    /// What was not taken yet stays for the next run.
    #[test]
    fn cancelled_run_keeps_queue() {
        let (_provider, tracer, _exporter) = telemetry();
        let (submitter, mut processor) = BatchProcessor::<u64, u64, Text>::builder("batch")
            .with_max_batch_size(4)
            .with_max_delay(NEVER)
            .with_shards(1)
            .with_key(|n| n % 2)
            .build(tracer)
            .unwrap();
        (0..6).for_each(|n| submitter.submit(n).unwrap());
        assert!(processor.run_each_async(|_, _| pending()).now_or_never().is_none());
        submitter.close();
        processor.run_each(|n, _| Ok(n));
        let stats = submitter.stats();
        assert_eq!((stats.succeeded(), stats.failed()), (4, 2), "the first key's items were lost");
    }
}
