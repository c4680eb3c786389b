//! Marks the thread that runs a handler, so that a call which would wait for itself is refused.

use super::Outcomes;
use std::cell::RefCell;

thread_local! {
    /// The addresses of the running processors' `Outcomes`: a handler may run another processor.
    static RUNNING: RefCell<Vec<usize>> = const { RefCell::new(Vec::new()) };
}

/// While it lives, a handler of one processor runs on this thread.
#[must_use = "the mark is removed when it is dropped"]
pub(super) struct Scope(());

/// Marks this thread as running a handler of the processor with these `outcomes`.
pub(super) fn enter(outcomes: &Outcomes) -> Scope {
    // A thread that is ending may have lost its locals: it runs without a mark.
    let _ = RUNNING.try_with(|running| running.borrow_mut().push(id(outcomes)));
    Scope(())
}

/// Returns true on a thread that runs a handler of the processor with these `outcomes`, or one
/// within it.
#[inline]
pub(super) fn is_own(outcomes: &Outcomes) -> bool {
    RUNNING.try_with(|running| running.borrow().contains(&id(outcomes))).unwrap_or(false)
}

/// Submitters and processor share one `Outcomes`, and it outlives every scope.
fn id(outcomes: &Outcomes) -> usize {
    std::ptr::from_ref(outcomes).addr()
}

impl Drop for Scope {
    fn drop(&mut self) {
        // Scopes are nested, as the calls are.
        let _ = RUNNING.try_with(|running| running.borrow_mut().pop());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A handler may run another processor, and both wait for what that one's handler waits for.
    #[test]
    fn inner_scope_keeps_outer() {
        let (one, two) = (Outcomes::default(), Outcomes::default());
        let outer = enter(&one);
        let inner = enter(&two);
        assert!(is_own(&two) && is_own(&one));
        drop(inner);
        assert!(is_own(&one) && !is_own(&two));
        drop(outer);
        assert!(!is_own(&one) && !is_own(&two));
    }
}
