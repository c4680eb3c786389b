//! Runs all contestants side by side; see `--help`.

use batchlink_bench::alloc::Counting;
use batchlink_bench::results::{self, Results, Row};
use batchlink_bench::rounds::{Effort, Progress};
use batchlink_bench::runs::{allocs, contention, cycle, latency, link_set, push, scaling, timeout};
use batchlink_bench::{plots, processor, report, targets};
use clap::{ArgGroup, Parser, ValueEnum};
use std::path::PathBuf;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const EFFORTS: [&str; 5] = ["quick", "full", "scaling", "processor", "redraw"];

/// Runs batchlink and the other libraries side by side on the same work: prints tables, writes
/// results.json and SVG plots. Timings are medians; only ratios within one run count.
#[derive(Debug, Parser)]
#[command(version, group(ArgGroup::new("effort").required(true).args(EFFORTS)))]
struct Options {
    /// 3 rounds, one to two minutes
    #[arg(long)]
    quick: bool,
    /// 9 rounds, about a quarter of an hour
    #[arg(long)]
    full: bool,
    /// Count shared read-modify-writes, slow paths and wake-ups for 1 to 128 shards and batches of
    /// 16 to 65536 instead; needs RUSTFLAGS="--cfg batchlink_count"
    #[arg(long)]
    scaling: bool,
    /// What an item costs in a `BatchProcessor`, beside other ways to batch, instead; 9 rounds, a
    /// minute or two
    #[arg(long)]
    processor: bool,
    /// Measure nothing: draw the plots, and write the summary, from the results.json in --out
    #[arg(long)]
    redraw: bool,
    /// Tiny work in one round: whether it runs, not how fast
    #[arg(long)]
    smoke: bool,
    /// Only this bench; may be repeated
    #[arg(long, value_name = "BENCH")]
    only: Vec<Bench>,
    /// Where results.json and the plots go
    #[arg(long, value_name = "DIR", default_value = "target/batchlink-bench")]
    out: PathBuf,
    /// Also write targets.md and tables.md, scaling.md or processor.md into this directory, such as
    /// docs/bench/<machine>
    #[arg(long, value_name = "DIR")]
    write_md: Option<PathBuf>,
    /// Also put a summary into this Markdown file, between `<!-- begin summary -->` and
    /// `<!-- end summary -->`
    #[arg(long, value_name = "FILE")]
    summary: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "snake_case")]
enum Bench {
    /// One thread, pushes only
    Push,
    /// One thread: push, drain, de-duplicate, links
    Cycle,
    /// 1 to 16 producers and a live consumer
    Contention,
    /// Single pushes under 8 producers; trigger to handler; lateness of the timeout
    Latency,
    /// De-duplication alone
    LinkSet,
    /// Allocations and bytes
    Allocs,
}

fn main() -> anyhow::Result<()> {
    let options = Options::parse();
    if options.redraw {
        let rows = results::read(&options.out.join("results.json"));
        plots::write(&options.out, &rows)?;
        return options
            .summary
            .map_or(Ok(()), |path| report::insert_summary(&path, &report::summary(&rows)));
    }
    let effort = match (options.smoke, options.full || options.processor) {
        (true, _) => Effort::SMOKE,
        (false, true) => Effort::FULL,
        (false, false) => Effort::QUICK,
    };
    let mut results = Results::default();
    let progress = Progress::new();
    if options.scaling {
        if !scaling::bench(&mut results, &progress, options.smoke) {
            eprintln!("error: {}", scaling::HOW);
            std::process::exit(2);
        }
    } else if options.processor {
        processor::bench(&mut results, &progress, effort);
    } else {
        timed(&mut results, &progress, effort, &options.only);
    }
    progress.finish();
    finish(&options, &results)
}

fn timed(results: &mut Results, progress: &Progress, effort: Effort, only: &[Bench]) {
    let wanted = |bench| only.is_empty() || only.contains(&bench);
    if wanted(Bench::Allocs) {
        allocs::bench(results);
    }
    if wanted(Bench::Push) {
        push::bench(results, progress, effort);
    }
    if wanted(Bench::Cycle) {
        cycle::bench(results, progress, effort);
    }
    if wanted(Bench::LinkSet) {
        link_set::bench(results, progress, effort);
    }
    if wanted(Bench::Contention) {
        contention::bench(results, progress, effort);
    }
    if wanted(Bench::Latency) {
        latency::bench(results, progress, effort);
        timeout::bench(results, progress, effort);
    }
}

/// Which of the runs a figure is of.
fn section(bench: &str) -> &'static str {
    match bench {
        "scaling" => "scaling",
        "processor" => "processor",
        _ => "tables",
    }
}

/// Tables, files. Runs of another kind may be other builds: each keeps what the others left in
/// results.json.
fn finish(options: &Options, results: &Results) -> anyhow::Result<()> {
    std::fs::create_dir_all(&options.out)?;
    let path = options.out.join("results.json");
    let rows = results.rows();
    let own = match options {
        Options { scaling: true, .. } => "scaling",
        Options { processor: true, .. } => "processor",
        _ => "tables",
    };
    let kept: Vec<Row> =
        results::read(&path).into_iter().filter(|row| section(&row.bench) != own).collect();
    let all: Vec<Row> = rows.iter().chain(&kept).cloned().collect();
    results::write(&path, &all)?;
    plots::write(&options.out, &all)?;

    let circumstances = report::circumstances();
    let tables = report::tables(&rows);
    let with_targets = |targets| format!("{circumstances}\n{}", report::targets(targets));
    let sections = match own {
        "scaling" => vec![(own, format!("{circumstances}\n{tables}"))],
        "processor" => {
            vec![(own, format!("{}\n{tables}", with_targets(&processor::targets(results))))]
        }
        _ => vec![("targets", with_targets(&targets::targets(results, &kept))), (own, tables)],
    };
    for (_, text) in &sections {
        println!("{text}");
    }
    if let Some(dir) = &options.write_md {
        report::write_md(dir, &sections)?;
    }
    if let Some(path) = options.summary.as_ref().filter(|_| own == "tables") {
        report::insert_summary(path, &report::summary(&rows))?;
    }
    eprintln!("written: {} and plots beside it", path.display());
    Ok(())
}
