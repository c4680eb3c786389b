//! What was to be reached, computed from one run.

use crate::results::{Results, Row, median};
use crate::roster::{BATCHLINK, FLOOR, Group, PRODUCER, RWLOCK, STD_MUTEX, roster};
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

/// The competitor with the best median: the smallest, or the largest if `most`.
fn best(
    results: &Results,
    bench: &str,
    param: &str,
    unit: &str,
    groups: &[Group],
    most: bool,
) -> Option<&'static str> {
    let median_of = |name| results.values(bench, name, param, unit).map(median);
    roster(Kind::Plain, true)
        .into_iter()
        .filter(|entry| groups.contains(&entry.group))
        .filter_map(|entry| Some((entry.name, median_of(entry.name)?)))
        .min_by(|(_, a), (_, b)| if most { b.total_cmp(a) } else { a.total_cmp(b) })
        .map(|(name, _)| name)
}

/// `scaling`: rows of a run with counters, which may be an earlier one.
pub fn targets(results: &Results, scaling: &[Row]) -> Vec<Target> {
    use Goal::{AtLeast, AtMost};
    use Group::{Other, Packed, Registered};
    let cost = "ns/context";
    let ratio = |bench, param, a, b| results.ratio(bench, param, cost, a, b);
    let mut all = Vec::new();
    for (what, goal, name) in [
        ("push by reference through the shared collector ÷ floor", 2.0, BATCHLINK),
        ("push through Producer ÷ floor", 1.8, PRODUCER),
        ("push_all(512) ÷ floor", 1.3, "batchlink push_all(512)"),
    ] {
        all.push(Target::new(what, AtMost(goal), ratio("push", "512", name, FLOOR), FLOOR));
    }
    // The contestants asked for; and with the packed ones, which are not written in practice but
    // show what is left of the lead if others store 32 bytes as well.
    for (note, groups) in
        [("", &[Other, Registered][..]), (", packed too", &[Other, Registered, Packed])]
    {
        // rtrb is SPSC and has to be registered: aside where pushes alone are compared.
        let of_push: Vec<Group> =
            groups.iter().copied().filter(|group| *group != Registered).collect();
        let fastest = best(results, "push", "512", cost, &of_push, false).unwrap_or_default();
        let what = format!("push ÷ fastest contestant's (floor and rtrb aside{note})");
        let measured = ratio("push", "512", BATCHLINK, fastest);
        all.push(Target::new(&what, AtMost(0.5), measured, fastest));
        for param in ["512, unique", "512, 90 % duplicates"] {
            let fastest = best(results, "cycle", param, cost, groups, false).unwrap_or_default();
            let what = format!("cycle {param} ÷ fastest contestant{note}");
            all.push(Target::new(
                &what,
                AtMost(0.45),
                ratio("cycle", param, BATCHLINK, fastest),
                fastest,
            ));
        }
        for producers in [2, 4, 8] {
            let param = format!("{producers} producers");
            let unit = "contexts/s";
            let fastest =
                best(results, "contention", &param, unit, groups, true).unwrap_or_default();
            let measured = results.ratio("contention", &param, unit, BATCHLINK, fastest);
            let what = format!("contention throughput, {param} ÷ best contestant{note}");
            all.push(Target::new(&what, AtLeast(1.5), measured, fastest));
        }
    }
    let measured = ratio("cycle", "512, unique", BATCHLINK, RWLOCK);
    all.push(Target::new(
        "cycle 512 ÷ tokio RwLock<Vec<Link>> pattern",
        AtMost(0.1),
        measured,
        RWLOCK,
    ));
    let measured = ratio("cycle", "512, unique", BATCHLINK, FLOOR);
    all.push(Target::new("cycle 512 ÷ floor with the same dedup", AtMost(1.6), measured, FLOOR));

    for load in ["flat out", "1 us of work between"] {
        let measured =
            results.ratio("latency", &format!("push, {load}, p99.9"), "ns", BATCHLINK, STD_MUTEX);
        let what = format!("push p99.9, 8 producers on 2 cores, {load} ÷ Mutex<Vec>");
        all.push(Target::new(&what, AtMost(0.5), measured, STD_MUTEX));
    }
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
