//! A soak test: random load on several collectors at once, for minutes or hours. Everything is
//! counted twice, by the collectors and here, and must agree all the time; memory must stay within
//! the bound that docs/GUIDE.md gives, and must all come back.
//!
//! ```text
//! cargo run --release --features tokio --example soak -- --minutes 30
//! ```
//!
//! An *epoch* takes ten seconds and one line of output. In it a few *lanes* (`lane.rs`) build one
//! collector after the other, as planned by chance (`plan.rs`), push from threads that come and go
//! (`producer.rs`), and take batches in every way there is (`flushing.rs`). `tally.rs` is our own
//! account of it all.

#[path = "../../tests/common/mod.rs"]
mod common;
#[path = "../../tests/common/memory.rs"]
mod memory;

mod args;
mod flushing;
mod lane;
mod plan;
mod producer;
mod report;
mod tally;

use args::Args;
use clap::Parser;
use common::Random;
use report::{Memory, Shared};
use std::io::{self, Write};
use std::process::{ExitCode, exit};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};
use tally::ensure;

#[global_allocator]
static ALLOCATOR: memory::Counting = memory::Counting;

const LANES: usize = 3;
const EPOCH: Duration = Duration::from_secs(10);
/// Beyond the end of an epoch. Only what hangs takes so long.
const PATIENCE: Duration = Duration::from_secs(120);
/// Bytes that this program needs besides its collectors, for threads, tallies, runtimes and texts.
const OUR_OWN: usize = 256 << 10;
/// Bytes by which one rest may differ from another: a thread whose work is done is not quite gone.
const KEPT: usize = 4 << 10;

fn main() -> ExitCode {
    let args = Args::parse();
    match soak(&args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(what) => {
            let _ = writeln!(io::stderr(), "soak: {what}");
            ExitCode::FAILURE
        }
    }
}

fn soak(args: &Args) -> Result<(), String> {
    let until = Instant::now() + args.minutes;
    let began = Instant::now();
    let shared = Shared::new(LANES);
    let mut random = Random(args.seed);
    println!(
        "soak: {LANES} collectors at a time for {:.1} s, seed {}",
        args.minutes.as_secs_f64(),
        args.seed
    );
    let (mut most, mut first_rest) = (Memory::default(), None);
    while Instant::now() < until {
        let end = until.min(Instant::now() + EPOCH);
        let memory = epoch(&mut random, end, &shared)?;
        if memory.peak > most.peak {
            most = memory;
        }
        let rest = memory::held();
        print_line(began, &shared, memory, rest)?;
        let kept = rest.saturating_sub(*first_rest.get_or_insert(rest));
        ensure(kept <= KEPT, || format!("{kept} bytes have leaked since the first epoch"))?;
    }
    conclude(&shared, most)
}

/// All lanes for a while. The most memory that was held at once, with its bound.
fn epoch(random: &mut Random, until: Instant, shared: &Shared) -> Result<Memory, String> {
    let (running, over) = channel::<()>();
    let most = thread::scope(|scope| {
        for lane in 0..LANES {
            let (running, seed) = (running.clone(), random.next());
            scope.spawn(move || {
                let _running = running;
                lane::run(lane, seed, until, shared).unwrap_or_else(|what| shared.fail(what));
            });
        }
        drop(running);
        watch(&over, until, shared)
    });
    shared.verdict().map(|()| most)
}

/// Holds the memory against its bound every second until all lanes are done. Ends the process if
/// they never are.
fn watch(over: &Receiver<()>, until: Instant, shared: &Shared) -> Memory {
    let mut most = Memory::default();
    loop {
        let ended =
            over.recv_timeout(Duration::from_secs(1)) == Err(RecvTimeoutError::Disconnected);
        let memory = shared.memory();
        if memory.peak > memory.bound + OUR_OWN {
            shared
                .fail(format!("{} bytes were held, {} are documented", memory.peak, memory.bound));
        }
        if memory.peak > most.peak {
            most = memory;
        }
        if ended {
            return most;
        }
        if Instant::now() > until + PATIENCE {
            let _ = writeln!(io::stderr(), "soak: a collector hangs; {:?}", shared.figures());
            exit(1);
        }
    }
}

fn print_line(began: Instant, shared: &Shared, memory: Memory, rest: usize) -> Result<(), String> {
    let all = shared.figures();
    let lost = all.accepted - all.received;
    writeln!(
        io::stdout(),
        "{:>6.0} s {:>5} collectors {:>12} contexts {:>11} refused {:>9} batches {:>12} links  \
         lost {lost}  peak {} of {} KiB, {rest} bytes at rest",
        began.elapsed().as_secs_f64(),
        all.collectors,
        all.contexts,
        all.refused,
        all.batches,
        all.links,
        memory.peak >> 10,
        (memory.bound + OUR_OWN) >> 10,
    )
    .map_err(|error| error.to_string())
}

fn conclude(shared: &Shared, most: Memory) -> Result<(), String> {
    let all = shared.figures();
    let rows = [
        ("collectors", all.collectors),
        ("contexts", all.contexts),
        ("refused", all.refused),
        ("invalid", all.invalid),
        ("batches", all.batches),
        ("links", all.links),
        ("duplicates", all.duplicates),
        ("truncated", all.truncated),
        ("unsampled", all.unsampled),
        ("handler panics", all.panics),
        ("peak bytes", most.peak as u64),
        ("documented bytes", most.bound as u64),
        ("lost", all.accepted - all.received),
    ];
    for (label, figure) in rows {
        println!("{label}: {figure}");
    }
    let sum = all.links + all.duplicates + all.truncated + all.unsampled;
    ensure(all.accepted == all.received && all.received == sum, || {
        format!("it does not add up: {all:?}")
    })?;
    ensure(all.links > 0, || "nothing was linked".into())
}
