//! What was to be reached, computed from one run.

use crate::results::{Results, Row, median};
use crate::roster::{
    ARRAY_QUEUE, BATCHLINK, FLOOR, Group, POLLING, PRODUCER, RMW_FLOOR, RTRB, STD_MUTEX, roster,
};
use crate::runs::latency::CLOCK;
use crate::source::Kind;

pub struct Target {
    pub what: String,
    pub target: String,
    /// None: not measured in this run.
    pub measured: Option<f64>,
    /// The smallest and largest ratio of any round.
    pub range: Option<(f64, f64)>,
    pub reached: Option<bool>,
    pub against: String,
}

#[derive(Clone, Copy)]
pub enum Goal {
    AtMost(f64),
    AtLeast(f64),
}

impl Target {
    pub fn new(what: &str, goal: Goal, measured: Option<[f64; 3]>, against: &str) -> Self {
        let (target, reached) = match goal {
            Goal::AtMost(most) => (format!("≤ {most}"), measured.map(|[value, ..]| value <= most)),
            Goal::AtLeast(least) => {
                (format!("≥ {least}"), measured.map(|[value, ..]| value >= least))
            }
        };
        let range = measured.map(|[_, min, max]| (min, max)).filter(|(min, max)| min != max);
        let what = what.to_owned();
        let measured = measured.map(|[value, ..]| value);
        Self { what, target, measured, range, reached, against: against.to_owned() }
    }
}

/// The competitor with the best median, none of `without`: the smallest, or the largest if `most`.
fn best(
    results: &Results,
    bench: &str,
    param: &str,
    unit: &str,
    groups: &[Group],
    most: bool,
    without: &[&str],
) -> Option<&'static str> {
    let median_of = |name| results.values(bench, name, param, unit).map(median);
    roster(Kind::Plain, true)
        .into_iter()
        .filter(|entry| groups.contains(&entry.group) && !without.contains(&entry.name))
        .filter_map(|entry| Some((entry.name, median_of(entry.name)?)))
        .min_by(|(_, a), (_, b)| if most { b.total_cmp(a) } else { a.total_cmp(b) })
        .map(|(name, _)| name)
}

/// The ratio of two times, each less what the clock alone takes. Medians have no rounds in common.
fn over_clock(results: &Results, param: &str, ours: &'static str, other: &str) -> Option<[f64; 3]> {
    let of = |name| results.values("latency", name, param, "ns").map(median);
    let clock = of(CLOCK)?;
    Some([(of(ours)? - clock).max(0.0) / (of(other)? - clock).max(1.0); 3])
}

/// `scaling`: rows of a run with counters, which may be an earlier one.
pub fn targets(results: &Results, scaling: &[Row]) -> Vec<Target> {
    use Goal::{AtLeast, AtMost};
    use Group::Other;
    let mut all = Vec::new();
    let cost = "ns/context";
    let ratio = |bench, param, a, b| results.ratio(bench, param, cost, a, b);
    for (what, goal, name, floor) in [
        ("push ÷ floor with one CAS", 1.10, BATCHLINK, RMW_FLOOR),
        ("push through Producer ÷ floor with one CAS", 1.10, PRODUCER, RMW_FLOOR),
        ("push_all(512) ÷ floor", 1.3, "batchlink push_all(512)", FLOOR),
    ] {
        all.push(Target::new(what, AtMost(goal), ratio("push", "512", name, floor), floor));
    }
    for producers in [1, 2, 4, 8, 16] {
        let (param, unit) = (format!("{producers} producers"), "contexts/s");
        let mut against = |what: &str, goal, other| {
            let measured = results.ratio("contention", &param, unit, BATCHLINK, other);
            let what = format!("contention throughput, {param} ÷ {what}");
            all.push(Target::new(&what, AtLeast(goal), measured, other));
        };
        // Contestants whose consumer polls cannot wait for a batch.
        let waiting = best(results, "contention", &param, unit, &[Other], true, &POLLING);
        against("best other that waits", 1.3, waiting.unwrap_or_default());
        if producers > 1 {
            against("rtrb per producer", 1.1, RTRB);
        }
    }
    for param in ["512, unique", "4096, unique", "512, 90 % duplicates"] {
        let fastest = best(results, "cycle", param, cost, &[Other], false, &[]).unwrap_or_default();
        let measured = ratio("cycle", param, BATCHLINK, fastest);
        let what = format!("cycle {param} ÷ best other but rtrb");
        all.push(Target::new(&what, AtMost(0.65), measured, fastest));
    }
    for kind in ["trace state", "attributes"] {
        let param = format!("512, unique, {kind}");
        let measured = results.ratio("cycle", &param, cost, BATCHLINK, STD_MUTEX);
        let what = format!("cycle 512, unique, {kind} ÷ Mutex<Vec>");
        all.push(Target::new(&what, AtMost(1.0), measured, STD_MUTEX));
    }
    let (set, hashbrown) = ("batchlink LinkSet", "hashbrown HashSet");
    let measured = ratio("link_set", "512, unique", set, hashbrown);
    all.push(Target::new("LinkSet 512, unique ÷ hashbrown's", AtMost(1.0), measured, hashbrown));
    let load = "push, 1 us of work between";
    let measured = over_clock(results, &format!("{load}, p50"), BATCHLINK, ARRAY_QUEUE);
    let what = "push p50 less the clock, 8 threads, 1 us of work ÷ ArrayQueue's";
    all.push(Target::new(what, AtMost(0.25), measured, ARRAY_QUEUE));
    let measured = results.ratio("latency", &format!("{load}, p99.9"), "ns", BATCHLINK, STD_MUTEX);
    let what = "push p99.9, 8 threads, 1 us of work ÷ Mutex<Vec>'s";
    all.push(Target::new(what, AtMost(0.5), measured, STD_MUTEX));
    let of = |bench, param: &str, unit| results.values(bench, BATCHLINK, param, unit).map(median);
    let single = |value: Option<f64>| value.map(|value| [value; 3]);
    for (what, param, unit, most) in [
        ("bytes per slot", "slot", "bytes", 32.0),
        ("allocations per push", "push", "allocations/push", 0.0),
        ("allocations per flush", "flush", "allocations/flush", 1.0),
    ] {
        all.push(Target::new(what, AtMost(most), single(of("allocs", param, unit)), "counted"));
    }
    for pattern in ["balanced", "random"] {
        let row = scaling.iter().find(|row| {
            row.contestant == pattern
                && row.param == "16 shards, batch 512"
                && row.unit == "slow paths/context"
        });
        let what = format!("slow paths per push at T = 512, 16 shards, {pattern} (%)");
        let percent = single(row.map(|row| row.median * 100.0));
        all.push(Target::new(&what, AtMost(1.0), percent, "counted, --scaling"));
    }
    for (what, bench, param) in [
        ("wake-ups per batch, each awaited", "latency", "last push to handler"),
        ("wake-ups per batch, 8 producers flat out", "contention", "8 producers"),
    ] {
        all.push(Target::new(
            what,
            AtMost(2.0),
            single(of(bench, param, "wake-ups/batch")),
            "counted",
        ));
    }
    all
}
