//! What is logged, and that no flood of contexts becomes a flood of warnings (feature
//! `internal-logs`).
#![cfg(feature = "internal-logs")]

mod common;
#[path = "common/log.rs"]
mod log;

use common::*;
use log::Log;
use std::panic::resume_unwind;
use std::sync::mpsc;
use std::time::Duration;

/// Gives `work` a function that returns the warnings on this thread since its last call.
fn logged(work: impl FnOnce(&dyn Fn() -> Vec<&'static str>)) {
    Log::around(|log| work(&|| log.names()));
}

const NOTHING: [&str; 0] = [];

/// Once when it begins, and the total when the flusher is dropped.
#[test]
fn refusals_are_logged_twice() {
    logged(|log| {
        let (collector, mut flusher) =
            by_size(1).with_queue_capacity(1).with_shards(1).build().unwrap();
        collector.push(&context(1)).unwrap();
        assert!(flusher.next_batch().is_some());
        assert_eq!(log(), NOTHING);
        for round in 0..3 {
            collector.push(&context(1)).unwrap();
            assert!(collector.push(&context(2)).is_err());
            assert!(flusher.next_batch().is_some());
            let expected =
                if round == 0 { &["LinkCollector.ContextsRefused"][..] } else { &NOTHING };
            assert_eq!(log(), expected);
        }
        drop(flusher);
        assert_eq!(log(), ["Flusher.ContextsLost"]);
    });
}

/// A processor's refusals are logged as a flusher's are, and once as well.
#[cfg(feature = "processor")]
#[test]
fn refused_items_are_logged_twice() {
    use batchlink::processor::BatchProcessor;
    logged(|log| {
        let builder = BatchProcessor::<u64, (), ()>::builder("batch").with_max_batch_size(1);
        let builder = builder.with_queue_capacity(1).with_shards(1);
        let (submitter, mut processor) =
            builder.build(opentelemetry::trace::noop::NoopTracer::new()).unwrap();
        for round in 0..3 {
            submitter.submit(1).unwrap();
            assert!(submitter.submit(2).is_err());
            assert!(processor.next_batch().is_some());
            let expected = if round == 0 { &["BatchProcessor.ItemsRefused"][..] } else { &NOTHING };
            assert_eq!(log(), expected);
        }
        drop(processor);
        assert_eq!(log(), ["BatchProcessor.ItemsLost"]);
    });
}

#[test]
fn leftovers_are_logged() {
    logged(|log| {
        for (left, expected) in [(0, &NOTHING[..]), (1, &["Flusher.ContextsLost"])] {
            let (collector, flusher) = by_size(8).build().unwrap();
            assert_eq!(collector.push_all(&[context(1)][..left]), left);
            drop(flusher);
            assert_eq!(log(), expected);
        }
    });
}

#[test]
fn failed_drop_is_logged() {
    struct Explosive;
    impl Drop for Explosive {
        fn drop(&mut self) {
            resume_unwind(Box::new(()));
        }
    }
    logged(|log| {
        drop(by_size(8).build().unwrap().1.spawn(drop).unwrap());
        let handle = by_size(8).build().unwrap().1.spawn(drop).unwrap();
        handle.shutdown_with_timeout(Duration::MAX).unwrap();
        drop(handle);
        assert_eq!(log(), NOTHING);
        // It does not shut down, nor say so, once more.
        let (collector, flusher) = by_size(1).build().unwrap();
        let (release, released) = mpsc::channel::<()>();
        let handle = flusher.spawn(move |_batch| _ = released.recv()).unwrap();
        collector.push(&context(1)).unwrap();
        handle.shutdown_with_timeout(Duration::ZERO).unwrap_err();
        drop(handle);
        assert_eq!(log(), NOTHING);
        drop(release);
        let explosive = Explosive;
        drop(by_size(8).build().unwrap().1.spawn(move |_batch| _ = &explosive).unwrap());
        assert_eq!(log(), ["FlusherHandle.Drop"]);
    });
}

/// A batch with more links than the SDK keeps of a span: once for each set.
#[test]
fn span_limit_warns_once() {
    logged(|log| {
        let warning = "LinkSet.SpanLinkLimitExceeded";
        let mut set = batchlink::LinkSet::builder().with_max_links(200).build().unwrap();
        for (contexts, expected) in [(128, &NOTHING[..]), (129, &[warning]), (200, &NOTHING)] {
            set.extend((1..=contexts).map(context));
            assert_eq!(set.finish().linked(), contexts);
            assert_eq!(log(), expected, "{contexts} links");
        }
        let policy = batchlink::LinkPolicy::new().with_span_link_limit(200);
        let builder = by_size(200).with_link_policy(policy).with_shards(1);
        let (collector, mut flusher) = builder.build().unwrap();
        (1..=200).for_each(|number| collector.push(&context(number)).unwrap());
        assert_eq!(
            flusher.next_batch().unwrap().linked(),
            200,
            "the bound that was set before stays"
        );
        assert_eq!(log(), NOTHING, "the SDK keeps as many");
    });
}

/// Truncated contexts are logged with the first batch that has some, and in total at the end.
#[test]
fn truncation_is_logged_twice() {
    logged(|log| {
        let (collector, mut flusher) = by_size(3).with_max_links(2).with_shards(1).build().unwrap();
        for (contexts, expected) in [
            ([1, 2, 2], &NOTHING[..]),
            ([1, 2, 3], &["LinkSet.LinksTruncated"]),
            ([1, 2, 3], &NOTHING),
        ] {
            assert_eq!(collector.push_all(&contexts.map(context)), 3);
            assert!(flusher.next_batch().is_some());
            assert_eq!(log(), expected);
        }
        drop(flusher);
        assert_eq!(log(), ["Flusher.LinksTruncated"]);
        drop(by_size(3).build().unwrap());
        assert_eq!(log(), NOTHING);
    });
}

/// One warning for a batch that is over both limits, and none where further spans have the links.
#[test]
fn batch_warns_once() {
    use batchlink::{LinkPolicy, LinkSet, Overflow};
    logged(|log| {
        let mut set = LinkSet::builder().with_max_links(200).build().unwrap();
        for expected in
            [&["LinkSet.SpanLinkLimitExceeded"][..], &["LinkSet.LinksTruncated"], &NOTHING]
        {
            set.extend((1..=300).map(context));
            assert_eq!(set.finish().truncated(), 100);
            assert_eq!(log(), expected);
        }
        let policy = LinkPolicy::new().with_overflow(Overflow::Spans { max_pages: 3 });
        let mut set = LinkSet::builder().with_link_policy(policy).build().unwrap();
        for (contexts, expected) in [(384, &NOTHING[..]), (385, &["LinkSet.LinksTruncated"])] {
            set.extend((1..=contexts).map(context));
            assert_eq!(set.finish().linked(), 384);
            assert_eq!(log(), expected);
        }
    });
}
