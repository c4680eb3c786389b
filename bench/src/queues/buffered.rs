//! Queues with a way of their own to receive several items, or to write in place.

use super::{Queue, clones, poll_until, pump};
use crate::contest::Setup;
use crate::items::Stored;
use opentelemetry::trace::SpanContext;
use tokio::sync::mpsc;

pub struct TokioMpsc;

pub struct TokioReceiver<I> {
    receiver: mpsc::Receiver<I>,
    buffer: Vec<I>,
}

impl<I: Stored> Queue<I> for TokioMpsc {
    type Sender = mpsc::Sender<I>;
    type Receiver = TokioReceiver<I>;

    fn open(setup: Setup) -> (Vec<Self::Sender>, Self::Receiver) {
        let (sender, receiver) = mpsc::channel(setup.capacity);
        (clones(sender, setup), TokioReceiver { receiver, buffer: Vec::with_capacity(setup.batch) })
    }

    #[inline(always)]
    fn send(sender: &mut Self::Sender, make: impl FnOnce() -> I) -> bool {
        sender.try_send(make()).is_ok()
    }

    fn send_all(sender: &mut Self::Sender, contexts: &[SpanContext]) -> usize {
        // All or nothing; then one by one.
        let Ok(permits) = sender.try_reserve_many(contexts.len()) else {
            return contexts
                .iter()
                .take_while(|context| sender.try_send(I::from_context(context)).is_ok())
                .count();
        };
        permits.zip(contexts).for_each(|(permit, context)| permit.send(I::from_context(context)));
        contexts.len()
    }

    #[inline(always)]
    fn receive(receiver: &mut Self::Receiver, most: usize, each: impl FnMut(I)) -> usize {
        pump(most, || receiver.receiver.try_recv().ok(), each)
    }

    fn wait(receiver: &mut Self::Receiver, most: usize, each: impl FnMut(I)) -> usize {
        let count = receiver.receiver.blocking_recv_many(&mut receiver.buffer, most);
        receiver.buffer.drain(..).for_each(each);
        count
    }
}

pub struct Thingbuf;

/// Leaves its elements alone: they are taken out by value.
pub struct Empty;

impl<I> thingbuf::recycling::Recycle<Option<I>> for Empty {
    fn new_element(&self) -> Option<I> {
        None
    }

    fn recycle(&self, element: &mut Option<I>) {
        *element = None;
    }
}

impl<I: Stored> Queue<I> for Thingbuf {
    type Sender = thingbuf::mpsc::blocking::Sender<Option<I>, Empty>;
    type Receiver = thingbuf::mpsc::blocking::Receiver<Option<I>, Empty>;

    fn open(setup: Setup) -> (Vec<Self::Sender>, Self::Receiver) {
        let (sender, receiver) = thingbuf::mpsc::blocking::with_recycle(setup.capacity, Empty);
        (clones(sender, setup), receiver)
    }

    #[inline(always)]
    fn send(sender: &mut Self::Sender, make: impl FnOnce() -> I) -> bool {
        match sender.try_send_ref() {
            Ok(mut slot) => {
                *slot = Some(make());
                true
            }
            Err(_) => false,
        }
    }

    #[inline(always)]
    fn receive(receiver: &mut Self::Receiver, most: usize, each: impl FnMut(I)) -> usize {
        pump(most, || receiver.try_recv_ref().ok()?.take(), each)
    }

    #[inline(always)]
    fn wait(receiver: &mut Self::Receiver, most: usize, mut each: impl FnMut(I)) -> usize {
        match receiver.recv_ref() {
            Some(mut slot) => slot.take().into_iter().for_each(&mut each),
            None => return 0,
        }
        1 + Self::receive(receiver, most - 1, each)
    }
}

/// One ring per producer, looked at in turn.
pub struct Rtrb;

pub struct RtrbReceiver<I> {
    rings: Vec<rtrb::Consumer<I>>,
    first: usize,
}

impl<I: Stored> Queue<I> for Rtrb {
    type Sender = rtrb::Producer<I>;
    type Receiver = RtrbReceiver<I>;

    fn open(setup: Setup) -> (Vec<Self::Sender>, Self::Receiver) {
        let each = (setup.capacity / setup.producers).max(setup.batch);
        let (senders, rings) = (0..setup.producers).map(|_| rtrb::RingBuffer::new(each)).unzip();
        (senders, RtrbReceiver { rings, first: 0 })
    }

    #[inline(always)]
    fn send(sender: &mut Self::Sender, make: impl FnOnce() -> I) -> bool {
        sender.push(make()).is_ok()
    }

    fn send_all(sender: &mut Self::Sender, contexts: &[SpanContext]) -> usize {
        let room = sender.slots().min(contexts.len());
        match sender.write_chunk_uninit(room) {
            Ok(chunk) => chunk.fill_from_iter(contexts.iter().map(I::from_context)),
            Err(_) => 0,
        }
    }

    #[inline(always)]
    fn receive(receiver: &mut Self::Receiver, most: usize, mut each: impl FnMut(I)) -> usize {
        let rings = receiver.rings.len();
        let mut left = most;
        for step in 0..rings {
            let ring = &mut receiver.rings[(receiver.first + step) % rings];
            let count = ring.slots().min(left);
            if let Ok(chunk) = ring.read_chunk(count) {
                chunk.into_iter().for_each(&mut each);
                left -= count;
            }
        }
        receiver.first = (receiver.first + 1) % rings;
        most - left
    }

    fn wait(receiver: &mut Self::Receiver, most: usize, mut each: impl FnMut(I)) -> usize {
        let receiver = std::cell::RefCell::new(receiver);
        let gone = || receiver.borrow().rings.iter().all(|ring| ring.is_abandoned());
        poll_until(gone, || Self::receive(&mut receiver.borrow_mut(), most, &mut each))
    }
}
