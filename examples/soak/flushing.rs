//! The other end: every way to use a flusher, with a handler that checks and counts.

use crate::common::number;
use crate::plan::{Plan, Way};
use crate::tally::Handled;
use batchlink::{Flusher, FlusherHandle, LinkBatch, Stats};
use std::io;
use std::panic::resume_unwind;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// Longest call of a handler that takes its time.
const SLOW: Duration = Duration::from_millis(4);
/// Far more than any of these handlers needs for what may be pending.
const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) enum Flushing {
    Spawned(FlusherHandle),
    /// Ends when the collector is closed and everything was delivered.
    Thread(JoinHandle<Flusher>),
}

/// What the handler does with each batch.
struct Handler {
    handled: Arc<Handled>,
    slow: Arc<AtomicBool>,
    batch_size: usize,
    max_links: usize,
    /// Empty between calls; as large as the links of a batch are many if duplicates are to be
    /// expected.
    numbers: Vec<u64>,
}

impl Handler {
    fn call(&mut self, batch: LinkBatch) -> u64 {
        if self.numbers.capacity() > 0 {
            self.numbers.extend(batch.links().iter().map(number));
            self.numbers.sort_unstable();
            if self.numbers.windows(2).any(|pair| pair[0] == pair[1]) {
                self.handled.report("a batch links to one span twice".into());
            }
            self.numbers.clear();
        }
        let number = self.handled.take(&batch, self.batch_size, self.max_links);
        if self.slow.load(Ordering::Relaxed) {
            thread::sleep(SLOW / (1 + number as u32 % 4));
        }
        number
    }
}

impl Flushing {
    pub(crate) fn start(
        plan: &Plan,
        flusher: Flusher,
        handled: &Arc<Handled>,
        slow: &Arc<AtomicBool>,
    ) -> io::Result<Self> {
        let (handled, slow) = (Arc::clone(handled), Arc::clone(slow));
        let (way, panics) = (plan.way, plan.mix.panics);
        let (batch_size, max_links) = (plan.batch_size, plan.max_links);
        let numbers =
            Vec::with_capacity(if plan.mix.duplicates > 0 { max_links.min(batch_size) } else { 0 });
        let mut handler = Handler { handled, slow, batch_size, max_links, numbers };
        if way == Way::Spawned {
            let handle = flusher.spawn(move |batch| {
                let number = handler.call(batch);
                if panics > 0 && number % panics == 0 {
                    handler.handled.panics();
                    // Not `panic!`, which would write a line each time.
                    resume_unwind(Box::new("as planned"));
                }
            })?;
            return Ok(Self::Spawned(handle));
        }
        let run = move || take_all(way, flusher, &mut handler);
        Ok(Self::Thread(thread::Builder::new().spawn(run)?))
    }

    /// Waits for the end of a collector that is closed or about to be, and gives its last counters.
    pub(crate) fn end(self) -> Result<Stats, String> {
        match self {
            Self::Spawned(handle) => {
                handle.shutdown_with_timeout(PATIENCE).map_err(|error| error.to_string())?;
                Ok(handle.stats())
            }
            Self::Thread(thread) => {
                let flusher = thread.join().map_err(|_| "a flusher panicked")?;
                Ok(flusher.stats())
            }
        }
    }
}

fn take_all(way: Way, mut flusher: Flusher, handler: &mut Handler) -> Flusher {
    match way {
        Way::Spawned | Way::Blocking => {
            while let Some(batch) = flusher.next_batch() {
                handler.call(batch);
            }
        }
        Way::Impatient => loop {
            match flusher.next_batch_timeout(Duration::from_micros(700)) {
                Ok(Some(batch)) => _ = handler.call(batch),
                Ok(None) => break,
                Err(_timeout) => {}
            }
        },
        Way::Polling => loop {
            while let Some(batch) = flusher.try_next() {
                handler.call(batch);
            }
            // It is the waiting calls that tell the end.
            match flusher.next_batch_timeout(Duration::ZERO) {
                Ok(Some(batch)) => _ = handler.call(batch),
                Ok(None) => break,
                Err(_timeout) => thread::sleep(Duration::from_micros(300)),
            }
        },
        #[cfg(feature = "tokio")]
        Way::Async => {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
            match runtime {
                Ok(runtime) => runtime.block_on(async {
                    while let Some(batch) = flusher.next().await {
                        handler.call(batch);
                    }
                }),
                Err(error) => handler.handled.report(format!("no runtime: {error}")),
            }
        }
    }
    let pending = flusher.stats().pending();
    if pending > 0 {
        handler.handled.report(format!("a flusher ended with {pending} pending"));
    }
    flusher
}
