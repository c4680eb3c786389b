//! `examples/worker_pool` keeps its word: what it prints adds up, and a bad flag is refused.

#[path = "common/example.rs"]
mod example;

use serde_json::Value;
use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Command, Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

const BATCH_KEYS: [&str; 8] =
    ["batch", "trigger", "received", "linked", "duplicates", "truncated", "invalid", "unsampled"];
const SUMMARY_KEYS: [&str; 17] = [
    "summary",
    "pushed",
    "accepted",
    "rejected_full",
    "rejected_closed",
    "received",
    "linked",
    "duplicates",
    "truncated",
    "invalid",
    "unsampled",
    "pending",
    "batches",
    "size_flushes",
    "timeout_flushes",
    "exported_spans",
    "exported_links",
];

fn example() -> Command {
    example::example("worker_pool")
}

fn run(flags: &str) -> Output {
    example().args(flags.split_whitespace()).output().expect("the example starts")
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).expect("the example prints UTF-8")
}

/// What `--format json` printed.
struct Printed {
    batches: Vec<Value>,
    summary: Value,
}

fn number(object: &Value, key: &str) -> u64 {
    object[key].as_u64().unwrap_or_else(|| panic!("{key} is no number in {object}"))
}

impl Printed {
    fn parse(output: &Output) -> Self {
        assert!(output.status.success(), "{}: {}", output.status, text(&output.stderr));
        assert_eq!(text(&output.stderr), "");
        let parse =
            |line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
        let mut batches: Vec<Value> = text(&output.stdout).lines().map(parse).collect();
        let summary = batches.pop().expect("there is a last line");
        Self { batches, summary }
    }

    fn total(&self, key: &str) -> u64 {
        number(&self.summary, key)
    }

    fn sum(&self, key: &str) -> u64 {
        self.batches.iter().map(|batch| number(batch, key)).sum()
    }

    fn triggered_by(&self, trigger: &str) -> u64 {
        self.batches.iter().filter(|batch| batch["trigger"] == trigger).count() as u64
    }

    /// All equations, for a run with these bounds.
    fn assert_adds_up(&self, contexts: u64, batch_size: u64, max_links: u64) {
        let keys = |object: &Value| -> BTreeSet<String> {
            object.as_object().expect("an object in each line").keys().cloned().collect()
        };
        assert_eq!(keys(&self.summary), SUMMARY_KEYS.map(String::from).into());
        assert_eq!(self.summary["summary"], true);
        for (index, batch) in self.batches.iter().enumerate() {
            assert_eq!(keys(batch), BATCH_KEYS.map(String::from).into());
            assert_eq!(number(batch, "batch"), index as u64 + 1);
            let parts = ["linked", "duplicates", "truncated", "invalid", "unsampled"];
            assert_eq!(
                number(batch, "received"),
                parts.map(|part| number(batch, part)).iter().sum::<u64>(),
                "{batch}"
            );
            assert!(number(batch, "received") <= batch_size, "{batch}");
            assert!(number(batch, "linked") <= max_links, "{batch}");
        }

        assert_eq!(self.total("pushed"), contexts);
        let answers = ["accepted", "rejected_full", "rejected_closed", "invalid"];
        assert_eq!(
            self.total("pushed"),
            answers.map(|answer| self.total(answer)).iter().sum::<u64>()
        );
        assert_eq!(self.total("accepted"), self.total("received") + self.total("pending"));
        assert_eq!(self.total("pending"), 0);
        for key in ["received", "linked", "duplicates", "truncated", "unsampled"] {
            assert_eq!(self.total(key), self.sum(key), "{key}");
        }
        assert_eq!(self.total("batches"), self.batches.len() as u64);
        assert_eq!(self.total("size_flushes"), self.triggered_by("size_limit"));
        assert_eq!(self.total("timeout_flushes"), self.triggered_by("timeout"));
        assert_eq!(self.total("exported_spans"), self.total("batches"));
        assert_eq!(self.total("exported_links"), self.total("linked"));
    }
}

fn json(flags: &str) -> Printed {
    Printed::parse(&run(&format!("{flags} --format json")))
}

#[test]
fn every_context_is_accounted_for() {
    let printed = json(
        "--threads 3 --contexts 6000 --batch-size 64 --max-links 20 --duplicates 0.5 \
         --max-delay-ms 100 --pause-ms 101 --pause-every 1500",
    );
    printed.assert_adds_up(6000, 64, 20);
    for key in ["size_flushes", "linked", "duplicates", "truncated", "invalid", "unsampled"] {
        assert!(printed.total(key) > 0, "{key} does not occur");
    }
    // One for the late request in each of four pauses, at least.
    assert!(printed.total("timeout_flushes") >= 4);
    assert_eq!(printed.total("rejected_closed"), 0);
}

/// And lose nothing.
#[test]
fn defaults_show_both_triggers() {
    let printed = json("--threads 8 --contexts 20000 --duplicates 0.5");
    printed.assert_adds_up(20_000, 128, 128);
    assert!(printed.total("size_flushes") > 0);
    assert!(printed.total("timeout_flushes") > 0);
    assert_eq!(printed.total("rejected_full"), 0, "a rush fits into the queue");
}

#[test]
fn duplicates_share_is_kept() {
    let none = json("--contexts 2000 --duplicates 0 --max-delay-ms 10");
    none.assert_adds_up(2000, 128, 128);
    assert_eq!(none.total("duplicates"), 0);
    // All but the first context of each worker, and those of late requests, are repetitions; a
    // batch links what it sees for the first time.
    let all =
        json("--contexts 2000 --duplicates 1 --max-delay-ms 10 --threads 2 --queue-capacity 4096");
    all.assert_adds_up(2000, 128, 128);
    assert!(all.total("linked") <= 3 * all.total("batches"));
}

#[test]
fn links_beyond_the_sdk_default() {
    let printed = json(
        "--contexts 4000 --batch-size 1000 --max-links 1000 --duplicates 0 --max-delay-ms 100",
    );
    printed.assert_adds_up(4000, 1000, 1000);
    assert!(printed.batches.iter().any(|batch| number(batch, "linked") > 128));
}

#[test]
fn corner_cases_add_up() {
    let quick = "--max-delay-ms 10 --format json";
    for (flags, contexts, batch_size) in [
        ("--contexts 1", 1, 128),
        ("--contexts 2 --threads 8", 2, 128),
        ("--contexts 300 --batch-size 1", 300, 1),
        ("--contexts 129 --threads 1 --duplicates 0", 129, 128),
        ("--contexts 3000 --pause-every 0", 3000, 128),
        ("--contexts 50 --pause-every 7 --pause-ms 0", 50, 128),
        ("--contexts 3000 --threads 40 --shards 3", 3000, 128),
    ] {
        println!("{flags}");
        Printed::parse(&run(&format!("{flags} {quick}"))).assert_adds_up(contexts, batch_size, 128);
    }
    assert_eq!(json("--contexts 1 --max-delay-ms 10").total("timeout_flushes"), 1);
    json("--contexts 3000 --max-delay-ms 0").assert_adds_up(3000, 128, 128);
}

#[test]
fn a_full_queue_is_counted() {
    let printed =
        json("--contexts 60000 --batch-size 16 --queue-capacity 16 --shards 1 --max-delay-ms 10");
    printed.assert_adds_up(60_000, 16, 128);
    assert!(printed.total("rejected_full") > 0);
}

#[test]
fn text_is_a_table() {
    let output = run("--contexts 3000 --threads 2 --max-delay-ms 20");
    assert!(output.status.success(), "{}", text(&output.stderr));
    let printed = text(&output.stdout);
    let count = |label: &str| -> u64 {
        let line = printed.lines().find(|line| line.trim_start().starts_with(label));
        let line = line.unwrap_or_else(|| panic!("no line {label:?} in:\n{printed}"));
        let digits: String = line.rsplit(' ').next().unwrap_or_default().replace(',', "");
        digits.parse().unwrap_or_else(|_| panic!("no number in {line:?}"))
    };
    assert_eq!(count("contexts pushed"), 3000);
    assert_eq!(count("links on them"), count("linked"));
    assert_eq!(count("batch spans exported"), count("batches"));
    assert!(count("with 128 contexts") > 0);
    assert!(count("after 20 ms") > 0);
    assert!(printed.contains("├─ trace "), "{printed}");
    let wide = printed.lines().find(|line| line.chars().count() > 100);
    assert_eq!(wide, None);
    assert!(printed.contains("Every context is accounted for: of 3,000 pushed"), "{printed}");
}

#[test]
fn pipe_gets_no_progress_bar() {
    for format in ["text", "json"] {
        let output = run(&format!("--contexts 3000 --max-delay-ms 20 --format {format}"));
        assert!(output.status.success());
        assert_eq!(text(&output.stderr), "");
        let printed = text(&output.stdout);
        assert!(!printed.contains(['\r', '\u{1b}', '█', '░']), "{printed:?}");
    }
}

#[test]
fn bad_flags_exit_with_2() {
    for (flags, named, said) in [
        ("--threads 0", "--threads", "1..=1024"),
        ("--threads many", "--threads", "invalid digit"),
        ("--contexts 0", "--contexts", "not in 1.."),
        ("--batch-size 0", "--batch-size", "1 to 1048576"),
        ("--batch-size -5", "--batch-size", "invalid digit"),
        ("--max-delay-ms 1.5", "--max-delay-ms", "invalid digit"),
        ("--max-links 0", "--max-links", "1 to 1048576"),
        ("--queue-capacity 5", "--queue-capacity", "--batch-size = 128 to"),
        ("--shards 0", "--shards", "1 to 128"),
        ("--duplicates 1.5", "--duplicates", "from 0 to 1"),
        ("--duplicates -0.1", "--duplicates", "from 0 to 1"),
        ("--duplicates nan", "--duplicates", "from 0 to 1"),
        ("--pause-every x", "--pause-every", "invalid digit"),
        ("--pause-ms -1", "--pause-ms", "invalid digit"),
        ("--format xml", "--format", "text, json"),
        ("--bogus", "--bogus", "unexpected argument"),
    ] {
        let output = run(flags);
        let message = text(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{flags}: {message}");
        assert!(message.contains(named) && message.contains(said), "{flags}: {message}");
        assert_eq!(text(&output.stdout), "", "{flags}");
    }
}

#[test]
fn closed_pipe_is_no_error() {
    let mut child = example()
        .args(["--contexts", "20000", "--batch-size", "1", "--format", "json"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the example starts");
    let mut first = String::new();
    let mut reader = BufReader::new(child.stdout.take().expect("stdout is piped"));
    reader.read_line(&mut first).expect("there is a first line");
    assert!(first.starts_with(r#"{"batch":1,"trigger":"size_limit","received":1,"#), "{first}");
    drop(reader);
    let output = child.wait_with_output().expect("the example ends");
    assert!(output.status.success(), "{}", output.status);
    assert_eq!(text(&output.stderr), "");
}

/// Answers every request with this status; returns its address and the number of requests.
fn receiver(status: &'static str) -> (String, Arc<AtomicU64>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = format!("http://{}", listener.local_addr().expect("it has an address"));
    let requests = Arc::new(AtomicU64::new(0));
    let counter = Arc::clone(&requests);
    thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let counter = Arc::clone(&counter);
            thread::spawn(move || while answer(&stream, status, &counter).is_some() {});
        }
    });
    (address, requests)
}

fn answer(mut stream: &TcpStream, status: &str, requests: &AtomicU64) -> Option<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).ok()?;
        head.push(byte[0]);
    }
    let head = text(&head).to_ascii_lowercase();
    assert!(head.starts_with("post /v1/traces "), "{head}");
    let length =
        head.lines().find_map(|line| line.strip_prefix("content-length:"))?.trim().parse().ok()?;
    let mut body = vec![0; length];
    stream.read_exact(&mut body).ok()?;
    requests.fetch_add(1, Ordering::Relaxed);
    stream.write_all(format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\n\r\n").as_bytes()).ok()
}

#[test]
fn otlp_exports_every_batch_span() {
    let (address, requests) = receiver("200 OK");
    let output = example()
        .args("--contexts 5000 --batch-size 2 --max-delay-ms 20 --format json".split(' '))
        .env("OTEL_EXPORTER_OTLP_ENDPOINT", address)
        .output()
        .expect("the example starts");
    let printed = Printed::parse(&output);
    printed.assert_adds_up(5000, 2, 128);
    assert!(printed.total("exported_spans") > 2048, "more than the SDK's queue holds");
    assert!(requests.load(Ordering::Relaxed) > 2);
}

#[test]
fn failing_endpoint_is_an_error() {
    // A port that was free a moment ago, on which nothing listens.
    let closed = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
    let closed = format!("http://{}", closed.expect("a free port"));
    let (refusing, _) = receiver("400 Bad Request");
    for (endpoint, said) in
        [(closed.as_str(), "cannot export"), (&refusing, "400"), ("nonsense", "invalid endpoint")]
    {
        let output =
            example().env("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint).output().expect("it starts");
        let message = text(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{endpoint}: {message}");
        assert!(message.contains(&format!("OTEL_EXPORTER_OTLP_ENDPOINT={endpoint}")), "{message}");
        assert!(message.contains(said), "{message}");
        assert_eq!(text(&output.stdout), "", "{endpoint}");
    }
}
