//! The async flusher: `src/poll.rs`.

use batchlink::{Flusher, Producer, Trigger};
use batchlink_loom_tests::{Alarm, NEVER, block_on, check, collector, cx, ids, sorted, spawn};
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

/// A context that comes between registration and poll wakes the task (invariant
/// `register-before-poll`).
#[test]
fn register_races_wake() {
    check(3, || {
        let (collector, mut flusher) = collector(1, 2, 1, NEVER);
        let producer =
            spawn(collector, |collector| [1, 2].map(|id| collector.push(&cx(id)).unwrap()));
        for id in [1, 2] {
            let batch = block_on(flusher.next()).unwrap();
            assert_eq!((ids(&batch), batch.trigger()), (vec![id], Trigger::Size));
        }
        producer.join().unwrap();
    });
}

/// A wait that was polled and then cancelled loses nothing, neither a context nor a wake.
#[test]
fn cancelled_wait_loses_nothing() {
    check(3, || {
        let (collector, mut flusher) = collector(1, 2, 1, NEVER);
        let producer = spawn(collector, |collector| collector.push(&cx(1)).unwrap());
        let cancelled = {
            let next = pin!(flusher.next());
            next.poll(&mut Context::from_waker(Waker::noop()))
        };
        let batch = match cancelled {
            Poll::Ready(batch) => batch,
            Poll::Pending => block_on(flusher.next()),
        };
        assert_eq!(ids(&batch.unwrap()), [1]);
        producer.join().unwrap();
    });
}

/// Report after publish: a task woken for a complete batch finds it, and need not poll again.
#[test]
fn woken_task_finds_its_batch() {
    check(3, || {
        let (collector, mut flusher) = collector(1, 2, 1, NEVER);
        let alarm = Alarm::new();
        let waker = Arc::clone(&alarm).into();
        let mut poll = move || flusher.poll_next_batch(&mut Context::from_waker(&waker));
        assert!(poll().is_pending());
        let producer = spawn(collector, |collector| collector.push(&cx(1)).unwrap());
        if alarm.wait() {
            assert!(poll().is_ready());
        }
        producer.join().unwrap();
    });
}

/// Close wakes a task that waits.
#[test]
fn close_wakes_the_task() {
    check(3, || {
        let (collector, mut flusher) = collector(1, 2, 1, NEVER);
        let closing = spawn(collector, |collector| collector.close());
        assert!(block_on(flusher.next()).is_none());
        closing.join().unwrap();
    });
}

/// Flush wakes a task that waits.
#[test]
fn flush_wakes_the_task() {
    check(3, || {
        let (collector, mut flusher) = collector(4, 4, 1, NEVER);
        let asking = spawn(collector, |collector| {
            collector.push(&cx(1)).unwrap();
            collector.flush();
        });
        let batch = block_on(flusher.next()).unwrap();
        assert_eq!((ids(&batch), batch.trigger()), (vec![1], Trigger::Manual));
        asking.join().unwrap();
    });
}

/// A scan is suspended in the middle of telling the flusher (here: by its own waker, which is the
/// caller's code). Whatever others push meanwhile is delivered meanwhile: their reports leave
/// flags, and the flusher does not sleep while the limits may be old ones.
#[test]
fn suspended_scan_delays_no_push() {
    struct Suspend {
        flusher: Mutex<Flusher>,
        second: Producer,
    }
    impl Wake for Suspend {
        fn wake(self: Arc<Self>) {
            let mut flusher = self.flusher.lock().unwrap();
            let alarm = Alarm::new();
            let waker = Arc::clone(&alarm).into();
            let mut poll = || {
                flusher
                    .poll_next_batch(&mut Context::from_waker(&waker))
                    .map(|batch| ids(&batch.unwrap()))
            };
            assert_eq!(poll(), Poll::Ready(vec![1]));
            for id in 2..5 {
                assert_eq!(poll(), Poll::Pending);
                self.second.push(&cx(id)).unwrap();
                assert!(alarm.rung(), "asleep while {id} waits");
                assert_eq!(poll(), Poll::Ready(vec![id]));
            }
        }
    }
    check(0, || {
        let (collector, flusher) = collector(4, 4, 2, Duration::ZERO);
        let (first, second) = (collector.producer(), collector.producer());
        let suspend = Arc::new(Suspend { flusher: Mutex::new(flusher), second });
        let waker = Arc::clone(&suspend).into();
        let poll =
            suspend.flusher.lock().unwrap().poll_next_batch(&mut Context::from_waker(&waker));
        assert!(poll.is_pending());
        drop(waker);
        first.push(&cx(1)).unwrap();
        assert_eq!(collector.stats().received(), 4);
    });
}

/// As above, in a scan that tells of a complete batch. Until it sets the new limits, producers may
/// pass under the old ones unreported, so a flusher that has taken everything and sees the scan
/// must not sleep.
#[test]
fn flusher_awaits_suspended_scan() {
    struct Suspend {
        flusher: Mutex<Flusher>,
        second: Producer,
        /// Not shown to loom. (A panic in a waker is caught.)
        awake: AtomicBool,
    }
    impl Wake for Suspend {
        fn wake(self: Arc<Self>) {
            let mut flusher = self.flusher.lock().unwrap();
            let alarm = Alarm::new();
            let waker = Arc::clone(&alarm).into();
            let mut task = Context::from_waker(&waker);
            let Poll::Ready(Some(batch)) = flusher.poll_next_batch(&mut task) else {
                panic!("it is complete")
            };
            assert_eq!(sorted(&batch), [1, 2, 8]);
            assert!(flusher.poll_next_batch(&mut task).is_pending());
            self.second.push(&cx(9)).unwrap();
            self.awake.store(alarm.rung(), Ordering::Relaxed);
        }
    }
    check(0, || {
        let (collector, flusher) = collector(3, 4, 2, NEVER);
        let (first, second) = (collector.producer(), collector.producer());
        // With it comes an allowance for its shard.
        second.push(&cx(8)).unwrap();
        let suspend =
            Arc::new(Suspend { flusher: Mutex::new(flusher), second, awake: false.into() });
        let waker = Arc::clone(&suspend).into();
        let poll =
            suspend.flusher.lock().unwrap().poll_next_batch(&mut Context::from_waker(&waker));
        assert!(poll.is_pending());
        drop(waker);
        assert_eq!(first.push_all(&[1, 2].map(cx)), 2);
        assert!(suspend.awake.load(Ordering::Relaxed), "asleep while 9 waits");
    });
}
