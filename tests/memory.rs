//! Promise 5: memory is bounded, by the formula in docs/LIMITS.md, whatever goes on. Counted in
//! bytes for the whole process, therefore in one test, one check after the other.
//!
//! `BATCHLINK_TEST_SECONDS` is for how long the two checks that go on for a while do so.

mod common;
#[path = "common/memory.rs"]
mod memory;

use batchlink::{LinkCollector, LinkPolicy, PushError};
use common::*;
use opentelemetry::KeyValue;
use opentelemetry::trace::Link;
use std::env;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

#[global_allocator]
static ALLOCATOR: memory::Counting = memory::Counting;

/// A thread that has been joined is not quite gone: its last bytes come back a little later.
const LAST_BYTES: usize = 4096;

#[test]
fn memory_is_bounded() {
    let _watchdog = watchdog_for(2 * seconds() + Duration::from_secs(120));
    // What is made once per process, by the first use.
    warm_up();
    for (name, check) in [
        ("a_collector_takes_what_is_documented", a_collector_takes_what_is_documented as fn()),
        ("a_full_collector_stays_within_the_formula", a_full_collector_stays_within_the_formula),
        ("one_link_makes_the_cells_of_its_shard", one_link_makes_the_cells_of_its_shard),
        ("a_slow_handler_does_not_make_memory_grow", a_slow_handler_does_not_make_memory_grow),
        (
            "threads_that_come_and_go_leave_nothing_behind",
            threads_that_come_and_go_leave_nothing_behind,
        ),
    ] {
        check();
        println!("memory: {name} ... ok");
    }
}

fn seconds() -> Duration {
    let given = env::var("BATCHLINK_TEST_SECONDS").ok();
    Duration::from_secs(
        given.map_or(3, |seconds| seconds.parse().expect("BATCHLINK_TEST_SECONDS is a number")),
    )
}

fn warm_up() {
    let (collector, flusher) = by_size(1).build().expect("valid");
    let handle = flusher.spawn(drop).expect("a thread");
    collector.push(&context(1)).expect("room");
    handle.shutdown().expect("in time");
    settle();
}

/// Waits for the last bytes of threads that have done their work and are not joined.
fn settle() {
    let mut held = memory::held();
    loop {
        thread::sleep(Duration::from_millis(50));
        let now = memory::held();
        if std::mem::replace(&mut held, now) == now {
            return;
        }
    }
}

/// What a configuration asks for.
#[derive(Clone, Copy, Debug)]
struct Config {
    size: usize,
    capacity: usize,
    shards: usize,
    link_type: bool,
}

impl Config {
    const fn new(size: usize, capacity: usize, shards: usize, link_type: bool) -> Self {
        Self { size, capacity, shards, link_type }
    }

    fn build(&self) -> (LinkCollector, batchlink::Flusher) {
        let builder =
            by_size(self.size).with_queue_capacity(self.capacity).with_shards(self.shards);
        if self.link_type {
            builder
        } else {
            builder.with_link_policy(LinkPolicy::new().without_link_type())
        }
        .build()
        .expect("valid")
    }

    fn slots(&self) -> usize {
        self.shards * self.capacity.div_ceil(self.shards).max(self.size).next_power_of_two()
    }

    /// docs/LIMITS.md: slots, shards and the collector itself.
    fn queue(&self) -> usize {
        assert!(include_str!("../docs/LIMITS.md").contains("640 bytes and 640 per shard"));
        32 * self.slots() + 640 * self.shards + 640
    }

    /// docs/LIMITS.md: the links of one batch.
    fn links(&self) -> usize {
        (if self.link_type { 96 + 56 } else { 96 }) * self.size
    }
}

const CONFIGS: [Config; 6] = [
    Config::new(1, 1, 1, false),
    Config::new(1, 1, 128, true),
    Config::new(100, 2048, 3, true),
    Config::new(128, 2048, 8, false),
    Config::new(1000, 1000, 2, true),
    Config::new(4096, 65_536, 16, true),
];

/// Neither more nor, by more than the table's rounding and a few words, less.
fn a_collector_takes_what_is_documented() {
    for config in CONFIGS {
        let before = memory::held();
        let built = config.build();
        let takes = memory::held() - before;
        let most = config.queue() + 32 * config.size;
        let least = config.queue() + 16 * config.size - 512;
        assert!(
            (least..=most).contains(&takes),
            "{config:?}: {takes} bytes, not {least} to {most}"
        );
        drop(built);
        assert_eq!(memory::held(), before, "{config:?} left something behind");
    }
}

/// Full of plain contexts, of trace state, of attributes; while a batch is out.
fn a_full_collector_stays_within_the_formula() {
    let state = state_of(512);
    let with_attributes = |number| {
        let attributes = vec![KeyValue::new("one", 1), KeyValue::new("two", 2)];
        Link::new(context(number), attributes, 0)
    };
    for config in CONFIGS {
        // Bytes besides slot and link: per entry that waits, and per link.
        for (kind, waiting, linked) in [
            ("plain", 0, 0),
            ("state", 96 + 512 + 6 * 48, 512 + 6 * 48),
            ("attributes", 96 + 2 * 56, 2 * 56),
        ] {
            let before = memory::held();
            let (collector, mut flusher) = config.build();
            memory::take_peak();
            let fill = || {
                for producer in (0..config.shards).map(|_| collector.producer()) {
                    while match kind {
                        "plain" => producer.push(&context(1)).is_ok(),
                        "state" => producer.push(&with_state(1, &state)).is_ok(),
                        _ => producer.push_link(with_attributes(1)).is_ok(),
                    } {}
                }
            };
            fill();
            assert_eq!(collector.stats().pending(), config.slots() as u64);
            let batch = flusher.try_next();
            fill();
            let most = config.queue()
                + 32 * config.size
                + config.links()
                + waiting * config.slots()
                + linked * config.size
                // One that is being refused, and its error.
                + 2048;
            let peak = memory::take_peak() - before;
            assert!(peak <= most, "{config:?}, {kind}: {peak} bytes of {most}");
            drop((collector, flusher, batch));
            assert_eq!(memory::held(), before, "{config:?}, {kind}: something was left behind");
        }
    }
}

/// One link with attributes makes a cell for each slot of its shard, for good. Plain contexts, and
/// further links, make none.
fn one_link_makes_the_cells_of_its_shard() {
    for config in CONFIGS {
        let (collector, mut flusher) = config.build();
        let producers: Vec<_> = (0..config.shards).map(|_| collector.producer()).collect();
        // The first batch of a collector allocates for itself.
        producers[0].push(&context(1)).expect("room");
        drop(flusher.try_next());
        let before = memory::held();
        for cells in [0, 96 * config.slots(), 96 * config.slots()] {
            for producer in &producers {
                if cells == 0 {
                    producer.push(&context(1)).expect("room");
                } else {
                    let link = Link::new(context(1), vec![KeyValue::new("one", 1)], 0);
                    producer.push_link(link).expect("room");
                }
                while flusher.try_next().is_some() {}
            }
            assert_eq!(memory::held() - before, cells, "{config:?}");
        }
    }
}

/// More input than the handler can take, for seconds or a minute: refused and counted, what was
/// accepted is delivered, and memory is as flat as on the first day.
fn a_slow_handler_does_not_make_memory_grow() {
    const THREADS: usize = 2;
    let config = Config::new(64, 1024, 2, true);
    let state = state_of(300);
    let at_first = memory::held();
    let (collector, flusher) = config.build();
    let counted = Arc::new(AtomicU64::new(0));
    let received = Arc::clone(&counted);
    let handle = flusher
        .spawn(move |batch| {
            received.fetch_add(batch.received(), Ordering::Relaxed);
            drop(batch);
            thread::sleep(Duration::from_millis(3));
        })
        .expect("a thread");
    let stop = AtomicBool::new(false);
    let (accepted, full) = thread::scope(|scope| {
        let producers: Vec<_> = (0..THREADS)
            .map(|_| {
                let (producer, stop, state) = (collector.producer(), &stop, &state);
                scope.spawn(move || {
                    let (mut accepted, mut full) = (0, 0);
                    while !stop.load(Ordering::Relaxed) {
                        for number in 1..=100 {
                            match producer.push(&if number % 4 == 0 {
                                with_state(number, state)
                            } else {
                                context(number)
                            }) {
                                Ok(()) => accepted += 1,
                                Err(PushError::Full) => full += 1,
                                Err(other) => panic!("{other}"),
                            }
                        }
                        thread::sleep(Duration::from_micros(200));
                    }
                    (accepted, full)
                })
            })
            .collect();
        // Once it is full, it cannot become more: the same bound for every part of the time.
        let settled = Duration::from_millis(500);
        thread::sleep(settled);
        let before = memory::held();
        memory::take_peak();
        let until = Instant::now() + seconds().saturating_sub(settled);
        let more =
            (96 + 300 + 3 * 48) * (config.slots() + config.size) + config.links() + (8 << 10);
        while Instant::now() < until {
            thread::sleep(Duration::from_millis(100));
            let peak = memory::take_peak();
            assert!(peak <= before + more / 2, "grew from {before} to {peak} bytes");
        }
        stop.store(true, Ordering::Relaxed);
        let tallies: Vec<(u64, u64)> =
            producers.into_iter().map(|thread| thread.join().expect("no panic")).collect();
        (
            tallies.iter().map(|(accepted, _)| accepted).sum(),
            tallies.iter().map(|(_, full)| full).sum(),
        )
    });
    assert!(full > 0, "the handler was too fast");
    handle.shutdown_with_timeout(Duration::MAX).expect("no limit");
    assert_stats(&handle.stats(), accepted, full, 0, 0);
    assert_eq!(counted.load(Ordering::Relaxed), accepted);
    drop((handle, collector, counted));
    settle();
    let left = memory::held().saturating_sub(at_first);
    assert!(left <= LAST_BYTES, "{left} bytes left");
}

/// A thousand threads a second, each of which pushes once by itself.
fn threads_that_come_and_go_leave_nothing_behind() {
    const AT_ONCE: usize = 50;
    const SHARDS: usize = 8;
    let config = Config::new(16, 128, SHARDS, false);
    let (collector, mut flusher) = config.build();
    let wave = |flusher: &mut batchlink::Flusher| {
        thread::scope(|scope| {
            let push = || collector.push(&context(1)).expect("room");
            (0..AT_ONCE).for_each(|_| _ = scope.spawn(push));
        });
        std::iter::from_fn(|| flusher.try_next()).map(|batch| batch.received()).sum::<u64>()
    };
    for _ in 0..4 {
        wave(&mut flusher);
    }
    let before = memory::held();
    let (mut waves, until) = (0, Instant::now() + seconds());
    while Instant::now() < until || waves * AT_ONCE < 1000 {
        // 50 threads, 16 slots a shard: refusals would show that they crowd into a few shards.
        assert_eq!(wave(&mut flusher), AT_ONCE as u64);
        waves += 1;
        thread::sleep(Duration::from_millis(10));
    }
    let (threads, left) = (waves * AT_ONCE, memory::held().saturating_sub(before));
    assert!(left <= LAST_BYTES, "{left} bytes left by {threads} threads");
    println!("memory: {threads} threads left {left} bytes");
}
