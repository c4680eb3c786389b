//! The worker threads: requests in spans of their own, whose contexts are pushed.

use crate::args::Args;
use crate::telemetry::REQUEST_SPAN;
use batchlink::{LinkCollector, Producer, PushError};
use opentelemetry::Context;
use opentelemetry::trace::{SpanContext, TraceContextExt, Tracer};
use opentelemetry_sdk::trace::SdkTracer;
use std::error::Error;
use std::io;
use std::ops::AddAssign;
use std::sync::{Arc, Barrier};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// One request in so many is a health check, which is not traced.
const HEALTH_CHECK_EVERY: u64 = 64;
/// Contexts that may be repeated: so few that they are mostly in the same batch still.
const RECENT: usize = 4;

/// What a worker pushed, by its own count.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Pushes {
    pub(crate) pushed: u64,
    pub(crate) full: u64,
    pub(crate) closed: u64,
}

/// The threads that have not ended yet.
pub(crate) struct Pool {
    threads: Vec<JoinHandle<Pushes>>,
}

impl Pool {
    pub(crate) fn start(
        args: &Args,
        collector: &LinkCollector,
        tracer: &SdkTracer,
    ) -> io::Result<Self> {
        let pauses = Arc::new(Pauses {
            meeting: Barrier::new(args.threads as usize),
            collector: collector.clone(),
            max_delay: args.max_delay(),
            pause: args.pause(),
        });
        let start = |index: u32| {
            let mut worker = Worker {
                tracer: tracer.clone(),
                feed: Feed::new(collector.producer(), args.duplicates),
                requests: 0,
            };
            let plan = Plan::new(args, index);
            let pauses = Arc::clone(&pauses);
            thread::Builder::new().name(format!("worker-{index}")).spawn(move || {
                for round in plan {
                    worker.serve(round.contexts);
                    if round.pause {
                        pauses.pause(|| worker.serve_late_request());
                    }
                }
                worker.feed.pushes
            })
        };
        Ok(Self { threads: (0..args.threads).map(start).collect::<io::Result<_>>()? })
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.threads.is_empty()
    }

    /// What the threads pushed that have ended since the last call. Does not wait.
    pub(crate) fn join_finished(&mut self) -> Result<Pushes, Box<dyn Error>> {
        let mut sum = Pushes::default();
        while let Some(index) = self.threads.iter().position(JoinHandle::is_finished) {
            sum += self.threads.swap_remove(index).join().map_err(|_| "a worker has panicked")?;
        }
        Ok(sum)
    }
}

impl AddAssign for Pushes {
    fn add_assign(&mut self, other: Self) {
        self.pushed += other.pushed;
        self.full += other.full;
        self.closed += other.closed;
    }
}

struct Worker {
    tracer: SdkTracer,
    feed: Feed,
    requests: u64,
}

impl Worker {
    /// Serves requests until so many contexts are pushed.
    fn serve(&mut self, contexts: u64) {
        self.feed.left = contexts;
        while self.feed.left > 0 {
            self.requests += 1;
            if self.requests % HEALTH_CHECK_EVERY == 0 {
                self.feed.push_current(); // no span is active: counted as invalid, and that is all
            } else {
                self.serve_request();
            }
        }
    }

    /// One request whose context is pushed while all other workers are quiet.
    fn serve_late_request(&mut self) {
        self.feed.left = 1;
        self.serve_request();
    }

    /// A request has a trace of its own, with a child span or two. Its contexts go to the batch
    /// that will store its result.
    fn serve_request(&mut self) {
        let Self { tracer, feed, requests } = self;
        tracer.in_span(REQUEST_SPAN, |request| {
            feed.push_span(&request);
            tracer.in_span("load_item", |load| {
                feed.push_span(&load);
                if *requests % 2 == 0 {
                    tracer.in_span("encode_item", |encode| feed.push_span(&encode));
                }
            });
        });
    }
}

/// The way into the collector, and how much may still go there.
struct Feed {
    producer: Producer,
    left: u64,
    pushes: Pushes,
    /// Share of pushes that are to be repetitions.
    share: f64,
    /// Repetitions that are due.
    due: f64,
    repeated: usize,
    /// The newest is the last.
    recent: Vec<SpanContext>,
}

impl Feed {
    fn new(producer: Producer, share: f64) -> Self {
        let recent = Vec::with_capacity(RECENT + 1);
        Self { producer, left: 0, pushes: Pushes::default(), share, due: 0.0, repeated: 0, recent }
    }

    /// Pushes the context of the active span `cx`, then the repetitions that are due: as if several
    /// items of one request, or a second attempt, had come to the same batch.
    fn push_span(&mut self, cx: &Context) {
        if self.left == 0 {
            return;
        }
        self.push_current();
        self.recent.push(cx.span().span_context().clone());
        if self.recent.len() > RECENT {
            self.recent.remove(0);
        }
        while self.due >= 1.0 && self.left > 0 {
            self.due -= 1.0;
            self.repeated += 1;
            let answer = self.producer.push(&self.recent[self.repeated % self.recent.len()]);
            self.count(answer);
        }
    }

    fn push_current(&mut self) {
        let answer = self.producer.push_current();
        self.count(answer);
    }

    /// A refused context is not tried again: better a link less than a request that waits.
    fn count(&mut self, answer: Result<(), PushError>) {
        self.left -= 1;
        self.due += self.share;
        self.pushes.pushed += 1;
        match answer {
            Ok(()) => {}
            Err(PushError::Full) => self.pushes.full += 1,
            Err(_) => self.pushes.closed += 1,
        }
    }
}

/// What one worker does between two pauses.
struct Round {
    contexts: u64,
    pause: bool,
}

/// A worker's rounds. Each has `pause_every` contexts, the last one perhaps fewer; one of them is
/// left for the late request, the others are divided among the workers.
struct Plan {
    left: u64,
    pause_every: u64,
    threads: u64,
    index: u64,
}

impl Plan {
    fn new(args: &Args, index: u32) -> Self {
        Self {
            left: args.contexts,
            pause_every: args.pause_every,
            threads: args.threads.into(),
            index: index.into(),
        }
    }
}

impl Iterator for Plan {
    type Item = Round;

    fn next(&mut self) -> Option<Round> {
        let pause = self.pause_every > 0;
        let round = if pause { self.pause_every.min(self.left) } else { self.left };
        self.left -= round;
        let shared = round.checked_sub(pause.into())?;
        let contexts = shared / self.threads + u64::from(self.index < shared % self.threads);
        (round > 0).then_some(Round { contexts, pause })
    }
}

/// Pauses of all workers together, so that input really goes quiet.
struct Pauses {
    meeting: Barrier,
    collector: LinkCollector,
    max_delay: Duration,
    pause: Duration,
}

impl Pauses {
    /// Waits for all workers, then for the pause to be over. In its middle one worker serves a late
    /// request.
    fn pause(&self, late_request: impl FnOnce()) {
        if self.meeting.wait().is_leader() {
            let started = Instant::now();
            if self.pause > self.max_delay {
                // What is left of the rush may by chance fill its last batch, which then leaves by
                // size. A single context after that can leave by timeout only, whatever the
                // scheduler does (if a batch holds more than one).
                self.wait_until_empty();
                late_request();
                self.wait_until_empty();
            } else {
                late_request();
            }
            thread::sleep(self.pause.saturating_sub(started.elapsed()));
        }
        self.meeting.wait();
    }

    fn wait_until_empty(&self) {
        let patience = self.max_delay.saturating_add(Duration::from_secs(10));
        let started = Instant::now();
        while self.collector.stats().pending() > 0 && started.elapsed() < patience {
            thread::sleep(Duration::from_millis(1));
        }
    }
}
