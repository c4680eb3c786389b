//! Publishes orders to JetStream. Each has a span, whose context travels in the message's headers.

use async_nats::jetstream::{self, message::PublishMessage};
use async_nats::{ConnectOptions, HeaderMap};
use batchlink_nats_example::{
    DESTINATION, Journal, NatsHeadersMut, Order, Orders, Result, Telemetry,
};
use clap::Parser;
use futures_util::{StreamExt, TryStreamExt, stream};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::time::{Instant, sleep, sleep_until};

/// Messages of one publisher that await the broker's acknowledgement.
const IN_FLIGHT: usize = 256;
/// Attempts to publish one message; with [`PAUSE`] between them, more than a minute.
const ATTEMPTS: u64 = 300;
/// One message of so many is published twice, as after a lost acknowledgement.
const REPEAT_EVERY: u64 = 1000;
const PAUSE: Duration = Duration::from_millis(250);

/// A publisher of orders.
#[derive(Parser)]
struct Args {
    /// Name of this process
    #[arg(long)]
    name: String,
    /// Address of the broker
    #[arg(long)]
    nats: String,
    /// Folder of the journals
    #[arg(long)]
    dir: PathBuf,
    /// Messages to publish
    #[arg(long)]
    messages: u64,
    /// Messages a second, at most
    #[arg(long, default_value_t = 3000)]
    rate: u64,
}

#[derive(Default, serde::Serialize)]
struct Counts {
    published: AtomicU64,
    /// Publications that failed or timed out, and were tried again.
    retries: AtomicU64,
    /// Messages that were published again although they had been acknowledged.
    repeated: AtomicU64,
    /// Publications that the broker recognised as those of a message it had.
    duplicates: AtomicU64,
}

fn main() -> Result {
    let args = Args::parse();
    let journal = Journal::create(&args.dir.join(format!("publisher-{}.jsonl", args.name)))?;
    let telemetry = Telemetry::start("order-publisher", &args.name, journal.clone())?;
    let orders = Orders::new("nats", args.name.clone(), telemetry.tracer(), journal.clone());
    let counts = tokio::runtime::Runtime::new()?.block_on(publish_all(&args, &orders))?;
    drop(orders);
    telemetry.shutdown()?;
    journal.write(&counts)
}

async fn publish_all(args: &Args, orders: &Orders) -> Result<Counts> {
    let client = ConnectOptions::new().retry_on_initial_connect().connect(&args.nats).await?;
    let context = jetstream::context::ContextBuilder::new()
        .ack_timeout(Duration::from_secs(2))
        .timeout(Duration::from_secs(5))
        .build(client);
    let counts = Counts::default();
    let start = Instant::now();
    let numbers = stream::iter(0..args.messages).then(|number| async move {
        sleep_until(start + Duration::from_micros(number * 1_000_000 / args.rate)).await;
        number
    });
    numbers
        .map(Ok)
        .try_for_each_concurrent(IN_FLIGHT, async |number| {
            let repeat = number % REPEAT_EVERY == 0;
            publish(&context, orders, orders.order(number)?, repeat, &counts).await
        })
        .await?;
    Ok(counts)
}

/// Publishes one order until the broker acknowledges it. Its `Nats-Msg-Id` stays the same, so the
/// stream keeps it once.
async fn publish(
    context: &jetstream::Context,
    orders: &Orders,
    order: Order,
    mut repeat: bool,
    counts: &Counts,
) -> Result {
    let mut headers = HeaderMap::new();
    orders.inject(&order, &mut NatsHeadersMut(&mut headers))?;
    let message = PublishMessage::build()
        .headers(headers)
        .message_id(&order.id)
        .payload(order.body.clone().into());
    for _ in 0..ATTEMPTS {
        let acknowledged = match context.send_publish(DESTINATION, message.clone()).await {
            Ok(acknowledgement) => acknowledgement.await,
            Err(error) => Err(error),
        };
        if let Ok(acknowledgement) = acknowledged {
            counts.duplicates.fetch_add(acknowledgement.duplicate.into(), Ordering::Relaxed);
            if !repeat {
                counts.published.fetch_add(1, Ordering::Relaxed);
                return Ok(());
            }
            repeat = false;
            counts.repeated.fetch_add(1, Ordering::Relaxed);
            continue;
        }
        counts.retries.fetch_add(1, Ordering::Relaxed);
        sleep(PAUSE).await;
    }
    Err(format!("{} was not acknowledged in {ATTEMPTS} attempts", order.id).into())
}
