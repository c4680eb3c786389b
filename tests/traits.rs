//! What can be sent, shared, cloned and compared, checked when this file is compiled.
//!
//! That a `Flusher` cannot be cloned and is used through `&mut` is shown to readers by
//! compile-fail examples in its documentation as well.

use batchlink::links::*;
use batchlink::patterns::*;
#[cfg(feature = "processor")]
use batchlink::processor::*;
use batchlink::*;
use opentelemetry::trace::{Link, SpanContext, SpanId, TraceFlags, TraceId, TraceState};
use static_assertions::{assert_impl_all, assert_not_impl_any, assert_type_eq_all};
use std::error::Error;
use std::fmt::{Debug, Display};
use std::hash::Hash;
use std::panic::{RefUnwindSafe, UnwindSafe};
use std::str::FromStr;

assert_impl_all!(LinkCollector: Clone, Send, Sync, Debug);
assert_impl_all!(Producer: Clone, Send, Sync, Debug);

// One consumer: it may move to another thread, but there is no second one and no sharing.
assert_impl_all!(Flusher: Send, Unpin, Debug);
assert_not_impl_any!(Flusher: Clone, Copy);
assert_impl_all!(FlusherHandle: Send, Sync, Debug);
assert_not_impl_any!(FlusherHandle: Clone);

assert_impl_all!(LinkSet: Send, Sync, Debug);
assert_impl_all!(LinkBatch: Clone, Send, Sync, Debug);
assert_impl_all!(Counts: Copy, Eq, Send, Sync, Debug, Default);
assert_impl_all!(Stats: Copy, Eq, Send, Sync, Debug, Default);
assert_impl_all!(StatsHandle: Clone, Send, Sync, Unpin, Debug);
assert_impl_all!(LinkCollectorBuilder: Clone, Send, Sync, Debug, Default);
assert_impl_all!(LinkSetBuilder: Clone, Send, Sync, Debug, Default);
assert_impl_all!(Unsampled: Copy, Eq, Hash, Send, Sync, Debug, Default);
assert_impl_all!(Dedup: Copy, Eq, Hash, Send, Sync, Debug, Default);
assert_impl_all!(Parent: Copy, Eq, Hash, Send, Sync, Debug, Default);
assert_impl_all!(Invalid: Copy, Eq, Hash, Send, Sync, Debug, Default);
assert_impl_all!(Relation: Clone, Eq, Hash, Send, Sync, Debug, Display, FromStr);
assert_impl_all!(links::LinkTemplate: Clone, PartialEq, Send, Sync, Debug);
// With a closure inside, too: a panic in it is caught.
assert_impl_all!(LinkSet: UnwindSafe, RefUnwindSafe, Extend<Link>, Extend<Option<SpanContext>>);
assert_impl_all!(LinkCollectorBuilder: UnwindSafe, RefUnwindSafe);

assert_impl_all!(PushError: Copy, Eq, Hash, Display, Error, Send, Sync);
assert_impl_all!(Timeout: Copy, Eq, Hash, Display, Error, Send, Sync);
assert_impl_all!(ShutdownError: Copy, Eq, Hash, Display, Error, Send, Sync);
assert_impl_all!(FlushError: Copy, Eq, Hash, Display, Error, Send, Sync);
assert_type_eq_all!(TimeoutError, Timeout);
assert_type_eq_all!(PushLinkError, RejectedLink);
assert_impl_all!(ParseRelationError: Copy, Eq, Hash, Display, Error, Send, Sync);
assert_impl_all!(links::InvalidLink: Clone, Eq, Display, Error, Send, Sync);
assert_impl_all!(ConfigError: Clone, Eq, Display, Error, Send, Sync);
assert_impl_all!(RejectedLink: Clone, PartialEq, Display, Error, Send, Sync);
assert_impl_all!(Trigger: Copy, Eq, Hash, Debug, Display, Send, Sync);
assert_impl_all!(Outcome: Copy, Eq, Hash, Debug, Display, Send, Sync);

assert_impl_all!(SpanGuard: Send, Sync, Unpin, Debug);
assert_not_impl_any!(SpanGuard: Clone);
assert_impl_all!(Attempts: Clone, Send, Sync, Debug);
assert_impl_all!(RetryOutcome: Clone, Eq, Send, Sync, Debug, Default);
assert_impl_all!(Saga<String>: Clone, Send, Sync, Debug);
assert_impl_all!(UndoSteps<String>: ExactSizeIterator, Send, Sync, Debug);
assert_impl_all!(SagaOutcome: Clone, Eq, Send, Sync, Debug, Default);
assert_impl_all!(FanOut: Clone, Send, Sync, Debug);
assert_impl_all!(FanCounts: Copy, Eq, Send, Sync, Debug, Default);
assert_impl_all!(WorkersError: Copy, Eq, Display, Error, Send, Sync);
#[cfg(feature = "processor")]
mod processor {
    use super::*;

    type Processor = BatchProcessor<String, String, String>;
    assert_impl_all!(Processor: Send, Unpin, Debug);
    assert_not_impl_any!(Processor: Clone);
    assert_impl_all!(Submitter<String, String, String>: Clone, Send, Sync, Unpin, Debug);
    assert_impl_all!(Batch<String, String, String>: IntoIterator, Send, Sync, Unpin, Debug);
    assert_impl_all!(BatchItem<String, String, String>: Send, Sync, Unpin, Debug);
    assert_impl_all!(Answer<String, String>: Send, Sync, Unpin, Debug);
    assert_impl_all!(CallError<Timeout>: Copy, Eq, Hash, Display, Error, Send, Sync);
    assert_impl_all!(SubmitError<String>: Display, Error, Send, Sync);
    assert_impl_all!(BackLink: Send, Sync, Unpin, Debug);
    assert_impl_all!(ProcessorStats: Copy, Eq, Debug, Default, Send, Sync);

    /// The calls' futures may move among threads.
    fn _are_send(submitter: &Submitter<String, String, String>) {
        fn is_send(_: impl Send) {}
        is_send(submitter.call(String::new()));
        is_send(submitter.call_wait(String::new()));
        is_send(submitter.submit_wait_async(String::new()));
    }
}

assert_impl_all!(carrier::CarrierError: Clone, Eq, Display, Error, Send, Sync);

const fn is_static<T: 'static>() {}
const _: () = {
    is_static::<PushError>();
    is_static::<RejectedLink>();
    is_static::<ConfigError>();
    is_static::<ShutdownError>();
    is_static::<Timeout>();
    is_static::<carrier::CarrierError>();
    is_static::<SpanGuard>();
};

/// An `Err` should not make the common `Ok` expensive to return.
#[test]
fn errors_are_small() {
    assert!(size_of::<Result<(), PushError>>() == 1);
    assert!(size_of::<Result<(), RejectedLink>>() <= 2 * size_of::<usize>());
}

#[test]
fn texts_are_the_documented_ones() {
    let triggers = [Trigger::Size, Trigger::Timeout, Trigger::Manual, Trigger::Shutdown];
    assert_eq!(
        triggers.map(|trigger| trigger.to_string()),
        ["size_limit", "timeout", "manual", "shutdown"]
    );
    assert_eq!(triggers.map(Trigger::as_str), ["size_limit", "timeout", "manual", "shutdown"]);
    use Outcome::*;
    let outcomes =
        [Linked, Duplicate, Truncated, Invalid, Unsampled].map(|outcome| outcome.to_string());
    assert_eq!(outcomes, ["linked", "duplicate", "truncated", "invalid", "unsampled"]);
    assert_eq!(PushError::Full.to_string(), "the shard's queue is full: the flusher is behind");
    assert_eq!(PushError::Closed.to_string(), "the collector is closed");
    assert_eq!(Timeout.to_string(), "timed out: no batch was due");
    let left = "3 still in the queue, 5 taken and not finished";
    let timeout = ShutdownError::Timeout { pending: 3, in_flight: 5 }.to_string();
    assert_eq!(timeout, format!("the shutdown timed out: {left}"));
    let panicked = ShutdownError::Panicked { pending: 4 }.to_string();
    assert_eq!(panicked, "the flusher's thread panicked: 4 left in the queue");
    let timeout = FlushError::Timeout { pending: 3, in_flight: 5 }.to_string();
    assert_eq!(timeout, format!("the flush timed out: {left}"));
    let closed = FlushError::Closed { pending: 4 }.to_string();
    assert_eq!(closed, "the flusher was dropped: 4 left in the queue");
    assert_eq!(ShutdownError::AlreadyShutdown.to_string(), "the flusher was already shut down");
}

/// The chain of errors leads to the reason.
#[test]
fn rejected_link_has_a_source() {
    let (collector, flusher) = LinkCollector::builder().build().unwrap();
    drop(flusher);
    let link = Link::with_context(SpanContext::new(
        TraceId::from(1_u128),
        SpanId::from(1),
        TraceFlags::SAMPLED,
        false,
        TraceState::NONE,
    ));
    let rejected = collector.push_link(link).unwrap_err();
    assert_eq!(rejected.to_string(), "link not accepted: the collector is closed");
    let source = rejected.source().and_then(|source| source.downcast_ref::<PushError>());
    assert_eq!(source, Some(&PushError::Closed));
}

/// The handles' `Debug` shows the counters, for logs and assertions.
#[test]
fn handles_show_their_counters() {
    let (collector, flusher) = LinkCollector::builder().build().unwrap();
    collector.push(&SpanContext::NONE).unwrap();
    let stats = format!("{:?}", collector.stats());
    assert!(stats.contains("invalid: 1"), "{stats}");
    assert_eq!(format!("{collector:?}"), format!("LinkCollector {{ stats: {stats}, .. }}"));
    assert_eq!(format!("{:?}", collector.producer()), "Producer { .. }");
    assert_eq!(format!("{flusher:?}"), format!("Flusher {{ stats: {stats}, .. }}"));
    let handle = flusher.spawn(drop).unwrap();
    assert!(format!("{handle:?}").starts_with("FlusherHandle { stats: Stats { "), "{handle:?}");
}
