//! Checks that every answered row is in the database, and that every request is linked by its
//! batch.

use crate::client::{Answer, CLIENT_SPAN};
use crate::common::{Exported, Result, ensure};
use crate::{Args, client};
use batchlink_http_example::server::SERVER_SPAN;
use batchlink_http_example::{BATCH_SPAN, store};
use opentelemetry::trace::SpanKind;
use rusqlite::Connection;
use std::collections::HashSet;

/// The rows in the database, compared with the answers.
pub(crate) struct Stored {
    pub(crate) rows: u64,
    /// Answers with an id.
    created: u64,
    /// Answers with an id whose row is missing.
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

/// Checks that each answer has its row. `before` is the number of rows at the start.
pub(crate) fn rows(args: &Args, stored: &Stored, before: u64) -> Result {
    let Stored { rows, created, misled } = *stored;
    ensure(misled == 0, format!("{misled} answers name a row that is not there"))?;
    ensure(
        created == rows - before,
        format!("{created} answers name a stored row, {rows} rows are stored"),
    )?;
    ensure(
        before > 0 || created == u64::from(client::names(args.requests)),
        "every name is stored once",
    )
}

/// Checks that each server span has a client span as parent, and is linked by exactly one batch.
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
