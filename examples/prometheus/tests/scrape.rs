//! A scrape says what `stats()` says.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};

/// The example, which is killed at the end.
struct Example(Child);

impl Drop for Example {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Returns the body of an HTTP response to a GET of `/metrics`.
fn get(address: &str) -> String {
    let mut stream = TcpStream::connect(address).expect("the example listens");
    let request = format!("GET /metrics HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).expect("sent");
    let mut response = String::new();
    stream.read_to_string(&mut response).expect("UTF-8");
    let (head, body) = response.split_once("\r\n\r\n").expect("a head and a body");
    assert!(head.starts_with("HTTP/1.1 200 OK"), "{head}");
    assert!(head.contains("text/plain; version=0.0.4"), "{head}");
    body.to_owned()
}

/// Returns the sum of the samples of a metric whose labels include these.
fn sum(scrape: &str, metric: &str, labels: &[&str]) -> u64 {
    let samples = scrape.lines().filter_map(|line| line.strip_prefix(metric)?.strip_prefix('{'));
    let with_labels = samples.filter(|sample| labels.iter().all(|label| sample.contains(label)));
    let values = with_labels.map(|sample| {
        let (_, value) = sample.rsplit_once(' ').expect("a value");
        value.parse::<f64>().expect("a number") as u64
    });
    values.sum()
}

#[test]
fn scrape_equals_stats() {
    let mut child = Command::new(env!("CARGO_BIN_EXE_batchlink-prometheus-example"))
        .args(["--requests", "2000", "--listen", "127.0.0.1:0"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .expect("the example starts");
    let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines();
    let mut line = || lines.next().expect("a line").expect("UTF-8");
    let _example = Example(child);

    let url = line();
    let address = url.strip_prefix("http://").and_then(|url| url.strip_suffix("/metrics"));
    let mut stats = BTreeMap::new();
    for _ in 0..9 {
        let line = line();
        let (name, count) = line.split_once(' ').expect("a name and a count");
        stats.insert(name.to_owned(), count.parse::<u64>().expect("a count"));
    }
    let scrape = get(address.expect("a URL"));
    let of = |metric: &str, name: &str, more: &[&str]| {
        let name = format!("batchlink_name=\"{name}\"");
        sum(&scrape, metric, &[&[name.as_str()], more].concat())
    };
    let (inserts, mails) = ("insert_batch", "send_mails");

    for outcome in ["linked", "duplicate", "truncated", "unsampled"] {
        let label = format!("batchlink_outcome=\"{outcome}\"");
        let count = of("batchlink_contexts_total", inserts, &[&label]);
        assert_eq!(count, stats[&format!("inserts.{outcome}")], "{outcome}\n{scrape}");
        assert!(count > 0, "{outcome}");
    }
    let full = of("batchlink_contexts_total", inserts, &["error_type=\"queue_full\""]);
    assert_eq!(full, stats["inserts.queue_full"]);
    assert_eq!(of("batchlink_contexts_total", inserts, &[]), 2500);
    assert_eq!(of("batchlink_queue_size", inserts, &[]), 0);
    for (name, key) in [(inserts, "inserts.batches"), (mails, "mails.batches")] {
        assert_eq!(of("batchlink_batches_total", name, &[]), stats[key]);
        assert_eq!(of("batchlink_batch_size_count", name, &[]), stats[key]);
        assert_eq!(of("batchlink_batch_wait_seconds_count", name, &[]), stats[key]);
        assert_eq!(of("batchlink_batch_duration_seconds_count", name, &[]), stats[key]);
    }
    for outcome in ["succeeded", "failed"] {
        let label = format!("batchlink_outcome=\"{outcome}\"");
        let count = of("batchlink_items_total", mails, &[&label]);
        assert_eq!(count, stats[&format!("mails.{outcome}")], "{outcome}");
        assert!(count > 0, "{outcome}");
    }
    assert_eq!(of("batchlink_items_total", inserts, &[]), 0);
}
