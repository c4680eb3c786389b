//! The flags.

use clap::Parser;
use std::time::Duration;

/// Random load on several collectors at once, for as long as you like. Every context is accounted
/// for and every byte is held against the documented bound.
///
/// Exit status: 0 if everything held, 1 if not, 2 for a bad flag.
#[derive(Debug, Parser)]
#[command(name = "soak")]
pub(crate) struct Args {
    /// How long, in minutes; a fraction will do
    #[arg(long, value_name = "N", default_value = "0.5", value_parser = parse_minutes)]
    pub(crate) minutes: Duration,

    /// Where the random choices begin; the same seed makes the same choices
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub(crate) seed: u64,
}

fn parse_minutes(text: &str) -> Result<Duration, String> {
    match text.parse::<f64>() {
        Ok(minutes) if minutes > 0.0 && minutes <= 10_080.0 => {
            Ok(Duration::from_secs_f64(minutes * 60.0))
        }
        _ => Err("not a number above 0 and up to 10080 (a week)".into()),
    }
}
