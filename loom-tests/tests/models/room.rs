//! Producers that wait for room: `src/room.rs`.

use batchlink::{Flusher, LinkCollector, PushError};
use batchlink_loom_tests::{NEVER, block_on, check, collector, cx, drain, ids, spawn};
use std::pin::pin;
use std::task::{Context, Waker};

/// One slot, taken.
fn full() -> (LinkCollector, Flusher) {
    let (collector, flusher) = collector(1, 1, 1, NEVER);
    collector.push(&cx(1)).unwrap();
    (collector, flusher)
}

/// Join before attempt: room that is made between the two is found, or wakes.
#[test]
fn waiting_thread_finds_the_room() {
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
fn waiting_task_finds_the_room() {
    check(3, || {
        let (collector, mut flusher) = full();
        let waits = spawn(collector, |collector| block_on(collector.push_wait_async(&cx(2))).unwrap());
        assert_eq!(ids(&flusher.next_batch().unwrap()), [1]);
        waits.join().unwrap();
        assert_eq!(drain(&mut flusher), [2]);
    });
}

/// Room for one wakes both; who finds none waits on, and is woken again.
#[test]
fn everybody_in_line_gets_in() {
    check(2, || {
        let (collector, mut flusher) = full();
        let waits =
            [2, 3].map(|id| spawn(collector.clone(), move |collector| collector.push_wait(&cx(id)).unwrap()));
        let mut taken: Vec<u64> = (0..3).flat_map(|_| ids(&flusher.next_batch().unwrap())).collect();
        for waits in waits {
            waits.join().unwrap();
        }
        taken.sort_unstable();
        assert_eq!(taken, [1, 2, 3]);
    });
}

/// A wait that was given up does not use up the wake of another.
#[test]
fn who_gives_up_wastes_no_wake() {
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

/// Close ends every wait.
#[test]
fn close_ends_the_wait() {
    check(3, || {
        let (collector, flusher) = full();
        let waits = spawn(collector.clone(), |collector| collector.push_wait(&cx(2)));
        drop(flusher);
        assert_eq!(waits.join().unwrap().0, Err(PushError::Closed));
    });
}
