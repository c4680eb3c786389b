//! Panics of code that is not ours: handlers, wakers, error texts, span processors, drops.

use std::any::Any;
use std::fmt::Display;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{LockResult, PoisonError};

/// Calls `f`. Returns `None` if it panicked.
pub(crate) fn caught<R>(f: impl FnOnce() -> R) -> Option<R> {
    catch_unwind(AssertUnwindSafe(f)).map_err(discard).ok()
}

/// Drops a panic's payload. Its drop may panic in turn, and so on; in the end the payload is
/// leaked.
pub(crate) fn discard(mut panic: Box<dyn Any + Send>) {
    for _ in 0..8 {
        match catch_unwind(AssertUnwindSafe(|| drop(panic))) {
            Ok(()) => return,
            Err(again) => panic = again,
        }
    }
    std::mem::forget(panic);
}

/// Returns the text of an error, whose `Display` and drop are user code.
pub(crate) fn error_text(error: impl Display) -> String {
    caught(|| error.to_string()).unwrap_or_else(|| "(its text panicked)".into())
}

/// Returns the guard of a lock, poisoned or not: for state that stays consistent without unwinding.
pub(crate) fn unpoisoned<G>(lock: LockResult<G>) -> G {
    lock.unwrap_or_else(PoisonError::into_inner)
}
