//! Panics of code that is not ours: wakers, handlers, thread locals of a thread that ends.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Calls `f`; `None` if it panicked.
pub(crate) fn caught<R>(f: impl FnOnce() -> R) -> Option<R> {
    catch_unwind(AssertUnwindSafe(f)).map_err(discard).ok()
}

/// Drops what was thrown. That may panic too; what it throws then is leaked, or there would be no end.
pub(crate) fn discard(panic: Box<dyn Any + Send>) {
    let _ = catch_unwind(AssertUnwindSafe(|| drop(panic))).map_err(std::mem::forget);
}
