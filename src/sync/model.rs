//! What loom and shuttle have in common: how to sleep, how to wait, and no time.

pub(crate) use super::checker::*;
use std::sync::Arc as Shared;
use std::task::{Wake, Waker};
use std::time::Instant;

/// A thread's sleep as checkers see it: one token, one waiter.
#[derive(Debug)]
pub(crate) struct Parker {
    notify: Shared<Notify>,
    waker: Waker,
}

impl Parker {
    pub(crate) fn new() -> Self {
        struct Unpark(Shared<Notify>);
        impl Wake for Unpark {
            fn wake(self: Shared<Self>) {
                self.0.notify();
            }
        }
        let notify = Shared::new(Notify::new());
        let waker = Waker::from(Shared::new(Unpark(Shared::clone(&notify))));
        Self { notify, waker }
    }

    pub(crate) fn waker(&self) -> &Waker {
        &self.waker
    }

    /// No deadline is ever over while a thread sleeps.
    pub(crate) fn park(&self, _deadline: Option<Instant>) {
        self.notify.wait();
    }
}

pub(crate) fn task_now() -> Instant {
    Instant::now()
}

/// Time stands still in a model: a delay of zero is always over, any other never is.
#[derive(Debug)]
pub(crate) struct Clock;

impl Clock {
    pub(crate) fn new() -> Self {
        Self
    }

    pub(crate) fn now(&self) -> u64 {
        1
    }

    pub(crate) fn system_now(&self) -> u64 {
        1
    }

    pub(crate) fn instant(&self, _nanos: u64) -> Option<Instant> {
        None
    }
}

/// Waiting for another thread is a yield in a model.
pub(crate) struct Backoff;

impl Backoff {
    pub(crate) fn new() -> Self {
        Self
    }

    pub(crate) fn snooze(&self) {
        thread::yield_now();
    }

    pub(crate) fn is_completed(&self) -> bool {
        false
    }

    pub(crate) fn reset(&self) {}
}
