//! The ways into a shard that collector and producer share.

use crate::error::{PushError, RejectedLink};
use crate::link_set::policy::Invalid;
use crate::link_set::record::Record;
use crate::panic::caught;
use crate::queue::Shard;
use opentelemetry::trace::{Link, SpanContext, TraceContextExt};
use std::time::{Duration, Instant};

#[inline(always)]
pub(super) fn push(
    shard: Shard<'_, Record>,
    context: &SpanContext,
    invalid: Invalid,
) -> Result<(), PushError> {
    if !context.is_valid() {
        return match invalid {
            Invalid::Drop => count_invalid(shard),
            _ => push_invalid(shard, context, invalid),
        };
    }
    if Record::is_plain(context) {
        return shard.push(|| Record::plain(context, false));
    }
    push_with_state(shard, context)
}

pub(super) fn count_invalid<E>(shard: Shard<'_, Record>) -> Result<(), E> {
    shard.count_invalid();
    Ok(())
}

#[cold]
pub(super) fn push_invalid(
    shard: Shard<'_, Record>,
    context: &SpanContext,
    invalid: Invalid,
) -> Result<(), PushError> {
    let link = Link::with_context(context.clone());
    push_link(shard, link, invalid).map_err(|rejected| rejected.reason())
}

/// The trace state is cloned before the claim: between claim and publish nothing may allocate.
#[cold]
pub(super) fn push_with_state(shard: Shard<'_, Record>, context: &SpanContext) -> Result<(), PushError> {
    let record = Record::from_context(context);
    shard.push(|| record)
}

pub(super) fn push_wait(
    shard: Shard<'_, Record>,
    context: &SpanContext,
    timeout: Option<Duration>,
    invalid: Invalid,
) -> Result<(), PushError> {
    let Some(record) = record(context, invalid) else {
        return count_invalid(shard);
    };
    // A deadline beyond what `Instant` can hold is none.
    let deadline = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
    shard.push_wait(deadline, record).map_err(|(_, reason)| reason)
}

pub(super) async fn push_wait_async(
    shard: Shard<'_, Record>,
    context: &SpanContext,
    invalid: Invalid,
) -> Result<(), PushError> {
    let Some(record) = record(context, invalid) else {
        return count_invalid(shard);
    };
    shard.push_wait_async(record).await.map_err(|(_, reason)| reason)
}

/// What there is to push; `None` if the context is invalid and not to be kept.
pub(super) fn record(context: &SpanContext, invalid: Invalid) -> Option<Record> {
    if context.is_valid() {
        return Some(Record::from_context(context));
    }
    if invalid == Invalid::Drop {
        return None;
    }
    let link = Link::with_context(context.clone());
    invalid.keeps(&link).then(|| Record::from_link(link).0)
}

pub(super) fn push_current(shard: Shard<'_, Record>, invalid: Invalid) -> Result<(), PushError> {
    // Only read in there: a push may wake the flusher's task, and its waker, the user's code, may want
    // to enter a context of its own.
    let read = || opentelemetry::Context::map_current(|cx| record(cx.span().span_context(), invalid));
    // A thread that is ending may have lost its current context; asking for it then panics.
    let Some(record) = caught(read).flatten() else { return count_invalid(shard) };
    shard.push(|| record)
}

pub(super) fn push_link(shard: Shard<'_, Record>, link: Link, invalid: Invalid) -> Result<(), RejectedLink> {
    if !link.span_context.is_valid() && !invalid.keeps(&link) {
        return count_invalid(shard);
    }
    let (record, original) = Record::from_link(link);
    match shard.claim() {
        Ok(claim) => {
            shard.finish(claim, || record);
            Ok(())
        }
        Err(reason) => Err(RejectedLink::new(record.into_original(original), reason)),
    }
}

pub(super) fn push_all(shard: Shard<'_, Record>, contexts: &[SpanContext], invalid: Invalid) -> usize {
    let mut rest = contexts;
    while let [next, others @ ..] = rest {
        // Between claim and publish nothing may allocate: contexts with trace state go one by one.
        // No claim gets more than the capacity, so there is no need to look further.
        let most = shard.capacity();
        let run = rest.iter().take(most).take_while(|cx| cx.is_valid() && Record::is_plain(cx)).count();
        let refused = if run == 0 {
            match push(shard, next, invalid) {
                Ok(()) => {
                    rest = others;
                    continue;
                }
                // Counted already.
                Err(reason) => (reason, others.len()),
            }
        } else {
            match shard.push_run(&rest[..run], |cx| Record::plain(cx, false)) {
                Ok(count) => {
                    rest = &rest[count..];
                    continue;
                }
                Err(reason) => (reason, rest.len()),
            }
        };
        shard.count_refused(refused.0, refused.1);
        break;
    }
    contexts.len() - rest.len()
}
