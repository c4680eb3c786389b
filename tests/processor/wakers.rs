//! The wakers of tasks that wait for a result.

use super::support::*;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, Wake, Waker};

/// Counts its wake-ups.
#[derive(Default)]
struct Counted(AtomicU64);

impl Wake for Counted {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

/// Panics when it wakes.
struct BadWake;

impl Wake for BadWake {
    fn wake(self: Arc<Self>) {
        on_purpose();
    }
}

/// Panics when its last reference is dropped.
struct BadDrop;

impl Wake for BadDrop {
    fn wake(self: Arc<Self>) {}
}

impl Drop for BadDrop {
    fn drop(&mut self) {
        on_purpose();
    }
}

#[test]
fn answer_wakes_once() {
    let (_provider, tracer, _exporter) = telemetry();
    let (submitter, mut processor) = of_size(1, tracer);
    let counted = Arc::new(Counted::default());
    let waker = Waker::from(Arc::clone(&counted));
    let cx = &mut Context::from_waker(&waker);
    let mut call = pin!(submitter.call(1));
    assert!(call.as_mut().poll(cx).is_pending());
    processor.next_batch().unwrap().succeed_all(|n| n + 1);
    assert_eq!(counted.0.load(Ordering::Relaxed), 1);
    assert_eq!(call.as_mut().poll(cx), Poll::Ready(Ok(2)));
}

/// The last waker that polled is woken, and no former one is kept.
#[test]
fn moved_task_is_woken() {
    let (_provider, tracer, _exporter) = telemetry();
    let (submitter, mut processor) = of_size(1, tracer);
    let (former, last) = (Arc::new(Counted::default()), Arc::new(Counted::default()));
    let mut call = pin!(submitter.call(1));
    for counted in [&former, &last] {
        let waker = Waker::from(Arc::clone(counted));
        assert!(call.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
    }
    assert_eq!(Arc::strong_count(&former), 1);
    processor.next_batch().unwrap().succeed_all(|n| n + 1);
    let woken = [&former, &last].map(|counted| counted.0.load(Ordering::Relaxed));
    assert_eq!(woken, [0, 1]);
    assert_eq!(call.as_mut().poll(&mut Context::from_waker(Waker::noop())), Poll::Ready(Ok(2)));
}

/// A waker keeps its task's memory: it goes with the future, not with the item.
#[test]
fn leaving_caller_takes_waker() {
    let (_provider, tracer, _exporter) = telemetry();
    let (submitter, mut processor) = of_size(1, tracer);
    let counted = Arc::new(Counted::default());
    let mut call = Box::pin(submitter.call(1));
    {
        let waker = Waker::from(Arc::clone(&counted));
        assert!(call.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
    }
    drop(call);
    assert_eq!(Arc::strong_count(&counted), 1);
    let batch = processor.next_batch().unwrap();
    assert!(!batch.items()[0].is_awaited());
    batch.succeed_all(|n| *n);
    assert_eq!(counted.0.load(Ordering::Relaxed), 0);
}

/// A refused call wakes no task.
#[test]
fn refused_call_wakes_no_task() {
    let (_provider, tracer, _exporter) = telemetry();
    let (submitter, _processor) = of_size(1, tracer);
    submitter.close();
    let counted = Arc::new(Counted::default());
    let waker = Waker::from(Arc::clone(&counted));
    let poll = pin!(submitter.call(1)).poll(&mut Context::from_waker(&waker));
    assert!(poll.is_ready());
    assert_eq!(counted.0.load(Ordering::Relaxed), 0);
}

/// Neither the handler nor another caller sees a waker's panic.
#[test]
fn waker_panics_cost_no_answer() {
    let (_provider, tracer, _exporter) = telemetry();
    let (submitter, mut processor) = of_size(4, tracer);
    let mut calls: Vec<_> = (0..4).map(|n| Box::pin(submitter.call(n))).collect();
    let wakers =
        [Waker::from(Arc::new(BadWake)), Arc::new(BadDrop).into(), Arc::new(BadDrop).into()];
    for (call, waker) in calls.iter_mut().zip(wakers.into_iter().chain([Waker::noop().clone()])) {
        assert!(call.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
        // The call has the last reference.
        drop(waker);
    }
    let noop = &mut Context::from_waker(Waker::noop());
    // One task is polled with another waker, one leaves.
    assert!(calls[1].as_mut().poll(noop).is_pending());
    drop(calls.remove(2));
    processor.next_batch().unwrap().succeed_all(|n| *n);
    for (mut call, n) in calls.into_iter().zip([0, 1, 3]) {
        assert_eq!(call.as_mut().poll(noop), Poll::Ready(Ok(n)));
    }
    assert_eq!(submitter.stats().succeeded(), 4);
}
