//! A file with one JSON document a line, which the report reads after the run.

use crate::Result;
use serde::Serialize;
use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

/// An append-only journal. Each line is handed to the operating system at once, so that a line
/// outlives a process that is killed after it.
#[derive(Clone, Debug)]
pub struct Journal(Arc<Mutex<File>>);

impl Journal {
    /// Creates the file, or empties it.
    pub fn create(path: &Path) -> Result<Self> {
        Ok(Self(Arc::new(Mutex::new(File::create(path)?))))
    }

    /// Appends one line.
    pub fn write(&self, entry: &impl Serialize) -> Result {
        let mut line = serde_json::to_vec(entry)?;
        line.push(b'\n');
        let mut file = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(file.write_all(&line)?)
    }
}
