//! Pulls batches of orders from JetStream and stores them. Several of these processes share the
//! work: start more of them, with other names.

use async_nats::jetstream::consumer::{AckPolicy, PullConsumer, pull};
use async_nats::jetstream::{self, stream};
use async_nats::{Client, ConnectOptions};
use batchlink::{carrier, messaging::Message};
use batchlink_nats_example::{
    BatchWriter, DESTINATION, GROUP, Journal, NatsHeaders, Received, Result, Store, Telemetry,
};
use clap::{Parser, value_parser};
use futures_util::{FutureExt, StreamExt};
use opentelemetry::KeyValue;
use std::path::PathBuf;
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::block_in_place;
use tokio::time::{sleep, timeout};

/// The longest wait for a batch to fill.
const LINGER: Duration = Duration::from_millis(200);
/// Wait for a broker that does not answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// A consumer of orders.
#[derive(Parser)]
struct Args {
    /// Name of this process
    #[arg(long)]
    name: String,
    /// Address of the broker
    #[arg(long)]
    nats: String,
    /// Folder of the database and the journals
    #[arg(long)]
    dir: PathBuf,
    /// Messages of a batch, at most; 128 is the SDK's limit of links per span
    #[arg(long, default_value_t = 128, value_parser = value_parser!(u16).range(1..=128))]
    batch: u16,
    /// Seconds after which the broker delivers a message again that was not acknowledged
    #[arg(long, default_value_t = 10)]
    ack_wait: u64,
}

fn main() -> Result {
    let args = Args::parse();
    let journal = Journal::create(&args.dir.join(format!("consumer-{}.jsonl", args.name)))?;
    let telemetry = Telemetry::start("order-consumer", &args.name, journal.clone())?;
    let store = Store::open(&args.dir.join("orders.sqlite"))?;
    let writer = BatchWriter::new("nats", &args.name, telemetry.tracer(), store, journal.clone())?;
    tokio::runtime::Runtime::new()?.block_on(consume(&args, writer))?;
    telemetry.shutdown()?;
    journal.write(&serde_json::json!({ "ended": args.name }))
}

/// Consumes until SIGTERM or SIGINT; the batch in work is finished and acknowledged first.
async fn consume(args: &Args, mut writer: BatchWriter) -> Result {
    let client = ConnectOptions::new().retry_on_initial_connect().connect(&args.nats).await?;
    let consumer = subscribe(&client, args).await?;
    let (mut terminate, mut interrupt) =
        (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    while terminate.recv().now_or_never().is_none() && interrupt.recv().now_or_never().is_none() {
        let messages = pull(&consumer, args.batch).await;
        if let Err(error) = process(&mut writer, &messages).await {
            eprintln!("{}: {error}; the broker will deliver the batch again", args.name);
            sleep(LINGER).await;
        }
    }
    Ok(client.flush().await?)
}

/// Joins the durable consumer that all processes share. Creates what is missing of it and the
/// stream.
async fn subscribe(client: &Client, args: &Args) -> Result<PullConsumer> {
    let context = jetstream::new(client.clone());
    let stream = context
        .get_or_create_stream(stream::Config {
            name: DESTINATION.to_uppercase(),
            subjects: vec![DESTINATION.to_owned()],
            storage: stream::StorageType::File,
            duplicate_window: Duration::from_secs(600),
            ..Default::default()
        })
        .await?;
    let config = pull::Config {
        durable_name: Some(GROUP.to_owned()),
        ack_policy: AckPolicy::Explicit,
        ack_wait: Duration::from_secs(args.ack_wait),
        max_ack_pending: 10_000,
        ..Default::default()
    };
    Ok(stream.get_or_create_consumer(GROUP, config).await?)
}

/// Returns a batch, which is empty if there are no messages or the broker does not answer.
async fn pull(consumer: &PullConsumer, max: u16) -> Vec<jetstream::Message> {
    let mut messages = Vec::with_capacity(max.into());
    let fill = async {
        let mut batch =
            consumer.batch().max_messages(max.into()).expires(LINGER).messages().await?;
        while let Some(message) = batch.next().await {
            messages.push(message?);
        }
        Result::Ok(())
    };
    if !matches!(timeout(PATIENCE, fill).await, Ok(Ok(()))) {
        sleep(LINGER).await; // mostly a restart of the broker: the client reconnects by itself
    }
    messages
}

async fn process(writer: &mut BatchWriter, messages: &[jetstream::Message]) -> Result {
    if messages.is_empty() {
        return Ok(());
    }
    let received = messages.iter().map(received).collect::<Result<Vec<_>>>()?;
    block_in_place(|| writer.write(&received))?;
    for message in messages {
        message.ack().await?;
    }
    Ok(())
}

fn received(message: &jetstream::Message) -> Result<Received> {
    let info = message.info()?;
    let headers = message.headers.as_ref();
    let id = headers.and_then(|headers| headers.get("Nats-Msg-Id")).map(|id| id.to_string());
    let id = id.ok_or("a message without Nats-Msg-Id")?;
    Ok(Received {
        context: headers.and_then(|headers| carrier::extract(&NatsHeaders(headers))),
        // The conventions have no names for NATS. The sequence differs from message to message and
        // stays on the links. The other two are mostly equal in a batch, and then go on the span.
        message: Message::new()
            .with_id(id.clone())
            .with_position("jetstream.stream_sequence", info.stream_sequence.try_into()?)
            .with_attribute(KeyValue::new("jetstream.delivered", info.delivered))
            .with_attribute(KeyValue::new("jetstream.stream", info.stream.to_owned())),
        body: message.payload.to_vec(),
        delivered: info.delivered,
        id,
    })
}
