//! Whether the calling thread may block.

/// Returns true while tokio polls a task or a `block_on` future on this thread: blocking would stop
/// other tasks. False without the feature `tokio`, and in other runtimes.
#[cfg(not(feature = "tokio"))]
pub(crate) fn polls_tasks() -> bool {
    false
}

/// Returns true while tokio polls a task or a `block_on` future on this thread: blocking would stop
/// other tasks. False in `spawn_blocking` and `block_in_place`, and in other runtimes.
///
/// What tokio polls has a budget of at most 255 operations, and a thread that may block has an
/// unlimited one. A budget that is found is used up: the task yields at its next await.
#[cfg(feature = "tokio")]
pub(crate) fn polls_tasks() -> bool {
    use std::task::{Context, Waker};

    if tokio::runtime::Handle::try_current().is_err() {
        return false;
    }
    let cx = &mut Context::from_waker(Waker::noop());
    (0..=u8::MAX).any(|_| std::pin::pin!(tokio::task::consume_budget()).poll(cx).is_pending())
}

#[cfg(all(test, feature = "tokio"))]
mod tests {
    use super::polls_tasks;
    use tokio::runtime::{Builder, Handle};
    use tokio::task::{block_in_place, spawn, spawn_blocking, unconstrained};

    #[test]
    fn polled_tasks_are_recognised() {
        assert!(!polls_tasks(), "outside of any runtime");
        for runtime in [Builder::new_multi_thread().build(), Builder::new_current_thread().build()]
        {
            let runtime = runtime.expect("a runtime");
            let entered = runtime.enter();
            assert!(!polls_tasks(), "only entered");
            drop(entered);
            runtime.block_on(async {
                assert!(polls_tasks(), "block_on");
                assert!(polls_tasks(), "without a budget left");
                assert!(spawn(async { polls_tasks() }).await.expect("no panic"), "a task");
                assert!(!spawn_blocking(polls_tasks).await.expect("no panic"), "spawn_blocking");
                let nested = spawn_blocking(|| Handle::current().block_on(async { polls_tasks() }));
                assert!(nested.await.expect("no panic"), "block_on in spawn_blocking");
                assert!(!unconstrained(async { polls_tasks() }).await, "cannot be told");
            });
        }
    }

    #[test]
    fn blocking_section_may_block() {
        let runtime = Builder::new_multi_thread().worker_threads(1).build().expect("a runtime");
        runtime.block_on(async {
            assert!(!block_in_place(polls_tasks));
            assert!(!spawn(async { block_in_place(polls_tasks) }).await.expect("no panic"));
            // A section leaves the rest of its poll without a budget in `block_on`.
            tokio::task::yield_now().await;
            assert!(polls_tasks(), "after the section");
        });
    }
}
