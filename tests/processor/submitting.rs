//! `Submitter`: order, links, handles, and the calls that must not wait.

use super::common::*;
use batchlink::processor::{Batch, BatchProcessor, BatchProcessorBuilder, CallError, Submitter};
use batchlink::{FlushError, LinkCollector, PushError, Trigger};
use opentelemetry::Context;
use opentelemetry::trace::noop::NoopTracer;
use opentelemetry::trace::{SpanContext, TraceContextExt};
use std::panic::resume_unwind;
use std::pin::{Pin, pin};
use std::sync::mpsc;
use std::task::{self, Poll, Waker};
use std::thread;
use std::time::Duration;

type Text = &'static str;
type Processor = BatchProcessor<u64, u64, Text>;
type Numbers = (Submitter<u64, u64, Text>, Processor);

fn builder() -> BatchProcessorBuilder<u64, u64, Text> {
    BatchProcessor::builder("batch")
}

/// Batches of `size` that only size can trigger.
fn of_size(size: usize) -> BatchProcessorBuilder<u64, u64, Text> {
    builder().with_max_batch_size(size).with_max_delay(NEVER)
}

fn build(builder: BatchProcessorBuilder<u64, u64, Text>) -> Numbers {
    builder.build(NoopTracer::new()).expect("valid")
}

fn payloads(batch: &Batch<u64, u64, Text>) -> Vec<u64> {
    batch.payloads().copied().collect()
}

/// What is pending, as one batch, whose items are dropped.
fn pending(processor: &mut Processor) -> Vec<u64> {
    processor.try_next().map(|batch| payloads(&batch)).unwrap_or_default()
}

fn poll<F: Future>(future: Pin<&mut F>) -> Poll<F::Output> {
    future.poll(&mut task::Context::from_waker(Waker::noop()))
}

/// Yields once.
async fn yield_now() {
    let mut yielded = false;
    std::future::poll_fn(|_| {
        if std::mem::replace(&mut yielded, true) { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
}

/// A runtime may poll a task on another thread after each await. Threads differ in their shard.
#[test]
fn producer_keeps_task_order() {
    const ITEMS: u64 = 64;
    let (submitter, mut processor) = build(of_size(ITEMS as usize).with_shards(4));
    let producer = submitter.producer();
    let mut task = pin!(async {
        for n in 0..ITEMS {
            producer.submit_wait_async(n).await.unwrap();
            yield_now().await;
        }
    });
    while thread::scope(|scope| scope.spawn(|| poll(task.as_mut())).join()).unwrap().is_pending() {}
    assert!(pending(&mut processor).into_iter().eq(0..ITEMS));
}

/// The items that are accepted if each is submitted by a clone on a new thread.
fn accepted_by_threads(submitter: &Submitter<u64, u64, Text>) -> Vec<u64> {
    let on_thread = |n: &u64| {
        let clone = submitter.clone();
        thread::scope(|scope| scope.spawn(|| clone.submit(*n).is_ok()).join()).unwrap()
    };
    (0..16).filter(on_thread).collect()
}

/// A producer and its clones share one shard; the next producer has the next shard.
#[test]
fn producers_have_one_shard() {
    let (submitter, mut processor) = build(of_size(4).with_shards(2).with_queue_capacity(8));
    for producer in [submitter.producer(), submitter.producer()] {
        assert_eq!(accepted_by_threads(&producer), [0, 1, 2, 3], "the slots of one shard");
    }
    assert_eq!([pending(&mut processor), pending(&mut processor)], [[0, 1, 2, 3], [0, 1, 2, 3]]);
}

fn in_span<R>(context: SpanContext, act: impl FnOnce() -> R) -> R {
    let _current = Context::new().with_remote_span_context(context).attach();
    act()
}

/// The span is that of the call, wherever its future is awaited; without one it is that of the
/// first poll.
#[test]
fn call_links_its_own_span() {
    fn assert_send<F: Send>(future: F) -> F {
        future
    }
    let (submitter, mut processor) = build(of_size(8).with_shards(1));
    let mut call = pin!(in_span(context(1), || assert_send(submitter.call(1))));
    let mut call_wait = pin!(in_span(context(2), || assert_send(submitter.call_wait(2))));
    let mut submit = pin!(in_span(context(3), || assert_send(submitter.submit_wait_async(3))));
    let mut given = pin!(assert_send(submitter.call_with_context(4, &context(4))));
    let mut outside = pin!(submitter.call(5));
    let mut nowhere = pin!(submitter.call(6));
    in_span(context(6), || {
        assert!(poll(call.as_mut()).is_pending());
        assert!(poll(call_wait.as_mut()).is_pending());
        assert!(matches!(poll(submit.as_mut()), Poll::Ready(Ok(()))));
        assert!(poll(given.as_mut()).is_pending());
        assert!(poll(outside.as_mut()).is_pending());
    });
    assert!(poll(nowhere.as_mut()).is_pending());
    in_span(context(7), || assert!(poll(nowhere.as_mut()).is_pending()));
    let batch = processor.try_next().unwrap();
    let linked: Vec<_> = batch.items().iter().map(|item| item.span_context().clone()).collect();
    assert_eq!(
        linked,
        [context(1), context(2), context(3), context(4), context(6), SpanContext::NONE]
    );
    batch.succeed_all(|n| n * 10);
    assert_eq!(poll(call), Poll::Ready(Ok(10)));
    assert_eq!(poll(call_wait), Poll::Ready(Ok(20)));
}

/// A call is a future: it does nothing until it is polled.
#[test]
fn unpolled_call_submits_nothing() {
    let (submitter, _processor) = build(of_size(1));
    drop(submitter.call(1));
    drop(submitter.call_wait(2));
    drop(submitter.submit_wait_async(3));
    assert_eq!(submitter.stats().queue().pushed(), 0);
}

/// The handler calls, submits and waits for room in every way; what it got is sent out.
#[test]
fn own_handler_is_refused() {
    let _watchdog = watchdog();
    let (submitter, mut processor) = build(of_size(1).with_shards(1).with_queue_capacity(1));
    let own = submitter.clone();
    let calls = move |n: u64| {
        assert_eq!(own.call_blocking(n), Err(CallError::OwnHandler));
        assert_eq!(own.call_blocking_timeout(n, NEVER), Err(CallError::OwnHandler));
        assert_eq!(poll(pin!(own.call(n))), Poll::Ready(Err(CallError::OwnHandler)));
        assert_eq!(
            poll(pin!(own.call_with_context(n, &context(1)))),
            Poll::Ready(Err(CallError::OwnHandler))
        );
        assert_eq!(poll(pin!(own.call_wait(n))), Poll::Ready(Err(CallError::OwnHandler)));
        // There is room for one.
        assert_eq!(own.submit_wait(n).map_err(|refused| refused.reason()), Ok(()));
        assert_eq!(own.submit_wait(n).unwrap_err().reason(), PushError::Full);
        assert_eq!(own.submit_wait_timeout(n, NEVER).unwrap_err().reason(), PushError::Full);
        let waits = poll(pin!(own.submit_wait_async(n)));
        assert_eq!(waits.map_err(|refused| refused.reason()), Poll::Ready(Err(PushError::Full)));
        own.close();
    };
    submitter.submit(0).unwrap();
    let mut handled = 0;
    processor.run(|batch| {
        handled += 1;
        if handled == 1 {
            calls(1);
        }
        batch.succeed_all(|n| *n);
    });
    assert_eq!(handled, 2);
    let stats = submitter.stats();
    assert_eq!(
        (stats.succeeded(), stats.queue().rejected_full(), stats.queue().handler_panics()),
        (2, 3, 0)
    );
}

#[test]
fn own_item_handler_is_refused() {
    let (submitter, mut processor) = build(of_size(1));
    submitter.submit(1).unwrap();
    let own = submitter.clone();
    submitter.close();
    let mut refused = None;
    processor.run_each(|n, _| {
        refused = own.call_blocking(n).err();
        Ok(n)
    });
    assert_eq!(refused, Some(CallError::OwnHandler));
}

/// The handler of one processor runs another: both wait for what the inner handler waits for.
#[test]
fn nested_handler_is_refused() {
    let [(outer, mut outer_processor), (inner, mut inner_processor)] =
        [(); 2].map(|()| build(of_size(1)));
    outer.submit(1).unwrap();
    inner.submit(1).unwrap();
    inner.close();
    let own = outer.clone();
    outer.close();
    let mut refused = Vec::new();
    outer_processor.run(|_| {
        inner_processor.run(|_| refused.extend([&own, &inner].map(|own| poll(pin!(own.call(2))))));
        refused.extend([&own, &inner].map(|own| poll(pin!(own.call(2)))));
    });
    let (own, other) =
        (Poll::Ready(Err(CallError::OwnHandler)), Poll::Ready(Err(CallError::Closed)));
    assert_eq!(refused, [own, own, own, other]);
}

/// It is another one that would have to answer, and it can.
#[test]
fn handler_calls_other_processor() {
    let _watchdog = watchdog();
    let (inner, inner_processor) = build(of_size(1));
    let inner_handle = inner_processor.spawn(|batch| batch.succeed_all(|n| n + 1)).unwrap();
    let (outer, outer_processor) = build(of_size(1));
    let outer_handle = outer_processor.spawn(move |batch| {
        let results: Vec<_> = batch.payloads().map(|n| inner.call_blocking(*n)).collect();
        batch.complete(results.into_iter().map(|result| result.map_err(|_| "inner")));
    });
    assert_eq!(outer.call_blocking(1), Ok(2));
    outer_handle.unwrap().shutdown().unwrap();
    inner_handle.shutdown().unwrap();
}

/// After a handler, and after one that panicked, its thread calls like any other.
#[test]
fn thread_calls_after_handler() {
    let _watchdog = watchdog();
    let (submitter, mut processor) = build(of_size(1));
    (0..2).for_each(|n| submitter.submit(n).unwrap());
    submitter.close();
    processor.run(|batch| {
        if batch.number() == 1 {
            resume_unwind(Box::new("on purpose"));
        }
        batch.succeed_all(|n| *n);
    });
    assert_eq!(submitter.call_blocking(1), Err(CallError::Closed));
}

/// A handler that keeps one, to submit again what failed, does not keep the processor open.
#[test]
fn weak_submitter_lets_close() {
    let _watchdog = watchdog();
    let (submitter, mut processor) = build(of_size(1));
    let weak = submitter.downgrade();
    assert!(format!("{weak:?}").starts_with("WeakSubmitter { stats: ProcessorStats {"));
    let strong = weak.upgrade().expect("one is left");
    drop(submitter);
    strong.submit(3).expect("an upgraded one keeps it open");
    let mut tried = Vec::new();
    let mut strong = Some(strong);
    processor.run(|batch| {
        for item in batch {
            let n = *item.payload();
            tried.push(n);
            match weak.clone().upgrade().filter(|_| n > 1) {
                Some(submitter) => submitter.submit(n - 1).unwrap(),
                None => strong = None,
            }
            item.fail("tried again");
        }
    });
    assert_eq!(tried, [3, 2, 1]);
    assert!(weak.upgrade().is_none(), "the last one was dropped");
    assert_eq!((weak.stats().failed(), weak.stats().queue().received()), (3, 3));
}

/// Like the submitter that it was made from.
#[test]
fn weak_producer_keeps_shard() {
    let (submitter, mut processor) = build(of_size(4).with_shards(2).with_queue_capacity(8));
    let producer = submitter.producer().downgrade().upgrade().unwrap();
    assert_eq!(accepted_by_threads(&producer), [0, 1, 2, 3]);
    assert_eq!(pending(&mut processor), [0, 1, 2, 3]);
}

/// Whatever came while the last batch was processed is the next one; and a single item does not
/// wait.
#[test]
fn default_batch_does_not_wait() {
    let due = |processor: &mut Processor| {
        let batch = processor.next_batch_timeout(Duration::ZERO).expect("due").expect("open");
        assert_eq!(batch.trigger(), Trigger::Timeout);
        payloads(&batch)
    };
    let of_collector = builder().with_config(LinkCollector::builder().with_shards(1));
    for builder in [builder().with_shards(1), of_collector] {
        let (submitter, mut processor) = build(builder);
        submitter.submit(0).unwrap();
        assert_eq!(due(&mut processor), [0]);
        (1..=8).for_each(|n| submitter.submit(n).unwrap());
        assert_eq!(due(&mut processor), [1, 2, 3, 4, 5, 6, 7, 8]);
    }
    let of_collector = builder().with_config(LinkCollector::builder().with_max_delay(NEVER));
    let (submitter, mut processor) = build(of_collector);
    submitter.submit(0).unwrap();
    assert!(processor.next_batch_timeout(Duration::ZERO).is_err(), "the delay that was set");
}

/// The item is accepted and gets a batch to itself, like one that is heavier than a batch.
#[test]
fn panicking_weight_goes_alone() {
    let weigh = |n: &u64| if *n == 3 { resume_unwind(Box::new("on purpose")) } else { 1 };
    let (submitter, mut processor) =
        build(of_size(100).with_shards(1).with_max_batch_weight(10, weigh));
    (1..=5).for_each(|n| submitter.submit(n).unwrap());
    submitter.close();
    let mut batches = Vec::new();
    processor.run(|batch| {
        batches.push((batch.trigger(), payloads(&batch)));
        batch.succeed_all(|n| *n);
    });
    assert_eq!(
        batches,
        [
            (Trigger::Weight, vec![1, 2]),
            (Trigger::Weight, vec![3]),
            (Trigger::Shutdown, vec![4, 5])
        ]
    );
}

/// Taken and not ended: in a batch, in parts that were not given out, or in another thread's hands.
#[test]
fn items_in_flight_are_counted() {
    let (submitter, mut processor) = build(of_size(4).with_shards(1).with_key(|n| n % 2));
    (0..5).for_each(|n| submitter.submit(n).unwrap());
    let in_flight = || (submitter.stats().queue().pending(), submitter.stats().in_flight());
    assert_eq!(in_flight(), (5, 0));
    let mut even = processor.try_next().unwrap().into_iter();
    assert_eq!(in_flight(), (1, 4));
    even.next().unwrap().succeed(0);
    assert_eq!(in_flight(), (1, 3));
    even.next().unwrap().fail("odd, for an even one");
    drop(processor.try_next());
    assert_eq!(in_flight(), (1, 0));
    drop(processor);
    assert_eq!(in_flight(), (0, 0));
}

/// Of every part of what was taken, wherever the answers are given.
#[test]
fn flush_waits_for_answers() {
    let _watchdog = watchdog();
    let (submitter, mut processor) = build(of_size(9).with_shards(1).with_key(|n| n % 2));
    let flushed = |timeout| {
        submitter.flush_and_wait(timeout).map(|stats| (stats.succeeded(), stats.failed()))
    };
    let missing = |pending, in_flight| Err(FlushError::Timeout { pending, in_flight });
    assert_eq!(flushed(NEVER), Ok((0, 0)), "nothing to wait for");
    (0..3).for_each(|n| submitter.submit(n).unwrap());
    assert_eq!(flushed(Duration::ZERO), missing(3, 0));
    let [even, odd] = [(); 2].map(|()| processor.next_batch().unwrap());
    assert_eq!((even.trigger(), even.len(), odd.len()), (Trigger::Manual, 2, 1));
    assert_eq!(flushed(Duration::ZERO), missing(0, 3));
    even.succeed_all(|n| *n);
    assert_eq!(flushed(Duration::ZERO), missing(0, 3), "the other part has not ended");
    thread::spawn(|| odd.fail_all(|_| "odd"));
    assert_eq!(flushed(NEVER), Ok((2, 1)));
}

/// What was left in the queue is lost, though it was taken to be dropped.
#[test]
fn flush_of_dropped_processor_fails() {
    let (submitter, processor) = build(of_size(9));
    submitter.submit(1).unwrap();
    drop(processor);
    assert_eq!(submitter.flush_and_wait(NEVER), Err(FlushError::Closed { pending: 1 }));
    assert_eq!(submitter.stats().failed(), 1);
}

#[test]
fn flush_in_own_handler_fails() {
    let _watchdog = watchdog();
    let (submitter, mut processor) = build(of_size(1));
    submitter.submit(1).unwrap();
    let own = submitter.clone();
    submitter.close();
    let mut flushed = Vec::new();
    processor.run(|batch| {
        flushed.push(own.flush_and_wait(NEVER));
        let flush = pin!(own.flush_and_wait_async(NEVER));
        flushed.extend(match poll(flush) {
            Poll::Ready(flushed) => Some(flushed),
            Poll::Pending => None,
        });
        batch.succeed_all(|n| *n);
    });
    let missing = Err(FlushError::Timeout { pending: 0, in_flight: 1 });
    assert_eq!(flushed, [missing, missing]);
}

/// Calls on threads of a runtime: where blocking would stop tasks it is refused.
#[cfg(feature = "tokio")]
mod runtimes {
    use super::*;
    use std::sync::Arc;
    use tokio::task::{block_in_place, spawn, spawn_blocking};

    fn refuses(submitter: &Submitter<u64, u64, Text>) {
        assert_eq!(submitter.call_blocking(1), Err(CallError::AsyncContext));
        assert_eq!(submitter.call_blocking_timeout(1, NEVER), Err(CallError::AsyncContext));
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 1)]
    async fn blocking_call_in_task_refused() {
        let _watchdog = watchdog();
        let (submitter, processor) = build(of_size(1));
        let handle = processor.spawn(|batch| batch.succeed_all(|n| n + 1)).unwrap();
        refuses(&submitter);
        let in_task = submitter.clone();
        spawn(async move { refuses(&in_task) }).await.unwrap();
        assert_eq!(submitter.stats().queue().pushed(), 0);
        // Where the runtime expects a thread to block it is answered.
        let blocking = submitter.clone();
        assert_eq!(spawn_blocking(move || blocking.call_blocking(1)).await.unwrap(), Ok(2));
        assert_eq!(block_in_place(|| submitter.call_blocking(2)), Ok(3));
        assert_eq!(submitter.call(3).await, Ok(4));
        spawn_blocking(move || handle.shutdown()).await.unwrap().unwrap();
    }

    /// There is no thread but this one that could make room.
    #[tokio::test]
    async fn blocking_wait_in_task_refused() {
        let _watchdog = watchdog();
        let (submitter, mut processor) = build(of_size(1).with_shards(1).with_queue_capacity(1));
        submitter.submit_wait(1).expect("there is room");
        assert_eq!(submitter.submit_wait(2).unwrap_err().reason(), PushError::Full);
        let refused = submitter.submit_wait_timeout(2, NEVER).unwrap_err();
        assert_eq!((refused.reason(), refused.into_item()), (PushError::Full, 2));
        assert_eq!(submitter.stats().queue().rejected_full(), 2);
        // In a blocking section it waits until there is room.
        let waits = submitter.clone();
        let waits = spawn_blocking(move || waits.submit_wait(3));
        while pending(&mut processor) != [3] {
            tokio::task::yield_now().await;
        }
        assert_eq!(waits.await.unwrap().map_err(|refused| refused.reason()), Ok(()));
    }

    /// A handler's future is its own handler at every poll, and a task that it starts is not.
    #[tokio::test]
    async fn own_async_handler_is_refused() {
        let _watchdog = watchdog();
        let (submitter, mut processor) = build(of_size(1));
        let (own, (told, tells)) = (Arc::new(submitter.downgrade()), mpsc::channel());
        let run = spawn(async move {
            processor
                .run_async(|batch| {
                    let (own, told) = (own.upgrade().expect("open"), told.clone());
                    async move {
                        told.send(own.call(1).await).unwrap();
                        tokio::task::yield_now().await;
                        told.send(own.call_wait(1).await).unwrap();
                        if batch.number() == 1 {
                            spawn(async move { told.send(own.call(2).await).unwrap() });
                        }
                        batch.succeed_all(|n| n + 1);
                    }
                })
                .await;
            processor
        });
        assert_eq!(submitter.call(5).await, Ok(6));
        let told: Vec<_> =
            tokio::task::spawn_blocking(move || tells.into_iter().take(5).collect()).await.unwrap();
        let refused = Err(CallError::OwnHandler);
        assert_eq!(told, [refused, refused, refused, refused, Ok(3)]);
        drop(submitter);
        let mut processor = run.await.unwrap();
        assert!(processor.next().await.is_none());
    }
}
