//! De-duplication alone, for a consumer that already holds its batch.

use crate::contest::Batch;
use crate::dedup::{Dedup as Contestant, FreshDedup, HashDedup, IndexDedup, SetDedup};
use crate::items::{Borrowed, Key};
use crate::ours::counts;
use crate::results::Results;
use crate::rounds::{Effort, Progress, rotate};
use crate::source::{Kind, Source};
use ahash::RandomState;
use batchlink::{Dedup, LinkPolicy, LinkSet, Overflow, Truncation};
use std::hint::black_box;
use std::time::{Duration, Instant};

/// Time for this many batches of the source, and its first batch as it came out.
pub type Run = fn(&Source, batches: usize) -> (Duration, Batch);

fn time(
    source: &Source,
    batches: usize,
    mut once: impl FnMut(usize) -> Batch,
) -> (Duration, Batch) {
    let first = once(0);
    (0..batches / 8).for_each(|turn| drop(once(turn % source.batches())));
    let start = Instant::now();
    (0..batches).for_each(|turn| drop(black_box(once(turn % source.batches()))));
    (start.elapsed(), first)
}

fn ours(source: &Source, batches: usize) -> (Duration, Batch) {
    by(LinkPolicy::new(), source, batches)
}

fn by(policy: LinkPolicy, source: &Source, batches: usize) -> (Duration, Batch) {
    let mut set = LinkSet::builder()
        .with_link_policy(policy.without_link_type())
        .build()
        .expect("a valid configuration");
    time(source, batches, |turn| {
        for context in &source.contexts[turn * source.batch..][..source.batch] {
            set.insert(context);
        }
        let batch = set.finish();
        let counts = counts(&batch);
        Batch { links: batch.into_links(), counts }
    })
}

fn run<D: Contestant>(source: &Source, batches: usize) -> (Duration, Batch) {
    let mut dedup = D::new(source.batch);
    time(source, batches, |turn| {
        for context in &source.contexts[turn * source.batch..][..source.batch] {
            dedup.insert(Borrowed(context));
        }
        dedup.finish()
    })
}

pub const CONTESTANTS: [(&str, Run); 7] = [
    ("batchlink LinkSet", ours),
    ("floor", run::<IndexDedup>),
    ("std HashSet + ahash", run::<HashDedup>),
    ("hashbrown HashSet", run::<SetDedup<hashbrown::HashSet<Key>>>),
    ("indexmap IndexSet + ahash", run::<SetDedup<indexmap::IndexSet<Key, RandomState>>>),
    ("std HashSet", run::<SetDedup<std::collections::HashSet<Key>>>),
    ("std HashSet, new for each batch", run::<FreshDedup>),
];

/// Makes a policy of the default one.
type Policy = fn(LinkPolicy) -> LinkPolicy;

/// Ours by each other policy. What they link differs, so that only their counts are checked.
const POLICIES: [(&str, Policy); 8] = [
    ("batchlink LinkSet, Off", |policy| policy.with_dedup(Dedup::Off)),
    ("batchlink LinkSet, ByContextAndAttributes", |policy| {
        policy.with_dedup(Dedup::ByContextAndAttributes)
    }),
    ("batchlink LinkSet, link.count", LinkPolicy::with_link_count),
    ("batchlink LinkSet, KeepLast", |policy| policy.with_truncation(Truncation::KeepLast)),
    ("batchlink LinkSet, Reservoir", |policy| {
        policy.with_truncation(Truncation::Reservoir { seed: 1 })
    }),
    ("batchlink LinkSet, SampledFirst", |policy| policy.with_truncation(Truncation::SampledFirst)),
    ("batchlink LinkSet, OnePerTrace", |policy| policy.with_truncation(Truncation::OnePerTrace)),
    ("batchlink LinkSet, Spans", |policy| policy.with_overflow(Overflow::Spans { max_pages: 32 })),
];

pub fn bench(results: &mut Results, progress: &Progress, effort: Effort) {
    for batch in [128, 512, 4096] {
        for duplicates in [0, 50, 90] {
            let source = &Source::new(Kind::Plain, batch, duplicates);
            let batches = (effort.contexts / batch).max(2);
            let (_, expected) = ours(source, 1);
            let param = super::cycle::param(Kind::Plain, batch, duplicates);
            rotate(
                progress,
                effort.rounds,
                &CONTESTANTS,
                &format!("link_set {param}"),
                |(name, run)| {
                    let (time, seen) = run(source, batches);
                    assert_eq!(seen, expected, "{name} gives another result at {param}");
                    let value = time.as_nanos() as f64 / (batches * batch) as f64;
                    results.add("link_set", name, &param, "ns/context", value);
                },
            );
            rotate(
                progress,
                effort.rounds,
                &POLICIES,
                &format!("link_set {param}, policies"),
                |(name, policy)| {
                    let (time, seen) = by(policy(LinkPolicy::new()), source, batches);
                    let counts = seen.counts;
                    let all = counts.linked + counts.duplicates + counts.truncated;
                    assert_eq!(all, batch as u64, "{name} loses count at {param}");
                    let value = time.as_nanos() as f64 / (batches * batch) as f64;
                    results.add("link_set", name, &param, "ns/context", value);
                },
            );
        }
    }
}
