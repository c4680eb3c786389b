//! Promises 2 and 3: a batch is due at exactly its size, after its delay, or on request, and an
//! idle collector wakes no thread.

use super::common::*;
use batchlink::{LinkCollector, Timeout, Trigger};
use opentelemetry::trace::SpanContext;
use std::sync::{Arc, Barrier, mpsc};
use std::thread;
use std::time::Duration;

/// 20 collectors × 200 rounds of 8 threads. In every other round all threads push at once and go
/// quiet; in the others they stop one short of the size, and then one of them pushes one more.
/// The delay is an hour, so a trigger that comes late hangs.
#[test]
fn size_fires_exactly() {
    const THREADS: usize = 8;
    const ROUNDS: u64 = 200;
    let _watchdog = watchdog();
    let mut random = Random(1);
    for _ in 0..20 {
        let size = 1 + random.below(200) as usize;
        let shards = 1 + random.below(9) as usize;
        let (collector, mut flusher) = by_size(size).with_shards(shards).build().unwrap();
        let (start, stop) = (Barrier::new(THREADS + 1), Barrier::new(THREADS + 1));
        // In round r, thread t pushes what is left of the size after a share for each before it.
        let share = |round: u64, thread: usize| {
            let mut random = Random(round);
            let mut left = size as u64 - round % 2;
            let mut own = 0;
            for index in 0..=thread {
                own = if index == THREADS - 1 { left } else { random.below(left + 1) };
                left -= own;
            }
            own
        };
        let mut seen = Vec::new();
        thread::scope(|scope| {
            for thread in 0..THREADS {
                let (collector, start, stop) = (collector.clone(), &start, &stop);
                scope.spawn(move || {
                    for round in 0..ROUNDS {
                        start.wait();
                        for number in 0..share(round, thread) {
                            collector.push(&context(((thread as u64 + 1) << 32) + number)).unwrap();
                        }
                        if round % 2 == 1 {
                            stop.wait();
                            // The flusher polls.
                            stop.wait();
                            if round as usize % THREADS == thread {
                                collector.push(&context(1)).unwrap();
                            }
                        }
                    }
                });
            }
            // Asserted later: a thread that panics here would leave the others waiting for it.
            for round in 0..ROUNDS {
                start.wait();
                if round % 2 == 1 {
                    stop.wait();
                    let early = flusher.next_batch_timeout(Duration::ZERO);
                    stop.wait();
                    if let Ok(Some(batch)) = early {
                        seen.push((batch.linked(), "early"));
                        continue;
                    }
                }
                let batch = flusher.next_batch().unwrap();
                seen.push((batch.linked(), batch.trigger().as_str()));
            }
        });
        assert_eq!(
            seen,
            vec![(size as u64, "size_limit"); ROUNDS as usize],
            "size {size}, {shards} shards"
        );
        assert!(flusher.try_next().is_none());
    }
}

/// As many contexts as fill a number of batches, from 8 threads that never pause: every batch is
/// full, and the last one comes although no push follows.
#[test]
fn steady_stream_fills_batches() {
    const BATCHES_PER_THREAD: u64 = 250;
    let _watchdog = watchdog();
    for (size, shards) in [(1, 4), (2, 8), (3, 2), (10, 8), (64, 4), (100, 1)] {
        let (collector, mut flusher) = by_size(size).with_shards(shards).build().unwrap();
        thread::scope(|scope| {
            for thread in 0..8_u64 {
                let collector = collector.clone();
                scope.spawn(move || {
                    for number in 0..size as u64 * BATCHES_PER_THREAD {
                        while collector.push(&context(((thread + 1) << 32) + number)).is_err() {
                            thread::yield_now();
                        }
                    }
                });
            }
            let batches = (0..8 * BATCHES_PER_THREAD).map(|_| flusher.next_batch().unwrap());
            let seen: Vec<_> = batches.map(|batch| (batch.linked(), batch.trigger())).collect();
            assert!(seen.iter().all(|seen| *seen == (size as u64, Trigger::Size)), "{seen:?}");
        });
        assert_eq!(collector.stats().pending(), 0);
    }
}

#[test]
fn below_size_nothing_fires() {
    let (collector, mut flusher) = by_size(10).with_shards(3).build().unwrap();
    for number in 1..10 {
        collector.producer().push(&context(number)).unwrap();
        assert_eq!(flusher.next_batch_timeout(Duration::from_millis(2)).unwrap_err(), Timeout);
    }
    assert_eq!(collector.stats().pending(), 9, "a wait in vain loses nothing");
    collector.push(&context(10)).unwrap();
    assert_eq!(flusher.next_batch().unwrap().trigger(), Trigger::Size);
}

#[test]
fn long_run_fires_each_batch() {
    let _watchdog = watchdog();
    let (collector, mut flusher) = by_size(10).with_shards(2).build().unwrap();
    let contexts: Vec<SpanContext> = (1..=25).map(context).collect();
    for (run, rest) in [(&contexts[..20], 0), (&contexts[..], 5)] {
        assert_eq!(collector.push_all(run), run.len());
        let batches = [flusher.next_batch(), flusher.next_batch()].map(Option::unwrap);
        assert_eq!(batches.each_ref().map(|batch| batch.received()), [10, 10]);
        assert_eq!(flusher.next_batch_timeout(Duration::ZERO).unwrap_err(), Timeout);
        assert_eq!(flusher.try_next().map_or(0, |batch| batch.received()), rest);
    }
}

#[test]
fn timeout_delivers_pending() {
    let _watchdog = watchdog();
    let builder = by_size(10).with_max_delay(Duration::from_millis(5));
    let (collector, mut flusher) = builder.with_shards(2).build().unwrap();
    for round in 1..=10 {
        for number in 1..=3 {
            collector.producer().push(&context(number)).unwrap();
        }
        let batch = flusher.next_batch().unwrap();
        assert_eq!(batch.trigger(), Trigger::Timeout);
        // On a slow machine the delay may be over before the third push.
        let late = flusher.try_next().map_or(0, |batch| batch.received());
        assert_eq!(batch.received() + late, 3);
        assert_eq!(collector.stats().flushes(Trigger::Timeout), round);
    }
}

#[test]
fn zero_delay_delivers_at_once() {
    let _watchdog = watchdog();
    let (collector, mut flusher) = by_size(3).with_max_delay(Duration::ZERO).build().unwrap();
    collector.push(&context(1)).unwrap();
    let batch = flusher.next_batch_timeout(Duration::ZERO).unwrap().unwrap();
    assert_eq!((numbers(&batch), batch.trigger()), (vec![1], Trigger::Timeout));
    assert_eq!(collector.push_all(&[context(2), context(3), context(4), context(5)]), 4);
    let batch = flusher.next_batch().unwrap();
    assert_eq!((numbers(&batch), batch.trigger()), (vec![2, 3, 4], Trigger::Size));
    let batch = flusher.next_batch().unwrap();
    assert_eq!((numbers(&batch), batch.trigger()), (vec![5], Trigger::Timeout));
}

/// What a cut leaves behind has waited already: it is due when its own delay is over, not one
/// delay after the cut. The delay is over before the cut, so the rest is due without any waiting.
#[test]
fn leftover_keeps_deadline() {
    let delay = Duration::from_secs(1);
    let (collector, mut flusher) = by_size(2).with_max_delay(delay).with_shards(1).build().unwrap();
    assert_eq!(collector.push_all(&[context(1), context(2), context(3)]), 3);
    thread::sleep(delay);
    assert_eq!(flusher.next_batch().unwrap().trigger(), Trigger::Size);
    let rest = flusher.next_batch_timeout(Duration::ZERO).expect("due already").unwrap();
    assert_eq!((numbers(&rest), rest.trigger()), (vec![3], Trigger::Timeout));
}

/// The same if it was `try_next` that made the cut.
#[test]
fn try_next_leftover_keeps_deadline() {
    let delay = Duration::from_secs(1);
    let (collector, mut flusher) = by_size(2).with_max_delay(delay).with_shards(1).build().unwrap();
    assert_eq!(collector.push_all(&[context(1), context(2), context(3)]), 3);
    thread::sleep(delay);
    assert_eq!(flusher.try_next().unwrap().received(), 2);
    let rest = flusher.next_batch_timeout(Duration::ZERO).expect("due already").unwrap();
    assert_eq!((numbers(&rest), rest.trigger()), (vec![3], Trigger::Timeout));
}

/// Counted, not timed. A delay of 1 ms would give a flusher with a ticking timer many reasons.
#[test]
fn idle_collector_never_wakes() {
    let _watchdog = watchdog();
    let builder = by_size(4).with_max_delay(Duration::from_millis(1));
    let (collector, flusher) = builder.with_shards(2).build().unwrap();
    let (batches, received) = mpsc::channel();
    let _handle = flusher.spawn(move |batch| batches.send(batch).unwrap()).unwrap();
    for _ in 0..100 {
        collector.push(&SpanContext::NONE).unwrap();
        collector.push_current().unwrap();
        thread::sleep(Duration::from_millis(1));
    }
    assert_eq!(collector.stats().wake_ups(), 0, "nothing but invalid contexts came");

    collector.push(&context(1)).unwrap();
    assert_eq!(received.recv().unwrap().received(), 1);
    let before = collector.stats().wake_ups();
    assert!((1..=3).contains(&before), "woken once, timed out once, and one to spare: {before}");
    thread::sleep(Duration::from_millis(100));
    let after = collector.stats().wake_ups();
    assert!(after <= before + 1, "idle again, but {before} wake-ups became {after}");
}

/// A batch costs two wake-ups at most, one to arm the timer and one when it is due, however many
/// contexts it holds and whichever shards they went to.
#[test]
fn filling_batch_never_wakes() {
    let _watchdog = watchdog();
    let (collector, flusher) = by_size(1000).with_shards(8).build().unwrap();
    let (batches, received) = mpsc::channel();
    let _handle = flusher.spawn(move |batch| batches.send(batch).unwrap()).unwrap();
    let producers: Vec<_> = (0..8).map(|_| collector.producer()).collect();
    for round in 0..20 {
        for number in 0..1000 {
            producers[number as usize * 7 % 8].push(&context(1 + number)).unwrap();
        }
        assert_eq!(received.recv().unwrap().received(), 1000);
        let wake_ups = collector.stats().wake_ups();
        // A wake-up that comes while the flusher is awake costs one more, empty, poll.
        assert!(wake_ups <= 3 * (round + 1), "{wake_ups} wake-ups for {} batches", round + 1);
    }
}

#[test]
fn flush_delivers_earlier_pushes() {
    let _watchdog = watchdog();
    let (collector, mut flusher) = by_size(4).with_shards(3).build().unwrap();
    let producers: Vec<_> = (0..3).map(|_| collector.producer()).collect();
    for number in 1..=11 {
        producers[number as usize % 3].push(&context(number)).unwrap();
    }
    collector.flush();
    collector.flush();
    let batches = [flusher.next_batch(), flusher.next_batch(), flusher.next_batch()];
    let seen = batches.map(|batch| batch.map(|batch| (batch.received(), batch.trigger())).unwrap());
    assert_eq!(seen, [(4, Trigger::Size), (4, Trigger::Size), (3, Trigger::Manual)]);
    // The requests are used up.
    collector.push(&context(12)).unwrap();
    assert_eq!(flusher.next_batch_timeout(Duration::from_millis(5)).unwrap_err(), Timeout);
}

#[test]
fn empty_flush_makes_no_batch() {
    let (collector, mut flusher) = by_size(4).build().unwrap();
    collector.flush();
    assert_eq!(flusher.next_batch_timeout(Duration::from_millis(5)).unwrap_err(), Timeout);
    assert_eq!(collector.stats().batches(), 0);
}

/// A flusher that already waits is woken by a flush, by a close, and by the drop of the last
/// handle.
#[test]
fn waiting_flusher_is_woken() {
    // Gives the collector back, so that it stays, or not.
    type Ask = fn(LinkCollector) -> Option<LinkCollector>;
    let asks: [(Ask, Trigger); 3] = [
        (
            |collector| {
                collector.flush();
                Some(collector)
            },
            Trigger::Manual,
        ),
        (
            |collector| {
                collector.close();
                Some(collector)
            },
            Trigger::Shutdown,
        ),
        (
            |collector| {
                drop(collector);
                None
            },
            Trigger::Shutdown,
        ),
    ];
    for (ask, trigger) in asks {
        let _watchdog = watchdog();
        let (collector, mut flusher) = by_size(4).with_shards(2).build().unwrap();
        let waiting = Arc::new(Barrier::new(2));
        let thread = thread::spawn({
            let waiting = Arc::clone(&waiting);
            move || {
                waiting.wait();
                flusher.next_batch().map(|batch| (batch.received(), batch.trigger()))
            }
        });
        collector.push(&context(1)).unwrap();
        waiting.wait();
        // So that it is parked, most likely; if it is not, the test is only weaker.
        thread::sleep(Duration::from_millis(20));
        let _stays = ask(collector);
        assert_eq!(thread.join().unwrap(), Some((1, trigger)));
    }
}

#[test]
fn try_next_never_waits() {
    let (collector, mut flusher) = by_size(4).with_shards(1).build().unwrap();
    assert!(flusher.try_next().is_none());
    for number in 1..=6 {
        collector.push(&context(number)).unwrap();
    }
    let batches = [flusher.try_next(), flusher.try_next()].map(Option::unwrap);
    assert!(batches.iter().all(|batch| batch.trigger() == Trigger::Manual));
    assert_eq!(batches.each_ref().map(numbers), [vec![1, 2, 3, 4], vec![5, 6]]);
    assert!(flusher.try_next().is_none());
    collector.close();
    assert!(flusher.try_next().is_none());
    assert!(flusher.next_batch_timeout(Duration::ZERO).unwrap().is_none(), "closed and empty");
}
