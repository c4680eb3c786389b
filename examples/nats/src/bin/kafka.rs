//! The same on Kafka's protocol: a mock cluster of librdkafka, publishers and consumers, each in a
//! process of its own. `publish` and `consume` would work with a real cluster's addresses as well.

use batchlink::carrier::{self, Headers, HeadersMut};
use batchlink::messaging::{KAFKA_OFFSET, Message};
use batchlink_nats_example::{
    BatchWriter, DESTINATION, GROUP, Journal, Orders, Received, Result, Store, Telemetry,
};
use clap::{Parser, Subcommand, value_parser};
use futures_util::{FutureExt, StreamExt, stream};
use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{BorrowedMessage, Header, Headers as _, Message as _, OwnedHeaders};
use rdkafka::mocking::MockCluster;
use rdkafka::producer::{FutureProducer, FutureRecord};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use tokio::runtime::Runtime;
use tokio::signal::unix::{SignalKind, signal};

const PARTITIONS: i32 = 4;
/// Messages of one publisher that await the broker's acknowledgement.
const IN_FLIGHT: usize = 256;
/// The longest wait for a batch to fill.
const LINGER: Duration = Duration::from_millis(200);
/// The longest wait for the cluster to take a message.
const PATIENCE: Duration = Duration::from_secs(60);
/// The header that names a message.
const MESSAGE_ID: &str = "message-id";

/// Orders on Kafka's protocol.
#[derive(Parser)]
struct Args {
    /// Folder of the database and the journals
    #[arg(long)]
    dir: PathBuf,
    #[command(subcommand)]
    role: Role,
}

#[derive(Subcommand)]
enum Role {
    /// Runs a mock cluster until SIGTERM; its address is written to the file `kafka` in the folder
    Cluster,
    /// Publishes orders
    Publish {
        /// Name of this process
        #[arg(long)]
        name: String,
        /// Addresses of the cluster
        #[arg(long)]
        servers: String,
        /// Messages to publish
        #[arg(long)]
        messages: u64,
    },
    /// Consumes orders until SIGTERM
    Consume {
        /// Name of this process
        #[arg(long)]
        name: String,
        /// Addresses of the cluster
        #[arg(long)]
        servers: String,
        /// Messages of a batch, at most; 128 is the SDK's limit of links per span
        #[arg(long, default_value_t = 128, value_parser = value_parser!(u16).range(1..=128))]
        batch: u16,
    },
}

fn main() -> Result {
    let Args { dir, role } = Args::parse();
    let runtime = Runtime::new()?;
    match role {
        Role::Cluster => cluster(&runtime, &dir),
        Role::Publish { name, servers, messages } => {
            publish(&runtime, &dir, name, &servers, messages)
        }
        Role::Consume { name, servers, batch } => {
            consume(&runtime, &dir, &name, &servers, batch.into())
        }
    }
}

fn cluster(runtime: &Runtime, dir: &Path) -> Result {
    let cluster = MockCluster::new(1)?;
    cluster.create_topic(DESTINATION, PARTITIONS, 1)?;
    fs::write(dir.join("kafka.new"), cluster.bootstrap_servers())?;
    fs::rename(dir.join("kafka.new"), dir.join("kafka"))?;
    runtime.block_on(async {
        signal(SignalKind::terminate())?.recv().await;
        Ok(())
    })
}

fn publish(runtime: &Runtime, dir: &Path, name: String, servers: &str, messages: u64) -> Result {
    let journal = Journal::create(&dir.join(format!("publisher-{name}.jsonl")))?;
    let telemetry = Telemetry::start("order-publisher", &name, journal.clone())?;
    let orders = Orders::new("kafka", name, telemetry.tracer(), journal.clone());
    let producer: FutureProducer = ClientConfig::new()
        .set("bootstrap.servers", servers)
        .set("enable.idempotence", "true") // a retry is stored once
        .create()?;
    let send = async |number| {
        let order = orders.order(number)?;
        let mut headers = vec![(MESSAGE_ID.to_owned(), order.id.clone().into_bytes())];
        orders.inject(&order, &mut HeadersMut::new(&mut headers))?;
        let headers = headers.iter().fold(OwnedHeaders::new(), |headers, (key, value)| {
            headers.insert(Header { key, value: Some(value) })
        });
        let record =
            FutureRecord::to(DESTINATION).key(&order.id).payload(&order.body).headers(headers);
        producer.send(record, PATIENCE).await.map_err(|(error, _)| error)?;
        Result::Ok(())
    };
    let sent = runtime.block_on(
        stream::iter(0..messages).map(send).buffer_unordered(IN_FLIGHT).collect::<Vec<_>>(),
    );
    sent.into_iter().collect::<Result<()>>()?;
    telemetry.shutdown()?;
    journal.write(
        &serde_json::json!({ "published": messages, "retries": 0, "repeated": 0, "duplicates": 0 }),
    )
}

fn consume(runtime: &Runtime, dir: &Path, name: &str, servers: &str, batch: usize) -> Result {
    let journal = Journal::create(&dir.join(format!("consumer-{name}.jsonl")))?;
    let telemetry = Telemetry::start("order-consumer", name, journal.clone())?;
    let store = Store::open(&dir.join("orders.sqlite"))?;
    let mut writer = BatchWriter::new("kafka", name, telemetry.tracer(), store, journal.clone())?;
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", servers)
        .set("group.id", GROUP)
        .set("auto.offset.reset", "earliest")
        .set("enable.auto.commit", "false") // committed after the batch is stored
        .create()?;
    consumer.subscribe(&[DESTINATION])?;
    let mut terminate = {
        let _runtime = runtime.enter();
        signal(SignalKind::terminate())?
    };
    while terminate.recv().now_or_never().is_none() {
        let messages = poll(&consumer, batch)?;
        if !messages.is_empty() {
            writer.write(&messages.iter().map(received).collect::<Result<Vec<_>>>()?)?;
            commit(&consumer)?;
        }
    }
    drop(consumer);
    telemetry.shutdown()?;
    journal.write(&serde_json::json!({ "ended": name }))
}

/// Commits what was stored. While consumers come and go the cluster refuses, or the partitions are
/// another's already. Their messages are then delivered again, and SQLite keeps each once.
fn commit(consumer: &BaseConsumer) -> Result {
    use RDKafkaErrorCode::{IllegalGeneration, NoOffset, RebalanceInProgress, UnknownMemberId};
    match consumer.commit_consumer_state(CommitMode::Sync) {
        Err(KafkaError::ConsumerCommit(
            IllegalGeneration | NoOffset | RebalanceInProgress | UnknownMemberId,
        )) => Ok(()),
        result => Ok(result?),
    }
}

/// Returns what came within [`LINGER`], at most `max` messages.
fn poll(consumer: &BaseConsumer, max: usize) -> Result<Vec<BorrowedMessage<'_>>> {
    let end = Instant::now() + LINGER;
    let mut messages = Vec::with_capacity(max);
    while messages.len() < max {
        match consumer.poll(end.saturating_duration_since(Instant::now())) {
            Some(message) => messages.push(message?),
            None => break,
        }
    }
    Ok(messages)
}

fn received(message: &BorrowedMessage<'_>) -> Result<Received> {
    let headers: Vec<_> = message
        .headers()
        .iter()
        .flat_map(|headers| headers.iter())
        .map(|header| (header.key, header.value.unwrap_or_default()))
        .collect();
    let id =
        headers.iter().find(|(name, _)| *name == MESSAGE_ID).ok_or("a message without an id")?;
    let id = String::from_utf8(id.1.to_vec())?;
    Ok(Received {
        context: carrier::extract(&Headers::new(&headers)),
        message: Message::new()
            .with_id(id.clone())
            .with_partition(message.partition().to_string())
            .with_position(KAFKA_OFFSET, message.offset()),
        body: message.payload().unwrap_or_default().to_vec(),
        delivered: 1, // Kafka does not say
        id,
    })
}
