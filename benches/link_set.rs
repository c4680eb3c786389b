//! De-duplication alone. `cargo bench -p batchlink-bench --bench link_set`

use batchlink_bench::runs::cycle::{DUPLICATES, param};
use batchlink_bench::runs::link_set::CONTESTANTS;
use batchlink_bench::source::{Kind, Source};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};

fn link_set(criterion: &mut Criterion) {
    for batch in [128, 512, 4096] {
        for duplicates in DUPLICATES {
            let source = &Source::new(Kind::Plain, batch, duplicates);
            let name = format!("link_set/{}", param(Kind::Plain, batch, duplicates));
            let mut group = criterion.benchmark_group(name);
            group.throughput(Throughput::Elements(batch as u64));
            for (name, run) in CONTESTANTS {
                group.bench_function(name, |bencher| {
                    bencher.iter_custom(|batches| run(source, batches as usize).0);
                });
            }
        }
    }
}

criterion_group!(benches, link_set);
criterion_main!(benches);
