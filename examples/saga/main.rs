//! An order in four steps, the last of which fails: the others are undone, newest first, by spans
//! that are linked to the steps that they undo.
//!
//! ```text
//! cargo run --release --example saga
//! cargo run --release --example saga -- --fail-at ship_order --fail-undo charge_card --format json
//! ```
//!
//! The steps belong to the trace of the order, the compensations to a trace of their own: an order
//! is mostly undone by another process, hours later.

#[path = "../common/mod.rs"]
mod common;

use batchlink::patterns::{Saga, SagaOutcome};
use clap::{Parser, ValueEnum};
use common::{Exported, Show, Telemetry, ensure};
use opentelemetry::trace::{Status, TraceContextExt, Tracer};
use opentelemetry::{Context, KeyValue};
use opentelemetry_sdk::trace::SdkTracer;
use std::process::ExitCode;

/// An order is placed step by step; if a step fails, what was done is undone.
#[derive(Debug, Parser)]
#[command(name = "saga")]
struct Args {
    /// The step that fails
    #[arg(long, value_enum, value_name = "STEP", default_value_t = Step::ShipOrder)]
    fail_at: Step,

    /// No step fails
    #[arg(long, conflicts_with = "fail_at")]
    succeed: bool,

    /// A step whose compensation fails; the others are undone all the same
    #[arg(long, value_enum, value_name = "STEP")]
    fail_undo: Option<Step>,

    #[command(flatten)]
    show: Show,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "snake_case")]
enum Step {
    ReserveStock,
    ChargeCard,
    BookCourier,
    ShipOrder,
}

impl Step {
    fn name(self) -> &'static str {
        match self {
            Self::ReserveStock => "reserve_stock",
            Self::ChargeCard => "charge_card",
            Self::BookCourier => "book_courier",
            Self::ShipOrder => "ship_order",
        }
    }

    fn run(self, args: &Args) -> Result<(), String> {
        match !args.succeed && self == args.fail_at {
            true => Err(format!("{} is out of order", self.name())),
            false => Ok(()),
        }
    }

    fn undo(self, args: &Args, cx: &Context) -> Result<(), String> {
        cx.span().add_event("undo", vec![KeyValue::new("step", self.name())]);
        match args.fail_undo {
            Some(step) if step == self => Err(format!("cannot undo {}", self.name())),
            _ => Ok(()),
        }
    }
}

fn main() -> ExitCode {
    common::main(run)
}

fn run(args: &Args) -> common::Result {
    let telemetry = Telemetry::start("batchlink-saga")?;
    let tracer = telemetry.tracer();

    let mut saga = Saga::new("order");
    let placed = tracer.in_span("place_order", |cx| end(&cx, place(args, &tracer, &mut saga)));
    let completed = saga.steps();
    let outcome = match placed {
        Ok(()) => SagaOutcome::default(),
        Err(reason) => tracer.in_span("cancel_order", |cx| {
            let outcome = saga.compensate(&tracer, reason, |step: Step, cx| step.undo(args, cx));
            cx.span().set_attributes(outcome.attributes());
            let _ = end(
                &cx,
                outcome.failed.first().map_or(Ok(()), |failure| Err(failure.error.clone())),
            );
            outcome
        }),
    };

    let exported = telemetry.finish()?;
    let counters = [
        ("steps completed", completed as u64),
        ("steps undone", outcome.compensated as u64),
        ("compensations failed", outcome.failed.len() as u64),
    ];
    exported.print(&args.show, &counters)?;
    check(&exported, &outcome)
}

/// Takes one step after the other, until one fails. Complete steps are recorded with what undoes
/// them.
fn place(args: &Args, tracer: &SdkTracer, saga: &mut Saga<Step>) -> Result<(), String> {
    Step::value_variants().iter().try_for_each(|&step| {
        tracer.in_span(step.name(), |cx| {
            end(&cx, step.run(args))?;
            saga.completed(step.name(), cx.span().span_context(), step);
            Ok(())
        })
    })
}

/// Sets the status of the span, if the step failed.
fn end(cx: &Context, result: Result<(), String>) -> Result<(), String> {
    result.inspect_err(|error| cx.span().set_status(Status::error(error.clone())))
}

/// Each compensation links to the step that it undoes.
fn check(exported: &Exported, outcome: &SagaOutcome) -> common::Result {
    let undone = exported
        .spans()
        .iter()
        .filter_map(|span| Some((span, span.name.strip_prefix("compensate ")?)));
    let undone: Vec<_> = undone.collect();
    ensure(undone.len() == outcome.steps, "every completed step has a compensation")?;
    for (span, step) in undone {
        let targets: Vec<_> =
            exported.targets(span).into_iter().flatten().map(|target| &*target.name).collect();
        ensure(targets == [step], format!("the compensation of {step} links to it"))?;
    }
    Ok(())
}
