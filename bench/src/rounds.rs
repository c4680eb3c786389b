//! Rounds: every contestant once per round, in an order that moves on from round to round, so
//! that no contestant always runs on the warmer or the throttled machine.

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::io::IsTerminal;
use std::time::{Duration, Instant};

/// How much is done.
#[derive(Clone, Copy, Debug)]
pub struct Effort {
    pub rounds: usize,
    /// Contexts of one round of one contestant on one thread.
    pub contexts: usize,
    /// Contexts of one round of one contestant with many producers.
    pub contended: usize,
    /// Events of one round that take a wait each.
    pub waits: usize,
}

impl Effort {
    pub const FULL: Self = Self { rounds: 9, contexts: 1 << 20, contended: 1 << 22, waits: 300 };
    pub const QUICK: Self = Self { rounds: 3, contexts: 1 << 19, contended: 1 << 20, waits: 60 };
    pub const SMOKE: Self = Self { rounds: 1, contexts: 1 << 10, contended: 1 << 12, waits: 2 };
}

/// The bar on stderr, if that is a terminal.
pub struct Progress(ProgressBar);

impl Progress {
    pub fn new() -> Self {
        let bar = match std::io::stderr().is_terminal() {
            true => ProgressBar::with_draw_target(Some(0), ProgressDrawTarget::stderr()),
            false => ProgressBar::hidden(),
        };
        let style = ProgressStyle::with_template("{elapsed:>5} [{bar:40}] {pos}/{len} {msg}");
        Self(bar.with_style(style.expect("a valid template")))
    }

    pub fn finish(&self) {
        self.0.finish_and_clear();
    }
}

impl Default for Progress {
    fn default() -> Self {
        Self::new()
    }
}

/// Runs `work(round, contestant)` for all contestants, `rounds` times.
pub fn rotate<C: Copy>(
    progress: &Progress,
    rounds: usize,
    contestants: &[C],
    label: &str,
    mut work: impl FnMut(C),
) {
    progress.0.inc_length((rounds * contestants.len()) as u64);
    progress.0.set_message(label.to_owned());
    for round in 0..rounds {
        // A step that is coprime to most lengths, so that neighbours change little but places do.
        for index in 0..contestants.len() {
            work(
                contestants
                    [(index + round * contestants.len().div_ceil(rounds)) % contestants.len()],
            );
            progress.0.inc(1);
        }
    }
}

/// What two looks at the clock cost, to be taken off short measurements.
pub fn clock_cost() -> Duration {
    (0..1000).map(|_| Instant::now().elapsed()).min().unwrap_or_default()
}
