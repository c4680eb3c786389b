//! Many threads on batchlink's public interface, in schedules chosen by shuttle.
//!
//! loom (`loom-tests/`) tries *every* interleaving of two or three threads, memory orderings
//! included. This is the complement: *random* interleavings of many threads that are born and go,
//! on rings with one to eight slots. Each access to an atomic or a slot is a point at
//! which a thread may lose the processor. What shuttle does not see: memory orderings (to it
//! everything is sequentially consistent).
//!
//! `ci/shuttle.sh [schedules]` runs all scenarios. Half of the schedules come from a scheduler that
//! may switch at every step, half from one (PCT) that lets the thread of highest priority run and
//! changes priorities at a few points, so that threads fall far behind others.
//!
//! Time stands still: a delay of zero is always over, any other ([`NEVER`](common::NEVER)) never
//! is. So a lost wake-up is not hidden by a timeout, but ends with all threads asleep, which
//! shuttle reports as a deadlock.
//!
//! **A failure says in which file its schedule was saved.** To run that schedule once more, with
//! the same code:
//!
//! ```text
//! BATCHLINK_REPLAY=<file> cargo test --release <name of the scenario>
//! ```
//!
//! All that a scenario does by chance is drawn from its schedule, so that is enough; [`check`] sees
//! to it by running some schedules twice.
#![cfg(batchlink_shuttle)]

mod account;
mod consumer;
mod producers;

/// Helpers and oracle of batchlink's own tests.
#[allow(clippy::should_implement_trait)] // of a `next`, which is exported nowhere else
#[path = "../../tests/common/mod.rs"]
pub mod common;

pub use account::Totals;
pub use consumer::Consumer;
pub use producers::{Case, Lane, pause};

use common::Random;
use shuttle::rand::RngCore;
use shuttle::scheduler::{
    PctScheduler, RandomScheduler, ReplayScheduler, UncontrolledNondeterminismCheckScheduler,
};
use shuttle::{Config, FailurePersistence, MaxSteps, Runner};
use std::sync::{Arc, Mutex, PoisonError};
use std::{env, fs, thread};

/// Far more than any schedule takes: a schedule that needs them waits for something that does not
/// come.
const MAX_STEPS: usize = 300_000;

/// Schedules of each scenario that are run twice.
const TWICE: usize = 3;

/// How often PCT changes priorities, plus one.
const DEPTHS: [usize; 3] = [2, 4, 8];

/// Runs `scenario` in `BATCHLINK_SCHEDULES` schedules (default: 300). `covered` tells from what
/// came of all of them together whether they went where the scenario is for.
pub fn check(scenario: fn(&mut Random) -> Totals, covered: fn(&Totals) -> bool) {
    let sum = Arc::new(Mutex::new(Totals::default()));
    let all = Arc::clone(&sum);
    let run = move || {
        let totals = scenario(&mut Random(shuttle::rand::thread_rng().next_u64()));
        all.lock().unwrap_or_else(PoisonError::into_inner).add(&totals);
    };
    if let Some(file) = env::var_os("BATCHLINK_REPLAY") {
        let schedule = ReplayScheduler::new_from_file(file).expect("a schedule");
        let mut config = config();
        config.failure_persistence = FailurePersistence::None;
        Runner::new(schedule, config).run(run);
        return;
    }
    let schedules: usize =
        env::var("BATCHLINK_SCHEDULES").map_or(300, |text| text.parse().expect("a number"));
    let twice = UncontrolledNondeterminismCheckScheduler::new(RandomScheduler::new(TWICE));
    Runner::new(twice, config()).run(run.clone());
    Runner::new(RandomScheduler::new(schedules.div_ceil(2)), config()).run(run.clone());
    for depth in DEPTHS {
        let schedules = schedules.div_ceil(2 * DEPTHS.len());
        Runner::new(PctScheduler::new(depth, schedules), config()).run(run.clone());
    }
    let totals = sum.lock().unwrap_or_else(PoisonError::into_inner);
    println!("{}: {totals}", thread::current().name().unwrap_or("scenario"));
    assert!(covered(&totals), "the scenario missed its point: {totals}");
}

fn config() -> Config {
    const DIRECTORY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/target/schedules");
    fs::create_dir_all(DIRECTORY).expect("a place for schedules");
    let mut config = Config::new();
    config.failure_persistence = FailurePersistence::File(Some(DIRECTORY.into()));
    config.max_steps = MaxSteps::FailAfter(MAX_STEPS);
    config.stack_size = 1 << 18;
    config.silence_warnings = true; // about orderings, which are loom's part
    config
}
