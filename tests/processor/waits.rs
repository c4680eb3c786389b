//! How long items wait, on tokio's paused clock: exact values.

use super::common::{NEVER, by_size};
use super::exported::Exporter;
use batchlink::processor::{BatchItem, BatchProcessor, BatchProcessorBuilder};
use opentelemetry::KeyValue;
use opentelemetry_sdk::trace::SpanData;
use std::time::Duration;
use tokio::time;

const SECOND: Duration = Duration::from_secs(1);

fn of_three() -> BatchProcessorBuilder<u64, (), String> {
    let config = by_size(3).with_shards(1).with_queue_capacity(4).with_max_delay(NEVER);
    BatchProcessor::builder("batch").with_config(config)
}

fn attribute(span: &SpanData, key: &str) -> Option<KeyValue> {
    span.attributes.iter().find(|attribute| attribute.key.as_str() == key).cloned()
}

/// Each item's wait is its own; the spans say those of the batch and of the item.
#[tokio::test(start_paused = true)]
async fn items_know_their_waits() {
    let exporter = Exporter::default();
    let (submitter, mut processor) = of_three().with_wait_times().build(exporter.tracer()).unwrap();
    for item in 0..3 {
        submitter.submit(item).unwrap();
        time::advance(SECOND).await;
    }
    submitter.submit(3).unwrap();
    time::advance(SECOND).await;
    let batch = processor.next().await.unwrap();
    assert_eq!(batch.oldest_wait(), Some(4 * SECOND));
    let waits: Vec<_> = batch.items().iter().map(BatchItem::wait).collect();
    assert_eq!(waits, [4, 3, 2].map(|waited| Some(waited * SECOND)));
    batch.succeed_all(|_| ());
    submitter.close();
    drop(submitter);
    processor.run_each_async(|_, _| async { Ok(()) }).await;
    let spans = exporter.spans();
    let stated = |key| spans.iter().filter_map(|span| attribute(span, key)).collect::<Vec<_>>();
    assert_eq!(
        stated("batch.oldest_wait"),
        [4.0, 1.0].map(|s| KeyValue::new("batch.oldest_wait", s))
    );
    assert_eq!(stated("item.wait"), [KeyValue::new("item.wait", 1.0)]);
}

/// A submission's wait for a free slot counts.
#[tokio::test(start_paused = true)]
async fn wait_for_slot_counts() {
    let (submitter, mut processor) =
        of_three().with_wait_times().build(Exporter::default().tracer()).unwrap();
    (0..4).for_each(|item| submitter.submit(item).unwrap());
    let waiting = submitter.clone();
    let waiting = tokio::spawn(async move { waiting.submit_wait_async(4).await.unwrap() });
    tokio::task::yield_now().await;
    time::advance(5 * SECOND).await;
    drop(processor.next().await);
    waiting.await.unwrap();
    time::advance(SECOND).await;
    let batch = processor.try_next().unwrap();
    assert_eq!(batch.items()[1].wait(), Some(6 * SECOND));
    drop(batch);
}

/// Without the option items carry no time, and the batch knows what a collector's does.
#[tokio::test(start_paused = true)]
async fn unmeasured_items_have_none() {
    let exporter = Exporter::default();
    let (submitter, mut processor) =
        of_three().with_key(|item| *item).build(exporter.tracer()).unwrap();
    submitter.submit(1).unwrap();
    time::advance(SECOND).await;
    submitter.submit(1).unwrap();
    let batch = processor.try_next().unwrap();
    assert_eq!((batch.oldest_wait(), batch.wait_bound()), (Some(SECOND), SECOND));
    assert_eq!(batch.items()[0].wait(), None);
    drop(batch);
    // Of several keys it is not known which one had the oldest.
    submitter.submit(1).unwrap();
    submitter.submit(2).unwrap();
    time::advance(SECOND).await;
    for batch in [processor.try_next().unwrap(), processor.try_next().unwrap()] {
        assert_eq!((batch.oldest_wait(), batch.wait_bound()), (None, SECOND));
        drop(batch);
    }
    assert!(exporter.spans().iter().all(|span| attribute(span, "batch.oldest_wait").is_none()));
}
