//! Percentiles, which criterion does not do: hdrhistogram, printed as tables.
//! `cargo bench -p batchlink-bench --bench latency`; with `--test` one tiny round.

use batchlink_bench::report;
use batchlink_bench::results::Results;
use batchlink_bench::rounds::{Effort, Progress};
use batchlink_bench::runs::{latency, timeout};

fn main() {
    let tiny = std::env::args().any(|argument| argument == "--test");
    let effort = if tiny { Effort::SMOKE } else { Effort::QUICK };
    let (mut results, progress) = (Results::default(), Progress::new());
    latency::bench(&mut results, &progress, effort);
    timeout::bench(&mut results, &progress, effort);
    progress.finish();
    println!("{}{}", report::circumstances(), report::tables(&results.rows()));
}
