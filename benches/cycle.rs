//! One thread: push, drain, de-duplicate, links. `cargo bench -p batchlink-bench --bench cycle`

use batchlink_bench::roster::roster;
use batchlink_bench::runs::cycle::{BATCHES, DUPLICATES, param};
use batchlink_bench::source::{Kind, Source};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};

fn cycle(criterion: &mut Criterion) {
    let plain = BATCHES.map(|batch| (Kind::Plain, batch));
    let others = [Kind::TraceState, Kind::Attributes, Kind::Span].map(|kind| (kind, 512));
    for (kind, batch) in plain.into_iter().chain(others) {
        for duplicates in DUPLICATES {
            let source = &Source::new(kind, batch, duplicates);
            let mut group =
                criterion.benchmark_group(format!("cycle/{}", param(kind, batch, duplicates)));
            group.throughput(Throughput::Elements(batch as u64));
            for entry in roster(kind, false) {
                group.bench_function(entry.name, |bencher| {
                    bencher.iter_custom(|batches| (entry.cycle)(source, batches as usize).0);
                });
            }
        }
    }
}

criterion_group!(benches, cycle);
criterion_main!(benches);
