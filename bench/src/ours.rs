//! batchlink, and the floor beneath all contestants.

use crate::contest::{Batch, Consumer, Contestant, Counts, Producer, Setup};
use crate::dedup::{Dedup, IndexDedup};
use crate::items::Stored;
use batchlink::{Flusher, LinkBatch, LinkCollector, LinkPolicy};
use crossbeam_utils::CachePadded;
use opentelemetry::trace::{Link, SpanContext};
use std::marker::PhantomData;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicU32, AtomicU64};
use std::time::Duration;

/// Through the shared collector, which finds the thread's shard at each push.
pub struct Collector;
/// Through a producer per thread.
pub struct Pinned;
/// Through `push_all`, in runs of `N`.
pub struct Runs<const N: usize>;

pub struct RunProducer<const N: usize>(LinkCollector);

fn open<P>(setup: Setup, producer: impl Fn(&LinkCollector) -> P) -> (Vec<P>, Flusher) {
    let (collector, flusher) = LinkCollector::builder()
        .with_max_batch_size(setup.batch)
        .with_queue_capacity(setup.capacity)
        // No batch waits for a timeout here.
        .with_max_delay(Duration::from_secs(3600))
        .with_link_policy(LinkPolicy::new().without_link_type())
        .build()
        .expect("a valid configuration");
    ((0..setup.producers).map(|_| producer(&collector)).collect(), flusher)
}

impl Contestant for Collector {
    type Producer = LinkCollector;
    type Consumer = Flusher;

    fn open(setup: Setup) -> (Vec<LinkCollector>, Flusher) {
        open(setup, LinkCollector::clone)
    }
}

impl Contestant for Pinned {
    type Producer = batchlink::Producer;
    type Consumer = Flusher;

    fn open(setup: Setup) -> (Vec<batchlink::Producer>, Flusher) {
        open(setup, LinkCollector::producer)
    }
}

impl<const N: usize> Contestant for Runs<N> {
    type Producer = RunProducer<N>;
    type Consumer = Flusher;

    fn open(setup: Setup) -> (Vec<RunProducer<N>>, Flusher) {
        open(setup, |collector| RunProducer(collector.clone()))
    }
}

macro_rules! producer {
    ($type:ty) => {
        impl Producer for $type {
            #[inline(always)]
            fn push(&mut self, context: &SpanContext) -> bool {
                <$type>::push(self, context).is_ok()
            }

            #[inline(always)]
            fn push_link(&mut self, link: &Link) -> bool {
                <$type>::push_link(self, link.clone()).is_ok()
            }

            fn push_all(&mut self, contexts: &[SpanContext]) -> usize {
                <$type>::push_all(self, contexts)
            }
        }
    };
}
producer!(LinkCollector);
producer!(batchlink::Producer);

impl<const N: usize> Producer for RunProducer<N> {
    fn push(&mut self, context: &SpanContext) -> bool {
        self.0.push(context).is_ok()
    }

    fn push_link(&mut self, link: &Link) -> bool {
        self.0.push_link(link.clone()).is_ok()
    }

    fn push_all(&mut self, contexts: &[SpanContext]) -> usize {
        contexts.chunks(N).map(|run| self.0.push_all(run)).sum()
    }
}

/// The counts of a batch in the form that all contestants share.
pub fn counts(batch: &LinkBatch) -> Counts {
    Counts {
        received: batch.received(),
        linked: batch.linked(),
        duplicates: batch.duplicates(),
        truncated: batch.truncated(),
    }
}

fn batch_of(batch: LinkBatch) -> Batch {
    let counts = counts(&batch);
    Batch { links: batch.into_links(), counts }
}

impl Consumer for Flusher {
    fn take(&mut self) -> Option<Batch> {
        self.try_next().map(batch_of)
    }

    fn wait(&mut self) -> Option<Batch> {
        self.next_batch().map(batch_of)
    }

    fn wake_ups(&self) -> Option<u64> {
        Some(self.stats().wake_ups())
    }
}

/// The floor: 32 bytes appended to a private `Vec` with room for all, then batchlink's dedup. No
/// check, no bound, no other thread: nothing can be faster, and it is of no use.
///
/// With `RMW` each push also pays what an exact trigger must: a compare-and-swap before it and a
/// store after it, on a line of its own.
pub struct Floor<I, const RMW: bool>(PhantomData<I>);

pub struct FloorProducer<I, const RMW: bool> {
    items: Vec<I>,
    word: CachePadded<(AtomicU64, AtomicU32)>,
}

pub struct FloorConsumer<I> {
    items: Vec<I>,
    dedup: IndexDedup,
}

impl<I: Stored, const RMW: bool> Contestant for Floor<I, RMW> {
    type Producer = FloorProducer<I, RMW>;
    type Consumer = FloorConsumer<I>;

    fn open(setup: Setup) -> (Vec<Self::Producer>, FloorConsumer<I>) {
        assert_eq!(setup.producers, 1, "the floor shares nothing");
        let items = || Vec::with_capacity(setup.capacity);
        let consumer = FloorConsumer { items: items(), dedup: IndexDedup::new(setup.batch) };
        (vec![FloorProducer { items: items(), word: CachePadded::default() }], consumer)
    }

    #[inline(always)]
    fn hand_over(producer: &mut Self::Producer, consumer: &mut FloorConsumer<I>) {
        std::mem::swap(&mut producer.items, &mut consumer.items);
    }
}

impl<I, const RMW: bool> FloorProducer<I, RMW> {
    #[inline(always)]
    fn put(&mut self, item: I) -> bool {
        let (word, published) = &*self.word;
        let claimed = word.load(Relaxed);
        if RMW && word.compare_exchange(claimed, claimed + 1, Acquire, Relaxed).is_err() {
            return false;
        }
        self.items.push(item);
        if RMW {
            published.store(claimed as u32, Release);
        }
        true
    }
}

impl<I: Stored, const RMW: bool> Producer for FloorProducer<I, RMW> {
    #[inline(always)]
    fn push(&mut self, context: &SpanContext) -> bool {
        self.put(I::from_context(context))
    }

    #[inline(always)]
    fn push_link(&mut self, link: &Link) -> bool {
        self.put(I::from_link(link))
    }

    fn push_all(&mut self, contexts: &[SpanContext]) -> usize {
        self.items.extend(contexts.iter().map(I::from_context));
        contexts.len()
    }
}

impl<I: Stored> Consumer for FloorConsumer<I> {
    fn take(&mut self) -> Option<Batch> {
        self.items.drain(..).for_each(|item| self.dedup.insert(item));
        (self.dedup.received() > 0).then(|| self.dedup.finish())
    }

    fn wait(&mut self) -> Option<Batch> {
        self.take()
    }
}
