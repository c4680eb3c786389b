//! scratch
use batchlink::*;
use opentelemetry::trace::*;
use std::time::Duration;
fn cx(n: u64) -> SpanContext {
    SpanContext::new(TraceId::from(7u128), SpanId::from(n), TraceFlags::SAMPLED, false, TraceState::NONE)
}
#[test]
fn smoke() {
    for t in [1usize, 2, 3, 10, 100] {
        let (c, mut f) = LinkCollector::builder()
            .with_max_batch_size(t)
            .with_max_delay(Duration::from_secs(3600))
            .with_shards(4)
            .build()
            .unwrap();
        std::thread::scope(|s| {
            for k in 0..8u64 {
                let c = c.clone();
                s.spawn(move || {
                    for i in 0..(t as u64 * 1000) {
                        while c.push(&cx(1 + k * 1_000_000 + i)).is_err() {
                            std::thread::yield_now();
                        }
                    }
                });
            }
            for _ in 0..8000 {
                let b = f.next_batch().unwrap();
                assert_eq!((b.received(), b.trigger()), (t as u64, Trigger::Size));
            }
        });
        assert!(f.try_next().is_none());
        eprintln!("{t}: {:?}", c.stats());
    }
}
