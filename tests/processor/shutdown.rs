//! What a processor's handle says of items that are not finished.

use super::common::*;
use batchlink::ShutdownError;
use batchlink::processor::BatchProcessor;
use opentelemetry::trace::noop::NoopTracer;
use std::sync::mpsc;
use std::time::Duration;

/// Ten keys, of which the handler has one: the others are taken, and neither queued nor finished.
#[test]
fn keyed_parts_are_in_flight() {
    let _watchdog = watchdog();
    let (begin, begun) = mpsc::channel();
    let (release, released) = mpsc::channel::<()>();
    let builder = BatchProcessor::<u32, (), String>::builder("batch");
    let builder = builder.with_max_batch_size(10).with_max_delay(NEVER).with_shards(1);
    let (submitter, processor) = builder.with_key(|item| *item).build(NoopTracer::new()).unwrap();
    let handle = processor.spawn(move |batch| {
        let _ = begin.send(());
        let _ = released.recv();
        batch.succeed_all(|_| ());
    });
    let handle = handle.unwrap();
    (0..10).for_each(|item| submitter.submit(item).unwrap());
    begun.recv().unwrap();
    submitter.submit(10).unwrap();
    let late = handle.shutdown_with_timeout(Duration::ZERO).unwrap_err();
    assert_eq!(late, ShutdownError::Timeout { pending: 1, in_flight: 10 });
    assert_eq!(
        late.to_string(),
        "the shutdown timed out: 1 still in the queue, 10 taken and not finished"
    );
    release.send(()).unwrap();
    begun.recv().unwrap();
    let late = handle.shutdown_with_timeout(Duration::ZERO).unwrap_err();
    assert_eq!(late, ShutdownError::Timeout { pending: 1, in_flight: 9 });
    drop(release);
    let stats = handle.shutdown_with_timeout(Duration::MAX).unwrap();
    assert_eq!((stats.received(), stats.pending()), (11, 0));
}
