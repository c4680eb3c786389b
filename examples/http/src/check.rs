//! What callers were told is in the database, and the links say in which batch it got there.

use crate::client::{Answer, CLIENT_SPAN};
use crate::common::{Exported, Result, ensure};
use crate::server::SERVER_SPAN;
use crate::{Args, BATCH_SPAN, client, store};
use opentelemetry::trace::SpanKind;
use rusqlite::Connection;
use std::collections::HashSet;

/// What is in the database.
pub(crate) struct Stored {
    pub(crate) rows: u64,
    /// Callers who were told an id.
    created: u64,
    /// Those of them whose row is not there.
    misled: u64,
}

pub(crate) fn stored(db: &Connection, answers: &[Answer]) -> Result<Stored> {
    let mut stored = Stored { rows: store::count(db)?, created: 0, misled: 0 };
    let mut find = db.prepare("SELECT 1 FROM items WHERE id = ?1 AND name = ?2")?;
    for answer in answers {
        if let Some(id) = answer.id {
            stored.created += 1;
            stored.misled += u64::from(!find.exists((id, &answer.name))?);
        }
    }
    Ok(stored)
}

/// `before`: rows that were there already.
pub(crate) fn rows(args: &Args, stored: &Stored, before: u64) -> Result {
    let Stored { rows, created, misled } = *stored;
    ensure(misled == 0, format!("{misled} were told the id of a row that is not theirs"))?;
    ensure(
        created == rows - before,
        format!("{created} were told that their row is stored, {rows} are there"),
    )?;
    ensure(before > 0 || created == u64::from(client::names(args.requests)), "every name is stored once")
}

/// From each client's span to its server's by parent, and from there to exactly one batch by link.
pub(crate) fn links(exported: &Exported, requests: usize) -> Result {
    let mut linked = HashSet::new();
    for batch in exported.named(BATCH_SPAN) {
        for target in exported.targets(batch) {
            let request = target.ok_or("not as it should be: a link leads nowhere")?;
            ensure(
                request.name == SERVER_SPAN && request.span_kind == SpanKind::Server,
                "requests are linked",
            )?;
            let caller = exported.parent(request).is_some_and(|caller| caller.name == CLIENT_SPAN);
            ensure(caller, "a request continues its caller's trace")?;
            ensure(linked.insert(request.span_context.span_id()), "a request is linked once")?;
        }
    }
    ensure(linked.len() == requests, format!("{} of {requests} requests are linked", linked.len()))
}
