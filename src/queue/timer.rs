//! The timer of an async wait.
//!
//! One thread of the process keeps the time of all of them, on any executor: the only way to find
//! out whether a tokio runtime has a timer is to provoke its panic. On tokio's paused clock, where
//! there is one, tokio's timer is used.

#[cfg(not(any(batchlink_loom, batchlink_shuttle)))]
mod real {
    use crate::panic::{caught, unpoisoned};
    use crate::sync::{Mutex, thread};
    #[cfg(feature = "tokio")]
    use std::future::Future;
    #[cfg(feature = "tokio")]
    use std::pin::Pin;
    use std::sync::{Condvar, MutexGuard};
    use std::task::Waker;
    use std::time::{Duration, Instant};

    /// One timer. Dropping it stops it.
    #[derive(Default)]
    pub(crate) struct Timer {
        /// The index among the keeper's alarms, from the first time it is set.
        index: Option<usize>,
        /// Only on tokio's paused clock. Boxed once; made anew with every setting, since the task
        /// may have moved to another runtime.
        #[cfg(feature = "tokio")]
        paused: Option<Pin<Box<Option<tokio::time::Sleep>>>>,
    }

    impl Timer {
        /// Wakes `waker` after `delay`, once. Replaces the former setting.
        pub(crate) fn set(&mut self, delay: Duration, waker: &Waker) {
            #[cfg(feature = "tokio")]
            if self.set_paused(delay, waker) {
                return;
            }
            self.index = self.index.or_else(|| KEEPER.add());
            match self.index {
                // A time beyond what `Instant` can hold never comes.
                Some(index) => {
                    let at = Instant::now().checked_add(delay);
                    KEEPER.set(index, at.map(|at| Alarm { at, waker: waker.clone() }));
                }
                // No thread is to be had: poll again as soon as the executor allows.
                None => waker.wake_by_ref(),
            }
        }

        /// Stops the timer: it wakes no task any more.
        #[cfg(feature = "tokio")]
        pub(crate) fn stop(&mut self) {
            if let Some(sleep) = &mut self.paused {
                sleep.set(None);
            }
            if let Some(index) = self.index {
                KEEPER.set(index, None);
            }
        }

        /// Sets tokio's timer if its clock is not the system's here: a test has paused or moved it.
        #[cfg(feature = "tokio")]
        fn set_paused(&mut self, delay: Duration, waker: &Waker) -> bool {
            let before = Instant::now();
            let tokio = tokio::time::Instant::now();
            if (before..=Instant::now()).contains(&tokio.into_std()) {
                return false;
            }
            // A runtime without a timer cannot move its clock either: there is nothing to miss.
            let _ = caught(|| {
                let kept = self.paused.get_or_insert_with(|| Box::pin(None));
                kept.set(tokio.checked_add(delay).map(tokio::time::sleep_until));
                let cx = &mut std::task::Context::from_waker(waker);
                if kept.as_mut().as_pin_mut().is_some_and(|sleep| sleep.poll(cx).is_ready()) {
                    waker.wake_by_ref();
                }
            });
            true
        }
    }

    impl Drop for Timer {
        fn drop(&mut self) {
            if let Some(index) = self.index {
                KEEPER.remove(index);
            }
        }
    }

    struct Alarm {
        at: Instant,
        waker: Waker,
    }

    /// The thread that keeps the time, and what it knows.
    struct Keeper {
        state: Mutex<State>,
        earlier: Condvar,
    }

    struct State {
        /// The thread runs.
        running: bool,
        /// One entry for each timer; `None` while it is not set.
        alarms: Vec<Option<Alarm>>,
        /// Indices that belong to no timer.
        free: Vec<usize>,
        /// The thread sleeps until then (`None`: until it is woken). It is not woken for a later
        /// time: it finds the next one when it wakes by itself.
        sleeps_until: Option<Instant>,
    }

    static KEEPER: Keeper = Keeper {
        state: Mutex::new(State {
            running: false,
            alarms: Vec::new(),
            free: Vec::new(),
            sleeps_until: None,
        }),
        earlier: Condvar::new(),
    };

    // Invariant: unlocked-user-code. Wakers are cloned, woken and dropped without the lock.
    impl Keeper {
        fn state(&self) -> MutexGuard<'_, State> {
            unpoisoned(self.state.lock())
        }

        /// Returns an index for a new timer; `None` if there is no thread to be had.
        fn add(&'static self) -> Option<usize> {
            let mut state = self.state();
            if !state.running {
                let thread = thread::Builder::new().name("batchlink-timer".into());
                state.running = thread.spawn(|| self.run()).is_ok();
            }
            if !state.running {
                return None;
            }
            Some(state.free.pop().unwrap_or_else(|| {
                state.alarms.push(None);
                state.alarms.len() - 1
            }))
        }

        fn set(&self, index: usize, alarm: Option<Alarm>) {
            let at = alarm.as_ref().map(|alarm| alarm.at);
            let mut state = self.state();
            let former = std::mem::replace(&mut state.alarms[index], alarm);
            if at.is_some_and(|at| state.sleeps_until.is_none_or(|until| at < until)) {
                state.sleeps_until = at;
                self.earlier.notify_one();
            }
            drop(state);
            let _ = caught(|| drop(former));
        }

        fn remove(&self, index: usize) {
            self.set(index, None);
            self.state().free.push(index);
        }

        fn run(&self) {
            let mut state = self.state();
            loop {
                let now = Instant::now();
                let due = |alarm: &mut Alarm| alarm.at <= now;
                if let Some(alarm) = state.alarms.iter_mut().find_map(|alarm| alarm.take_if(due)) {
                    drop(state);
                    let _ = caught(|| alarm.waker.wake());
                    state = self.state();
                    continue;
                }
                let next = state.alarms.iter().flatten().map(|alarm| alarm.at).min();
                state.sleeps_until = next;
                state = match next {
                    Some(next) => {
                        let sleep = next.saturating_duration_since(now);
                        unpoisoned(self.earlier.wait_timeout(state, sleep)).0
                    }
                    None => unpoisoned(self.earlier.wait(state)),
                };
            }
        }
    }
}

#[cfg(not(any(batchlink_loom, batchlink_shuttle)))]
pub(crate) use real::Timer;

#[cfg(any(batchlink_loom, batchlink_shuttle))]
mod model {
    use std::task::Waker;
    use std::time::Duration;

    /// Time stands still in a model.
    #[derive(Default)]
    pub(crate) struct Timer;

    impl Timer {
        pub(crate) fn set(&mut self, _delay: Duration, _waker: &Waker) {}

        #[cfg(feature = "tokio")]
        pub(crate) fn stop(&mut self) {}
    }
}

#[cfg(any(batchlink_loom, batchlink_shuttle))]
pub(crate) use model::Timer;
