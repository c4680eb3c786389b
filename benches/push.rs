//! One thread pushes 512 contexts. `cargo bench -p batchlink-bench --bench push`

use batchlink_bench::roster::{bulk, roster};
use batchlink_bench::runs::push::BATCH;
use batchlink_bench::source::{Kind, Source};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};

fn push(criterion: &mut Criterion) {
    let source = &Source::new(Kind::Plain, BATCH, 0);
    let mut group = criterion.benchmark_group("push");
    group.throughput(Throughput::Elements(BATCH as u64));
    for entry in roster(Kind::Plain, false) {
        group.bench_function(entry.name, |bencher| {
            bencher.iter_custom(|batches| (entry.push)(source, batches as usize));
        });
    }
    for entry in bulk() {
        group.bench_function(entry.name, |bencher| {
            bencher.iter_custom(|batches| (entry.push_all)(source, batches as usize));
        });
    }
}

criterion_group!(benches, push);
criterion_main!(benches);
