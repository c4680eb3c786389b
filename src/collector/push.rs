//! The one way in: what `LinkCollector` and `Producer` do with a context.

use crate::error::{PushError, RejectedLink};
use crate::link_set::policy::Invalid;
use crate::link_set::record::{Bounded, Plain, Record, cut_state};
use crate::panic::caught;
use crate::queue::ring::Entry;
use crate::queue::{Shard, Whole};
use opentelemetry::trace::{Link, SpanContext, TraceContextExt};
use std::time::{Duration, Instant};

/// A shard, and what happens to invalid contexts before they reach it.
#[derive(Clone, Copy)]
pub(super) struct Inlet<'a> {
    pub(super) shard: Shard<'a, Record>,
    pub(super) invalid: Invalid,
}

impl Inlet<'_> {
    #[inline(always)]
    pub(super) fn push(self, context: &SpanContext) -> Result<(), PushError> {
        let Self { shard, invalid } = self;
        if !context.is_valid() {
            return match invalid {
                Invalid::Drop => {
                    shard.count_invalid();
                    Ok(())
                }
                _ => push_invalid(shard, context, invalid),
            };
        }
        if Plain::is_enough(context) {
            return shard.push(|| Record::Plain(Plain::of(context)));
        }
        push_with_state(shard, context)
    }

    pub(super) fn push_link(self, mut link: Link) -> Result<(), RejectedLink> {
        if !link.span_context.is_valid() && !self.invalid.keeps(&link) {
            return self.count_invalid();
        }
        let original = cut_state(&mut link);
        let refused = match Plain::of_link(&link, original.is_some()) {
            Some(plain) => {
                self.shard.push(|| Record::Plain(plain)).map_err(|reason| (link, reason))
            }
            None => {
                let record = || Record::Beside { state_cut: original.is_some() };
                self.shard.push_beside(link, |link| link, record)
            }
        };
        refused.map_err(|(mut link, reason)| {
            link.span_context = original.unwrap_or(link.span_context);
            RejectedLink::new(link, reason)
        })
    }

    pub(super) fn push_current(self) -> Result<(), PushError> {
        // Only reads the current context: a push may wake the flusher's task, and its waker, which
        // is user code, may attach a context.
        let read =
            || opentelemetry::Context::map_current(|cx| self.record(cx.span().span_context()));
        // Caught: reading the current context panics on a thread that has dropped its locals.
        let Some(record) = caught(read).flatten() else { return self.count_invalid() };
        push_whole(self.shard, record)
    }

    pub(super) fn push_all(self, contexts: &[SpanContext]) -> usize {
        let mut rest = contexts;
        while let [next, others @ ..] = rest {
            // Contexts with trace state are pushed one by one, for they allocate (`bare-claim`).
            // No claim covers more than the capacity, so no longer run is looked for.
            let most = self.shard.capacity();
            let run = rest
                .iter()
                .take(most)
                .take_while(|cx| cx.is_valid() && Plain::is_enough(cx))
                .count();
            let (reason, refused) = if run == 0 {
                match self.push(next) {
                    Ok(()) => {
                        rest = others;
                        continue;
                    }
                    // `push` has counted this one.
                    Err(reason) => (reason, others.len()),
                }
            } else {
                match self.shard.push_run(&rest[..run], |cx| Record::Plain(Plain::of(cx))) {
                    Ok(count) => {
                        rest = &rest[count..];
                        continue;
                    }
                    Err(reason) => (reason, rest.len()),
                }
            };
            self.shard.count_refused(reason, refused);
            break;
        }
        contexts.len() - rest.len()
    }

    pub(super) fn push_wait(
        self,
        context: &SpanContext,
        timeout: Option<Duration>,
    ) -> Result<(), PushError> {
        let Some(record) = self.record(context) else { return self.count_invalid() };
        // A deadline beyond what `Instant` can hold is none.
        let deadline = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        self.shard.push_wait(deadline, record).map_err(|(_, reason)| reason)
    }

    pub(super) async fn push_wait_async(self, context: &SpanContext) -> Result<(), PushError> {
        let Some(record) = self.record(context) else { return self.count_invalid() };
        self.shard.push_wait_async(record).await.map_err(|(_, reason)| reason)
    }

    /// What to push; `None` if the context is invalid and not kept.
    fn record(self, context: &SpanContext) -> Option<Whole<Record>> {
        if !context.is_valid() {
            let link = Link::with_context(context.clone());
            if !self.invalid.keeps(&link) {
                return None;
            }
        }
        Some(Record::from_context(context))
    }

    fn count_invalid<E>(self) -> Result<(), E> {
        self.shard.count_invalid();
        Ok(())
    }
}

// The rare cases are not methods: `push` is inlined, and would have to write the `Inlet` to memory.

#[cold]
fn push_invalid(
    shard: Shard<'_, Record>,
    context: &SpanContext,
    invalid: Invalid,
) -> Result<(), PushError> {
    let link = Link::with_context(context.clone());
    Inlet { shard, invalid }.push_link(link).map_err(|rejected| rejected.reason())
}

/// Clones the trace state before the claim.
// Invariant: bare-claim.
#[cold]
fn push_with_state(shard: Shard<'_, Record>, context: &SpanContext) -> Result<(), PushError> {
    let Bounded { context, state_cut } = Bounded::new(context);
    let pushed = shard.push_beside(context, Link::with_context, || Record::Beside { state_cut });
    pushed.map_err(|(_, reason)| reason)
}

fn push_whole(shard: Shard<'_, Record>, whole: Whole<Record>) -> Result<(), PushError> {
    shard.offer(whole).map_err(|(_, reason)| {
        shard.count_refused(reason, 1);
        reason
    })
}

impl Entry for Record {
    type Beside = Link;
}
