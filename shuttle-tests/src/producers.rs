//! The producers' side: collectors of all small shapes, and pushes of all kinds.

use crate::common::choices::Item;
use crate::common::{Random, by_size};
use batchlink::{Dedup, Flusher, LinkCollector, LinkPolicy, Producer, PushError, Unsampled};
use opentelemetry::trace::{Link, SpanContext};
use opentelemetry::{KeyValue, StringValue};
use shuttle::thread::{self, JoinHandle};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// One collector, and what was pushed into it.
pub struct Case {
    /// Contexts that make a batch.
    pub size: usize,
    /// Every link with attributes holds one: all are gone in the end if each was dropped once.
    pub(crate) payload: Arc<str>,
    /// By lane.
    pub(crate) logs: Mutex<Vec<Log>>,
}

/// What became of one lane's pushes.
#[derive(Default)]
pub(crate) struct Log {
    /// In the order in which they were pushed.
    pub(crate) accepted: Vec<Link>,
    pub(crate) full: u64,
    pub(crate) closed: u64,
    pub(crate) invalid: u64,
    /// Refused by `push_all`, which does not say why.
    pub(crate) refused: u64,
}

impl Case {
    /// 1 to 4 shards of 1 to 8 slots, batches of 1 to 8.
    pub fn choose(random: &mut Random, delay: Duration) -> (Arc<Self>, LinkCollector, Flusher) {
        let size = 1 + random.below(8) as usize;
        let shards = 1 + random.below(4) as usize;
        let slots = 1 + random.below(4) as usize;
        // All contexts become links, so that links tell what was received.
        let (collector, flusher) = by_size(size)
            .with_max_delay(delay)
            .with_queue_capacity((shards * slots).max(size))
            .with_shards(shards)
            .with_link_policy(
                LinkPolicy::new()
                    .with_dedup(Dedup::Off)
                    .with_unsampled(Unsampled::Keep)
                    .without_link_type(),
            )
            .build()
            .expect("valid");
        let case = Self { size, payload: "payload".into(), logs: Mutex::default() };
        (Arc::new(case), collector, flusher)
    }

    /// Contexts accepted in lanes that have ended.
    pub fn accepted(&self) -> usize {
        self.logs
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .iter()
            .map(|log| log.accepted.len())
            .sum()
    }

    /// 8 to 16 threads that push up to 4 times each, in a hurry or not.
    pub fn producers(
        self: &Arc<Self>,
        collector: &LinkCollector,
        random: &mut Random,
    ) -> Vec<JoinHandle<()>> {
        let count = 8 + random.below(9);
        let threads = (0..count).map(|_| {
            let mut lane = Lane::new(self, collector, random);
            thread::spawn(move || {
                for _ in 0..=lane.random.below(4) {
                    lane.push();
                    pause(&mut lane.random, 20);
                }
            })
        });
        threads.collect()
    }
}

/// Lets others run for a while.
pub fn pause(random: &mut Random, longest: u64) {
    (0..random.below(longest)).for_each(|_| thread::yield_now());
}

enum Handle {
    Collector(LinkCollector),
    Producer(Producer),
}

/// What one thread pushes through one handle: delivered in this order. Ends when it is dropped.
pub struct Lane {
    case: Arc<Case>,
    number: usize,
    handle: Handle,
    pub random: Random,
    log: Log,
}

impl Lane {
    pub fn new(case: &Arc<Case>, collector: &LinkCollector, random: &mut Random) -> Self {
        let handle = match random.below(2) {
            0 => Handle::Collector(collector.clone()),
            _ => Handle::Producer(collector.producer()),
        };
        let mut logs = case.logs.lock().unwrap_or_else(PoisonError::into_inner);
        let number = logs.len();
        logs.push(Log::default());
        Self {
            case: Arc::clone(case),
            number,
            handle,
            random: Random(random.next()),
            log: Log::default(),
        }
    }

    /// Pushes once, in one of all ways.
    pub fn push(&mut self) {
        match self.random.below(8) {
            0..4 => {
                let context = self.item().context(self.number, 0);
                let result = self.push_context(&context);
                self.note(result, Link::with_context(context));
            }
            4..6 => {
                let mut link = self.item().link(self.number, 0);
                if !link.attributes.is_empty() {
                    let payload = StringValue::from(Arc::clone(&self.case.payload));
                    link.attributes.push(KeyValue::new("payload", payload));
                }
                let result = match &self.handle {
                    Handle::Collector(collector) => collector.push_link(link.clone()),
                    Handle::Producer(producer) => producer.push_link(link.clone()),
                };
                let result = result.map_err(|refused| {
                    let reason = refused.reason();
                    assert_eq!(refused.into_link(), link);
                    reason
                });
                self.note(result, link);
            }
            _ => {
                let run: Vec<SpanContext> = (0..=self.random.below(6))
                    .map(|_| self.item().context(self.number, 0))
                    .collect();
                let taken = match &self.handle {
                    Handle::Collector(collector) => collector.push_all(&run),
                    Handle::Producer(producer) => producer.push_all(&run),
                };
                self.log.refused += (run.len() - taken) as u64;
                for context in run.into_iter().take(taken) {
                    self.note(Ok(()), Link::with_context(context));
                }
            }
        }
    }

    /// Pushes a valid context, for which there is a free slot.
    pub fn push_accepted(&mut self) {
        let before = self.accepted();
        while self.accepted() == before {
            let context = self.item().context(self.number, 0);
            let result = self.push_context(&context);
            assert_eq!(result, Ok(()));
            self.note(result, Link::with_context(context));
        }
    }

    /// Contexts accepted so far.
    pub fn accepted(&self) -> usize {
        self.log.accepted.len()
    }

    fn push_context(&self, context: &SpanContext) -> Result<(), PushError> {
        match &self.handle {
            Handle::Collector(collector) => collector.push(context),
            Handle::Producer(producer) => producer.push(context),
        }
    }

    fn item(&mut self) -> Item {
        Item::choose(&mut self.random, 1 << 15)
    }

    fn note(&mut self, result: Result<(), PushError>, link: Link) {
        match result {
            Ok(()) if link.span_context.is_valid() => self.log.accepted.push(link),
            Ok(()) => self.log.invalid += 1,
            Err(PushError::Full) => self.log.full += 1,
            Err(PushError::Closed) => self.log.closed += 1,
            Err(other) => panic!("{other:?}"),
        }
    }
}

impl Drop for Lane {
    fn drop(&mut self) {
        // Before the handle goes, so that a thread that sees it gone finds the log.
        let mut logs = self.case.logs.lock().unwrap_or_else(PoisonError::into_inner);
        logs[self.number] = std::mem::take(&mut self.log);
    }
}
