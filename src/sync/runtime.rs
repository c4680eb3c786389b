//! Whether the calling thread may block.

/// Returns true while tokio polls a task or a `block_on` future on this thread: blocking would stop
/// other tasks. False without the feature `tokio`, and in other runtimes.
#[cfg(not(feature = "tokio"))]
pub(crate) fn polls_tasks() -> bool {
    false
}

/// Returns true while tokio polls a task or a `block_on` future on this thread: blocking would stop
/// other tasks. False in `spawn_blocking` and `block_in_place`, and in other runtimes.
#[cfg(feature = "tokio")]
pub(crate) fn polls_tasks() -> bool {
    use std::task::{Context, Poll, Waker};
    use tokio::task::coop::poll_proceed;

    if tokio::runtime::Handle::try_current().is_err() {
        return false;
    }
    // What tokio polls has a budget of at most 255 operations, and a thread that may block has an
    // unlimited one. So the budget is used up, and restored by the drop of `first`.
    let cx = &mut Context::from_waker(Waker::noop());
    let Poll::Ready(_first) = poll_proceed(cx) else { return true };
    (0..u8::MAX).any(|_| match poll_proceed(cx) {
        Poll::Ready(next) => {
            next.made_progress();
            false
        }
        Poll::Pending => true,
    })
}

#[cfg(all(test, feature = "tokio"))]
mod tests {
    use super::polls_tasks;
    use tokio::runtime::{Builder, Handle};
    use tokio::task::{block_in_place, spawn, spawn_blocking, unconstrained};

    #[test]
    fn polled_tasks_are_recognised() {
        assert!(!polls_tasks(), "outside of any runtime");
        for runtime in [Builder::new_multi_thread().build(), Builder::new_current_thread().build()] {
            let runtime = runtime.expect("a runtime");
            let entered = runtime.enter();
            assert!(!polls_tasks(), "only entered");
            drop(entered);
            runtime.block_on(async {
                assert!(polls_tasks(), "block_on");
                assert!(polls_tasks(), "the budget is restored");
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
            assert!(polls_tasks(), "after the section");
        });
    }

    /// A recognised task goes on with the budget that it had.
    #[test]
    fn probing_leaves_the_budget() {
        let runtime = Builder::new_current_thread().build().expect("a runtime");
        let budget = || {
            let cx = &mut std::task::Context::from_waker(std::task::Waker::noop());
            let proceeds =
                |_: &u32| tokio::task::coop::poll_proceed(cx).map(|next| next.made_progress()).is_ready();
            (0..1000).take_while(proceeds).count()
        };
        let whole = runtime.block_on(async { budget() });
        let probed = runtime.block_on(async {
            assert!(polls_tasks());
            budget()
        });
        assert_eq!(whole, probed);
        assert!((1..=255).contains(&whole), "{whole}");
    }
}
