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

/// `futures_channel`'s interface, by a lock that checkers see. It orders more than the real one.
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

    type Channel<T> = Arc<Mutex<State<T>>>;

    pub(crate) struct Sender<T>(Channel<T>);

    pub(crate) struct Receiver<T>(Channel<T>);

    #[derive(Debug)]
    pub(crate) struct Canceled;

    pub(crate) fn channel<T>() -> (Sender<T>, Receiver<T>) {
        let state = State { value: None, waker: None, sender_gone: false, receiver_gone: false };
        let channel = Arc::new(Mutex::new(state));
        (Sender(Arc::clone(&channel)), Receiver(channel))
    }

    fn with<T, R>(channel: &Channel<T>, act: impl FnOnce(&mut State<T>) -> R) -> R {
        act(&mut channel.lock().unwrap_or_else(PoisonError::into_inner))
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
            // Wakers are the user's code: cloned before the lock, and dropped after it.
            let waker = cx.waker().clone();
            let (poll, _former) = with(&self.0, |state| match state.sender_gone {
                true => (Poll::Ready(state.value.take().ok_or(Canceled)), Some(waker)),
                false => (Poll::Pending, state.waker.replace(waker)),
            });
            poll
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
            // A value that was sent is dropped with the channel, by the end that leaves last.
            let waker = with(&self.0, |state| {
                state.receiver_gone = true;
                state.waker.take()
            });
            drop(waker);
        }
    }
}
