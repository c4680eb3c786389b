//! One thread that pushes, for one phase.

use crate::common::{Random, context, state_of, with_flags, with_state};
use crate::plan::{ATTRIBUTES, LONGEST_RUN, Mix, Phase, STATE_BYTES};
use crate::tally::Pushed;
use batchlink::{LinkCollector, Producer, PushError};
use opentelemetry::KeyValue;
use opentelemetry::trace::{Link, SpanContext, TraceFlags, TraceState};
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// Every context of the process has a number of its own, unless it is to be a duplicate.
static NUMBERS: AtomicU64 = AtomicU64::new(1);

pub(crate) struct Pusher<'a> {
    collector: &'a LinkCollector,
    producer: Producer,
    tally: &'a Pushed,
    mix: Mix,
    random: Random,
    states: &'a [TraceState],
    recent: u64,
}

/// A trace state for each of [`STATE_BYTES`].
pub(crate) fn states() -> Vec<TraceState> {
    STATE_BYTES.map(state_of).into()
}

impl<'a> Pusher<'a> {
    pub(crate) fn new(
        collector: &'a LinkCollector,
        tally: &'a Pushed,
        mix: Mix,
        random: Random,
        states: &'a [TraceState],
    ) -> Self {
        Self {
            collector,
            producer: collector.producer(),
            tally,
            mix,
            random,
            states,
            recent: fresh(1),
        }
    }

    pub(crate) fn run(mut self, phase: Phase, until: Instant) {
        while Instant::now() < until {
            match phase {
                Phase::Quiet => thread::sleep(until.saturating_duration_since(Instant::now())),
                Phase::Trickle => {
                    self.push();
                    thread::sleep(Duration::from_micros(200 + self.random.below(5000)));
                }
                Phase::Steady => {
                    for _ in 0..1 + self.random.below(200) {
                        self.push();
                    }
                    thread::sleep(Duration::from_micros(self.random.below(200)));
                }
                Phase::Burst | Phase::SlowHandler | Phase::Flushes => {
                    for _ in 0..256 {
                        self.push();
                    }
                    // Or nothing but refusals would be tested on a machine with few processors.
                    thread::yield_now();
                }
            }
        }
    }

    fn push(&mut self) {
        let mut chance = self.random.below(100);
        let mut falls_to = |share: u64| {
            let hit = chance < share;
            chance = if hit { u64::MAX } else { chance - share };
            hit
        };
        let mix = self.mix;
        if falls_to(mix.with_state) {
            let number = fresh(1);
            let context = with_state(
                number,
                &self.states[self.random.below(self.states.len() as u64) as usize],
            );
            self.push_one(number, &context);
        } else if falls_to(mix.with_attributes) {
            self.push_link();
        } else if falls_to(mix.runs) {
            self.push_run();
        } else if falls_to(mix.invalid) {
            self.tally.begin(1);
            // No span is active here.
            let answer = self.collector.push_current();
            debug_assert!(answer.is_ok());
            self.tally.invalid(1);
        } else if falls_to(mix.unsampled) {
            let number = fresh(1);
            self.push_one(number, &with_flags(number, TraceFlags::default()));
        } else {
            if !falls_to(mix.duplicates) {
                self.recent = fresh(1);
            }
            self.push_one(self.recent, &context(self.recent));
        }
    }

    fn push_one(&mut self, number: u64, context: &SpanContext) {
        self.tally.begin(1);
        let answer = match self.random.below(2) {
            0 => self.collector.push(context),
            _ => self.producer.push(context),
        };
        self.note(number, context.is_sampled(), answer);
    }

    fn push_link(&mut self) {
        let number = fresh(1);
        let attributes =
            (0..ATTRIBUTES).map(|n| KeyValue::new("message.number", n as i64)).collect();
        self.tally.begin(1);
        let answer = self.producer.push_link(Link::new(context(number), attributes, 0));
        self.note(number, true, answer.map_err(|refused| refused.reason()));
    }

    fn push_run(&mut self) {
        let length = 1 + self.random.below(LONGEST_RUN);
        let first = fresh(length);
        let mut run: [SpanContext; LONGEST_RUN as usize] =
            std::array::from_fn(|_| SpanContext::NONE);
        // The last one stays invalid.
        for (number, place) in (first..first + length - 1).zip(&mut run) {
            *place = context(number);
        }
        self.tally.begin(length);
        let taken = self.collector.push_all(&run[..length as usize]) as u64;
        for number in first..first + taken.min(length - 1) {
            self.tally.accepted(number, true);
        }
        self.tally.invalid(u64::from(taken == length));
        self.tally.refused(length - taken);
    }

    fn note(&self, number: u64, sampled: bool, answer: Result<(), PushError>) {
        match answer {
            Ok(()) => self.tally.accepted(number, sampled),
            Err(_) => self.tally.refused(1),
        }
    }
}

fn fresh(count: u64) -> u64 {
    NUMBERS.fetch_add(count, Ordering::Relaxed)
}
