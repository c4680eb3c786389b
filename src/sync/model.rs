//! What loom and shuttle have in common: how to sleep, how to wait, and no time.

pub(crate) use super::checker::*;
use std::sync::Arc as Shared;
use std::time::Instant;

/// `crossbeam_utils::sync::Parker` as checkers see it: one token, one waiter.
#[derive(Debug)]
pub(crate) struct Parker(Unparker);

#[derive(Debug, Clone)]
pub(crate) struct Unparker(Shared<Notify>);

impl Parker {
    pub(crate) fn new() -> Self {
        Self(Unparker(Shared::new(Notify::new())))
    }

    pub(crate) fn unparker(&self) -> &Unparker {
        &self.0
    }
}

impl Unparker {
    pub(crate) fn unpark(&self) {
        self.0.notify();
    }
}

/// No deadline is ever over while somebody sleeps.
pub(crate) fn park(parker: &Parker, _deadline: Option<Instant>) {
    parker.0.0.wait();
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
