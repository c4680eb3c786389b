//! Producers that wait for a slot: `src/queue/waiters.rs`.

use batchlink::{Flusher, LinkCollector, PushError};
use batchlink_loom_tests::{Alarm, NEVER, block_on, check, collector, cx, drain, ids, spawn};
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Waker};

/// One slot, taken.
fn full() -> (LinkCollector, Flusher) {
    let (collector, flusher) = collector(1, 1, 1, NEVER);
    collector.push(&cx(1)).unwrap();
    (collector, flusher)
}

/// A slot that is freed between registration and retry is found, or wakes (invariant
/// `register-before-retry`).
#[test]
fn waiting_thread_finds_slot() {
    check(3, || {
        let (collector, mut flusher) = full();
        let waits = spawn(collector, |collector| collector.push_wait(&cx(2)).unwrap());
        assert_eq!(ids(&flusher.next_batch().unwrap()), [1]);
        waits.join().unwrap();
        assert_eq!(drain(&mut flusher), [2]);
    });
}

/// The same for tasks.
#[test]
fn waiting_task_finds_slot() {
    check(3, || {
        let (collector, mut flusher) = full();
        let waits =
            spawn(collector, |collector| block_on(collector.push_wait_async(&cx(2))).unwrap());
        assert_eq!(ids(&flusher.next_batch().unwrap()), [1]);
        waits.join().unwrap();
        assert_eq!(drain(&mut flusher), [2]);
    });
}

/// A waiter that left before the slot was freed takes no wake-up.
#[test]
fn abandoned_wait_takes_no_wake() {
    check(2, || {
        let (collector, mut flusher) = full();
        let waits = spawn(collector.clone(), |collector| collector.push_wait(&cx(2)).unwrap());
        {
            let three = cx(3);
            let gives_up = pin!(collector.push_wait_async(&three));
            assert!(gives_up.poll(&mut Context::from_waker(Waker::noop())).is_pending());
        }
        assert_eq!(ids(&flusher.next_batch().unwrap()), [1]);
        waits.join().unwrap();
        assert_eq!(drain(&mut flusher), [2]);
    });
}

/// A waiter that is woken for the only slot and dropped passes the wake-up on (invariant
/// `wake-passes-on`); it was registered first, so the other is not woken by the flusher.
#[test]
fn dropped_waiter_passes_wake() {
    check(3, || {
        let (collector, mut flusher) = full();
        let alarm = Alarm::new();
        let two = cx(2);
        let waker = Arc::clone(&alarm).into();
        let mut dropped = Box::pin(collector.push_wait_async(&two));
        assert!(dropped.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
        let waits = spawn(collector.clone(), |collector| collector.push_wait(&cx(3)).unwrap());
        assert_eq!(ids(&flusher.next_batch().unwrap()), [1]);
        assert!(alarm.rung());
        drop(dropped);
        waits.join().unwrap();
        assert_eq!(drain(&mut flusher), [3]);
    });
}

/// As above, dropped while the flusher takes: before or after it is woken.
#[test]
fn drop_races_wake() {
    check(3, || {
        let (collector, flusher) = full();
        let two = cx(2);
        let mut dropped = Box::pin(collector.push_wait_async(&two));
        assert!(dropped.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
        let three = cx(3);
        let mut waits = Box::pin(collector.push_wait_async(&three));
        let alarm = Alarm::new();
        let waker = Arc::clone(&alarm).into();
        assert!(waits.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
        let takes = spawn_flusher(flusher);
        drop(dropped);
        let mut flusher = takes.join().unwrap();
        assert!(alarm.rung());
        assert!(waits.as_mut().poll(&mut Context::from_waker(&waker)).is_ready());
        assert_eq!(drain(&mut flusher), [3]);
    });
}

/// Takes the first batch on a thread of its own.
fn spawn_flusher(mut flusher: Flusher) -> loom::thread::JoinHandle<Flusher> {
    loom::thread::spawn(move || {
        assert_eq!(ids(&flusher.next_batch().unwrap()), [1]);
        flusher
    })
}

/// Two waiters, and one slot at a time: each gets one, whichever of them is woken first. A waiter
/// that pushes while it is registered could take two wake-ups for one push.
#[test]
fn two_waiters_one_slot() {
    check(2, || {
        let (collector, mut flusher) = full();
        let waits = spawn(collector.clone(), |collector| collector.push_wait(&cx(2)).unwrap());
        let three = cx(3);
        let mut polled = Box::pin(collector.push_wait_async(&three));
        let mut taken = Vec::new();
        while polled.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending() {
            taken.extend(ids(&flusher.next_batch().unwrap()));
        }
        while taken.len() < 3 {
            taken.extend(ids(&flusher.next_batch().unwrap()));
        }
        taken.sort_unstable();
        assert_eq!(taken, [1, 2, 3]);
        waits.join().unwrap();
    });
}

/// A waiter that pushes while it is registered, and is woken for the slot its own entry frees,
/// passes that wake-up on (invariant `wake-passes-on`).
#[test]
fn pushed_waiter_passes_wake() {
    check(3, || {
        let (collector, mut flusher) = full();
        let waits = spawn(collector.clone(), |collector| collector.push_wait(&cx(2)).unwrap());
        let (alarm, three) = (Alarm::new(), cx(3));
        let waker = Arc::clone(&alarm).into();
        let mut other = Box::pin(collector.push_wait_async(&three));
        let mut poll = || other.as_mut().poll(&mut Context::from_waker(&waker)).is_ready();
        assert!(!poll());
        assert_eq!(ids(&flusher.next_batch().unwrap()), [1]);
        if alarm.rung() && poll() {
            assert_eq!(ids(&flusher.next_batch().unwrap()), [3]);
            waits.join().unwrap();
        } else {
            assert_eq!(ids(&flusher.next_batch().unwrap()), [2]);
            waits.join().unwrap();
            assert!(alarm.rung());
            assert!(poll());
        }
        assert_eq!(drain(&mut flusher).len(), 1);
    });
}

/// A push that takes the slot a waiter was woken for leaves the waiter registered.
#[test]
fn overtaken_waiter_stays_registered() {
    check(1, || {
        let (collector, mut flusher) = full();
        let waits = spawn(collector.clone(), |collector| collector.push_wait(&cx(2)).unwrap());
        assert_eq!(ids(&flusher.next_batch().unwrap()), [1]);
        let overtakes = collector.push(&cx(3)).is_ok();
        let mut taken: Vec<_> = (0..1 + usize::from(overtakes))
            .flat_map(|_| ids(&flusher.next_batch().unwrap()))
            .collect();
        taken.sort_unstable();
        assert_eq!(taken, if overtakes { vec![2, 3] } else { vec![2] });
        waits.join().unwrap();
    });
}

/// Close wakes every waiter.
#[test]
fn close_wakes_all() {
    check(2, || {
        let (collector, flusher) = full();
        let waits = [2, 3]
            .map(|id| spawn(collector.clone(), move |collector| collector.push_wait(&cx(id))));
        drop(flusher);
        for wait in waits {
            assert_eq!(wait.join().unwrap().0, Err(PushError::Closed));
        }
    });
}
