//! What the examples share: flags, the OpenTelemetry SDK, and a printer of what was exported.
//!
//! ```ignore
//! #[path = "../common/mod.rs"]
//! mod common;
//!
//! fn main() -> ExitCode {
//!     common::main(run)
//! }
//!
//! fn run(args: &Args) -> common::Result {
//!     let telemetry = Telemetry::start("batchlink-example")?;
//!     let tracer = telemetry.tracer();
//!     // ... spans and links ...
//!     let exported = telemetry.finish()?;
//!     exported.print(&args.show, &[("batches", 3)])?;
//!     ensure(exported.named("process_batch").len() == 3, "there are three batch spans")
//! }
//! ```
#![allow(dead_code, unused_imports)] // each example uses a part of it

mod exported;
mod json;
pub(crate) mod otlp;
mod telemetry;
mod tree;

pub(crate) use exported::{Exported, attribute, link_type, number};
pub(crate) use telemetry::Telemetry;

use clap::{Parser, ValueEnum};
use std::error::Error;
use std::fmt::Display;
use std::io::{self, ErrorKind, Write};
use std::process::ExitCode;

pub(crate) type Result<T = ()> = std::result::Result<T, Box<dyn Error>>;

/// How the result is shown. `#[command(flatten)]` it into the flags.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Show {
    /// A tree of all spans, or one JSON document
    #[arg(long, value_enum, default_value_t = Format::Text)]
    pub(crate) format: Format,

    /// Most of a kind in the tree: traces of one name, children of one name, links of a span; 0:
    /// all
    #[arg(long, value_name = "N", default_value_t = 5)]
    pub(crate) limit: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    Text,
    Json,
}

/// Parses the flags and runs: exit status 0 if it went well, 1 if not, 2 for a bad flag.
pub(crate) fn main<A: Parser>(run: impl FnOnce(&A) -> Result) -> ExitCode {
    let args = A::parse(); // a bad flag ends here
    match run(&args) {
        Ok(()) => ExitCode::SUCCESS,
        // The reader of the output has left, as in `worker_pool | head`.
        Err(error) if is_broken_pipe(error.as_ref()) => ExitCode::SUCCESS,
        Err(error) => {
            // Unlike `eprintln!`, this does not panic if standard error is closed, too.
            let _ = writeln!(io::stderr(), "{}: {error}", A::command().get_name());
            ExitCode::FAILURE
        }
    }
}

/// An example's check of its own result: an error that says what should have held.
pub(crate) fn ensure(holds: bool, what: impl Display) -> Result {
    if holds { Ok(()) } else { Err(format!("not as it should be: {what}").into()) }
}

fn is_broken_pipe(error: &(dyn Error + 'static)) -> bool {
    error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == ErrorKind::BrokenPipe)
}
