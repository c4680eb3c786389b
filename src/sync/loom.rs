//! loom's part of a model: every interleaving of a few threads, with memory orderings.

pub(crate) use ::loom::cell::UnsafeCell;
pub(crate) use ::loom::sync::atomic::{
    AtomicBool, AtomicI64, AtomicPtr, AtomicU8, AtomicU32, AtomicU64, AtomicUsize, Ordering,
};
pub(crate) use ::loom::sync::{Arc, Mutex, Notify};
// loom has no threads that end by themselves after a timeout: `Flusher::spawn` is not modelled.

pub(crate) mod thread {
    pub(crate) use ::loom::thread::yield_now;
    pub(crate) use std::thread::{Builder, ThreadId, current};
}

pub(crate) fn arc_slice<T>(values: Vec<T>) -> Arc<[T]> {
    Arc::from_std(values.into())
}

/// loom's model of it, behind `atomic_waker`'s interface.
#[derive(Debug)]
pub(crate) struct AtomicWaker(::loom::future::AtomicWaker);

impl AtomicWaker {
    pub(crate) fn new() -> Self {
        Self(::loom::future::AtomicWaker::new())
    }

    pub(crate) fn register(&self, waker: &std::task::Waker) {
        self.0.register_by_ref(waker);
    }

    pub(crate) fn wake(&self) {
        self.0.wake();
    }

    pub(crate) fn take(&self) -> Option<std::task::Waker> {
        self.0.take_waker()
    }
}

/// Models choose shards by `Producer`; everything else goes to the first.
pub(crate) fn thread_key() -> u32 {
    0
}
