//! Promise 5: no allocation per context, and one per flush. Counted per thread by the allocator.
#![allow(unsafe_code)] // to implement `GlobalAlloc`

mod common;

use batchlink::{Dedup, LinkCollector, LinkPolicy, LinkSet, Truncation};
use common::*;
use opentelemetry::KeyValue;
use opentelemetry::trace::{Link, SpanContext};
use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::sync::mpsc;
use std::thread;

struct Counting;

thread_local! {
    // Without `Drop` and initialised when compiled: reading them never allocates.
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
    static RELEASES: Cell<u64> = const { Cell::new(0) };
}

fn count(counter: &'static thread::LocalKey<Cell<u64>>) {
    counter.with(|count| count.set(count.get() + 1));
}

// SAFETY: all the work is done by `System`; counting neither allocates nor unwinds.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(&ALLOCATIONS);
        // SAFETY: as promised by our own caller.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        count(&RELEASES);
        // SAFETY: `memory` came from `System` through `alloc`.
        unsafe { System.dealloc(memory, layout) }
    }
}

// `realloc` and `alloc_zeroed` come through these two.
#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Allocations by this thread during `work`.
fn allocations<R>(work: impl FnOnce() -> R) -> (u64, R) {
    let before = ALLOCATIONS.get();
    let result = work();
    (ALLOCATIONS.get() - before, result)
}

const SIZE: usize = 128;

fn contexts() -> Vec<SpanContext> {
    (1..=SIZE as u64).map(context).collect()
}

#[test]
fn the_counter_counts() {
    assert_eq!(allocations(|| vec![1_u8]).0, 1);
    assert_eq!(allocations(|| Box::new([0_u64; 9])).0, 1);
    assert_eq!(allocations(|| 1 + 1).0, 0);
}

/// For the report: allocations per flush of 128 links, without and with the default `link.type`.
#[test]
fn flush_allocates_its_links() {
    let plain = LinkCollector::builder()
        .with_max_batch_size(SIZE)
        .with_max_delay(NEVER)
        .with_link_policy(LinkPolicy::new().without_link_type());
    let typed = LinkCollector::builder().with_max_batch_size(SIZE).with_max_delay(NEVER);
    for (builder, per_flush) in [(plain, 1), (typed, 1 + SIZE as u64)] {
        let (collector, mut flusher) = builder.with_shards(4).build().unwrap();
        let (producer, contexts) = (collector.producer(), contexts());
        for round in 0..50 {
            let (pushing, ()) = allocations(|| match round % 3 {
                0 => contexts.iter().for_each(|context| collector.push(context).unwrap()),
                1 => contexts.iter().for_each(|context| producer.push(context).unwrap()),
                _ => assert_eq!(collector.push_all(&contexts), SIZE),
            });
            let (flushing, batch) = allocations(|| flusher.next_batch().unwrap());
            let (counting, _stats) = allocations(|| collector.stats());
            assert_eq!(batch.linked(), SIZE as u64);
            if round > 0 {
                assert_eq!((pushing, flushing, counting), (0, per_flush, 0), "round {round}");
            }
        }
    }
}

/// With a flusher that parks on a thread of its own, and producers on others.
#[test]
fn threads_allocate_no_more() {
    let _watchdog = watchdog();
    let builder = LinkCollector::builder().with_max_batch_size(SIZE).with_max_delay(NEVER);
    let (collector, flusher) = builder
        .with_link_policy(LinkPolicy::new().without_link_type())
        .with_shards(2)
        .build()
        .unwrap();
    let (flushes, per_flush) = mpsc::sync_channel(1000);
    let mut last = None;
    let handle = flusher
        .spawn(move |batch| {
            // Since the end of the last call: one batch.
            let now = ALLOCATIONS.get();
            if let Some(last) = last {
                flushes.send(now - last).unwrap();
            }
            drop(batch);
            last = Some(ALLOCATIONS.get());
        })
        .unwrap();
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let contexts = contexts();
                let push_all = || {
                    for context in &contexts {
                        while collector.push(context).is_err() {
                            thread::yield_now();
                        }
                    }
                };
                push_all();
                assert_eq!(allocations(|| (0..100).for_each(|_| push_all())).0, 0);
            });
        }
    });
    handle.shutdown().unwrap();
    drop(handle);
    let per_flush: Vec<u64> = per_flush.iter().collect();
    // The first of them may still have grown the set; and the first refusal is logged, if that is
    // on.
    assert!(per_flush.len() > 300);
    let others = per_flush[2..].iter().filter(|&&count| count != 1).count();
    assert!(others <= usize::from(cfg!(feature = "internal-logs")), "{per_flush:?}");
}

#[test]
fn refused_contexts_allocate_nothing() {
    let (collector, _flusher) = by_size(1).with_queue_capacity(1).with_shards(1).build().unwrap();
    collector.push(&context(1)).unwrap();
    let contexts = contexts();
    let work = || {
        for context in &contexts {
            assert!(collector.push(context).is_err());
            collector.push(&SpanContext::NONE).unwrap();
        }
        collector.push_all(&contexts)
    };
    assert_eq!(allocations(work), (0, 0));
}

#[test]
fn link_set_keeps_its_memory() {
    let policy = || LinkPolicy::new().without_link_type();
    let by_truncation = |truncation| policy().with_truncation(truncation);
    for (policy, per_link) in [
        (policy(), 0),
        (policy().with_dedup(Dedup::Off), 0),
        (policy().with_dedup(Dedup::ByContextAndAttributes), 0),
        (by_truncation(Truncation::KeepLast), 0),
        (by_truncation(Truncation::Reservoir { seed: 1 }), 0),
        (by_truncation(Truncation::SampledFirst), 0),
        (by_truncation(Truncation::OnePerTrace), 0),
        (by_truncation(Truncation::OnePerTrace).with_link_count(), 1),
    ] {
        let name = format!("{policy:?}");
        let mut set =
            LinkSet::builder().with_max_links(1000).with_link_policy(policy).build().unwrap();
        for round in 0..5 {
            let insert = || (0..3000).for_each(|n| _ = set.insert(&context(1 + n % 1500)));
            let (inserting, ()) = allocations(insert);
            let (finishing, batch) = allocations(|| set.finish());
            assert_eq!(batch.linked(), 1000);
            if round > 0 {
                // The links, with the first of them; `finish` hands them over.
                assert_eq!((inserting, finishing), (1, 1000 * per_link), "{name}");
            }
        }
        assert_eq!(allocations(|| set.finish()).0, 0, "an empty batch has no links to hold");
    }
}

/// What is pushed, half delivered and then dropped is released exactly once, boxes included.
#[test]
fn partly_drained_collector_frees_all() {
    let state = small_state();
    let scenario = |flusher_first: bool, taken: usize| {
        let (collector, mut flusher) =
            by_size(4).with_shards(2).with_queue_capacity(128).build().unwrap();
        for number in 1..=12 {
            let producer = collector.producer();
            producer.push(&context(number)).unwrap();
            producer.push(&with_state(100 + number, &state)).unwrap();
            let attributes = vec![KeyValue::new("key", String::from("value"))];
            collector.push_link(Link::new(context(200 + number), attributes, 0)).unwrap();
        }
        for _ in 0..taken {
            drop(flusher.try_next());
        }
        if flusher_first {
            drop(flusher);
            assert!(collector.push(&with_state(1, &state)).is_err());
        } else {
            drop(collector);
        }
    };
    scenario(false, 1); // what is made once per thread or process
    for (flusher_first, taken) in [(false, 0), (true, 0), (false, 3), (true, 3), (true, 100)] {
        let before = (ALLOCATIONS.get(), RELEASES.get());
        scenario(flusher_first, taken);
        let (allocated, released) = (ALLOCATIONS.get() - before.0, RELEASES.get() - before.1);
        assert_eq!(allocated, released, "flusher first: {flusher_first}, {taken} batches taken");
        assert!(allocated > 24);
    }
}

#[test]
fn traceparent_allocates_nothing() {
    let header = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    for (header, valid) in
        [(header, true), (&header.to_uppercase(), false), (&"é".repeat(1000), false)]
    {
        let (count, found) =
            allocations(|| batchlink::carrier::parse_traceparent(header, Some(",")));
        assert_eq!((count, found.is_ok()), (0, valid), "{header}");
    }
}

/// A call allocates the cell of its answer and nothing else, and its answer nothing: the rest is of
/// the batch.
#[cfg(feature = "processor")]
#[test]
fn call_allocates_its_cell() {
    use batchlink::processor::BatchProcessor;
    use opentelemetry::trace::noop::NoopTracer;
    use std::pin::Pin;
    use std::task::{Context, Waker};

    fn count_pending<F: Future>(calls: &mut [Pin<Box<F>>]) -> usize {
        let cx = &mut Context::from_waker(Waker::noop());
        calls.iter_mut().map(|call| usize::from(call.as_mut().poll(cx).is_pending())).sum()
    }

    let per_batch = [SIZE / 2, SIZE].map(|size| {
        let (submitter, mut processor) = BatchProcessor::<u64, u64, String>::builder("batch")
            .with_max_batch_size(size)
            .with_max_delay(NEVER)
            .with_shards(1)
            .with_link_policy(LinkPolicy::new().without_link_type())
            .build(NoopTracer::new())
            .unwrap();
        let contexts = contexts();
        let mut last = 0;
        for round in 0..10 {
            let numbers = (0..size as u64).zip(&contexts);
            let call = |(n, context)| Box::pin(submitter.call_with_context(n, context));
            let mut calls: Vec<_> = numbers.map(call).collect();
            let (asking, pending) = allocations(|| count_pending(&mut calls));
            let (taking, batch) = allocations(|| processor.next_batch().unwrap());
            let (answering, ()) = allocations(|| batch.succeed_all(|n| *n));
            let (receiving, left) = allocations(|| count_pending(&mut calls));
            assert_eq!((pending, left), (size, 0));
            if round > 0 {
                assert_eq!((asking, receiving), (size as u64, 0), "round {round}");
            }
            last = taking + answering;
        }
        last
    });
    assert_eq!(per_batch[0], per_batch[1], "of a batch, whatever its size");
    println!("{} allocations a batch", per_batch[0]);
}
