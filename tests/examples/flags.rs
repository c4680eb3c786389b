//! What all examples have in common: how they answer to flags and to closed pipes.

use super::exported::{example, run, text};
use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::process::Stdio;

const EXAMPLES: &[&str] = &[
    "etl",
    "fan_in",
    "message_queue",
    "retry",
    "saga",
    #[cfg(feature = "processor")]
    "batch_service",
    #[cfg(feature = "processor")]
    "order_processing",
];

#[test]
fn tree_shows_links() {
    for name in EXAMPLES {
        let output = run(name, "");
        assert!(output.status.success(), "{name}: {}", text(&output.stderr));
        assert_eq!(text(&output.stderr), "", "{name}");
        let tree = text(&output.stdout);
        assert!(tree.starts_with("trace "), "{name}: {tree}");
        let arrows: Vec<_> =
            tree.lines().filter(|line| line.contains(" ↗ ") && line.contains(" → ")).collect();
        assert!(!arrows.is_empty(), "{name}: {tree}");
        // Each arrow names a trace. It may be one of those not shown.
        let headed = |arrow: &&str| {
            let trace = arrow.split("(trace ").nth(1).and_then(|rest| rest.get(..8));
            trace.is_some_and(|trace| tree.contains(&format!("trace {trace}\n")))
        };
        assert!(arrows.iter().any(headed), "{name}: no arrow leads to a trace in {tree}");
    }
}

#[test]
fn output_fits_100_columns() {
    for name in EXAMPLES {
        for flags in ["", "--limit 0", "--help"] {
            let output = run(name, flags);
            let wide = text(&output.stdout).lines().find(|line| line.chars().count() > 100);
            assert_eq!(wide, None, "{name} {flags}");
        }
    }
}

#[test]
fn cut_tree_says_so() {
    // Of a saga's spans and links no two have one name.
    for name in EXAMPLES.iter().filter(|name| **name != "saga") {
        let shown = |flags: &str| {
            let output = run(name, flags);
            let lines = text(&output.stdout).lines();
            let (hints, lines): (Vec<_>, Vec<_>) =
                lines.partition(|line| line.contains("(--limit 0 shows all)"));
            (lines.len(), hints.len())
        };
        let (all, none) = shown("--limit 0");
        let (some, hidden) = shown("--limit 1");
        assert!(some < all && hidden > 0, "{name}: {some} of {all} lines, {hidden} more say so");
        assert_eq!(none, 0, "{name}");
    }
}

#[test]
fn bad_flag_exits_with_2() {
    for name in EXAMPLES {
        for (flags, said) in
            [("--format xml", "text, json"), ("--limit some", "--limit"), ("--bogus", "--bogus")]
        {
            let output = run(name, flags);
            let message = text(&output.stderr);
            assert_eq!(output.status.code(), Some(2), "{name} {flags}: {message}");
            assert!(message.contains(said), "{name} {flags}: {message}");
            assert_eq!(text(&output.stdout), "", "{name} {flags}");
        }
    }
}

#[test]
fn broken_pipe_is_no_error() {
    for name in EXAMPLES {
        let mut child = example(name)
            .arg("--format=json")
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the example starts");
        let mut first = String::new();
        let mut reader = BufReader::new(child.stdout.take().expect("stdout is piped"));
        reader.read_line(&mut first).expect("there is a first line");
        assert_eq!(first, "{\n", "{name}");
        drop(reader);
        let output = child.wait_with_output().expect("the example ends");
        assert!(output.status.success(), "{name}: {}: {}", output.status, text(&output.stderr));
    }
}

#[test]
fn unreachable_endpoint_fails() {
    // A port that was free a moment ago, and without a listener.
    let closed = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
    let endpoint = format!("http://{}", closed.expect("a free port"));
    for name in EXAMPLES {
        let output = example(name)
            .env("OTEL_EXPORTER_OTLP_ENDPOINT", &endpoint)
            .env("NO_PROXY", "127.0.0.1")
            .output()
            .expect("the example starts");
        let message = text(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{name}: {message}");
        let said =
            format!("{name}: cannot export spans to OTEL_EXPORTER_OTLP_ENDPOINT={endpoint}: ");
        assert!(message.contains(&said), "{name}: {message}");
    }
}
