//! What was exported says what was consumed.

use crate::common::{Exported, Result, ensure, number};
use crate::{Consumed, DESTINATION};
use opentelemetry::trace::SpanKind;
use std::collections::HashSet;

pub(crate) fn check(exported: &Exported, consumed: &Consumed) -> Result {
    let polls: Vec<_> =
        exported.spans().iter().filter(|span| span.span_kind == SpanKind::Consumer).collect();
    ensure(polls.len() as u64 == consumed.polls, "there is a span per poll")?;
    let (mut linked, mut truncated, mut delivered) = (0, 0, 0);
    for poll in polls {
        let mut targets = HashSet::new();
        for (link, target) in poll.links.iter().zip(exported.targets(poll)) {
            let sender = target.ok_or("not as it should be: a link leads nowhere")?;
            ensure(
                sender.name == format!("send {DESTINATION}"),
                "links lead to the spans that sent",
            )?;
            ensure(link.span_context.is_remote(), "a context out of a message is remote")?;
            ensure(
                targets.insert(sender.span_context.span_id()),
                "a message is linked once per poll",
            )?;
        }
        ensure(poll.links.dropped_count == 0, "the SDK had nothing to cut")?;
        linked += poll.links.len() as u64;
        let original = number(&poll.attributes, "links.original_count") as u64;
        truncated += original.saturating_sub(poll.links.len() as u64);
        delivered += number(&poll.attributes, "batch.size") as u64;
    }
    ensure(
        linked == consumed.linked,
        format!("of {} links, {linked} are exported", consumed.linked),
    )?;
    ensure(
        truncated == consumed.truncated,
        format!("of {} links cut, {truncated} are owned up to", consumed.truncated),
    )?;
    ensure(delivered == consumed.delivered, "every delivery was counted in a batch")
}
