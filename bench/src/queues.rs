//! Contestants that are queues of items, one by one.

use crate::contest::{Batch, Consumer, Contestant, Producer, Setup};
use crate::dedup::Dedup;
use crate::items::Stored;
use crossbeam_utils::Backoff;
use opentelemetry::trace::{Link, SpanContext};
use std::marker::PhantomData;
use std::sync::{Arc, mpsc};

/// A queue, used as its documentation recommends.
pub trait Queue<I: Stored>: 'static {
    type Sender: Send + 'static;
    type Receiver: Send + 'static;

    fn open(setup: Setup) -> (Vec<Self::Sender>, Self::Receiver);

    /// False: full.
    fn send(sender: &mut Self::Sender, make: impl FnOnce() -> I) -> bool;

    /// As many as are taken, from the first on.
    fn send_all(sender: &mut Self::Sender, contexts: &[SpanContext]) -> usize {
        contexts
            .iter()
            .take_while(|context| Self::send(sender, || I::from_context(context)))
            .count()
    }

    /// Gives what is there, at most `most`, to `each`; says how many.
    fn receive(receiver: &mut Self::Receiver, most: usize, each: impl FnMut(I)) -> usize;

    /// As `receive`, but waits for at least one; 0 once all senders are gone.
    fn wait(receiver: &mut Self::Receiver, most: usize, each: impl FnMut(I)) -> usize;
}

/// A [`Queue`] with a dedup behind it.
pub struct Queued<Q, I, D>(PhantomData<(Q, I, D)>);

pub struct QueueProducer<Q: Queue<I>, I: Stored>(Q::Sender);

pub struct QueueConsumer<Q: Queue<I>, I: Stored, D> {
    receiver: Q::Receiver,
    dedup: D,
    batch: usize,
}

impl<Q: Queue<I>, I: Stored, D: Dedup> Contestant for Queued<Q, I, D> {
    type Producer = QueueProducer<Q, I>;
    type Consumer = QueueConsumer<Q, I, D>;

    fn open(setup: Setup) -> (Vec<Self::Producer>, Self::Consumer) {
        let (senders, receiver) = Q::open(setup);
        let producers = senders.into_iter().map(QueueProducer).collect();
        (producers, QueueConsumer { receiver, dedup: D::new(setup.batch), batch: setup.batch })
    }
}

impl<Q: Queue<I>, I: Stored> Producer for QueueProducer<Q, I> {
    #[inline(always)]
    fn push(&mut self, context: &SpanContext) -> bool {
        Q::send(&mut self.0, || I::from_context(context))
    }

    #[inline(always)]
    fn push_link(&mut self, link: &Link) -> bool {
        Q::send(&mut self.0, || I::from_link(link))
    }

    fn push_all(&mut self, contexts: &[SpanContext]) -> usize {
        Q::send_all(&mut self.0, contexts)
    }
}

impl<Q: Queue<I>, I: Stored, D: Dedup> Consumer for QueueConsumer<Q, I, D> {
    fn take(&mut self) -> Option<Batch> {
        let dedup = &mut self.dedup;
        match Q::receive(&mut self.receiver, self.batch - dedup.received(), |item| {
            dedup.insert(item)
        }) {
            0 => None,
            _ => Some(dedup.finish()),
        }
    }

    fn wait(&mut self) -> Option<Batch> {
        let dedup = &mut self.dedup;
        while dedup.received() < self.batch {
            let missing = self.batch - dedup.received();
            if Q::wait(&mut self.receiver, missing, |item| dedup.insert(item)) == 0 {
                break;
            }
        }
        (dedup.received() > 0).then(|| dedup.finish())
    }
}

/// Gives up to `most` of what `next` gives to `each`.
#[inline(always)]
pub fn pump<I>(most: usize, mut next: impl FnMut() -> Option<I>, each: impl FnMut(I)) -> usize {
    let mut count = 0;
    std::iter::from_fn(|| if count < most { next().inspect(|_| count += 1) } else { None })
        .for_each(each);
    count
}

/// For queues that cannot wait: looks again and again, giving way, until `gone`.
fn poll_until(mut gone: impl FnMut() -> bool, mut receive: impl FnMut() -> usize) -> usize {
    let backoff = Backoff::new();
    loop {
        // First whether they are gone: what they left behind is then found.
        let last = gone();
        match receive() {
            0 if last => return 0,
            0 => backoff.snooze(),
            count => return count,
        }
    }
}

fn clones<T: Clone>(sender: T, setup: Setup) -> Vec<T> {
    vec![sender; setup.producers]
}

/// Whether the receiver is the last one to hold this.
fn alone<T>(queue: &Arc<T>) -> bool {
    let alone = Arc::strong_count(queue) == 1;
    // Pairs with the Release of the counts that went before.
    std::sync::atomic::fence(std::sync::atomic::Ordering::Acquire);
    alone
}

macro_rules! polled_queue {
    ($name:ident, $queue:ident, |$setup:ident| $new:expr, |$at:ident, $value:ident| $push:expr) => {
        pub struct $name;

        impl<I: Stored> Queue<I> for $name {
            type Sender = Arc<crossbeam_queue::$queue<I>>;
            type Receiver = Arc<crossbeam_queue::$queue<I>>;

            fn open($setup: Setup) -> (Vec<Self::Sender>, Self::Receiver) {
                let queue = Arc::new($new);
                (clones(Arc::clone(&queue), $setup), queue)
            }

            #[inline(always)]
            fn send($at: &mut Self::Sender, make: impl FnOnce() -> I) -> bool {
                let $value = make();
                $push
            }

            #[inline(always)]
            fn receive(receiver: &mut Self::Receiver, most: usize, each: impl FnMut(I)) -> usize {
                pump(most, || receiver.pop(), each)
            }

            fn wait(receiver: &mut Self::Receiver, most: usize, mut each: impl FnMut(I)) -> usize {
                poll_until(|| alone(receiver), || pump(most, || receiver.pop(), &mut each))
            }
        }
    };
}
polled_queue!(
    ArrayQueue,
    ArrayQueue,
    |setup| crossbeam_queue::ArrayQueue::new(setup.capacity),
    |queue, value| queue.push(value).is_ok()
);
polled_queue!(SegQueue, SegQueue, |setup| crossbeam_queue::SegQueue::new(), |queue, value| {
    queue.push(value);
    true
});

/// Channels that can wait, all with the same names for the same things.
macro_rules! channel {
    (
        $name:ident, $sender:ty, $receiver:ty, $bounded:path,
        |$result:ident| $sent:expr, |$got:ident| $item:expr
    ) => {
        pub struct $name;

        impl<I: Stored> Queue<I> for $name {
            type Sender = $sender;
            type Receiver = $receiver;

            fn open(setup: Setup) -> (Vec<Self::Sender>, Self::Receiver) {
                let (sender, receiver) = $bounded(setup.capacity);
                (clones(sender, setup), receiver)
            }

            #[inline(always)]
            fn send(sender: &mut Self::Sender, make: impl FnOnce() -> I) -> bool {
                let $result = sender.try_send(make());
                $sent
            }

            #[inline(always)]
            fn receive(receiver: &mut Self::Receiver, most: usize, each: impl FnMut(I)) -> usize {
                let next = || {
                    let $got = receiver.try_recv();
                    $item
                };
                pump(most, next, each)
            }

            #[inline(always)]
            fn wait(receiver: &mut Self::Receiver, most: usize, mut each: impl FnMut(I)) -> usize {
                let Ok(first) = receiver.recv() else { return 0 };
                each(first);
                1 + <Self as Queue<I>>::receive(receiver, most - 1, each)
            }
        }
    };
}
channel!(
    CrossbeamChannel,
    crossbeam_channel::Sender<I>,
    crossbeam_channel::Receiver<I>,
    crossbeam_channel::bounded,
    |result| result.is_ok(),
    |got| got.ok()
);
channel!(
    SyncChannel,
    mpsc::SyncSender<I>,
    mpsc::Receiver<I>,
    mpsc::sync_channel,
    |result| result.is_ok(),
    |got| got.ok()
);
channel!(
    Flume,
    flume::Sender<I>,
    flume::Receiver<I>,
    flume::bounded,
    |result| result.is_ok(),
    |got| got.ok()
);
channel!(
    Kanal,
    kanal::Sender<I>,
    kanal::Receiver<I>,
    kanal::bounded,
    |result| result == Ok(true),
    |got| got.ok().flatten()
);

mod buffered;
pub use buffered::{Rtrb, Thingbuf, TokioMpsc};
