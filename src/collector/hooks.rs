//! Hooks for models and for tests that stop threads or clocks. Nothing of it is in a normal build.
#![cfg(any(batchlink_loom, batchlink_hooks))]

#[cfg(batchlink_hooks)]
use crate::collector::LinkCollector;
use crate::collector::producer::Producer;
use crate::error::PushError;
#[cfg(batchlink_hooks)]
use crate::link_set::record::Plain;
use crate::link_set::record::Record;
use crate::queue::{Shard, Whole};
#[cfg(batchlink_hooks)]
use crate::sync::Ordering;
use opentelemetry::trace::SpanContext;

/// A push that was stopped between claim and publish, as if its thread had lost the processor.
#[cfg(any(batchlink_loom, batchlink_hooks))]
#[must_use = "its shard waits until it is resumed"]
pub struct StalledPush<'a> {
    shard: Shard<'a, Record>,
    claim: crate::queue::ring::Claim<'a, Record>,
    whole: Whole<Record>,
}

#[cfg(any(batchlink_loom, batchlink_hooks))]
impl Producer {
    /// Claims, and stops there.
    ///
    /// # Errors
    ///
    /// As [`push`](Self::push).
    pub fn push_stalled(&self, context: &SpanContext) -> Result<StalledPush<'_>, PushError> {
        let shard = self.inlet().shard;
        let whole = Record::from_context(context);
        if whole.1.is_some() {
            shard.prepare_beside();
        }
        Ok(StalledPush { shard, claim: shard.claim()?, whole })
    }
}

#[cfg(any(batchlink_loom, batchlink_hooks))]
impl StalledPush<'_> {
    /// Publishes, and reports if that is due.
    pub fn resume(mut self) {
        let (record, beside) = self.whole;
        beside.into_iter().for_each(|beside| self.claim.put_beside(|| beside));
        self.shard.finish(self.claim, || record);
    }
}

/// A push that was stopped after it had announced its report, before it scanned.
#[cfg(batchlink_hooks)]
#[must_use = "no other thread scans until it is resumed"]
pub struct StalledReport<'a>(Shard<'a, Record>);

#[cfg(batchlink_hooks)]
impl Producer {
    /// Pushes, and stops in the middle of the report; `None` if there was none to make.
    ///
    /// # Errors
    ///
    /// As [`push`](Self::push).
    pub fn push_report_stalled(
        &self,
        context: &SpanContext,
    ) -> Result<Option<StalledReport<'_>>, PushError> {
        debug_assert!(context.is_valid() && Plain::is_enough(context));
        let (shard, record) = (self.inlet().shard, Record::Plain(Plain::of(context)));
        Ok(shard.push_unscanned(|| record)?.then_some(StalledReport(shard)))
    }
}

#[cfg(batchlink_hooks)]
impl StalledReport<'_> {
    /// Scans.
    pub fn resume(self) {
        self.0.scan();
    }
}

/// Hooks for the tests of clocks that misbehave; each collector has a clock of its own.
#[cfg(batchlink_hooks)]
impl LinkCollector {
    /// Lets time jump forward.
    pub fn jump_clock(&self, by: std::time::Duration) {
        let nanos = u64::try_from(by.as_nanos()).unwrap_or(u64::MAX);
        let add = |jumped: u64| Some(jumped.saturating_add(nanos));
        let jumped = &self.queue.trigger.clock.warp.jumped;
        let _ = jumped.fetch_update(Ordering::Relaxed, Ordering::Relaxed, add);
    }

    /// Lets time stand still, or go on from there.
    pub fn stop_clock(&self, stop: bool) {
        let clock = &self.queue.trigger.clock;
        clock.warp.stopped_at.store(if stop { clock.now() } else { 0 }, Ordering::Relaxed);
    }
}
