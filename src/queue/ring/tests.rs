use super::*;
use static_assertions::{assert_impl_all, assert_not_impl_any};
use std::{cell::Cell, rc::Rc, sync::Barrier};

macro_rules! entries {
    ($($type:ty),*) => {$(
        impl Entry for $type {
            type Beside = Box<u32>;
        }
    )*};
}
entries!((), u32, Cell<u8>, Rc<u8>, std::sync::Arc<()>);

// A value in a ring changes threads and is never shared.
assert_impl_all!(Ring<Cell<u8>>: Send, Sync);
assert_impl_all!(Consumer<Cell<u8>>: Send);
assert_not_impl_any!(Ring<Rc<u8>>: Send, Sync);
assert_not_impl_any!(Consumer<Rc<u8>>: Send);
assert_not_impl_any!(Claim<'static, Rc<u8>>: Send);

/// A thread that ends between claim and publish leaves a slot without a value. It is not
/// dropped; the published entries around it are, once each.
#[test]
fn drop_skips_unpublished_claims() {
    let value = std::sync::Arc::new(());
    let (rings, mut consumers) = Ring::shards(1, 8);
    let claim = || rings[0].claim(1).expect("a free slot");
    for _ in 0..3 {
        let _ = claim().publish(|| std::sync::Arc::clone(&value));
    }
    consumers[0].poll();
    drop(consumers[0].take(1).next());
    assert_eq!(std::sync::Arc::strong_count(&value), 3);
    let _ = claim();
    let _ = claim().publish(|| std::sync::Arc::clone(&value));
    consumers[0].poll();
    assert_eq!((consumers[0].claimed(), consumers[0].published()), (4, 2));
    drop((rings, consumers));
    assert_eq!(std::sync::Arc::strong_count(&value), 1);
}

/// Pushes one entry and returns whether it must be reported.
fn reports(ring: &Ring<u32>) -> bool {
    ring.claim(1).expect("a free slot").publish(|| 0)
}

/// Claims below the limit are not reported; the next one is.
#[test]
fn claim_past_limit_reports() {
    let (rings, _consumers) = Ring::shards(1, 8);
    let ring = &rings[0];
    assert!(reports(ring), "the very first one");
    let tail = ring.snapshot().tail;
    assert!(ring.allow(tail + 3));
    assert_eq!([(); 4].map(|()| reports(ring)), [false, false, false, true]);
    // A limit that was passed already: no further claim goes unreported.
    assert!(!ring.allow(tail + 2));
    assert!(reports(ring));
    // A claim that would end beyond the limit covers the positions below it.
    assert!(ring.allow(ring.snapshot().tail + 1));
    let claim = ring.claim(2).expect("a free slot");
    assert_eq!((claim.len(), claim.publish(|| 0)), (1, false));
    assert_eq!(ring.snapshot().pending(), 7);
    assert!(reports(ring));
    assert_eq!(ring.claim(1).err(), Some(PushError::Full));
}

/// A closed ring stays closed, and keeps its number of claims.
#[test]
fn closed_ring_stays_closed() {
    let (rings, mut consumers) = Ring::shards(1, 4);
    let ring = &rings[0];
    assert!(ring.allow(ring.snapshot().head + 4));
    assert!(!reports(ring));
    ring.close();
    assert_eq!(ring.claim(1).err(), Some(PushError::Closed));
    assert!(ring.allow(ring.snapshot().head + 4), "nothing can pass unreported");
    assert_eq!(ring.claim(1).err(), Some(PushError::Closed));
    consumers[0].poll();
    assert_eq!((consumers[0].closed(), consumers[0].claimed()), (true, 1));
}

/// What is beside the slots comes with its own entry, over the wrap-around of positions too, and
/// what is left is dropped with the ring.
#[test]
fn beside_comes_with_its_entry() {
    let (rings, mut consumers) = Ring::<u32>::shards(1, 4);
    rings[0].prepare_beside();
    rings[0].allow(FIRST + 4);
    for round in 0..10 {
        for value in [round, round + 100] {
            let mut claim = rings[0].claim(1).expect("a free slot");
            if value % 3 == 0 {
                claim.put_beside(|| Box::new(value));
            }
            let _ = claim.publish(|| value);
        }
        consumers[0].poll();
        let mut take = consumers[0].take(2);
        assert_eq!(take.beside(), None);
        while let Some(value) = take.next() {
            assert_eq!(take.beside(), (value % 3 == 0).then(|| Box::new(value)));
            assert_eq!(take.beside(), None);
        }
    }
    let mut claim = rings[0].claim(1).expect("a free slot");
    claim.put_beside(|| Box::new(1));
    let _ = claim.publish(|| 1);
}

/// Entries of an iterator that is forgotten are leaked, not read twice.
#[test]
fn forgotten_entries_are_not_reread() {
    let (rings, mut consumers) = Ring::<u32>::shards(1, 4);
    for value in [1, 2, 3] {
        let _ = rings[0].claim(1).expect("a free slot").publish(|| value);
    }
    consumers[0].poll();
    let mut take = consumers[0].take(2);
    assert_eq!(take.next(), Some(1));
    std::mem::forget(take);
    assert_eq!((consumers[0].published(), consumers[0].claimed()), (1, 1));
    assert_eq!(consumers[0].take(3).collect::<Vec<_>>(), [3]);
}

/// Threads that need the cells at the same time use the same ones.
#[test]
fn cells_are_made_once() {
    for _ in 0..100 {
        // Many cells, so that they are made while the others ask.
        let (rings, mut consumers) = Ring::<u32>::shards(1, 8192);
        let together = Barrier::new(4);
        std::thread::scope(|scope| {
            for thread in 0..4 {
                let (ring, together) = (&rings[0], &together);
                scope.spawn(move || {
                    together.wait();
                    for value in (0..16).map(|value| thread * 16 + value) {
                        ring.prepare_beside();
                        let mut claim = ring.claim(1).expect("a free slot");
                        claim.put_beside(|| Box::new(value));
                        let _ = claim.publish(|| value);
                    }
                });
            }
        });
        consumers[0].poll();
        let mut take = consumers[0].take(64);
        let mut seen = 0;
        while let Some(value) = take.next() {
            assert_eq!(take.beside(), Some(Box::new(value)));
            seen += 1;
        }
        assert_eq!(seen, 64);
    }
}
