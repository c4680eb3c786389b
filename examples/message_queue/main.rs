//! Producers send messages, each in a trace of its own that travels in the message's headers; a
//! consumer polls batches, and the span of each poll is linked to the messages' spans: those
//! delivered twice once, and not more than 128 of them, with an account of the rest.
//!
//! ```text
//! cargo run --release --example message_queue
//! cargo run --release --example message_queue -- \
//!     --producers 8 --messages 100 --max-poll 64 --redeliver-every 3
//! ```
//!
//! `broker.rs` is the queue between them, `check.rs` looks at what was exported.

mod broker;
mod check;
#[path = "../common/mod.rs"]
mod common;

use batchlink::messaging::{self, BatchSpan, Operation};
use batchlink::{LinkPolicy, LinkSet, carrier, links::Relation};
use broker::{Message, PARTITION, Queue, SYSTEM};
use clap::{Parser, value_parser};
use common::{Show, Telemetry};
use opentelemetry::KeyValue;
use opentelemetry::trace::Span;
use opentelemetry_sdk::trace::SdkTracer;
use std::collections::HashSet;
use std::process::ExitCode;
use std::sync::mpsc::Sender;
use std::thread;

const DESTINATION: &str = "orders";

/// Producers, a broker that delivers at least once, and a consumer whose polls link to what was
/// sent.
#[derive(Debug, Parser)]
#[command(name = "message_queue")]
struct Args {
    /// Producers, a thread each
    #[arg(long, value_name = "N", default_value_t = 3)]
    #[arg(value_parser = value_parser!(u32).range(1..=1000))]
    producers: u32,

    /// Messages of each producer
    #[arg(long, value_name = "N", default_value_t = 60)]
    #[arg(value_parser = value_parser!(u32).range(1..=10_000))]
    messages: u32,

    /// Messages that a poll takes at most
    #[arg(long, value_name = "N", default_value_t = 160)]
    #[arg(value_parser = value_parser!(u16).range(1..))]
    max_poll: u16,

    /// The broker delivers one message in so many twice; 0: none
    #[arg(long, value_name = "N", default_value_t = 10)]
    redeliver_every: usize,

    #[command(flatten)]
    show: Show,
}

/// What the consumer has counted.
#[derive(Default)]
struct Consumed {
    polls: u64,
    delivered: u64,
    handled: u64,
    linked: u64,
    duplicates: u64,
    truncated: u64,
}

fn main() -> ExitCode {
    common::main(run)
}

fn run(args: &Args) -> common::Result {
    let telemetry = Telemetry::start("batchlink-message-queue")?;
    let tracer = telemetry.tracer();

    let (sender, queue) = broker::start(args.redeliver_every);
    let producers: Vec<_> = (0..args.producers)
        .map(|producer| {
            let (tracer, sender, messages) = (tracer.clone(), sender.clone(), args.messages);
            thread::spawn(move || {
                (0..messages).try_for_each(|n| send(&tracer, &sender, &format!("{producer}-{n}")))
            })
        })
        .collect();
    drop(sender); // the queue ends with the last producer
    let consumed = consume(&tracer, &queue, args.max_poll.into())?;
    for producer in producers {
        producer.join().map_err(|_| "a producer has panicked")??;
    }

    let exported = telemetry.finish()?;
    let counters = [
        ("messages sent", u64::from(args.producers) * u64::from(args.messages)),
        ("messages delivered", consumed.delivered),
        ("messages handled", consumed.handled),
        ("polls", consumed.polls),
        ("links", consumed.linked),
        ("not linked: duplicates", consumed.duplicates),
        ("not linked: truncated", consumed.truncated),
    ];
    exported.print(&args.show, &counters)?;
    check::check(&exported, &consumed)
}

/// What all spans of this queue have in common.
fn operation(operation: Operation) -> BatchSpan {
    BatchSpan::new(SYSTEM, operation).with_destination(DESTINATION)
}

/// Sends a message with the context of the span that sends it.
fn send(tracer: &SdkTracer, sender: &Sender<Message>, id: &str) -> Result<(), &'static str> {
    let about = messaging::Message::new().with_id(id.to_owned());
    let mut span = operation(Operation::SEND).build_single(&about).start(tracer);
    let mut headers = Vec::new();
    carrier::inject(span.span_context(), &mut carrier::HeadersMut::new(&mut headers));
    let message = Message { id: id.into(), headers, body: format!("order {id}").into_bytes() };
    let sent = sender.send(message).map_err(|_| "the broker has gone");
    span.end();
    sent
}

/// Makes one span per poll. A message that came before is not handled again, and is linked once in
/// a poll.
fn consume(tracer: &SdkTracer, queue: &Queue, max_poll: usize) -> common::Result<Consumed> {
    let mut links = LinkSet::builder()
        .with_link_policy(
            LinkPolicy::new().with_link_type(Relation::ConsumedFrom.as_str().to_owned()),
        )
        .build()?;
    let process = operation(Operation::PROCESS);
    let mut seen = HashSet::new();
    let mut total = Consumed::default();
    loop {
        let messages = queue.poll(max_poll);
        if messages.is_empty() {
            return Ok(total);
        }
        for message in &messages {
            if let Some(sender) = carrier::extract(&carrier::Headers::new(&message.headers)) {
                let about =
                    messaging::Message::new().with_id(message.id.clone()).with_partition(PARTITION);
                links.insert_link(about.link(&sender));
            }
        }
        // The partition moves from the links to the span, if every message is linked: of one that
        // came twice or was cut the span cannot know.
        let batch = links.finish().hoist();
        let counts = batch.counts();
        let mut span = process.build(batch, messages.len()).start(tracer);

        let new = messages.iter().filter(|message| seen.insert(message.id.clone()));
        let bytes: usize = new.map(|message| message.body.len()).sum();
        span.set_attribute(KeyValue::new("orders.bytes", bytes as i64));
        total.polls += 1;
        total.delivered += messages.len() as u64;
        total.handled = seen.len() as u64;
        total.linked += counts.linked;
        total.duplicates += counts.duplicates;
        total.truncated += counts.truncated;
    }
}
