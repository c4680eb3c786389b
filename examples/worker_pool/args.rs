//! The flags.

use crate::common::Format;
use batchlink::ConfigError;
use clap::error::ErrorKind;
use clap::{CommandFactory, Parser, value_parser};
use std::time::Duration;

// Wrapped by clap.
const MORE_HELP: &str = "\
    Spans are made by the OpenTelemetry SDK. They are exported within the process, where the links \
    on them are counted; if OTEL_EXPORTER_OTLP_ENDPOINT is set (to http://localhost:4318, say), by \
    OTLP over HTTP.\n\n\
    Exit status: 0 if every context is accounted for, 1 if not or if spans cannot be exported, 2 \
    for a bad flag.";

/// Worker threads push the contexts of their request spans; every batch span links to the requests
/// that it served.
#[derive(Debug, Parser)]
#[command(name = "worker_pool", after_help = MORE_HELP)]
pub(crate) struct Args {
    /// Worker threads
    #[arg(long, value_name = "N", default_value_t = 4, allow_negative_numbers = true)]
    #[arg(value_parser = value_parser!(u32).range(1..=1024))]
    pub(crate) threads: u32,

    /// Contexts to push, all threads together
    #[arg(long, value_name = "N", default_value_t = 100_000, allow_negative_numbers = true)]
    #[arg(value_parser = value_parser!(u64).range(1..))]
    pub(crate) contexts: u64,

    /// Contexts that make a batch; none takes more
    #[arg(long, value_name = "N", default_value_t = 128, allow_negative_numbers = true)]
    pub(crate) batch_size: usize,

    /// Longest wait of a context for its batch, in milliseconds
    #[arg(long, value_name = "MS", default_value_t = 50, allow_negative_numbers = true)]
    pub(crate) max_delay_ms: u64,

    /// Most links on one batch span; contexts over that count as truncated
    #[arg(long, value_name = "N", default_value_t = 128, allow_negative_numbers = true)]
    pub(crate) max_links: usize,

    /// Contexts that can wait, more are refused [default: 32768, or 4 batches if that is more]
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    pub(crate) queue_capacity: Option<usize>,

    /// Rings that the threads share [default: one per CPU, at most batch-size / 16]
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    pub(crate) shards: Option<usize>,

    /// Share of pushes, 0 to 1, that repeat a context pushed shortly before
    #[arg(long, value_name = "SHARE", default_value_t = 0.25, allow_negative_numbers = true)]
    #[arg(value_parser = parse_share)]
    pub(crate) duplicates: f64,

    /// Contexts, of all threads together, between two pauses of all threads; 0: never pause
    #[arg(long, value_name = "N", default_value_t = 10_000, allow_negative_numbers = true)]
    pub(crate) pause_every: u64,

    /// Shortest pause, in milliseconds; the timeout fires in every pause that is longer than
    /// max-delay-ms [default: 3 times max-delay-ms, at most 2000]
    #[arg(long, value_name = "MS", allow_negative_numbers = true)]
    pub(crate) pause_ms: Option<u64>,

    /// A table, or one JSON object per line: every batch, then the summary
    #[arg(long, value_enum, default_value_t = Format::Text)]
    pub(crate) format: Format,
}

impl Args {
    pub(crate) fn max_delay(&self) -> Duration {
        Duration::from_millis(self.max_delay_ms)
    }

    pub(crate) fn pause(&self) -> Duration {
        let default = self.max_delay_ms.saturating_mul(3).min(2000);
        Duration::from_millis(self.pause_ms.unwrap_or(default))
    }

    pub(crate) fn queue_capacity(&self) -> usize {
        self.queue_capacity.unwrap_or_else(|| self.batch_size.saturating_mul(4).max(32_768))
    }
}

/// Ends the process as for any other bad flag. The library's error names its field, so the flag is
/// known.
pub(crate) fn exit_for(error: &ConfigError) -> ! {
    let flag = |field: &str| {
        format!("--{}", field.replace('_', "-")).replace("max-batch-size", "batch-size")
    };
    let allowed = error.allowed().replace("max_batch_size", &flag("max_batch_size"));
    let message = format!(
        "invalid value '{}' for '{}': allowed is {allowed}",
        error.value(),
        flag(error.field())
    );
    Args::command().error(ErrorKind::ValueValidation, message).exit()
}

fn parse_share(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(share) if (0.0..=1.0).contains(&share) => Ok(share),
        _ => Err("not a number from 0 to 1".into()),
    }
}
