//! Responses match the stored rows, and batches link the requests that they served.

use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::process::{Command, Output, Stdio};

#[cfg(unix)]
mod service;

fn example(flags: &str) -> Command {
    program(env!("CARGO_BIN_EXE_demo"), flags)
}

fn program(path: &str, flags: &str) -> Command {
    let mut command = Command::new(path);
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("OTEL_") {
            command.env_remove(name);
        }
    }
    command.args(flags.split_whitespace()).stdin(Stdio::null());
    command
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).expect("the example prints UTF-8")
}

fn document(output: &Output) -> Value {
    assert!(output.status.success(), "{}: {}", output.status, text(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("one JSON document")
}

fn array(value: &Value) -> &[Value] {
    value.as_array().expect("an array")
}

fn int(span: &Value, attribute: &str) -> u64 {
    span["attributes"][attribute].as_u64().unwrap_or_else(|| panic!("no {attribute} on {span}"))
}

/// Trace id and span id.
fn ids<'a>(of: &'a Value, span_id: &str) -> (&'a str, &'a str) {
    (of["trace_id"].as_str().expect("a trace id"), of[span_id].as_str().expect("a span id"))
}

fn named<'a>(document: &'a Value, name: &str) -> Vec<&'a Value> {
    array(&document["spans"]).iter().filter(|span| span["name"] == name).collect()
}

/// Follows each response to its row: caller → request by parent, request → batch by link, batch →
/// insert.
fn assert_stored(document: &Value, requests: u64, batch_size: u64) {
    let index: BTreeMap<_, _> =
        array(&document["spans"]).iter().map(|span| (ids(span, "span_id"), span)).collect();
    let servers = named(document, "POST /items");
    assert_eq!(servers.len() as u64, requests);
    for server in &servers {
        assert_eq!(server["kind"], "server");
        let caller = index[&ids(server, "parent_span_id")];
        assert_eq!((&caller["name"], &caller["kind"]), (&"POST".into(), &"client".into()));
        assert_eq!(caller["parent_span_id"], Value::Null);
        let status = int(server, "http.response.status_code");
        assert!(status == 201 || status == 409, "{status}");
        assert_eq!(int(caller, "http.response.status_code"), status);
        assert_eq!(caller["status"], if status == 201 { "unset" } else { "error" });
        assert_eq!(server["status"], "unset", "a conflict is the caller's mistake");
    }
    let refused = |server: &Value| int(server, "http.response.status_code") == 409;

    let batches = named(document, "insert_batch");
    let inserts = named(document, "INSERT items");
    assert_eq!(batches.len(), inserts.len());
    let mut linked = BTreeSet::new();
    for (batch, insert) in batches.iter().zip(inserts) {
        assert_eq!(batch["parent_span_id"], Value::Null);
        assert_eq!(ids(insert, "parent_span_id"), ids(batch, "span_id"));
        assert_eq!(int(insert, "db.operation.batch.size"), int(batch, "batch.size"));
        let links = array(&batch["links"]);
        assert_eq!(links.len() as u64, int(batch, "batch.size"));
        assert!(links.len() as u64 <= batch_size);
        let mut failed = 0;
        for link in links {
            assert_eq!(
                (&link["type"], &link["target"]),
                (&"batch_item".into(), &"POST /items".into())
            );
            assert!(linked.insert(ids(link, "span_id")), "a request is linked once");
            failed += u64::from(refused(index[&ids(link, "span_id")]));
        }
        assert_eq!(int(batch, "batch.failed"), failed);
        assert_eq!(batch["status"], if failed > 0 { "error" } else { "unset" });
    }
    assert_eq!(linked, servers.iter().map(|server| ids(server, "span_id")).collect());

    let count = |name: &str| document["counters"][name].as_u64().expect("a count");
    let conflicts = servers.iter().filter(|server| refused(server)).count() as u64;
    assert_eq!(conflicts, requests / 10);
    assert_eq!(count("requests"), requests);
    assert_eq!(count("rows refused"), conflicts);
    assert_eq!(count("rows committed"), requests - conflicts);
    assert_eq!(count("batches"), batches.len() as u64);
}

#[test]
fn rows_are_linked_to_requests() {
    for (flags, requests, batch_size) in [
        ("", 40, 16),
        ("--requests 300 --clients 32 --batch-size 32 --max-delay-ms 20", 300, 32),
        ("--requests 1", 1, 16),
        ("--requests 30 --batch-size 1", 30, 1),
    ] {
        println!("{flags}");
        let output = example(&format!("{flags} --format json")).output().expect("it starts");
        assert_stored(&document(&output), requests, batch_size);
    }
}

#[test]
fn given_database_is_kept() {
    let path = std::env::temp_dir().join(format!("batchlink-http-test-{}.db", std::process::id()));
    let run = || {
        let output = example("--requests 20 --format json")
            .arg("--database")
            .arg(&path)
            .output()
            .expect("it starts");
        document(&output)["counters"]["rows committed"].as_u64()
    };
    let counts = (run(), run());
    let kept = std::fs::metadata(&path).map(|file| file.len());
    for suffix in ["", "-wal", "-shm"] {
        let _ = std::fs::remove_file(format!("{}{suffix}", path.display()));
    }
    assert!(kept.expect("the database is there") > 0);
    assert_eq!(counts, (Some(18), Some(0)), "the second time, all names are taken");
}

#[test]
fn bad_flags_exit_with_2() {
    for (flags, said) in [
        ("--requests 0", "--requests"),
        ("--batch-size 129", "--batch-size"),
        ("--format xml", "text, json"),
    ] {
        let output = example(flags).output().expect("it starts");
        assert_eq!(output.status.code(), Some(2), "{flags}: {}", text(&output.stderr));
        assert!(text(&output.stderr).contains(said), "{flags}");
    }
}
