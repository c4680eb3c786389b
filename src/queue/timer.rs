//! The timer of an async wait.
//!
//! One thread of the process keeps the time of all of them, on any executor: whether a tokio runtime
//! has a timer can be found out only by provoking its panic. Where tokio's clock is not the system's
//! (a test has paused it), there is one, and it is used.

#[cfg(not(any(batchlink_loom, batchlink_shuttle)))]
mod real {
    use crate::panic::caught;
    use crate::queue::Queue;
    use crate::sync::thread;
    use crate::sync::{Arc, Mutex};
    use std::future::Future;
    use std::pin::Pin;
    use std::sync::{Condvar, MutexGuard, PoisonError};
    use std::task::Context;
    use std::time::{Duration, Instant};
    use tokio::time::{Sleep, sleep_until};

    /// One timer, set again with every poll.
    #[derive(Default)]
    pub(crate) struct Timer {
        /// The index among the keeper's alarms, from the first time it is set.
        index: Option<usize>,
        /// Only on tokio's paused clock. Boxed once; made anew with every poll, since the flusher may
        /// have moved to another runtime.
        paused: Option<Pin<Box<Option<Sleep>>>>,
    }

    impl Timer {
        /// Wakes the task after `delay`.
        pub(crate) fn set<T: Send + 'static>(
            &mut self,
            delay: Duration,
            queue: &Arc<Queue<T>>,
            cx: &mut Context<'_>,
        ) {
            if is_paused() {
                // A runtime without a timer cannot advance its clock either: there is nothing to miss.
                let _ = caught(|| {
                    let now = tokio::time::Instant::now();
                    let sleep = now.checked_add(delay).map(sleep_until);
                    let kept = self.paused.get_or_insert_with(|| Box::pin(None));
                    kept.set(sleep);
                    if kept.as_mut().as_pin_mut().is_some_and(|sleep| sleep.poll(cx).is_ready()) {
                        cx.waker().wake_by_ref();
                    }
                });
                return;
            }
            let index = self.index.or_else(|| KEEPER.add(Arc::<Queue<T>>::clone(queue)));
            self.index = index;
            match index {
                // A time beyond what `Instant` can hold never comes.
                Some(index) => KEEPER.set(index, Instant::now().checked_add(delay)),
                // No thread to be had: poll again as soon as the executor allows.
                None => cx.waker().wake_by_ref(),
            }
        }

        /// Stops the timer: it wakes no task any more.
        pub(crate) fn stop(&mut self) {
            if let Some(sleep) = &mut self.paused {
                sleep.set(None);
            }
            if let Some(index) = self.index {
                KEEPER.set(index, None);
            }
        }
    }

    impl Drop for Timer {
        fn drop(&mut self) {
            if let Some(index) = self.index {
                KEEPER.remove(index);
            }
        }
    }

    /// Returns whether tokio's clock is not the system's here: paused, or moved by a test.
    fn is_paused() -> bool {
        let before = Instant::now();
        let tokio = tokio::time::Instant::now().into_std();
        tokio < before || tokio > Instant::now()
    }

    /// What an alarm wakes.
    trait Wake: Send + Sync {
        fn wake(&self);
    }

    impl<T: Send> Wake for Queue<T> {
        fn wake(&self) {
            self.trigger.signal.notify();
        }
    }

    struct Alarm {
        at: Option<Instant>,
        queue: Arc<dyn Wake>,
    }

    /// The thread that keeps the time, and what it knows.
    struct Keeper {
        state: Mutex<State>,
        earlier: Condvar,
    }

    struct State {
        /// The thread runs.
        running: bool,
        /// `None`: a free index.
        alarms: Vec<Option<Alarm>>,
        /// The thread sleeps until then (`None`: until it is woken). It need not be woken for a later
        /// time: mostly it finds the next one when it wakes by itself.
        sleeps_until: Option<Instant>,
    }

    static KEEPER: Keeper = Keeper {
        state: Mutex::new(State { running: false, alarms: Vec::new(), sleeps_until: None }),
        earlier: Condvar::new(),
    };

    impl Keeper {
        fn state(&self) -> MutexGuard<'_, State> {
            self.state.lock().unwrap_or_else(PoisonError::into_inner)
        }

        /// Adds an alarm and returns its index; `None` if there is no thread to be had.
        fn add(&'static self, queue: Arc<dyn Wake>) -> Option<usize> {
            let mut state = self.state();
            if !state.running {
                let thread = thread::Builder::new().name("batchlink-timer".into());
                state.running = thread.spawn(|| self.run()).is_ok();
                if !state.running {
                    return None;
                }
            }
            let alarm = Some(Alarm { at: None, queue });
            match state.alarms.iter().position(Option::is_none) {
                Some(free) => {
                    state.alarms[free] = alarm;
                    Some(free)
                }
                None => {
                    state.alarms.push(alarm);
                    Some(state.alarms.len() - 1)
                }
            }
        }

        fn set(&self, index: usize, at: Option<Instant>) {
            let mut state = self.state();
            if let Some(Some(alarm)) = state.alarms.get_mut(index) {
                alarm.at = at;
            }
            if at.is_some_and(|at| state.sleeps_until.is_none_or(|until| at < until)) {
                // Once is enough.
                state.sleeps_until = at;
                self.earlier.notify_one();
            }
        }

        fn remove(&self, index: usize) {
            let removed = self.state().alarms.get_mut(index).and_then(Option::take);
            // After the lock: the queue may go with it, and the user's values.
            drop(removed);
        }

        fn run(&self) {
            let mut state = self.state();
            loop {
                let now = Instant::now();
                let is_due = |alarm: &&mut Alarm| alarm.at.is_some_and(|at| at <= now);
                if let Some(due) = state.alarms.iter_mut().flatten().find(is_due) {
                    due.at = None;
                    let queue = Arc::clone(&due.queue);
                    // Wakers and values are the user's code.
                    drop(state);
                    let _ = caught(move || queue.wake());
                    state = self.state();
                    continue;
                }
                let next = state.alarms.iter().flatten().filter_map(|alarm| alarm.at).min();
                state.sleeps_until = next;
                state = match next {
                    Some(next) => {
                        let sleep = next.saturating_duration_since(now);
                        self.earlier.wait_timeout(state, sleep).unwrap_or_else(PoisonError::into_inner).0
                    }
                    None => self.earlier.wait(state).unwrap_or_else(PoisonError::into_inner),
                };
            }
        }
    }
}

#[cfg(not(any(batchlink_loom, batchlink_shuttle)))]
pub(crate) use real::Timer;

#[cfg(any(batchlink_loom, batchlink_shuttle))]
mod model {
    use crate::queue::Queue;
    use crate::sync::Arc;
    use std::task::Context;
    use std::time::Duration;

    /// Time stands still in a model.
    #[derive(Default)]
    pub(crate) struct Timer;

    impl Timer {
        pub(crate) fn set<T>(&mut self, _delay: Duration, _queue: &Arc<Queue<T>>, _cx: &mut Context<'_>) {}

        pub(crate) fn stop(&mut self) {}
    }
}

#[cfg(any(batchlink_loom, batchlink_shuttle))]
pub(crate) use model::Timer;
