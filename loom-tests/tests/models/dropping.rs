//! Whatever is left when all are gone is dropped once; loom itself checks that every ring is freed.

use batchlink::PushError;
use batchlink_loom_tests::{NEVER, check, collector, cx, drain, ids, spawn};
use loom::thread;
use opentelemetry::trace::Link;
use opentelemetry::{KeyValue, StringValue};
use std::sync::Arc;

/// A link that holds a reference to `payload`.
fn link(id: u64, payload: &Arc<str>) -> Link {
    let value = StringValue::from(Arc::clone(payload));
    Link::new(cx(id), vec![KeyValue::new("payload", value)], 0)
}

/// A partly drained collector, wrapped around, is dropped: each payload goes once.
#[test]
fn partly_drained_collector_is_dropped() {
    check(3, || {
        let payload: Arc<str> = "payload".into();
        let (collector, mut flusher) = collector(2, 4, 1, NEVER);
        let other = Arc::clone(&payload);
        let producer = spawn(collector, move |collector| {
            (1..=3).for_each(|id| collector.push_link(link(id, &other)).unwrap())
        });
        assert_eq!(ids(&flusher.next_batch().unwrap()), [1, 2]);
        drop(producer.join().unwrap());
        drop(flusher);
        assert_eq!(Arc::strong_count(&payload), 1);
    });
}

/// Any of the handles may be the last to go, on any thread.
#[test]
fn last_handle_drops_leftovers() {
    check(2, || {
        let payload: Arc<str> = "payload".into();
        let (collector, flusher) = collector(4, 4, 2, NEVER);
        let (first, second) = (collector.producer(), collector.producer());
        drop(collector);
        let (one, two) = (Arc::clone(&payload), Arc::clone(&payload));
        let one = thread::spawn(move || first.push_link(link(1, &one)).is_ok());
        let two = thread::spawn(move || second.push_link(link(2, &two)).is_ok());
        drop(flusher);
        one.join().unwrap();
        two.join().unwrap();
        assert_eq!(Arc::strong_count(&payload), 1);
    });
}

/// A refused link is given back with its payload.
#[test]
fn refused_link_comes_back() {
    check(3, || {
        let payload: Arc<str> = "payload".into();
        let (collector, flusher) = collector(1, 1, 1, NEVER);
        let other = Arc::clone(&payload);
        let closing = thread::spawn(move || drop(flusher));
        let pushed = collector.push_link(link(1, &other));
        closing.join().unwrap();
        drop((collector, other));
        assert_eq!(Arc::strong_count(&payload), 1 + usize::from(pushed.is_err()));
        if let Err(refused) = pushed {
            assert_eq!(refused.reason(), PushError::Closed);
            drop(refused.into_link());
        }
        assert_eq!(Arc::strong_count(&payload), 1);
    });
}

/// A producer that dies between claim and publish leaves a hole: nothing is read from it, and
/// what stands behind it is dropped with the ring.
#[test]
fn abandoned_claim_is_skipped() {
    check(3, || {
        let payload: Arc<str> = "payload".into();
        let (collector, mut flusher) = collector(2, 4, 1, NEVER);
        let consumer = thread::spawn(move || (drain(&mut flusher), flusher));
        collector.push_link(link(1, &payload)).unwrap();
        drop(collector.producer().push_stalled(&cx(2)).unwrap());
        collector.push_link(link(3, &payload)).unwrap();
        let (mut taken, mut flusher) = consumer.join().unwrap();
        taken.extend(drain(&mut flusher));
        assert_eq!(taken, [1]);
        drop((collector, flusher));
        assert_eq!(Arc::strong_count(&payload), 1);
    });
}
