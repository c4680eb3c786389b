//! Panics of code that is not ours: handlers, wakers, error texts, span processors, drops.

use std::any::Any;
use std::fmt::{self, Display, Write};
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

/// Returns the text of an error, whose `Display` and drop are user code: at most 4096 bytes, and an
/// ellipsis where it was cut.
pub(crate) fn error_text(error: impl Display) -> String {
    let mut text = Text(String::new());
    // Writing fails where the text is cut, so that an endless one ends.
    let written = caught(|| write!(text, "{error}").unwrap_or_default());
    let _ = caught(|| drop(error));
    written.map_or_else(|| "(its text panicked)".into(), |()| text.0)
}

/// A text of at most [`MAX`](Self::MAX) bytes, and an ellipsis where it was cut.
struct Text(String);

impl Text {
    const MAX: usize = 4096;
}

impl Write for Text {
    fn write_str(&mut self, more: &str) -> fmt::Result {
        let space = Self::MAX.checked_sub(self.0.len()).ok_or(fmt::Error)?;
        if more.len() <= space {
            self.0.push_str(more);
            return Ok(());
        }
        let cut = (0..=space).rev().find(|&at| more.is_char_boundary(at)).unwrap_or(0);
        self.0.push_str(&more[..cut]);
        self.0.push('…');
        Err(fmt::Error)
    }
}

/// Returns the guard of a lock, poisoned or not: for state that stays consistent without unwinding.
pub(crate) fn unpoisoned<G>(lock: LockResult<G>) -> G {
    lock.unwrap_or_else(PoisonError::into_inner)
}
