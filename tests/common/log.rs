//! A subscriber that keeps the warnings of this crate.
#![allow(dead_code, unreachable_pub)] // each test binary uses a part of it

use std::fmt::{Debug, Write};
use std::sync::{Arc, Mutex};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata, Subscriber};

/// Keeps the name and the fields of each warning.
#[derive(Clone, Default)]
pub struct Log(Arc<Mutex<Vec<(&'static str, String)>>>);

/// The fields but for name and message, as ` name=value`.
struct Fields(String);

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        if !["name", "message"].contains(&field.name()) {
            write!(self.0, " {}={value:?}", field.name()).expect("a string");
        }
    }
}

impl Log {
    /// Runs `work`, whose warnings on this thread are kept.
    pub fn around<R>(work: impl FnOnce(&Self) -> R) -> R {
        let log = Self::default();
        tracing::subscriber::with_default(log.clone(), || work(&log))
    }

    fn take(&self) -> Vec<(&'static str, String)> {
        std::mem::take(&mut *self.0.lock().expect("no panic"))
    }

    /// The names since the log was last read.
    pub fn names(&self) -> Vec<&'static str> {
        self.take().into_iter().map(|(name, _)| name).collect()
    }

    /// Names and fields since the log was last read.
    pub fn lines(&self) -> Vec<String> {
        self.take().into_iter().map(|(name, fields)| format!("{name}{fields}")).collect()
    }
}

impl Subscriber for Log {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target() == "batchlink" && *metadata.level() == tracing::Level::WARN
    }

    fn event(&self, event: &Event<'_>) {
        let mut fields = Fields(String::new());
        event.record(&mut fields);
        self.0.lock().expect("no panic").push((event.metadata().name(), fields.0));
    }

    fn new_span(&self, _span: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _span: &Id, _values: &Record<'_>) {}
    fn record_follows_from(&self, _span: &Id, _follows: &Id) {}
    fn enter(&self, _span: &Id) {}
    fn exit(&self, _span: &Id) {}
}
