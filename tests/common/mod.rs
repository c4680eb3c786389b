//! Helpers of the tests.
#![allow(dead_code, unreachable_pub)] // each test binary uses a part of it

pub mod choices;
pub mod collector_calls;
pub mod link_set_calls;
pub mod oracle;

use batchlink::{Counts, LinkBatch, LinkCollector, LinkCollectorBuilder, Stats};
use opentelemetry::trace::TracerProvider;
use opentelemetry::trace::{
    Link, SpanBuilder, SpanContext, SpanId, TraceFlags, TraceId, TraceState,
};
use opentelemetry_sdk::trace::{InMemorySpanExporter, SdkTracerProvider, SpanData};
use std::io::Write;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

/// A delay longer than any test: it delivers nothing.
pub const NEVER: Duration = Duration::from_secs(3600);

/// Returns a sampled local context without trace state; `n` (not 0) is its span id.
pub fn context(n: u64) -> SpanContext {
    with_flags(n, TraceFlags::SAMPLED)
}

/// Returns a context like [`context`], with these flags.
pub fn with_flags(n: u64, flags: TraceFlags) -> SpanContext {
    SpanContext::new(TraceId::from(0xfeed_u128), SpanId::from(n), flags, false, TraceState::NONE)
}

/// Returns a context like [`context`], with this trace state.
pub fn with_state(n: u64, state: &TraceState) -> SpanContext {
    SpanContext::new(
        TraceId::from(0xfeed_u128),
        SpanId::from(n),
        TraceFlags::SAMPLED,
        true,
        state.clone(),
    )
}

/// Returns a small trace state.
pub fn small_state() -> TraceState {
    TraceState::from_key_value([("vendor", "value")]).expect("valid")
}

/// Returns a trace state of exactly `bytes` as a header, in members of up to 200 bytes.
pub fn state_of(bytes: usize) -> TraceState {
    let mut left = bytes;
    let mut members = Vec::new();
    while left > 0 {
        let member = if left > 200 { 100 } else { left };
        assert!(member > 3, "cannot make {bytes} bytes");
        let key = format!("k{}", char::from(b'a' + members.len() as u8));
        members.push((key, "v".repeat(member - 3)));
        left -= member;
        left = left.saturating_sub(1);
    }
    let state = TraceState::from_key_value(members).expect("valid");
    assert_eq!(state.header().len(), bytes);
    state
}

/// Returns the number that [`context`] was made of.
pub fn number(link: &Link) -> u64 {
    u64::from_be_bytes(link.span_context.span_id().to_bytes())
}

/// Returns the numbers of a batch's links, in order.
pub fn numbers(batch: &LinkBatch) -> Vec<u64> {
    batch.links().iter().map(number).collect()
}

/// Starts and ends the batch's span, and returns what an exporter gets.
pub fn exported(batch: LinkBatch) -> SpanData {
    export_with(|provider| drop(batch.start(&provider.tracer("test"), "batch")))
}

/// Starts and ends a span, and returns what an exporter gets.
pub fn exported_from(builder: SpanBuilder) -> SpanData {
    export_with(|provider| drop(builder.start(&provider.tracer("test"))))
}

fn export_with(work: impl FnOnce(&SdkTracerProvider)) -> SpanData {
    let exporter = InMemorySpanExporter::default();
    let provider = SdkTracerProvider::builder().with_simple_exporter(exporter.clone()).build();
    work(&provider);
    // Before the provider goes: the exporter forgets when it is shut down.
    exporter.get_finished_spans().expect("exported").remove(0)
}

/// Returns a builder for batches of `size` that only size can trigger.
pub fn by_size(size: usize) -> LinkCollectorBuilder {
    LinkCollector::builder().with_max_batch_size(size).with_max_links(size).with_max_delay(NEVER)
}

/// Checks promise 1, second half: the account of one batch.
pub fn assert_account(batch: &LinkBatch) {
    let counts = batch.counts();
    assert_eq!(counts.received, handled(&counts), "{counts:?}");
    assert_eq!(counts.linked, batch.links().len() as u64, "{counts:?}");
}

/// Checks promise 1, first half, against the test's own counts.
pub fn assert_stats(stats: &Stats, accepted: u64, full: u64, closed: u64, invalid: u64) {
    assert_eq!(stats.accepted(), accepted, "accepted: {stats:?}");
    assert_eq!(stats.rejected_full(), full, "rejected_full: {stats:?}");
    assert_eq!(stats.rejected_closed(), closed, "rejected_closed: {stats:?}");
    assert_eq!(stats.invalid(), invalid, "invalid: {stats:?}");
    assert_eq!(stats.pushed(), accepted + full + closed + invalid, "pushed: {stats:?}");
    assert_eq!(stats.accepted(), stats.received() + stats.pending(), "{stats:?}");
    assert_eq!(stats.received(), handled(&stats.counts()), "{stats:?}");
}

/// Returns what the counts of received contexts add up to.
fn handled(counts: &Counts) -> u64 {
    counts.linked + counts.duplicates + counts.truncated + counts.invalid + counts.unsampled
}

/// Ends the process if a test hangs, with its name. It is for hangs only: no test measures time.
pub struct Watchdog(mpsc::Sender<()>);

/// Starts a watchdog that watches until it is dropped.
pub fn watchdog() -> Watchdog {
    watchdog_for(Duration::from_secs(120))
}

/// A [`watchdog`] with more, or less, patience.
pub fn watchdog_for(patience: Duration) -> Watchdog {
    let name = thread::current().name().unwrap_or("a test").to_owned();
    let (alive, over) = mpsc::channel();
    thread::spawn(move || {
        if over.recv_timeout(patience) == Err(mpsc::RecvTimeoutError::Timeout) {
            // Not by `eprintln!`, whose output the test harness keeps until the test is over.
            let _ = writeln!(std::io::stderr(), "watchdog: {name} hangs");
            std::process::abort();
        }
    });
    Watchdog(alive)
}

/// Makes a call, and prints it if it fails.
pub fn step<C: std::fmt::Debug>(seed: u64, step: usize, call: C, make: impl FnOnce(&C)) {
    if let Err(panic) = catch_unwind(AssertUnwindSafe(|| make(&call))) {
        println!("seed {seed}, step {step}: {call:?}");
        resume_unwind(panic);
    }
}

/// A generator of numbers (SplitMix64), the same in every run.
pub struct Random(pub u64);

impl Random {
    /// Returns the next number.
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// Returns a number in `0..end`.
    pub fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }
}
