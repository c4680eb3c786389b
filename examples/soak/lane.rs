//! One collector after the other: built, loaded in phases, closed, counted.

use crate::common::Random;
use crate::flushing::Flushing;
use crate::plan::{Ending, Phase, Plan, Way};
use crate::producer::{Pusher, states};
use crate::report::{Figures, Shared};
use crate::tally::{Handled, Pushed, PushedSum, ensure};
use batchlink::LinkCollector;
use crossbeam_utils::CachePadded;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// How often the account is looked at while threads push.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// Goes on until `until`, or until something does not hold.
pub(crate) fn run(lane: usize, seed: u64, until: Instant, shared: &Shared) -> Result<(), String> {
    let mut random = Random(seed);
    let states = states();
    while Instant::now() < until && !shared.has_failed() {
        let plan = Plan::new(&mut random);
        shared.allow(lane, plan.documented_bytes());
        let figures = live(&plan, &mut random, until, &states)
            .map_err(|what| format!("lane {lane} of seed {seed}: {what}\n  {plan:?}"))?;
        shared.allow(lane, 0);
        shared.add(&figures);
    }
    Ok(())
}

struct Life<'a> {
    plan: &'a Plan,
    collector: LinkCollector,
    handled: Arc<Handled>,
    slow: Arc<AtomicBool>,
    pushed: Vec<CachePadded<Pushed>>,
}

fn live(
    plan: &Plan,
    random: &mut Random,
    until: Instant,
    states: &[opentelemetry::trace::TraceState],
) -> Result<Figures, String> {
    let (collector, flusher) = plan.build().map_err(|error| error.to_string())?;
    let handled = Arc::new(Handled::default());
    let slow = Arc::new(AtomicBool::new(false));
    let flushing = Flushing::start(plan, flusher, &handled, &slow)
        .map_err(|error| format!("no thread: {error}"))?;
    let pushed = (0..plan.threads).map(|_| CachePadded::default()).collect();
    let life = Life { plan, collector, handled, slow, pushed };
    for phase in 1..=plan.phases {
        let last = phase == plan.phases || Instant::now() >= until;
        life.phase(random, states, last && plan.ending == Ending::CloseUnderLoad)?;
        if last {
            break;
        }
    }
    life.end(flushing)
}

impl Life<'_> {
    /// New threads push for a while, and are gone.
    fn phase(
        &self,
        random: &mut Random,
        states: &[opentelemetry::trace::TraceState],
        close: bool,
    ) -> Result<(), String> {
        let (phase, duration) = Phase::new(random);
        let until = Instant::now() + duration;
        self.slow.store(phase == Phase::SlowHandler, Ordering::Relaxed);
        thread::scope(|scope| {
            for tally in &self.pushed {
                let random = Random(random.next());
                let pusher = Pusher::new(&self.collector, tally, self.plan.mix, random, states);
                scope.spawn(move || pusher.run(phase, until));
            }
            if close {
                thread::sleep(duration / 2);
                self.collector.close();
            }
            while Instant::now() < until {
                match phase {
                    Phase::Flushes => self.collector.flush(),
                    _ => thread::sleep(
                        LOOK_EVERY.min(until.saturating_duration_since(Instant::now())),
                    ),
                }
                self.look()?;
            }
            Ok::<(), String>(())
        })?;
        self.slow.store(false, Ordering::Relaxed);
        let stats = self.collector.stats();
        ensure(close || stats.rejected_closed() == 0, || format!("closed by nobody: {stats:?}"))?;
        self.sum().check(&stats)
    }

    fn sum(&self) -> PushedSum {
        PushedSum::of(self.pushed.iter().map(|tally| &**tally))
    }

    /// While all threads are at work.
    fn look(&self) -> Result<(), String> {
        let handled_before = self.handled.received.load(Ordering::SeqCst);
        let before = self.sum();
        let stats = self.collector.stats();
        let after = self.sum();
        PushedSum::check_around(&before, &stats, &after)?;
        let handled = self.handled.received.load(Ordering::SeqCst) + self.plan.batch_size as u64;
        ensure(handled_before <= stats.received() && stats.received() <= handled, || {
            format!("received is not between {handled_before} and {handled}: {stats:?}")
        })?;
        self.handled.verdict()
    }

    fn end(self, flushing: Flushing) -> Result<Figures, String> {
        let pushed = self.sum();
        match self.plan.ending {
            Ending::Shutdown if self.plan.way == Way::Spawned => {}
            Ending::DropCollector => drop(self.collector),
            _ => self.collector.close(),
        }
        let stats = flushing.end()?;
        self.handled.check(&pushed, &stats, self.plan.is_exact())?;
        Ok(Figures::of(&stats))
    }
}
