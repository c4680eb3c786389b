//! The table that the orders end up in.

use crate::Result;
use rusqlite::{Connection, TransactionBehavior, params};
use std::path::Path;
use std::time::Duration;

/// One process's connection to the database that all consumers share.
pub struct Store(Connection);

impl Store {
    /// Opens the database and creates the table if it is missing.
    pub fn open(path: &Path) -> Result<Self> {
        let connection = Connection::open(path)?;
        connection.busy_timeout(Duration::from_secs(30))?;
        connection.pragma_update(None, "journal_mode", "wal")?;
        connection.pragma_update(None, "synchronous", "normal")?;
        connection.execute_batch(
            "CREATE TABLE IF NOT EXISTS orders (id TEXT PRIMARY KEY, body BLOB, batch TEXT)
             WITHOUT ROWID",
        )?;
        Ok(Self(connection))
    }

    /// Inserts a batch in one transaction and returns the number of new rows. An order whose id is
    /// stored already is left as it is, so a redelivered message changes nothing.
    pub fn insert<'a>(
        &mut self,
        batch: &str,
        orders: impl IntoIterator<Item = (&'a str, &'a [u8])>,
    ) -> Result<usize> {
        let transaction = self.0.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let mut new = 0;
        {
            let mut insert =
                transaction.prepare_cached("INSERT OR IGNORE INTO orders VALUES (?1, ?2, ?3)")?;
            for (id, body) in orders {
                new += insert.execute(params![id, body, batch])?;
            }
        }
        transaction.commit()?;
        Ok(new)
    }
}
