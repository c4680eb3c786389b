use super::*;

impl TriggerState {
    /// Leaves the state of a suspended coordinator.
    pub(crate) fn suspend_coordinator(&self) {
        self.coordinator.store(BUSY, Ordering::Relaxed);
    }

    fn rates(&self) -> Vec<u32> {
        self.shares.iter().map(|share| share.rate.load(Ordering::Relaxed)).collect()
    }
}

/// While the coordinator is suspended, every report at level *idle* wakes the flusher.
#[test]
fn idle_report_wakes_flusher() {
    use crate::sync::AtomicUsize;
    use std::sync::Arc;
    use std::task::{Wake, Waker};

    struct Wakes(AtomicUsize);
    impl Wake for Wakes {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    let (rings, _consumers) = Ring::<()>::shards(1, 8);
    for (flags, level, woken) in [
        (BUSY, IDLE, 1),
        (BUSY | DRAINED, IDLE, 1),
        (REPORTED, IDLE, 1),
        (DRAINED, IDLE, 1),
        (BUSY | REPORTED, IDLE, 1),
        (BUSY | REPORTED | DRAINED, IDLE, 1),
        (BUSY, TIMED, 1),
        (BUSY | REPORTED, TIMED, 1),
        (BUSY, ARMED, 0),
        (BUSY, FIRED, 0),
    ] {
        let trigger = TriggerState::new(8, &rings);
        trigger.coordinator.store(flags, Ordering::Relaxed);
        trigger.level.store(level, Ordering::Relaxed);
        let wakes = Arc::new(Wakes(AtomicUsize::new(0)));
        trigger.signal.waker.register(&Waker::from(Arc::clone(&wakes)));
        trigger.report(&rings);
        assert_eq!(wakes.0.load(Ordering::Relaxed), woken, "flags {flags:03b}, level {level}");
        assert!(trigger.is_busy());
        assert_eq!(trigger.coordinator.load(Ordering::Relaxed), flags | REPORTED);
    }
    assert!(!TriggerState::new(8, &rings).is_busy());
}

/// Allowances are in proportion to rate and pending. The remainder goes to shards with fewer
/// pending than the fullest, then to the others, one each, and none to an unused shard.
#[test]
fn allowances_follow_use() {
    for (rates, pending, spare, expected) in [
        (&[30, 10][..], &[0, 10_u32][..], 10, &[6, 4][..]),
        (&[3, 1], &[0, 1], 5, &[3, 2]),
        (&[0, 10, 10], &[0, 0, 1], 2, &[0, 1, 1]),
        (&[10, 10], &[1, 0], 2, &[1, 1]),
        (&[5, 5], &[1, 1], 0, &[0, 0]),
    ] {
        let (rings, _consumers) = Ring::<()>::shards(rates.len(), 64);
        let trigger = TriggerState::new(64, &rings);
        for (share, rate) in trigger.shares.iter().zip(rates) {
            share.rate.store(*rate, Ordering::Relaxed);
        }
        let snapshots: Vec<_> = pending
            .iter()
            .map(|&pending| Snapshot { head: 5, tail: 5 + u64::from(pending) })
            .collect();
        let allowances = trigger.divide(spare, &snapshots);
        assert_eq!(
            allowances.as_slice(),
            expected,
            "rates {rates:?}, pending {pending:?}, spare {spare}"
        );
    }
}

/// A rate is the number of entries between two drains. One without any keeps the rates.
#[test]
fn rate_counts_between_drains() {
    let (rings, _consumers) = Ring::<()>::shards(2, 64);
    let trigger = TriggerState::new(64, &rings);
    for (counts, rates) in [([3, 0], [3, 0]), ([0, 1], [0, 1]), ([0, 0], [0, 1])] {
        for (ring, count) in rings.iter().zip(counts) {
            for _ in 0..count {
                let _ = ring.claim(1).expect("a free slot").publish(|| ());
            }
        }
        trigger.drained(&rings, false);
        assert_eq!(trigger.rates(), rates);
    }
}

/// While a batch waits, shards in use are open to their capacity. The others stay at their limit,
/// where one push reports and opens them.
#[test]
fn complete_batch_opens_used_shards() {
    let (rings, _consumers) = Ring::<()>::shards(2, 64);
    let trigger = TriggerState::new(2, &rings);
    let push = |ring: &Ring<()>| {
        let reports = ring.claim(1).expect("a free slot").publish(|| ());
        if reports {
            trigger.report(&rings);
        }
        reports
    };
    let (used, other) = (&rings[0], &rings[1]);
    assert_eq!([used, used].map(push), [true, true]);
    assert_eq!(trigger.level.load(Ordering::Relaxed), FIRED);
    assert_eq!([used, other, other, used].map(push), [false, true, false, false]);
}
