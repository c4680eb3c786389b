//! Retries with `backon`, blocking and async: each attempt's span links to all that came before it,
//! and says why they failed.
//!
//! ```text
//! cargo run --release --example retry
//! cargo run --release --example retry -- --failures 5 --attempts 4 --format json
//! ```
//!
//! All there is to batchlink is `Attempts::new`, and `run` or `run_async` within the loop that
//! there is anyway.

#[path = "../common/mod.rs"]
mod common;

use backon::{BlockingRetryable, ExponentialBuilder, Retryable};
use batchlink::patterns::{Attempts, RetryOutcome};
use clap::{Parser, value_parser};
use common::{Exported, Show, Telemetry, ensure, number};
use opentelemetry::Context;
use opentelemetry::trace::{FutureExt, SpanKind, Status, TraceContextExt, Tracer};
use opentelemetry_sdk::trace::SdkTracer;
use std::cell::Cell;
use std::future;
use std::process::ExitCode;
use std::time::Duration;

/// An order is paid for and confirmed, by services that fail at first.
#[derive(Debug, Parser)]
#[command(name = "retry")]
struct Args {
    /// Calls of each service that fail before one succeeds
    #[arg(long, value_name = "N", default_value_t = 2)]
    #[arg(value_parser = value_parser!(u32).range(..=100))]
    failures: u32,

    /// Attempts at each call, at most
    #[arg(long, value_name = "N", default_value_t = 4)]
    #[arg(value_parser = value_parser!(u32).range(1..=101))]
    attempts: u32,

    #[command(flatten)]
    show: Show,
}

/// Fails a few times, then works.
struct Service {
    failures: Cell<u32>,
}

impl Service {
    fn call(&self) -> Result<(), &'static str> {
        match self.failures.get() {
            0 => Ok(()),
            left => {
                self.failures.set(left - 1);
                Err("503 Service Unavailable")
            }
        }
    }

    /// As [`call`](Self::call), but its first failure is that it never answers.
    async fn call_async(&self, first: bool) -> Result<(), &'static str> {
        let result = self.call();
        if first && result.is_err() {
            future::pending::<()>().await;
        }
        result
    }
}

fn main() -> ExitCode {
    common::main(run)
}

fn run(args: &Args) -> common::Result {
    let telemetry = Telemetry::start("batchlink-retry")?;
    let tracer = telemetry.tracer();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;

    let outcomes = [
        tracer.in_span("pay_order", |cx| pay(args, &tracer, &cx)),
        tracer.in_span("confirm_order", |cx| {
            runtime.block_on(confirm(args, &tracer, &cx).with_context(cx.clone()))
        }),
    ];

    let exported = telemetry.finish()?;
    let sum = |of: fn(&RetryOutcome) -> u64| outcomes.iter().map(of).sum::<u64>();
    let attempts = sum(|outcome| outcome.attempts.into());
    let counters = [
        ("attempts", attempts),
        ("failed", sum(|outcome| outcome.failed.into())),
        ("operations given up", sum(|outcome| outcome.exhausted().into())),
    ];
    exported.print(&args.show, &counters)?;
    check(&exported, attempts)
}

/// Blocking: the closure that `backon` repeats makes an attempt.
fn pay(args: &Args, tracer: &SdkTracer, operation: &Context) -> RetryOutcome {
    let service = Service { failures: Cell::new(args.failures) };
    let attempts = attempts("charge_card", args);
    let result = (|| attempts.run(tracer, |_cx| service.call())).retry(backoff(args)).call();
    finish(operation, &attempts, result)
}

/// Async. The first attempt takes too long; its future is dropped, so it has failed.
async fn confirm(args: &Args, tracer: &SdkTracer, operation: &Context) -> RetryOutcome {
    let service = Service { failures: Cell::new(args.failures) };
    let attempts = attempts("send_receipt", args);
    let attempt = || async {
        let first = attempts.outcome().attempts == 0;
        let call = attempts.run_async(tracer, service.call_async(first));
        tokio::time::timeout(Duration::from_millis(5), call).await.unwrap_or(Err("timed out"))
    };
    let result = attempt.retry(backoff(args)).await;
    finish(operation, &attempts, result)
}

fn attempts(name: &'static str, args: &Args) -> Attempts {
    Attempts::new(name).with_kind(SpanKind::Client).with_max_attempts(args.attempts)
}

fn backoff(args: &Args) -> ExponentialBuilder {
    let delay = Duration::from_millis(1);
    ExponentialBuilder::new()
        .with_min_delay(delay)
        .with_max_delay(delay)
        .with_max_times(args.attempts as usize - 1)
}

/// Puts the outcome on the operation's span.
fn finish(
    operation: &Context,
    attempts: &Attempts,
    result: Result<(), &'static str>,
) -> RetryOutcome {
    let outcome = attempts.outcome();
    operation.span().set_attributes(outcome.attributes());
    if let Err(error) = result {
        operation.span().set_status(Status::error(error));
    }
    outcome
}

/// Every attempt links to the earlier ones; of more than 32 to the first and the latest.
fn check(exported: &Exported, attempts: u64) -> common::Result {
    let spans = [exported.named("charge_card"), exported.named("send_receipt")].concat();
    ensure(spans.len() as u64 == attempts, format!("{attempts} attempts have spans"))?;
    for span in spans {
        let earlier = number(&span.attributes, "retry.attempt_number") - 1;
        let links = span.links.len() as i64;
        ensure(links == earlier.min(32), format!("attempt {} has {links} links", earlier + 1))?;
    }
    Ok(())
}
