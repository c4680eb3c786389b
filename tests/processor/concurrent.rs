//! Several batches in flight in one task.

use super::common::{by_size, watchdog};
use super::exported::Exporter;
use batchlink::processor::{Batch, BatchProcessor, CallError, Submitter};
use futures_util::FutureExt;
use opentelemetry::Context;
use opentelemetry::trace::TraceContextExt;
use std::cell::RefCell;
use std::future::poll_fn;
use std::pin::Pin;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;
use tokio::task::yield_now;

type Pair = (Submitter<u64, u64, String>, BatchProcessor<u64, u64, String>);

/// Batches of two, `most` at once.
fn of_two(most: usize, exporter: &Exporter) -> Pair {
    let config = by_size(2).with_shards(1).with_queue_capacity(16);
    BatchProcessor::builder("batch")
        .with_config(config)
        .with_max_concurrent_batches(most)
        .build(exporter.tracer())
        .unwrap()
}

/// Handlers that wait until their number is called.
#[derive(Clone, Default)]
struct Gate(Rc<RefCell<Gates>>);

#[derive(Default)]
struct Gates {
    begun: Vec<u64>,
    open: Vec<u64>,
    ended: Vec<u64>,
}

impl Gate {
    async fn pass(&self, number: u64) {
        self.0.borrow_mut().begun.push(number);
        poll_fn(|_| match self.0.borrow().open.contains(&number) {
            true => Poll::Ready(()),
            false => Poll::Pending,
        })
        .await;
        self.0.borrow_mut().ended.push(number);
    }

    async fn handle(self, batch: Batch<u64, u64, String>) {
        let context = batch.context().span().span_context().clone();
        let number = batch.number();
        self.pass(number).await;
        // Each has its own current span, however they take turns.
        assert_eq!(*Context::current().span().span_context(), context);
        assert_ne!(number, 3, "on purpose");
        batch.succeed_all(|item| item * 10);
    }

    fn open(&self, number: u64) {
        self.0.borrow_mut().open.push(number);
    }

    fn begun(&self) -> Vec<u64> {
        self.0.borrow().begun.clone()
    }
}

fn submit(submitter: &Submitter<u64, u64, String>, items: std::ops::Range<u64>) {
    items.for_each(|item| submitter.submit(item).unwrap());
}

/// Polls twice, as the first poll may only have yielded.
fn poll<F: Future>(future: &mut Pin<Box<F>>) -> Option<F::Output> {
    future.as_mut().now_or_never().or_else(|| future.as_mut().now_or_never())
}

/// As many handlers run as are allowed, in order of their batches, and one more begins with each
/// that ends. The account is exact, with a handler that panics too.
#[test]
fn handlers_run_up_to_bound() {
    for most in [1, 2, 3, 5, 9] {
        let (exporter, gate) = (Exporter::default(), Gate::default());
        let (submitter, mut processor) = of_two(most, &exporter);
        submit(&submitter, 0..10);
        submitter.close();
        let mut run = Box::pin(processor.run_async(|batch| gate.clone().handle(batch)));
        for ended in 0..5 {
            assert!(poll(&mut run).is_none());
            let begun = (ended + most as u64).min(5);
            assert_eq!(gate.begun(), Vec::from_iter(1..=begun), "{most} at once, {ended} ended");
            let stats = submitter.stats();
            assert_eq!(
                (stats.succeeded() + stats.failed(), stats.in_flight()),
                (2 * ended, 2 * (begun - ended))
            );
            // The newest first.
            let open = &gate.0.borrow().open.clone();
            gate.open((1..=begun).rev().find(|number| !open.contains(number)).unwrap());
        }
        assert_eq!(poll(&mut run), Some(()));
        drop(run);
        let stats = submitter.stats();
        assert_eq!((stats.succeeded(), stats.failed(), stats.in_flight()), (8, 2, 0));
        assert_eq!(stats.queue().handler_panics(), 1);
        assert_eq!(exporter.spans().len(), 5);
        assert_eq!(gate.0.borrow().ended.len(), 5);
    }
}

/// A future that is dropped fails the items of all batches in flight, and of no other.
#[test]
fn cancelling_fails_batches_in_flight() {
    let exporter = Exporter::default();
    let (submitter, mut processor) = of_two(3, &exporter);
    let mut calls: Vec<_> = (0..8).map(|item| Box::pin(submitter.call(item))).collect();
    calls.iter_mut().for_each(|call| assert!(call.as_mut().now_or_never().is_none()));
    let gate = Gate::default();
    gate.open(2);
    let mut run = Box::pin(processor.run_async(|batch| gate.clone().handle(batch)));
    assert!(poll(&mut run).is_none());
    drop(run);
    // The second ended, and the fourth took its place.
    assert_eq!(gate.begun(), [1, 2, 3, 4]);
    let answers: Vec<_> = calls.into_iter().map(|call| call.now_or_never()).collect();
    let unanswered = Some(Err(CallError::Unanswered));
    let mut expected = vec![unanswered; 8];
    (expected[2], expected[3]) = (Some(Ok(20)), Some(Ok(30)));
    assert_eq!(answers, expected);
    submit(&submitter, 8..10);
    submitter.close();
    let rest = processor.run_async(|batch| async { batch.succeed_all(|item| *item) });
    assert_eq!(poll(&mut Box::pin(rest)), Some(()));
    let stats = submitter.stats();
    assert_eq!((stats.succeeded(), stats.failed(), stats.in_flight()), (4, 6, 0));
    assert_eq!(exporter.spans().len(), 5);
}

/// A flush waits for all batches that were in flight or queued, whatever the order of their ends.
#[tokio::test(start_paused = true)]
async fn flush_waits_for_all_batches() {
    let _watchdog = watchdog();
    let exporter = Exporter::default();
    let (submitter, mut processor) = of_two(2, &exporter);
    submit(&submitter, 0..7);
    let flush = async {
        let stats = submitter.flush_and_wait_async(Duration::from_secs(600)).await.unwrap();
        assert_eq!((stats.succeeded(), stats.in_flight()), (7, 0));
        submitter.close();
    };
    // Later batches are faster.
    let run = processor.run_async(|batch| async move {
        tokio::time::sleep(Duration::from_secs(20 / batch.number())).await;
        batch.succeed_all(|item| *item);
    });
    tokio::join!(flush, run);
}

/// One item of each batch is handled at the same time, and the items of a batch in order.
#[tokio::test]
async fn items_of_batches_take_turns() {
    let _watchdog = watchdog();
    let exporter = Exporter::default();
    let (submitter, mut processor) = of_two(2, &exporter);
    submit(&submitter, 0..6);
    submitter.close();
    let (handled, now) = (RefCell::new(Vec::new()), RefCell::new((0, 0)));
    processor
        .run_each_async(async |item, cx: Context| {
            {
                let (running, most) = &mut *now.borrow_mut();
                *running += 1;
                *most = (*most).max(*running);
            }
            handled.borrow_mut().push(item);
            yield_now().await;
            assert_eq!(Context::current().span().span_context(), cx.span().span_context());
            now.borrow_mut().0 -= 1;
            if item == 4 { Err("four".to_owned()) } else { Ok(item) }
        })
        .await;
    assert_eq!(now.into_inner(), (0, 2));
    assert_eq!(handled.into_inner(), [0, 2, 1, 3, 4, 5]);
    let stats = submitter.stats();
    assert_eq!((stats.succeeded(), stats.failed(), stats.in_flight()), (5, 1, 0));
    let spans = exporter.spans();
    let of = |name: &str| spans.iter().filter(|span| span.name == name).count();
    assert_eq!((of("batch"), of("process_item")), (3, 6));
}

/// A panic in the drop of a handler's future costs no other batch anything.
#[test]
fn panicking_future_drop_is_caught() {
    struct Bomb;
    impl Drop for Bomb {
        fn drop(&mut self) {
            std::panic::resume_unwind(Box::new("on purpose"));
        }
    }
    let exporter = Exporter::default();
    let (submitter, mut processor) = of_two(2, &exporter);
    submit(&submitter, 0..4);
    submitter.close();
    let handler = |batch: Batch<u64, u64, String>| {
        let bomb = Bomb;
        poll_fn(move |_| {
            let _ = &bomb;
            Poll::<()>::Pending
        })
        .then(move |()| async move { drop(batch) })
    };
    assert!(processor.run_async(handler).now_or_never().is_none());
    assert_eq!((submitter.stats().failed(), submitter.stats().in_flight()), (4, 0));
}
