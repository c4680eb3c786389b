//! The one writer: each batch of rows is one transaction.

use batchlink::processor::Batch;
use rusqlite::{Connection, ErrorCode};
use serde::Deserialize;
use std::fmt;
use std::path::Path;

const INSERT: &str = "INSERT INTO items (name, quantity) VALUES (?1, ?2)";

#[derive(Debug, Deserialize)]
pub struct Item {
    pub name: String,
    pub quantity: u32,
}

/// The reason why a row was not stored.
#[derive(Clone, Debug)]
pub enum StoreError {
    /// There is an item of this name.
    Taken,
    Database(String),
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Taken => f.write_str("there is an item of this name"),
            Self::Database(error) => write!(f, "the database failed: {error}"),
        }
    }
}

pub fn open(path: &Path) -> rusqlite::Result<Connection> {
    let db = Connection::open(path)?;
    db.execute_batch(
        "PRAGMA journal_mode = WAL;
         CREATE TABLE IF NOT EXISTS items (
             id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, quantity INTEGER NOT NULL
         );",
    )?;
    Ok(db)
}

/// Returns the number of committed rows.
pub fn count(db: &Connection) -> rusqlite::Result<u64> {
    let count: i64 = db.query_one("SELECT count(*) FROM items", [], |row| row.get(0))?;
    Ok(count.unsigned_abs())
}

/// Inserts the rows of a batch and answers every item with its row's id, once all are committed. A
/// row that the database refuses fails alone. If the transaction fails, all rows do.
pub fn insert(db: &mut Connection, batch: Batch<Item, i64, StoreError>) {
    match insert_rows(db, batch.payloads()) {
        Ok(results) => batch.complete(results),
        Err(error) => batch.fail_all(|_| StoreError::Database(error.to_string())),
    }
}

/// Its span is a child of the batch span, which is current in the handler.
#[tracing::instrument(
    name = "INSERT items",
    skip_all,
    fields(
        otel.kind = "client",
        db.system.name = "sqlite",
        db.query.text = INSERT,
        db.operation.batch.size = items.len() as i64,
    ),
    err(Display)
)]
fn insert_rows<'a>(
    db: &mut Connection,
    items: impl ExactSizeIterator<Item = &'a Item>,
) -> rusqlite::Result<Vec<Result<i64, StoreError>>> {
    let transaction = db.transaction()?;
    let mut insert = transaction.prepare_cached(INSERT)?;
    let results = items
        .map(|item| {
            insert.insert((&item.name, item.quantity)).map_err(|error| {
                match error.sqlite_error_code() {
                    Some(ErrorCode::ConstraintViolation) => StoreError::Taken,
                    _ => StoreError::Database(error.to_string()),
                }
            })
        })
        .collect();
    drop(insert);
    transaction.commit()?;
    Ok(results)
}
