//! Claim, publish, take, and the reuse of slots: `src/queue/ring.rs`.

use batchlink::PushError;
use batchlink_loom_tests::{NEVER, check, collector, cx, drain, ids, sorted, spawn};
use loom::thread;
use opentelemetry::KeyValue;
use opentelemetry::trace::Link;

/// Publish and take: what a slot held is seen whole, and written again only after it was read;
/// the claim goes past the limit and learns from `head` that the slot is free.
#[test]
fn slot_is_published_and_reused() {
    check(3, || {
        let (collector, mut flusher) = collector(1, 1, 1, NEVER);
        collector.push(&cx(1)).unwrap();
        assert_eq!(drain(&mut flusher), [1]);
        let producer = spawn(collector, |collector| {
            collector.push(&cx(2)).unwrap();
            collector.push(&cx(3))
        });
        assert_eq!(ids(&flusher.next_batch().unwrap()), [2]);
        let (second, _collector) = producer.join().unwrap();
        assert_eq!(drain(&mut flusher), if second.is_ok() { vec![3] } else { vec![] });
    });
}

/// A link whose attribute says which.
fn link(id: u64) -> Link {
    Link::new(cx(id), vec![KeyValue::new("id", id as i64)], 0)
}

/// Two producers make the cells beside the slots; one of them wins, and both write there.
#[test]
fn first_links_race() {
    check(3, || {
        let (collector, mut flusher) = collector(2, 2, 1, NEVER);
        let other = spawn(collector.clone(), |collector| collector.push_link(link(1)).unwrap());
        collector.push_link(link(2)).unwrap();
        let mut links = flusher.next_batch().unwrap().into_links();
        links.sort_by_key(|link| link.span_context.span_id().to_bytes());
        assert_eq!(links, [link(1), link(2)]);
        other.join().unwrap();
    });
}

/// What is beside a slot is seen whole by its reader, and written again only after it was read.
#[test]
fn cell_beside_slot_is_reused() {
    check(3, move || {
        let (collector, mut flusher) = collector(1, 1, 1, NEVER);
        collector.push_link(link(1)).unwrap();
        assert_eq!(flusher.next_batch().unwrap().links(), [link(1)]);
        let producer = spawn(collector, move |collector| {
            collector.push_link(link(2)).unwrap();
            collector.push_link(link(3)).is_ok()
        });
        assert_eq!(flusher.next_batch().unwrap().links(), [link(2)]);
        let (second, _collector) = producer.join().unwrap();
        let left = flusher.try_next().map(|batch| batch.into_links());
        assert_eq!(left, second.then(|| vec![link(3)]));
    });
}

/// Claim under a limit that the draining flusher raised over slots it has just left.
#[test]
fn flusher_limit_reuses_slot() {
    check(3, || {
        let (collector, mut flusher) = collector(3, 4, 1, NEVER);
        assert_eq!(collector.push_all(&[1, 2, 3, 4].map(cx)), 4);
        let producer = spawn(collector, |collector| u64::from(collector.push(&cx(5)).is_ok()));
        assert_eq!(ids(&flusher.next_batch().unwrap()), [1, 2, 3]);
        let (accepted, _collector) = producer.join().unwrap();
        assert_eq!(drain(&mut flusher), Vec::from_iter(4..5 + accepted));
    });
}

/// Claim under a limit that another producer raised, from a `head` it had just seen.
#[test]
fn producer_limit_reuses_slot() {
    check(3, || {
        let (collector, mut flusher) = collector(1, 2, 1, NEVER);
        let consumer = thread::spawn(move || {
            assert_eq!(ids(&flusher.next_batch().unwrap()), [1]);
            flusher
        });
        assert_eq!(collector.push_all(&[1, 2].map(cx)), 2);
        let accepted = u64::from(collector.push(&cx(3)).is_ok());
        let mut flusher = consumer.join().unwrap();
        assert_eq!(drain(&mut flusher), Vec::from_iter(2..3 + accepted));
    });
}

/// Drain racing push: nothing is lost or doubled when the flusher takes what it happens to find.
#[test]
fn drain_races_push() {
    check(3, || {
        let (collector, mut flusher) = collector(2, 2, 1, NEVER);
        let consumer = thread::spawn(move || (drain(&mut flusher), flusher));
        let accepted = [1, 2, 3].map(cx).iter().filter(|cx| collector.push(cx).is_ok()).count();
        let (mut taken, mut flusher) = consumer.join().unwrap();
        taken.extend(drain(&mut flusher));
        // Only the third can find the shard full.
        assert_eq!(taken, Vec::from_iter(1..=accepted as u64));
        assert!(accepted >= 2);
    });
}

/// A full shard: the last free slot goes to one of two, however they race for it.
#[test]
fn full_shard_refuses() {
    check(3, || {
        let (collector, mut flusher) = collector(1, 1, 1, NEVER);
        let other = collector.clone();
        let producer = spawn(other, |other| other.push(&cx(2)));
        let mine = collector.push(&cx(1));
        let theirs = producer.join().unwrap().0;
        let winner = match (mine, theirs) {
            (Ok(()), Err(PushError::Full)) => 1,
            (Err(PushError::Full), Ok(())) => 2,
            both => panic!("{both:?}"),
        };
        assert_eq!(collector.push(&cx(3)), Err(PushError::Full));
        assert_eq!((collector.stats().pending(), collector.stats().rejected_full()), (1, 2));
        assert_eq!(ids(&flusher.next_batch().unwrap()), [winner]);
        assert_eq!(collector.push(&cx(4)), Ok(()));
        assert_eq!(ids(&flusher.next_batch().unwrap()), [4]);
    });
}

/// Claims past the limit, racing: one with many positions and one with one, for a shard that
/// cannot hold both. Every accepted prefix is delivered, in order.
#[test]
fn push_all_fills_a_shard() {
    check(3, || {
        let (collector, mut flusher) = collector(2, 2, 1, NEVER);
        let other = collector.clone();
        let producer = spawn(other, |other| other.push_all(&[1, 2].map(cx)));
        let mine = usize::from(collector.push(&cx(9)).is_ok());
        let theirs = producer.join().unwrap().0;
        assert_eq!(mine + theirs, 2);
        let mut taken = ids(&flusher.next_batch().unwrap());
        taken.retain(|id| *id != 9);
        assert_eq!(taken, Vec::from_iter(1..=theirs as u64));
        assert_eq!(collector.stats().rejected_full(), 1);
    });
}

/// `push_all` racing `push` where there are slots for all: neither disturbs the other's order.
#[test]
fn push_all_races_push() {
    check(2, || {
        let (collector, mut flusher) = collector(4, 4, 1, NEVER);
        let other = collector.clone();
        let producer = spawn(other, |other| assert_eq!(other.push_all(&[1, 2].map(cx)), 2));
        assert_eq!(collector.push(&cx(8)), Ok(()));
        assert_eq!(collector.push(&cx(9)), Ok(()));
        let batch = flusher.next_batch().unwrap();
        let place = |id| ids(&batch).iter().position(|other| *other == id);
        assert!(place(1) < place(2) && place(8) < place(9));
        assert_eq!(sorted(&batch), [1, 2, 8, 9]);
        producer.join().unwrap();
    });
}

/// Order per producer, across batches and shards: first come, first linked.
#[test]
fn order_per_producer() {
    check(2, || {
        let (collector, mut flusher) = collector(3, 4, 2, NEVER);
        let (first, second) = (collector.producer(), collector.producer());
        first.push(&cx(1)).unwrap();
        second.push(&cx(8)).unwrap();
        let producer = spawn(first, |first| [2, 3].map(|id| first.push(&cx(id)).unwrap()));
        let mut taken = ids(&flusher.next_batch().unwrap());
        second.push(&cx(9)).unwrap();
        producer.join().unwrap();
        taken.extend(drain(&mut flusher));
        let of = |range: std::ops::Range<u64>| {
            Vec::from_iter(taken.iter().copied().filter(|id| range.contains(id)))
        };
        assert_eq!((of(1..4), of(8..10)), (vec![1, 2, 3], vec![8, 9]));
    });
}

/// Counters read in the middle of it all: a tail is never seen behind its head.
#[test]
fn stats_race_everything() {
    check(2, || {
        let (collector, mut flusher) = collector(1, 1, 1, NEVER);
        let reader = collector.clone();
        let reader = spawn(reader, |reader| {
            let stats = reader.stats();
            assert!(stats.pending() <= 1 && stats.received() <= 1, "{stats:?}");
        });
        let producer = spawn(collector, |collector| collector.push(&cx(1)));
        let batch = flusher.next_batch().unwrap();
        assert_eq!(ids(&batch), [1]);
        reader.join().unwrap();
        assert_eq!(producer.join().unwrap().0, Ok(()));
    });
}

/// A push that finds less than the capacity pending at every moment is not refused as `Full`:
/// the other thread takes its first context before it pushes the second.
#[test]
fn only_full_ring_refuses() {
    check(3, || {
        let (collector, mut flusher) = collector(1, 2, 1, NEVER);
        let one = spawn(collector.producer(), |producer| producer.push_stalled(&cx(9)).map(drop));
        for id in [1, 2] {
            // (Unless the claim of the first thread, never published, holds them up.)
            let _ = collector.push(&cx(id));
            let _ = flusher.try_next();
        }
        assert_eq!(one.join().unwrap().0, Ok(()));
    });
}

/// A claim past the limit publishes the head that freed its slots, to a thread that has not seen
/// that head: the word of the second push with the head of the first would make the ring overfull.
#[test]
fn claim_publishes_freeing_head() {
    check(3, || {
        let (collector, mut flusher) = collector(1, 1, 1, NEVER);
        collector.push(&cx(1)).unwrap();
        let other = collector.clone();
        let other = thread::spawn(move || {
            assert_eq!(ids(&flusher.try_next().unwrap()), [1]);
            (other.push(&cx(2)), other, flusher)
        });
        let mine = collector.push(&cx(3));
        let (theirs, _other, mut flusher) = other.join().unwrap();
        match (mine, theirs) {
            (Err(PushError::Full), Ok(())) => assert_eq!(drain(&mut flusher), [2]),
            (Ok(()), Err(PushError::Full)) => assert_eq!(drain(&mut flusher), [3]),
            both => panic!("one slot was free: {both:?}"),
        }
    });
}
