//! What is logged, and that no flood of contexts becomes a flood of warnings (feature `internal-logs`).
#![cfg(feature = "internal-logs")]

mod common;

use common::*;
use std::panic::resume_unwind;
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata, Subscriber};

/// Notes the names of the warnings of this crate.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<&'static str>>>);

impl Subscriber for Log {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target() == "batchlink" && *metadata.level() == tracing::Level::WARN
    }

    fn event(&self, event: &Event<'_>) {
        self.0.lock().expect("no panic").push(event.metadata().name());
    }

    fn new_span(&self, _span: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _span: &Id, _values: &Record<'_>) {}
    fn record_follows_from(&self, _span: &Id, _follows: &Id) {}
    fn enter(&self, _span: &Id) {}
    fn exit(&self, _span: &Id) {}
}

/// The warnings on this thread since the log was last read.
fn logged(work: impl FnOnce(&dyn Fn() -> Vec<&'static str>)) {
    let log = Log::default();
    let read = || std::mem::take(&mut *log.0.lock().expect("no panic"));
    tracing::subscriber::with_default(log.clone(), || work(&read));
}

const NOTHING: [&str; 0] = [];

#[test]
fn refusals_are_logged_once_and_again_when_the_flusher_goes() {
    logged(|log| {
        let (collector, mut flusher) = by_size(1).with_queue_capacity(1).with_shards(1).build().unwrap();
        collector.push(&context(1)).unwrap();
        assert!(flusher.next_batch().is_some());
        assert_eq!(log(), NOTHING);
        for round in 0..3 {
            collector.push(&context(1)).unwrap();
            assert!(collector.push(&context(2)).is_err());
            assert!(flusher.next_batch().is_some());
            let expected = if round == 0 { &["LinkCollector.ContextsRefused"][..] } else { &NOTHING };
            assert_eq!(log(), expected);
        }
        drop(flusher);
        assert_eq!(log(), ["Flusher.ContextsLost"]);
    });
}

#[test]
fn what_a_flusher_leaves_behind_is_logged_and_nothing_is_if_that_is_nothing() {
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
fn a_handle_that_is_dropped_says_so_only_if_that_failed() {
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
