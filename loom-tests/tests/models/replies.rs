//! The way back to callers, and the end of a batch: `src/processor/`.

use batchlink::{
    Trigger,
    processor::{BatchProcessor, CallError, Submitter},
};
use batchlink_loom_tests::{Alarm, NEVER, block_on, check, spawn};
use loom::thread;
use opentelemetry::trace::SpanContext;
use opentelemetry::trace::noop::NoopTracer;
use std::convert::Infallible;
use std::sync::Arc;
use std::task::Context;
use std::time::Duration;

type Pair = (Submitter<u64, u64, Infallible>, BatchProcessor<u64, u64, Infallible>);

/// One shard, batches of `size`, or of this weight if an item weighs what it is.
fn processor(size: usize, weight: Option<u64>) -> Pair {
    let mut builder = BatchProcessor::builder("batch")
        .with_max_batch_size(size)
        .with_queue_capacity(size)
        .with_max_delay(NEVER)
        .with_shards(1)
        .with_max_links(1);
    if let Some(weight) = weight {
        builder = builder.with_max_batch_weight(weight, |n| *n);
    }
    builder.build(NoopTracer::new()).expect("a valid configuration")
}

/// A calling thread gets its own item's result, and finds the item counted.
#[test]
fn caller_gets_its_answer() {
    check(3, || {
        let (submitter, mut processor) = processor(1, None);
        let call = spawn(submitter, |submitter| {
            let result = submitter.call_blocking(7);
            (result, submitter.stats().succeeded())
        });
        processor.next_batch().unwrap().succeed_all(|n| n + 1);
        assert_eq!(call.join().unwrap().0, (Ok(8), 1));
    });
}

/// So does a task.
#[test]
fn task_gets_its_answer() {
    check(2, || {
        let (submitter, mut processor) = processor(1, None);
        let call = spawn(submitter, |submitter| {
            block_on(submitter.call_with_context(7, &SpanContext::NONE))
        });
        processor.next_batch().unwrap().succeed_all(|n| n + 1);
        assert_eq!(call.join().unwrap().0, Ok(8));
    });
}

/// A caller whose item is dropped gets an answer, too, after the item was counted.
#[test]
fn dropped_item_answers_its_caller() {
    check(3, || {
        let (submitter, mut processor) = processor(1, None);
        let call = spawn(submitter, |submitter| {
            let result = submitter.call_blocking(7);
            (result, submitter.stats().failed())
        });
        drop(processor.next_batch().unwrap());
        assert_eq!(call.join().unwrap().0, (Err(CallError::Unanswered), 1));
    });
}

/// A task that is polled with another waker, as one that moves between threads may be, is woken by
/// that one, or finds its answer.
#[test]
fn moved_task_is_woken() {
    check(3, || {
        let (submitter, mut processor) = processor(1, None);
        let call = spawn(submitter, |submitter| {
            let mut call = Box::pin(submitter.call(7));
            let former = Alarm::new().into();
            let _ = call.as_mut().poll(&mut Context::from_waker(&former));
            block_on(call)
        });
        processor.next_batch().unwrap().succeed_all(|n| n + 1);
        assert_eq!(call.join().unwrap().0, Ok(8));
    });
}

/// Submits an item in a task that leaves after its first poll. Returns its waker.
fn leave(submitter: &Submitter<u64, u64, Infallible>) -> Arc<Alarm> {
    let alarm = Alarm::new();
    let waker = Arc::clone(&alarm).into();
    let _ = Box::pin(submitter.call(7)).as_mut().poll(&mut Context::from_waker(&waker));
    alarm
}

/// A task that leaves while it is answered costs no other its answer: the item is counted, the
/// reply and the waker are freed.
#[test]
fn caller_leaves_while_answered() {
    check(3, || {
        let (submitter, mut processor) = processor(1, None);
        let call = spawn(submitter, leave);
        processor.next_batch().unwrap().succeed_all(|n| *n);
        let (waker, submitter) = call.join().unwrap();
        assert_eq!((submitter.stats().succeeded(), Arc::strong_count(&waker)), (1, 1));
    });
}

/// So they are if it leaves while its item is dropped.
#[test]
fn caller_leaves_while_dropped() {
    check(3, || {
        let (submitter, mut processor) = processor(1, None);
        let call = spawn(submitter, leave);
        drop(processor.next_batch().unwrap());
        let (waker, submitter) = call.join().unwrap();
        assert_eq!((submitter.stats().failed(), Arc::strong_count(&waker)), (1, 1));
    });
}

/// A call that races the processor's drop is answered: closed.
#[test]
fn caller_races_the_end() {
    check(3, || {
        let (submitter, processor) = processor(1, None);
        let call = spawn(submitter, |submitter| submitter.call_blocking(7));
        drop(processor);
        assert_eq!(call.join().unwrap().0, Err(CallError::Closed));
    });
}

/// A handler that has a batch when everything closes still answers for it.
#[test]
fn batch_outlives_its_processor() {
    check(3, || {
        let (submitter, mut processor) = processor(1, None);
        let call = spawn(submitter, |submitter| submitter.call_blocking(7));
        let batch = processor.next_batch().unwrap();
        let work = thread::spawn(move || batch.succeed_all(|n| *n));
        drop(processor);
        work.join().unwrap();
        assert_eq!(call.join().unwrap().0, Ok(7));
    });
}

/// Items of one batch are answered on two threads, one of them by its drop. Both are counted, and
/// the last answer ends the span.
#[test]
fn last_answer_sees_the_other() {
    check(3, || {
        let (submitter, mut processor) = processor(2, None);
        submitter.submit(1).unwrap();
        submitter.submit(2).unwrap();
        let mut items = processor.next_batch().unwrap().into_iter();
        let other = items.next().unwrap();
        let other = thread::spawn(move || other.succeed(0));
        drop(items);
        other.join().unwrap();
        let stats = submitter.stats();
        assert_eq!((stats.succeeded(), stats.failed()), (1, 1));
    });
}

/// The submission that completes the weight wakes the processor, which finds it all published.
#[test]
fn two_submitters_complete_the_weight() {
    check(2, || {
        let (submitter, mut processor) = processor(4, Some(3));
        let threads = [1, 2].map(|weight| {
            spawn(submitter.clone(), move |submitter| submitter.submit(weight).unwrap())
        });
        let batch = processor.next_batch().unwrap();
        assert_eq!((batch.len(), batch.trigger()), (2, Trigger::Weight));
        drop(batch);
        for thread in threads {
            thread.join().unwrap();
        }
    });
}

/// An item that weighs enough by itself is found behind one that is claimed and not yet published,
/// though the publication of that one crosses no limit.
#[test]
fn weight_behind_claim_is_found() {
    check(1, || {
        let (submitter, mut processor) = processor(4, Some(3));
        let threads = [3, 3].map(|weight| {
            spawn(submitter.clone(), move |submitter| submitter.submit(weight).unwrap())
        });
        for _ in 0..2 {
            let batch = processor.next_batch().unwrap();
            assert_eq!((batch.len(), batch.trigger()), (1, Trigger::Weight));
        }
        for thread in threads {
            thread.join().unwrap();
        }
    });
}

/// A weight that a processor finds without a wake-up is one of published items.
#[test]
fn what_weighs_enough_is_published() {
    check(3, || {
        let (submitter, mut processor) = processor(4, Some(2));
        let poll = thread::spawn(move || {
            let found = processor.next_batch_timeout(Duration::ZERO);
            if let Ok(batch) = found {
                let batch = batch.unwrap();
                assert_eq!((batch.len(), batch.trigger()), (2, Trigger::Weight));
            }
            processor
        });
        let other = spawn(submitter.clone(), |submitter| submitter.submit(1).unwrap());
        submitter.submit(1).unwrap();
        other.join().unwrap();
        poll.join().unwrap();
    });
}

/// An item left behind by a heavy one has its own trigger.
#[test]
fn weight_left_behind_fires_again() {
    check(2, || {
        let (submitter, mut processor) = processor(4, Some(2));
        let pushes =
            spawn(submitter, |submitter| [2, 2].map(|weight| submitter.submit(weight).unwrap()));
        for _ in 0..2 {
            let batch = processor.next_batch().unwrap();
            assert_eq!((batch.len(), batch.trigger()), (1, Trigger::Weight));
        }
        pushes.join().unwrap();
    });
}
