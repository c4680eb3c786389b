//! Everything that the model checker must see: atomics, cells, parking, time.
//!
//! No other module names `std::sync::atomic`, so building with
//! `--cfg batchlink_loom` puts the whole protocol under loom.

pub(crate) use imp::*;

/// Atomics that loom is *not* shown, because no step of the protocol depends on them: statistics,
/// and the shards' shares, which only the coordinator touches and any value of which is correct.
/// Modelling them would add interleavings and no behaviour.
pub(crate) mod unmodelled {
    pub(crate) use std::sync::atomic::{AtomicU32, AtomicU64};
}

#[cfg(not(batchlink_loom))]
mod imp {
    pub(crate) use crossbeam_utils::Backoff;
    pub(crate) use crossbeam_utils::sync::{Parker, Unparker};
    pub(crate) use std::sync::Arc;
    pub(crate) use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, AtomicUsize, Ordering};
    use std::time::{Duration, Instant};

    #[cfg(feature = "tokio")]
    pub(crate) use atomic_waker::AtomicWaker;

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
    pub(crate) struct Clock {
        start: Instant,
        #[cfg(batchlink_hooks)]
        pub(crate) warp: Warp,
    }

    impl Clock {
        pub(crate) fn new() -> Self {
            Self {
                start: Instant::now(),
                #[cfg(batchlink_hooks)]
                warp: Warp::default(),
            }
        }

        /// Nanoseconds since `new`; never 0, so that 0 can mean "not set".
        pub(crate) fn now(&self) -> u64 {
            let now = u64::try_from(self.start.elapsed().as_nanos()).unwrap_or(u64::MAX).max(1);
            #[cfg(batchlink_hooks)]
            let now = self.warp.apply(now);
            now
        }

        /// The instant behind a reading of this clock; `None` beyond what `Instant` can hold.
        pub(crate) fn instant(&self, nanos: u64) -> Option<Instant> {
            #[cfg(batchlink_hooks)]
            return Instant::now().checked_add(Duration::from_nanos(nanos.saturating_sub(self.now())));
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
        use std::sync::atomic::AtomicU32;
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
}

#[cfg(batchlink_loom)]
mod imp {
    pub(crate) use loom::cell::UnsafeCell;
    pub(crate) use loom::sync::Arc;
    pub(crate) use loom::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, AtomicUsize, Ordering};
    use std::time::Instant;

    pub(crate) fn arc_slice<T>(values: Vec<T>) -> Arc<[T]> {
        Arc::from_std(values.into())
    }

    /// loom's model of it, behind `atomic_waker`'s interface.
    #[cfg(feature = "tokio")]
    #[derive(Debug)]
    pub(crate) struct AtomicWaker(loom::future::AtomicWaker);

    #[cfg(feature = "tokio")]
    impl AtomicWaker {
        pub(crate) fn new() -> Self {
            Self(loom::future::AtomicWaker::new())
        }

        pub(crate) fn register(&self, waker: &std::task::Waker) {
            self.0.register_by_ref(waker);
        }

        pub(crate) fn wake(&self) {
            self.0.wake();
        }
    }

    /// `crossbeam_utils::sync::Parker` as loom sees it: one token, one waiter.
    #[derive(Debug)]
    pub(crate) struct Parker(Unparker);

    #[derive(Debug, Clone)]
    pub(crate) struct Unparker(std::sync::Arc<loom::sync::Notify>);

    impl Parker {
        pub(crate) fn new() -> Self {
            Self(Unparker(std::sync::Arc::new(loom::sync::Notify::new())))
        }

        pub(crate) fn unparker(&self) -> &Unparker {
            &self.0
        }
    }

    impl Unparker {
        pub(crate) fn unpark(&self) {
            self.0.notify();
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

    pub(crate) fn park(parker: &Parker, _deadline: Option<Instant>) {
        parker.0.0.wait();
    }

    /// Waiting for another thread is a yield in a model.
    pub(crate) struct Backoff;

    impl Backoff {
        pub(crate) fn new() -> Self {
            Self
        }

        pub(crate) fn snooze(&self) {
            loom::thread::yield_now();
        }

        pub(crate) fn is_completed(&self) -> bool {
            false
        }

        pub(crate) fn reset(&self) {}
    }

    /// Models choose shards by `Producer`; everything else goes to the first.
    pub(crate) fn thread_key() -> u32 {
        0
    }
}
