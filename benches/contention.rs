//! 1 to 16 producers and a live consumer. `cargo bench -p batchlink-bench --bench contention`

use batchlink_bench::contest::Setup;
use batchlink_bench::roster::{SEG_QUEUE, roster};
use batchlink_bench::runs::contention::{BATCH, PRODUCERS, check, param, sources};
use batchlink_bench::source::Kind;
use criterion::{Criterion, SamplingMode, Throughput, criterion_group, criterion_main};

/// Batches of one iteration, shared among the producers.
const BATCHES: usize = 16;

fn contention(criterion: &mut Criterion) {
    for retry in [true, false] {
        for producers in PRODUCERS {
            let sources = &sources(producers);
            let capacity = if retry { 16 * BATCH } else { 4 * BATCH };
            let setup = Setup { batch: BATCH, capacity, producers };
            let mut group =
                criterion.benchmark_group(format!("contention/{}", param(producers, retry)));
            group.sampling_mode(SamplingMode::Flat).sample_size(10);
            group.throughput(Throughput::Elements((BATCHES * BATCH) as u64));
            for entry in roster(Kind::Plain, true) {
                if !retry && entry.name == SEG_QUEUE {
                    continue;
                }
                group.bench_function(entry.name, |bencher| {
                    bencher.iter_custom(|iterations| {
                        let each = BATCHES / producers * BATCH * iterations as usize;
                        let outcome = (entry.contend)(sources, setup, each, retry);
                        check(&outcome, (each * producers) as u64, retry, entry.name);
                        outcome.time
                    });
                });
            }
        }
    }
}

criterion_group!(benches, contention);
criterion_main!(benches);
