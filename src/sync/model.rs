//! What loom and shuttle have in common: how to sleep, how to wait, how to answer, and no time.

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

    /// No deadline is ever over while somebody sleeps.
    pub(crate) fn park(&self, _deadline: Option<Instant>) {
        self.notify.wait();
    }
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

/// `futures_channel`'s interface, by a lock that checkers see.
#[cfg(feature = "processor")]
pub(crate) mod oneshot {
    use super::{Arc, Mutex};
    use std::pin::Pin;
    use std::sync::PoisonError;
    use std::task::{Context, Poll, Waker};

    struct State<T> {
        value: Option<T>,
        waker: Option<Waker>,
        sender_gone: bool,
        receiver_gone: bool,
    }

    type Shared<T> = Arc<Mutex<State<T>>>;

    pub(crate) struct Sender<T>(Shared<T>);

    pub(crate) struct Receiver<T>(Shared<T>);

    #[derive(Debug)]
    pub(crate) struct Canceled;

    pub(crate) fn channel<T>() -> (Sender<T>, Receiver<T>) {
        let state = State { value: None, waker: None, sender_gone: false, receiver_gone: false };
        let shared = Arc::new(Mutex::new(state));
        (Sender(Arc::clone(&shared)), Receiver(shared))
    }

    fn with<T, R>(shared: &Shared<T>, act: impl FnOnce(&mut State<T>) -> R) -> R {
        act(&mut shared.lock().unwrap_or_else(PoisonError::into_inner))
    }

    impl<T> Sender<T> {
        pub(crate) fn send(self, value: T) -> Result<(), T> {
            with(&self.0, |state| match state.receiver_gone {
                true => Err(value),
                false => {
                    state.value = Some(value);
                    Ok(())
                }
            })
        }

        pub(crate) fn is_canceled(&self) -> bool {
            with(&self.0, |state| state.receiver_gone)
        }
    }

    impl<T> Future for Receiver<T> {
        type Output = Result<T, Canceled>;

        fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
            with(&self.0, |state| {
                if !state.sender_gone {
                    state.waker = Some(cx.waker().clone());
                    return Poll::Pending;
                }
                Poll::Ready(state.value.take().ok_or(Canceled))
            })
        }
    }

    impl<T> Drop for Sender<T> {
        fn drop(&mut self) {
            let waker = with(&self.0, |state| {
                state.sender_gone = true;
                state.waker.take()
            });
            waker.into_iter().for_each(Waker::wake);
        }
    }

    impl<T> Drop for Receiver<T> {
        fn drop(&mut self) {
            let left = with(&self.0, |state| {
                state.receiver_gone = true;
                (state.value.take(), state.waker.take())
            });
            drop(left);
        }
    }
}
