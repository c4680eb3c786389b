//! Promise 6: first come, first linked, per producer.

use super::common::*;
use batchlink::{Flusher, PushError};
use opentelemetry::trace::SpanContext;
use std::thread;

/// Takes batches until the collector is closed, checks that each producer's numbers rise, and
/// returns how many there were. The upper half of a number is its producer.
fn assert_rising(flusher: &mut Flusher, producers: usize) -> u64 {
    let mut latest = vec![0; producers];
    let mut links = 0;
    while let Some(batch) = flusher.next_batch() {
        for number in numbers(&batch) {
            let (producer, number) = ((number >> 32) as usize - 1, number & 0xffff_ffff);
            assert!(number > latest[producer], "{number} after {} of {producer}", latest[producer]);
            latest[producer] = number;
            links += 1;
        }
    }
    links
}

/// Every thread in its own way, under overload; whatever is accepted arrives in order. Three
/// shards for four threads, so some share one; batches of 10, so most are cut.
#[test]
fn thread_order_is_kept() {
    const PUSHES: u64 = 20_000;
    let _watchdog = watchdog();
    let builder = by_size(10).with_queue_capacity(96).with_shards(3);
    let (collector, mut flusher) = builder.build().unwrap();
    let consumer = thread::spawn(move || assert_rising(&mut flusher, 4));
    thread::scope(|scope| {
        for thread in 1..=4_u64 {
            let collector = collector.clone();
            scope.spawn(move || {
                let producer = collector.producer();
                let state = small_state();
                let mut number = thread << 32;
                while number & 0xffff_ffff < PUSHES {
                    number += 1;
                    let result = match (thread, number % 3) {
                        (1, _) => collector.push(&context(number)),
                        (2, 0) => producer.push(&with_state(number, &state)),
                        (2, _) => producer.push(&context(number)),
                        (3, 0) => collector.push(&with_state(number, &state)),
                        // What a clone gives comes after what the original gave.
                        (3, _) => collector.clone().push(&context(number)),
                        _ => {
                            let run: Vec<SpanContext> = (number..number + 7).map(context).collect();
                            number += 6;
                            let taken = producer.push_all(&run);
                            if taken == run.len() { Ok(()) } else { Err(PushError::Full) }
                        }
                    };
                    if result.is_err() {
                        thread::yield_now();
                    }
                }
            });
        }
    });
    let accepted = collector.stats().accepted();
    collector.close();
    assert_eq!(consumer.join().unwrap(), accepted);
    assert!(accepted > 1000, "{accepted}");
}

/// A producer keeps its shard, and so its order, on whatever thread it is used.
#[test]
fn producer_order_crosses_threads() {
    let _watchdog = watchdog();
    let (collector, mut flusher) =
        by_size(7).with_shards(8).with_queue_capacity(4096).build().unwrap();
    let producer = collector.producer();
    for thread in 0..50 {
        let producer = producer.clone();
        thread::spawn(move || {
            for number in 1..=10 {
                producer.push(&context((1 << 32) + thread * 10 + number)).unwrap();
            }
        })
        .join()
        .unwrap();
    }
    collector.close();
    assert_eq!(assert_rising(&mut flusher, 1), 500);
}

/// Within a batch, links stand in the order of their first contexts; later ones are cut.
#[test]
fn first_contexts_are_linked() {
    let (collector, mut flusher) = by_size(10).with_max_links(3).with_shards(1).build().unwrap();
    for number in [5, 3, 5, 4, 3, 1, 2] {
        collector.push(&context(number)).unwrap();
    }
    assert_eq!(numbers(&flusher.try_next().unwrap()), [5, 3, 4]);
}

/// Producers take the shards in turn, and batches begin at each shard in turn: under a steady load
/// no producer's contexts are always the last to leave.
#[test]
fn shards_take_turns() {
    let (collector, mut flusher) =
        by_size(1).with_queue_capacity(6).with_shards(3).build().unwrap();
    let producers = [collector.producer(), collector.producer(), collector.producer()];
    for (producer, number) in producers.iter().zip(1..) {
        producer.push(&context(number)).unwrap();
        producer.push(&context(10 + number)).unwrap();
    }
    let order: Vec<_> = (0..6).map(|_| numbers(&flusher.next_batch().unwrap())[0]).collect();
    assert_eq!(order, [1, 2, 3, 11, 12, 13]);
}

/// One slot per shard: as many contexts are accepted as shards are used by a thread.
#[test]
fn threads_spread_over_shards() {
    let (collector, _flusher) = by_size(1).with_queue_capacity(8).with_shards(8).build().unwrap();
    for number in 1..=64 {
        let collector = collector.clone();
        thread::spawn(move || _ = collector.push(&context(number))).join().unwrap();
    }
    assert!(
        collector.stats().pending() >= 6,
        "{} of 8 shards were used",
        collector.stats().pending()
    );
}
