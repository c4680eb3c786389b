//! shuttle's part of a model: random interleavings of many threads, sequentially consistent.

use ::shuttle::sync::Condvar;
pub(crate) use ::shuttle::sync::atomic::{
    AtomicBool, AtomicI64, AtomicPtr, AtomicU8, AtomicU32, AtomicU64, AtomicUsize, Ordering,
};
pub(crate) use ::shuttle::sync::{Arc, Mutex};
pub(crate) use ::shuttle::thread;
pub(crate) use atomic_waker::AtomicWaker; // not shown to shuttle: each of its calls is one step

pub(crate) fn arc_slice<T>(values: Vec<T>) -> Arc<[T]> {
    values.into()
}

/// A cell whose accesses take time, and must not overlap.
#[derive(Debug)]
pub(crate) struct UnsafeCell<T> {
    value: std::cell::UnsafeCell<T>,
    in_use: AtomicBool,
}

impl<T> UnsafeCell<T> {
    pub(crate) fn new(value: T) -> Self {
        Self { value: std::cell::UnsafeCell::new(value), in_use: AtomicBool::new(false) }
    }

    pub(crate) fn with<R>(&self, f: impl FnOnce(*const T) -> R) -> R {
        self.with_mut(|value| f(value))
    }

    pub(crate) fn with_mut<R>(&self, f: impl FnOnce(*mut T) -> R) -> R {
        // Others may run before either access to the flag, and so during `f`.
        assert!(!self.in_use.swap(true, Ordering::SeqCst), "two threads access one cell");
        let result = f(self.value.get());
        self.in_use.store(false, Ordering::SeqCst);
        result
    }
}

/// One token, one waiter. (`shuttle::thread::park` wakes at random too, which hides lost wake-ups.)
#[derive(Debug)]
pub(crate) struct Notify {
    token: Mutex<bool>,
    given: Condvar,
}

impl Notify {
    pub(crate) fn new() -> Self {
        Self { token: Mutex::new(false), given: Condvar::new() }
    }

    pub(crate) fn notify(&self) {
        *self.token.lock().expect("never poisoned") = true;
        self.given.notify_one();
    }

    pub(crate) fn wait(&self) {
        let mut token = self.token.lock().expect("never poisoned");
        while !std::mem::take(&mut *token) {
            token = self.given.wait(token).expect("never poisoned");
        }
    }
}

/// As in production, but counted per execution: a schedule can be replayed.
pub(crate) fn thread_key() -> u32 {
    (usize::from(thread::current().id()) as u32).reverse_bits()
}
