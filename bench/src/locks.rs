//! Contestants that share a `Vec` under a lock.

use crate::contest::{Batch, Consumer, Contestant, Producer, Setup};
use crate::dedup::Dedup;
use crate::items::Stored;
use opentelemetry::trace::{Link, SpanContext};
use std::collections::VecDeque;
use std::marker::PhantomData;
use std::sync::Arc;

/// What is under the lock.
pub struct State<I> {
    items: Vec<I>,
    /// The consumer is to be told when there are this many.
    wanted: usize,
    producers: usize,
}

/// The two mutexes, whose interfaces differ.
pub trait Lock: 'static {
    type Of<I: Stored>: Send + Sync;

    fn new<I: Stored>(state: State<I>) -> Self::Of<I>;
    fn with<I: Stored, R>(lock: &Self::Of<I>, work: impl FnOnce(&mut State<I>) -> R) -> R;
    fn notify<I: Stored>(lock: &Self::Of<I>);
    /// Waits until `ready`, then works, under one lock.
    fn wait<I: Stored, R>(
        lock: &Self::Of<I>,
        ready: impl Fn(&State<I>) -> bool,
        work: impl FnOnce(&mut State<I>) -> R,
    ) -> R;
}

pub struct Std;

impl Lock for Std {
    type Of<I: Stored> = (std::sync::Mutex<State<I>>, std::sync::Condvar);

    fn new<I: Stored>(state: State<I>) -> Self::Of<I> {
        (state.into(), Default::default())
    }

    #[inline(always)]
    fn with<I: Stored, R>((lock, _): &Self::Of<I>, work: impl FnOnce(&mut State<I>) -> R) -> R {
        work(&mut lock.lock().expect("nobody panics under the lock"))
    }

    fn notify<I: Stored>((_, ready): &Self::Of<I>) {
        ready.notify_one();
    }

    fn wait<I: Stored, R>(
        (lock, changed): &Self::Of<I>,
        ready: impl Fn(&State<I>) -> bool,
        work: impl FnOnce(&mut State<I>) -> R,
    ) -> R {
        let guard = lock.lock().expect("nobody panics under the lock");
        let guard = changed.wait_while(guard, |state| !ready(state));
        work(&mut guard.expect("nobody panics under the lock"))
    }
}

pub struct ParkingLot;

impl Lock for ParkingLot {
    type Of<I: Stored> = (parking_lot::Mutex<State<I>>, parking_lot::Condvar);

    fn new<I: Stored>(state: State<I>) -> Self::Of<I> {
        (parking_lot::Mutex::new(state), Default::default())
    }

    #[inline(always)]
    fn with<I: Stored, R>((lock, _): &Self::Of<I>, work: impl FnOnce(&mut State<I>) -> R) -> R {
        work(&mut lock.lock())
    }

    fn notify<I: Stored>((_, ready): &Self::Of<I>) {
        ready.notify_one();
    }

    fn wait<I: Stored, R>(
        (lock, changed): &Self::Of<I>,
        ready: impl Fn(&State<I>) -> bool,
        work: impl FnOnce(&mut State<I>) -> R,
    ) -> R {
        let mut guard = lock.lock();
        changed.wait_while(&mut guard, |state| !ready(state));
        work(&mut guard)
    }
}

/// `Mutex<Vec>` and a condition variable; the consumer swaps the `Vec` for its empty one, so that
/// the lock is held as shortly as can be.
pub struct Locked<L, I, D>(PhantomData<(L, I, D)>);

pub struct LockProducer<L: Lock, I: Stored> {
    shared: Arc<L::Of<I>>,
    capacity: usize,
}

pub struct LockConsumer<L: Lock, I: Stored, D> {
    shared: Arc<L::Of<I>>,
    spare: Vec<I>,
    dedup: D,
    done: VecDeque<Batch>,
    batch: usize,
}

impl<L: Lock, I: Stored, D: Dedup> Contestant for Locked<L, I, D> {
    type Producer = LockProducer<L, I>;
    type Consumer = LockConsumer<L, I, D>;

    fn open(setup: Setup) -> (Vec<Self::Producer>, Self::Consumer) {
        let items = Vec::with_capacity(setup.capacity);
        let state = State { items, wanted: setup.batch, producers: setup.producers };
        let shared = Arc::new(L::new(state));
        let producer = || LockProducer { shared: Arc::clone(&shared), capacity: setup.capacity };
        let producers = std::iter::repeat_with(producer).take(setup.producers).collect();
        let consumer = LockConsumer {
            shared,
            spare: Vec::with_capacity(setup.capacity),
            dedup: D::new(setup.batch),
            done: VecDeque::new(),
            batch: setup.batch,
        };
        (producers, consumer)
    }
}

impl<L: Lock, I: Stored> LockProducer<L, I> {
    #[inline(always)]
    fn put(&self, item: I) -> bool {
        let (taken, tell) = L::with(&self.shared, |state| {
            let taken = state.items.len() < self.capacity;
            if taken {
                state.items.push(item);
            }
            (taken, state.items.len() == state.wanted)
        });
        if tell {
            L::notify(&self.shared);
        }
        taken
    }
}

impl<L: Lock, I: Stored> Producer for LockProducer<L, I> {
    #[inline(always)]
    fn push(&mut self, context: &SpanContext) -> bool {
        self.put(I::from_context(context))
    }

    #[inline(always)]
    fn push_link(&mut self, link: &Link) -> bool {
        self.put(I::from_link(link))
    }

    fn push_all(&mut self, contexts: &[SpanContext]) -> usize {
        let (count, tell) = L::with(&self.shared, |state| {
            let before = state.items.len();
            let count = contexts.len().min(self.capacity - before);
            state.items.extend(contexts[..count].iter().map(I::from_context));
            (count, before < state.wanted && state.items.len() >= state.wanted)
        });
        if tell {
            L::notify(&self.shared);
        }
        count
    }
}

impl<L: Lock, I: Stored> Drop for LockProducer<L, I> {
    fn drop(&mut self) {
        L::with(&self.shared, |state| state.producers -= 1);
        L::notify(&self.shared);
    }
}

impl<L: Lock, I: Stored, D: Dedup> LockConsumer<L, I, D> {
    fn digest(&mut self) {
        for item in self.spare.drain(..) {
            self.dedup.insert(item);
            if self.dedup.received() == self.batch {
                self.done.push_back(self.dedup.finish());
            }
        }
    }

    fn rest(&mut self) -> Option<Batch> {
        let dedup = &mut self.dedup;
        self.done.pop_front().or_else(|| (dedup.received() > 0).then(|| dedup.finish()))
    }
}

impl<L: Lock, I: Stored, D: Dedup> Consumer for LockConsumer<L, I, D> {
    fn take(&mut self) -> Option<Batch> {
        L::with(&self.shared, |state| std::mem::swap(&mut state.items, &mut self.spare));
        self.digest();
        self.rest()
    }

    fn wait(&mut self) -> Option<Batch> {
        while self.done.is_empty() {
            let missing = self.batch - self.dedup.received();
            L::with(&self.shared, |state| state.wanted = missing);
            let closed = L::wait(
                &self.shared,
                |state| state.items.len() >= missing || state.producers == 0,
                |state| {
                    std::mem::swap(&mut state.items, &mut self.spare);
                    state.producers == 0
                },
            );
            self.digest();
            if closed {
                return self.rest();
            }
        }
        self.done.pop_front()
    }
}
