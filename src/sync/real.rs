//! What runs in production: `std` and crossbeam.

#[cfg(feature = "tokio")]
pub(crate) use atomic_waker::AtomicWaker;
pub(crate) use crossbeam_utils::Backoff;
pub(crate) use crossbeam_utils::sync::{Parker, Unparker};
pub(crate) use std::sync::atomic::{
    AtomicBool, AtomicI64, AtomicU8, AtomicU32, AtomicU64, AtomicUsize, Ordering,
};
pub(crate) use std::sync::{Arc, Mutex, mpsc};
pub(crate) use std::thread;
use std::time::{Duration, Instant};

/// Many values behind one pointer, side by side.
pub(crate) fn arc_slice<T>(values: Vec<T>) -> Arc<[T]> {
    values.into()
}

/// `std`'s cell behind loom's closure interface.
#[derive(Debug)]
pub(crate) struct UnsafeCell<T>(std::cell::UnsafeCell<T>);

impl<T> UnsafeCell<T> {
    pub(crate) fn new(value: T) -> Self {
        Self(std::cell::UnsafeCell::new(value))
    }

    #[inline(always)]
    pub(crate) fn with<R>(&self, f: impl FnOnce(*const T) -> R) -> R {
        f(self.0.get())
    }

    #[inline(always)]
    pub(crate) fn with_mut<R>(&self, f: impl FnOnce(*mut T) -> R) -> R {
        f(self.0.get())
    }
}

/// Monotonic time as nanoseconds since the collector was built, so that an atomic holds it.
#[derive(Debug)]
pub(crate) struct Clock(Instant);

impl Clock {
    pub(crate) fn new() -> Self {
        Self(Instant::now())
    }

    /// Nanoseconds since `new`; never 0, so that 0 can mean "not set".
    pub(crate) fn now(&self) -> u64 {
        u64::try_from(self.0.elapsed().as_nanos()).unwrap_or(u64::MAX).max(1)
    }

    /// The instant behind a reading of this clock; `None` beyond what `Instant` can hold.
    pub(crate) fn instant(&self, nanos: u64) -> Option<Instant> {
        self.0.checked_add(Duration::from_nanos(nanos))
    }
}

/// Sleeps until unparked or until `deadline` (`None`: no deadline).
pub(crate) fn park(parker: &Parker, deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => parker.park_deadline(deadline),
        None => parker.park(),
    }
}

/// A number per thread, spread over `u32` so that its high bits pick a shard evenly.
///
/// Consecutive multiples of the golden ratio fall evenly into any number of equal parts,
/// so threads born one after the other take different shards.
#[inline]
pub(crate) fn thread_key() -> u32 {
    use std::cell::Cell;
    const GOLDEN: u32 = 0x9E37_79B9;
    static NEXT: AtomicU32 = AtomicU32::new(0);
    thread_local!(static KEY: Cell<Option<u32>> = const { Cell::new(None) });
    // A thread that is shutting down may have lost its locals: any shard will do.
    KEY.try_with(|key| {
        key.get().unwrap_or_else(|| {
            let fresh = NEXT.fetch_add(1, Ordering::Relaxed).wrapping_mul(GOLDEN);
            key.set(Some(fresh));
            fresh
        })
    })
    .unwrap_or(0)
}
