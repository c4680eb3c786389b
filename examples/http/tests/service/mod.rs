//! The service under load, with a collector of our own, and its end.

mod collector;

use super::{program, text};
use collector::Collector;
use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::thread;

const CLIENTS: u64 = 8;
const METRICS: &str = "GET /metrics HTTP/1.1\r\nhost: test\r\n\r\n";

/// A running service, and where it is.
struct Service {
    process: Child,
    address: String,
    database: PathBuf,
}

impl Service {
    fn start(name: &str, collector: &str, flags: &str) -> Self {
        let file = format!("batchlink-http-{name}-{}.db", std::process::id());
        let database = std::env::temp_dir().join(file);
        let mut process = program(env!("CARGO_BIN_EXE_service"), "--listen 127.0.0.1:0")
            .args(flags.split_whitespace())
            .arg("--database")
            .arg(&database)
            .env("OTEL_EXPORTER_OTLP_ENDPOINT", collector)
            .env("OTEL_BSP_MAX_QUEUE_SIZE", "100000")
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("it starts");
        let mut log = BufReader::new(process.stderr.take().expect("stderr is piped"));
        let mut line = String::new();
        let address = loop {
            line.clear();
            assert_ne!(log.read_line(&mut line).expect("a line"), 0, "it says where it serves");
            if let Some((_, rest)) = line.split_once("http://") {
                break rest.split('/').next().expect("an address").to_owned();
            }
        };
        thread::spawn(move || std::io::copy(&mut log, &mut std::io::sink()));
        Self { process, address, database }
    }

    /// SIGTERM.
    fn terminate(&self) {
        let id = self.process.id().to_string();
        assert!(Command::new("kill").args(["-TERM", &id]).status().expect("kill").success());
    }

    /// Waits for its end and returns its status and last counters.
    fn end(self) -> (ExitStatus, String) {
        let Output { status, stdout, .. } = self.process.wait_with_output().expect("it ends");
        for suffix in ["", "-wal", "-shm"] {
            let _ = std::fs::remove_file(format!("{}{suffix}", self.database.display()));
        }
        (status, text(&stdout).to_owned())
    }

    fn connect(&self) -> BufReader<TcpStream> {
        BufReader::new(TcpStream::connect(&self.address).expect("it listens"))
    }
}

const CONTEXTS: &str = "batchlink_contexts_total";
const ITEMS: &str = "batchlink_items_total";
const SPANS: &str = "otel_sdk_exporter_span_exported_total";
const LINKS: &str = "exporter_link_exported_total";

/// Returns the sum of the samples of a metric that have this label.
fn sum(scrape: &str, metric: &str, label: &str) -> u64 {
    let samples = scrape.lines().filter_map(|line| line.strip_prefix(metric)?.strip_prefix('{'));
    let values = samples.filter_map(|sample| {
        let (labels, value) = sample.rsplit_once("} ").expect("labels and a value");
        labels.contains(label).then(|| value.parse::<u64>().expect("a count"))
    });
    values.sum()
}

/// Returns how many were exported, and how many were not.
fn exports(scrape: &str, metric: &str) -> (u64, u64) {
    let failed = sum(scrape, metric, "error_type=");
    (sum(scrape, metric, "") - failed, failed)
}

/// Sends a request and returns the status and body of the response; `None` if there is none.
fn exchange(stream: &mut BufReader<TcpStream>, request: &str) -> Option<(u16, String)> {
    stream.get_mut().write_all(request.as_bytes()).ok()?;
    let (mut line, mut status, mut length) = (String::new(), 0, 0);
    loop {
        line.clear();
        if stream.read_line(&mut line).ok()? == 0 {
            return None;
        }
        let lower = line.trim().to_ascii_lowercase();
        if let Some(rest) = lower.strip_prefix("http/1.1 ") {
            status = rest.split(' ').next()?.parse().ok()?;
        } else if let Some(rest) = lower.strip_prefix("content-length: ") {
            length = rest.parse().ok()?;
        } else if lower.is_empty() {
            let mut body = vec![0; length];
            stream.read_exact(&mut body).ok()?;
            return Some((status, String::from_utf8(body).ok()?));
        }
    }
}

/// A request in the trace of this number.
fn post(number: u64) -> String {
    let body = format!(r#"{{"name": "item-{number}", "quantity": 1}}"#);
    format!(
        "POST /items HTTP/1.1\r\nhost: test\r\ncontent-type: application/json\r\n\
         traceparent: 00-{number:032x}-00f067aa0ba902b7-01\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    )
}

/// Sends requests one by one until the service ends, and returns which were answered.
fn send(address: &str, client: u64, after: impl Fn(u64)) -> Vec<u64> {
    let Ok(stream) = TcpStream::connect(address) else { return Vec::new() };
    let mut stream = BufReader::new(stream);
    let mut answered = Vec::new();
    for n in 1.. {
        let number = n * CLIENTS + client;
        let Some((status, body)) = exchange(&mut stream, &post(number)) else { break };
        assert_eq!(status, 201, "{body}");
        answered.push(number);
        after(n);
    }
    answered
}

/// SIGTERM in the middle of requests: what was answered is in the database and linked, each
/// request once, and everything that was submitted has been exported.
#[test]
fn terminated_service_delivers() {
    let collector = Collector::start();
    let service = Service::start("terminated", &collector.url(), "");
    let answered: Vec<u64> = thread::scope(|scope| {
        let clients: Vec<_> = (0..CLIENTS)
            .map(|client| {
                let service = &service;
                let after = move |n| {
                    if client == 0 && n == 50 {
                        service.terminate();
                    }
                };
                scope.spawn(move || send(&service.address, client, after))
            })
            .collect();
        clients.into_iter().flat_map(|client| client.join().expect("no panic")).collect()
    });
    let (status, metrics) = service.end();
    assert!(status.success(), "{status}");
    assert!(answered.len() >= 50);

    let spans = collector.spans();
    let requests: BTreeSet<_> = (spans.iter())
        .filter(|span| span.name == "POST /items")
        .map(|span| (span.trace_id.clone(), span.span_id.clone()))
        .collect();
    let links: Vec<_> = (spans.iter())
        .filter(|span| span.name == "insert_batch")
        .flat_map(|span| &span.links)
        .map(|link| (link.trace_id.clone(), link.span_id.clone()))
        .collect();
    assert_eq!(links.len(), requests.len(), "each request is linked once");
    assert_eq!(links.into_iter().collect::<BTreeSet<_>>(), requests);
    for number in &answered {
        let trace = u128::from(*number).to_be_bytes().to_vec();
        assert!(requests.iter().any(|(of, _)| *of == trace), "request {number} is exported");
    }
    let rows = requests.len() as u64;
    for (metric, label) in [(CONTEXTS, ""), (CONTEXTS, "\"linked\""), (ITEMS, "\"succeeded\"")] {
        assert_eq!(sum(&metrics, metric, label), rows, "{metric} {label}\n{metrics}");
    }
    assert_eq!(exports(&metrics, LINKS), (rows, 0), "{metrics}");
    assert_eq!(exports(&metrics, SPANS), (spans.len() as u64, 0), "{metrics}");
    assert_eq!(sum(&metrics, "batchlink_queue_size", ""), 0, "{metrics}");
}

/// A request whose client has left waits for its batch when the service ends. It is committed,
/// linked and exported all the same.
#[test]
fn pending_row_is_delivered() {
    let collector = Collector::start();
    let service = Service::start("pending", &collector.url(), "--max-delay-ms 3600000");
    let mut leaver = service.connect();
    leaver.get_mut().write_all(post(1).as_bytes()).expect("it reads");
    let mut stream = service.connect();
    loop {
        let (_, metrics) = exchange(&mut stream, METRICS).expect("an answer");
        assert!(metrics.contains("batchlink_queue_size{"), "{metrics}");
        if sum(&metrics, "batchlink_queue_size", "") == 1 {
            break;
        }
    }
    drop((leaver, stream));
    service.terminate();
    let (status, metrics) = service.end();
    assert!(status.success(), "{status}");
    assert_eq!(sum(&metrics, ITEMS, "\"succeeded\""), 1, "{metrics}");
    let spans = collector.spans();
    let batch = spans.iter().find(|span| span.name == "insert_batch").expect("the batch span");
    assert_eq!(batch.links[0].trace_id, 1_u128.to_be_bytes());
}

/// Without a collector every request is answered, and the loss is counted.
#[test]
fn missing_collector_fails_no_request() {
    let nowhere = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("http://{}", nowhere.local_addr().expect("bound"));
    drop(nowhere);
    let service = Service::start("alone", &url, "");
    let mut stream = service.connect();
    for number in 1..=20 {
        let answer = exchange(&mut stream, &post(number)).expect("an answer");
        assert_eq!(answer, (201, format!(r#"{{"id":{number}}}"#)));
    }
    let taken = exchange(&mut stream, &post(20)).expect("an answer");
    assert_eq!(taken.0, 409, "{}", taken.1);
    let (status, metrics) = exchange(&mut stream, METRICS).expect("an answer");
    assert_eq!((status, sum(&metrics, CONTEXTS, "")), (200, 21), "{metrics}");
    assert_eq!(sum(&metrics, ITEMS, "\"failed\""), 1, "{metrics}");
    assert!(metrics.contains("service_name=\"batchlink-http\""), "{metrics}");
    drop(stream);
    service.terminate();
    let (status, metrics) = service.end();
    assert!(status.code().is_some(), "it ends by itself: {status}");
    assert_eq!(sum(&metrics, CONTEXTS, "\"linked\""), 21, "{metrics}");
    assert_eq!(exports(&metrics, LINKS), (0, 21), "{metrics}");
}

#[test]
fn bad_address_exits_with_2() {
    let output = program(env!("CARGO_BIN_EXE_service"), "--listen nowhere").output().expect("runs");
    assert_eq!(output.status.code(), Some(2), "{}", text(&output.stderr));
    assert!(text(&output.stderr).contains("--listen"));
}
