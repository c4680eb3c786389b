//! Allocations in the steady state, counted, and the size of a slot.

use crate::alloc::counted;
use crate::contest::{Consumer, Contestant, Producer, Setup};
use crate::results::Results;
use crate::roster::{BATCHLINK, roster};
use crate::source::{Kind, Source};
use batchlink::LinkCollector;

/// Pushes and takes this many batches to warm up, then as many again, counted.
const BATCHES: usize = 100;

pub type Run = fn(&Source) -> (u64, u64);

/// Bytes that one more slot takes.
fn bytes_per_slot() -> f64 {
    let bytes = |slots: usize| {
        let open = || {
            LinkCollector::builder()
                .with_shards(1)
                .with_max_batch_size(16)
                .with_queue_capacity(slots)
                .build()
                .expect("a valid configuration")
        };
        counted(open).2 as f64
    };
    (bytes(1 << 14) - bytes(1 << 12)) / f64::from((1 << 14) - (1 << 12))
}

/// Allocations of all pushes and of all takes, after a warm-up. On one thread, so that nothing else
/// allocates meanwhile.
pub fn run<C: Contestant>(source: &Source) -> (u64, u64) {
    let (mut producers, mut consumer) = C::open(Setup::single(source.batch));
    let (mut pushing, mut taking) = (0, 0);
    for turn in 0..2 * BATCHES {
        let contexts = &source.contexts[..source.batch];
        let push = || contexts.iter().filter(|context| producers[0].push(context)).count();
        let (taken, pushed, _) = counted(push);
        assert_eq!(taken, source.batch);
        C::hand_over(&mut producers[0], &mut consumer);
        let (batch, took, _) = counted(|| consumer.take());
        assert!(batch.is_some());
        if turn >= BATCHES {
            pushing += pushed;
            taking += took;
        }
    }
    (pushing, taking)
}

pub fn bench(results: &mut Results) {
    let source = &Source::new(Kind::Plain, 512, 0);
    for entry in roster(Kind::Plain, false) {
        let (pushing, taking) = (entry.allocs)(source);
        let batches = BATCHES as f64;
        let per_push = pushing as f64 / batches / source.batch as f64;
        results.add("allocs", entry.name, "push", "allocations/push", per_push);
        results.add("allocs", entry.name, "flush", "allocations/flush", taking as f64 / batches);
    }
    results.add("allocs", BATCHLINK, "slot", "bytes", bytes_per_slot());
}
