//! Marks the thread that runs a handler, so that a call which would wait for itself is refused.

use super::Outcomes;
use std::cell::Cell;

thread_local! {
    /// The address of the innermost running processor's `Outcomes`; 0 outside of handlers.
    static RUNNING: Cell<usize> = const { Cell::new(0) };
}

/// While it lives, a handler of one processor runs on this thread.
#[must_use = "the mark is removed when it is dropped"]
pub(super) struct Scope {
    /// The mark that this one hides.
    outer: usize,
}

/// Marks this thread as running a handler of the processor with these `outcomes`.
pub(super) fn enter(outcomes: &Outcomes) -> Scope {
    Scope { outer: RUNNING.replace(id(outcomes)) }
}

/// Returns true on a thread that runs a handler of the processor with these `outcomes`.
#[inline]
pub(super) fn is_own(outcomes: &Outcomes) -> bool {
    RUNNING.get() == id(outcomes)
}

/// Submitters and processor share one `Outcomes`, and it outlives every scope.
fn id(outcomes: &Outcomes) -> usize {
    std::ptr::from_ref(outcomes).addr()
}

impl Drop for Scope {
    fn drop(&mut self) {
        RUNNING.set(self.outer);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A handler may run another processor, which hides the outer one until it is done.
    #[test]
    fn inner_scope_restores_outer() {
        let (one, two) = (Outcomes::default(), Outcomes::default());
        let outer = enter(&one);
        let inner = enter(&two);
        assert!(is_own(&two) && !is_own(&one));
        drop(inner);
        assert!(is_own(&one) && !is_own(&two));
        drop(outer);
        assert!(!is_own(&one) && !is_own(&two));
    }
}
