//! The flusher's side.

use crate::common::Random;
use batchlink::{Flusher, LinkBatch};
use shuttle::sync::mpsc::{Receiver, channel};
use shuttle::sync::{Condvar, Mutex};
use shuttle::thread::{self, JoinHandle};
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};

/// A thread that takes every batch until the collector is closed, and hands it on.
pub struct Consumer {
    pub batches: Receiver<LinkBatch>,
    thread: JoinHandle<Flusher>,
}

impl Consumer {
    /// Blocking or async.
    pub fn start(mut flusher: Flusher, random: &mut Random) -> Self {
        let (give, batches) = channel();
        let next = [blocking, asynchronous, cancelled][random.below(3) as usize];
        let thread = thread::spawn(move || {
            while let Some(batch) = next(&mut flusher) {
                give.send(batch).expect("the scenario still listens");
            }
            flusher
        });
        Self { batches, thread }
    }

    /// The flusher, once it is done.
    pub fn join(self) -> Flusher {
        self.thread.join().expect("no panic")
    }
}

fn blocking(flusher: &mut Flusher) -> Option<LinkBatch> {
    flusher.next_batch()
}

fn asynchronous(flusher: &mut Flusher) -> Option<LinkBatch> {
    let mut next = pin!(flusher.next());
    let alarm = Arc::new(Alarm::default());
    let waker = Arc::clone(&alarm).into();
    loop {
        if let Poll::Ready(batch) = next.as_mut().poll(&mut Context::from_waker(&waker)) {
            return batch;
        }
        // Lets others run before the next poll of a task that has woken itself.
        thread::yield_now();
        alarm.wait();
    }
}

/// Waits, gives up, and waits again.
fn cancelled(flusher: &mut Flusher) -> Option<LinkBatch> {
    let first = {
        let next = pin!(flusher.next());
        next.poll(&mut Context::from_waker(Waker::noop()))
    };
    match first {
        Poll::Ready(batch) => batch,
        Poll::Pending => asynchronous(flusher),
    }
}

/// Not `shuttle::future::block_on`, which gives the others no chance before it polls again.
#[derive(Default)]
struct Alarm {
    rung: Mutex<bool>,
    ring: Condvar,
}

impl Alarm {
    fn wait(&self) {
        let mut rung = self.rung.lock().expect("no panic");
        while !std::mem::take(&mut *rung) {
            rung = self.ring.wait(rung).expect("no panic");
        }
    }
}

impl Wake for Alarm {
    fn wake(self: Arc<Self>) {
        *self.rung.lock().expect("no panic") = true;
        self.ring.notify_one();
    }
}
