//! Promise 1: every context is accounted for, and delivered once if it was accepted.

use super::common::*;
use batchlink::{Dedup, Flusher, LinkCollector, LinkPolicy, PushError, Unsampled};
use opentelemetry::trace::{Link, SpanContext, TraceFlags};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Barrier, Mutex};
use std::thread;
use std::time::Duration;

/// Takes everything until the collector is closed; the numbers of all links.
fn take_all(flusher: &mut Flusher) -> Vec<u64> {
    let mut delivered = Vec::new();
    while let Some(batch) = flusher.next_batch() {
        assert_account(&batch);
        delivered.extend(numbers(&batch));
    }
    delivered
}

fn sorted(mut numbers: Vec<u64>) -> Vec<u64> {
    numbers.sort_unstable();
    numbers
}

/// What one producer did, counted by itself.
#[derive(Default)]
struct Tally {
    accepted: Vec<u64>,
    full: u64,
    closed: u64,
    invalid: u64,
}

impl Tally {
    fn note(&mut self, number: u64, result: Result<(), PushError>) {
        match result {
            Ok(()) => self.accepted.push(number),
            Err(PushError::Full) => self.full += 1,
            Err(PushError::Closed) => self.closed += 1,
            Err(other) => panic!("{other:?}"),
        }
    }

    /// Pushes `rounds` times in every way there is; numbers begin at `first`.
    fn push_in_every_way(&mut self, collector: &LinkCollector, first: u64, rounds: u64) {
        let producer = collector.producer();
        let state = small_state();
        let mut number = first;
        for round in 0..rounds {
            number += 20;
            match round % 5 {
                0 => self.note(number, collector.push(&context(number))),
                1 => self.note(number, producer.push(&with_state(number, &state))),
                2 => {
                    let link = Link::with_context(with_state(number, &state));
                    self.note(
                        number,
                        collector.push_link(link).map_err(|refused| refused.reason()),
                    );
                }
                3 => {
                    collector.push(&SpanContext::NONE).unwrap();
                    self.invalid += 1;
                }
                _ => {
                    // Plain ones, one that goes alone, and one that does not go at all.
                    let mut run: Vec<_> = (number..number + 12).map(context).collect();
                    run[5] = with_state(number + 5, &state);
                    run[8] = SpanContext::NONE;
                    let taken = producer.push_all(&run);
                    let (took, refused) = run.split_at(taken);
                    let valid = took.iter().enumerate().filter(|(_, context)| context.is_valid());
                    self.accepted.extend(valid.map(|(index, _)| number + index as u64));
                    self.invalid += u64::from(taken > 8);
                    self.full += refused.len() as u64;
                }
            }
        }
    }
}

/// A tiny queue under overload neither loses nor doubles a context.
#[test]
fn overload_loses_nothing() {
    let _watchdog = watchdog();
    for shards in [1, 3] {
        let builder = by_size(16).with_queue_capacity(16).with_shards(shards);
        let (collector, mut flusher) = builder.build().unwrap();
        let tallies = thread::scope(|scope| {
            let producers: Vec<_> = (1..=4_u64)
                .map(|thread| {
                    let collector = collector.clone();
                    scope.spawn(move || {
                        let mut tally = Tally::default();
                        tally.push_in_every_way(&collector, thread << 32, 10_000);
                        tally
                    })
                })
                .collect();
            let consumer = scope.spawn(|| {
                // Overload for sure: nothing is taken before something was refused.
                while flusher.stats().rejected_full() == 0 {
                    thread::yield_now();
                }
                take_all(&mut flusher)
            });
            let tallies: Vec<_> =
                producers.into_iter().map(|thread| thread.join().unwrap()).collect();
            collector.close();
            let accepted = tallies.iter().flat_map(|tally| tally.accepted.clone()).collect();
            assert_eq!(sorted(consumer.join().unwrap()), sorted(accepted));
            tallies
        });
        let sum = |part: fn(&Tally) -> u64| tallies.iter().map(part).sum::<u64>();
        let accepted = sum(|tally| tally.accepted.len() as u64);
        let stats = collector.stats();
        assert_stats(&stats, accepted, sum(|tally| tally.full), 0, sum(|tally| tally.invalid));
        assert_eq!(stats.pending(), 0);
    }
}

/// 4 threads push until they are refused. Another closes in between.
fn close_while_pushing(close: impl Fn(&LinkCollector) + Sync) {
    let _watchdog = watchdog();
    for round in 0..150 {
        let (collector, mut flusher) =
            by_size(1 + round % 7).with_shards(1 + round % 4).build().unwrap();
        let start = Barrier::new(5);
        let closed = AtomicU64::new(0);
        let (accepted, delivered) = thread::scope(|scope| {
            let producers: Vec<_> = (1..=4_u64)
                .map(|thread| {
                    let (collector, start, closed) = (collector.clone(), &start, &closed);
                    scope.spawn(move || {
                        let mut accepted = Vec::new();
                        start.wait();
                        for number in thread << 32.. {
                            match collector.push(&context(number)) {
                                Ok(()) => accepted.push(number),
                                Err(PushError::Full) => thread::yield_now(),
                                Err(_) => break,
                            }
                        }
                        closed.fetch_add(1, Ordering::Relaxed);
                        accepted
                    })
                })
                .collect();
            let consumer = scope.spawn(|| take_all(&mut flusher));
            start.wait();
            for _ in 0..round % 10 {
                thread::yield_now();
            }
            close(&collector);
            let accepted =
                producers.into_iter().flat_map(|thread| thread.join().unwrap()).collect();
            (accepted, consumer.join().unwrap())
        });
        let stats = collector.stats();
        assert_stats(&stats, delivered.len() as u64, stats.rejected_full(), 4, 0);
        assert_eq!(sorted(delivered), sorted(accepted), "round {round}");
        assert_eq!((stats.pending(), collector.push(&context(1))), (0, Err(PushError::Closed)));
    }
}

#[test]
fn close_during_pushes_loses_nothing() {
    close_while_pushing(LinkCollector::close);
}

/// `shutdown` answers `Ok` only when everything accepted has been through the handler.
#[test]
fn shutdown_delivers_everything_accepted() {
    let _watchdog = watchdog();
    for round in 0..150 {
        let (collector, flusher) =
            by_size(1 + round % 7).with_shards(1 + round % 4).build().unwrap();
        let handled = Arc::new(Mutex::new(Vec::new()));
        let handler = Arc::clone(&handled);
        let handle =
            flusher.spawn(move |batch| handler.lock().unwrap().extend(numbers(&batch))).unwrap();
        let start = Barrier::new(4);
        thread::scope(|scope| {
            let producers: Vec<_> = (1..=3_u64)
                .map(|thread| {
                    let (collector, start) = (collector.clone(), &start);
                    scope.spawn(move || {
                        start.wait();
                        let pushes = (thread << 32..).map(|n| (n, collector.push(&context(n))));
                        let pushes =
                            pushes.take_while(|(_, result)| *result != Err(PushError::Closed));
                        pushes
                            .filter(|(_, result)| result.is_ok())
                            .map(|(n, _)| n)
                            .collect::<Vec<_>>()
                    })
                })
                .collect();
            start.wait();
            for _ in 0..round % 10 {
                thread::yield_now();
            }
            handle.shutdown_with_timeout(Duration::MAX).unwrap();
            let handled = std::mem::take(&mut *handled.lock().unwrap());
            let accepted =
                producers.into_iter().flat_map(|thread| thread.join().unwrap()).collect();
            assert_eq!(sorted(handled), sorted(accepted), "round {round}");
        });
    }
}

/// A flusher that goes away delivers nothing more, and what it leaves stays visible.
#[test]
fn dropped_flusher_leaves_contexts_pending() {
    for round in 0..100 {
        let (collector, mut flusher) = by_size(3).with_shards(2).build().unwrap();
        let (accepted, received) = thread::scope(|scope| {
            let producer = scope.spawn(|| {
                (1..)
                    .map_while(|n| match collector.push(&context(n)) {
                        Err(PushError::Closed) => None,
                        result => Some(u64::from(result.is_ok())),
                    })
                    .sum::<u64>()
            });
            let received: u64 =
                (0..round).filter_map(|_| flusher.try_next()).map(|b| b.received()).sum();
            drop(flusher);
            (producer.join().unwrap(), received)
        });
        let stats = collector.stats();
        assert_stats(&stats, accepted, stats.rejected_full(), 1, 0);
        assert_eq!((stats.received(), stats.pending()), (received, accepted - received));
    }
}

/// The rest is delivered after it.
#[test]
fn last_handle_closes() {
    let _watchdog = watchdog();
    let (collector, mut flusher) = by_size(10).build().unwrap();
    let producer = collector.producer();
    collector.push(&context(1)).unwrap();
    drop(collector);
    producer.clone().push(&context(2)).unwrap();
    drop(producer);
    assert_eq!(sorted(take_all(&mut flusher)), [1, 2]);
    assert!(flusher.next_batch().is_none(), "and it stays closed");
}

#[test]
fn run_stops_at_first_refusal() {
    let builder = by_size(16).with_queue_capacity(16).with_shards(1);
    let (collector, mut flusher) = builder.build().unwrap();
    let mut run: Vec<_> = (1..=40).map(context).collect();
    run[3] = SpanContext::NONE;
    run[7] = with_state(8, &small_state());
    // 16 valid ones and the invalid one among them.
    assert_eq!(collector.push_all(&run), 17);
    assert_eq!((collector.stats().accepted(), collector.stats().rejected_full()), (16, 23));
    // With the shard full, an alone-goer is refused no differently, and an invalid one still costs
    // nothing.
    assert_eq!(collector.push_all(&run[7..9]), 0);
    assert_eq!(collector.push_all(&[SpanContext::NONE, context(50)]), 1);
    assert_eq!(collector.push_all(&[]), 0);
    let expected: Vec<u64> = (1..=17).filter(|&n| n != 4).collect();
    assert_eq!(numbers(&flusher.try_next().unwrap()), expected);
    assert_stats(&collector.stats(), 16, 26, 0, 2);
    collector.close();
    assert_eq!(collector.push_all(&run[..3]), 0);
    assert_stats(&collector.stats(), 16, 26, 3, 2);
}

/// Every way out of a batch, in the batch and in the totals.
#[test]
fn each_outcome_is_counted() {
    for (unsampled, links) in [(Unsampled::Drop, 3), (Unsampled::Keep, 4)] {
        let builder = by_size(10)
            .with_max_links(4)
            .with_link_policy(LinkPolicy::new().with_unsampled(unsampled));
        let (collector, mut flusher) = builder.build().unwrap();
        let plan = [1, 2, 1, 3, 3];
        for number in plan {
            collector.push(&context(number)).unwrap();
        }
        collector.push(&with_flags(9, TraceFlags::default())).unwrap();
        let batch = flusher.try_next().unwrap();
        assert_account(&batch);
        assert_eq!((batch.linked(), batch.duplicates(), batch.truncated()), (links, 2, 0));
        for number in 1..=10 {
            collector.push(&context(number)).unwrap();
        }
        let batch = flusher.try_next().unwrap();
        assert_account(&batch);
        assert_eq!((batch.linked(), batch.truncated()), (4, 6));
        assert_stats(&collector.stats(), 16, 0, 0, 0);
        assert_eq!(collector.stats().counts().truncated, 6);
    }
}

#[test]
fn kept_duplicates_are_linked() {
    let (collector, mut flusher) =
        by_size(3).with_link_policy(LinkPolicy::new().with_dedup(Dedup::Off)).build().unwrap();
    assert_eq!(collector.push_all(&[context(1), context(1), context(2)]), 3);
    let batch = flusher.next_batch().unwrap();
    assert_account(&batch);
    assert_eq!((numbers(&batch), batch.duplicates()), (vec![1, 1, 2], 0));
}

#[test]
fn invalid_contexts_are_only_counted() {
    let (collector, mut flusher) = by_size(1).with_shards(1).build().unwrap();
    let producer = collector.producer();
    collector.push(&SpanContext::NONE).unwrap();
    collector.push_current().unwrap();
    collector.push_link(Link::with_context(SpanContext::NONE)).unwrap();
    producer.push(&SpanContext::NONE).unwrap();
    producer.push_current().unwrap();
    producer.push_link(Link::with_context(SpanContext::NONE)).unwrap();
    assert_eq!(producer.push_all(&[SpanContext::NONE, SpanContext::NONE]), 2);
    assert_stats(&collector.stats(), 0, 0, 0, 8);
    assert!(flusher.try_next().is_none());
}
