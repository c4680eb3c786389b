//! batchlink, and the floor beneath all contestants.

use crate::contest::{Batch, Consumer, Contestant, Counts, Producer, Setup};
use crate::dedup::{Dedup, IndexDedup};
use crate::items::Stored;
use batchlink::{Flusher, LinkBatch, LinkCollector, LinkPolicy};
use opentelemetry::trace::{Link, SpanContext};
use std::marker::PhantomData;
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
pub struct Floor<I>(PhantomData<I>);

pub struct FloorProducer<I>(Vec<I>);

pub struct FloorConsumer<I> {
    items: Vec<I>,
    dedup: IndexDedup,
}

impl<I: Stored> Contestant for Floor<I> {
    type Producer = FloorProducer<I>;
    type Consumer = FloorConsumer<I>;

    fn open(setup: Setup) -> (Vec<FloorProducer<I>>, FloorConsumer<I>) {
        assert_eq!(setup.producers, 1, "the floor shares nothing");
        let items = || Vec::with_capacity(setup.capacity);
        let consumer = FloorConsumer { items: items(), dedup: IndexDedup::new(setup.batch) };
        (vec![FloorProducer(items())], consumer)
    }

    #[inline(always)]
    fn hand_over(producer: &mut FloorProducer<I>, consumer: &mut FloorConsumer<I>) {
        std::mem::swap(&mut producer.0, &mut consumer.items);
    }
}

impl<I: Stored> Producer for FloorProducer<I> {
    #[inline(always)]
    fn push(&mut self, context: &SpanContext) -> bool {
        self.0.push(I::from_context(context));
        true
    }

    #[inline(always)]
    fn push_link(&mut self, link: &Link) -> bool {
        self.0.push(I::from_link(link));
        true
    }

    fn push_all(&mut self, contexts: &[SpanContext]) -> usize {
        self.0.extend(contexts.iter().map(I::from_context));
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
