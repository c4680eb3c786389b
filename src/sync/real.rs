//! What runs in production: `std`, crossbeam and atomic-waker.

pub(crate) use atomic_waker::AtomicWaker;
pub(crate) use crossbeam_utils::Backoff;
pub(crate) use std::sync::atomic::{
    AtomicBool, AtomicI64, AtomicPtr, AtomicU8, AtomicU32, AtomicU64, AtomicUsize, Ordering,
};
pub(crate) use std::sync::{Arc, Mutex};
use std::task::{Wake, Waker};
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

/// Returns the time as a task sees it: on tokio's clock, which is the system's unless a test pauses
/// it.
pub(crate) fn task_now() -> Instant {
    #[cfg(feature = "tokio")]
    return tokio::time::Instant::now().into_std();
    #[cfg(not(feature = "tokio"))]
    Instant::now()
}

/// Monotonic time as nanoseconds since the collector was built, so that an atomic holds it.
#[derive(Debug)]
pub(crate) struct Clock {
    start: Instant,
    #[cfg(batchlink_hooks)]
    pub(crate) warp: Warp,
}

impl Clock {
    pub(crate) fn new() -> Self {
        // A paused clock may be behind the system's. A nanosecond before, so that no reading is 0.
        let now = task_now().min(Instant::now());
        Self {
            start: now.checked_sub(Duration::from_nanos(1)).unwrap_or(now),
            #[cfg(batchlink_hooks)]
            warp: Warp::default(),
        }
    }

    /// Returns the nanoseconds since `new` as a task sees them; never 0, so that 0 can mean "not
    /// set".
    pub(crate) fn now(&self) -> u64 {
        self.nanos(task_now())
    }

    /// Returns the nanoseconds since `new` on the system's clock, by which threads sleep.
    pub(crate) fn system_now(&self) -> u64 {
        self.nanos(Instant::now())
    }

    fn nanos(&self, now: Instant) -> u64 {
        let nanos = now.saturating_duration_since(self.start).as_nanos();
        let nanos = u64::try_from(nanos).unwrap_or(u64::MAX).max(1);
        #[cfg(batchlink_hooks)]
        let nanos = self.warp.apply(nanos);
        nanos
    }

    /// Returns the instant of a reading of the system's clock; `None` beyond what `Instant` can
    /// hold.
    pub(crate) fn instant(&self, nanos: u64) -> Option<Instant> {
        #[cfg(batchlink_hooks)]
        return Instant::now()
            .checked_add(Duration::from_nanos(nanos.saturating_sub(self.system_now())));
        #[cfg(not(batchlink_hooks))]
        self.start.checked_add(Duration::from_nanos(nanos))
    }
}

/// What tests do to a clock.
#[cfg(batchlink_hooks)]
#[derive(Debug, Default)]
pub(crate) struct Warp {
    /// Nanoseconds that it has jumped forward.
    pub(crate) jumped: AtomicU64,
    /// The reading at which it stands still; 0: it goes.
    pub(crate) stopped_at: AtomicU64,
}

#[cfg(batchlink_hooks)]
impl Warp {
    fn apply(&self, now: u64) -> u64 {
        match self.stopped_at.load(Ordering::Relaxed) {
            0 => now.saturating_add(self.jumped.load(Ordering::Relaxed)),
            stopped => stopped,
        }
    }
}

/// Puts this thread to sleep, and wakes it.
///
/// On `std`'s own parking, whose `unpark` takes no lock on Linux and Windows: a producer that wakes
/// the flusher must not wait for it. (`crossbeam`'s parker has a mutex, which its sleeper holds.)
#[derive(Debug)]
pub(crate) struct Parker(Waker);

impl Parker {
    pub(crate) fn new() -> Self {
        struct Unpark(thread::Thread);
        impl Wake for Unpark {
            fn wake(self: Arc<Self>) {
                self.0.unpark();
            }
            fn wake_by_ref(self: &Arc<Self>) {
                self.0.unpark();
            }
        }
        thread_local!(static WAKER: Waker = Arc::new(Unpark(thread::current())).into());
        // A thread that is ending may have lost its locals.
        Self(
            WAKER
                .try_with(Waker::clone)
                .unwrap_or_else(|_| Arc::new(Unpark(thread::current())).into()),
        )
    }

    /// Ends the sleep, now or the next one. It may end for no reason, too.
    pub(crate) fn waker(&self) -> &Waker {
        &self.0
    }

    /// Sleeps until woken or until `deadline` (`None`: no deadline).
    pub(crate) fn park(&self, deadline: Option<Instant>) {
        match deadline {
            Some(deadline) => {
                thread::park_timeout(deadline.saturating_duration_since(Instant::now()))
            }
            None => thread::park(),
        }
    }
}

/// A number per thread, spread over `u32` so that its high bits pick a shard.
///
/// The bits of serial numbers in reverse: of any power of two of equal parts, each gets one of as
/// many threads born one after the other.
#[inline]
pub(crate) fn thread_key() -> u32 {
    use std::cell::Cell;
    static NEXT: AtomicU32 = AtomicU32::new(0);
    thread_local!(static KEY: Cell<Option<u32>> = const { Cell::new(None) });
    // A thread that is shutting down may have lost its locals: any shard will do.
    KEY.try_with(|key| {
        key.get().unwrap_or_else(|| {
            let fresh = NEXT.fetch_add(1, Ordering::Relaxed).reverse_bits();
            key.set(Some(fresh));
            fresh
        })
    })
    .unwrap_or(0)
}
