//! Runs an example and reads what it exported.
#![allow(dead_code)] // which examples there are depends on the features

use serde_json::Value;
use std::collections::HashMap;
use std::env;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

/// The example, with nothing in its environment that would change what it does.
pub(crate) fn example(name: &str) -> Command {
    // This test is in target/<profile>/deps, the examples are next to that folder.
    let mut path: PathBuf = env::current_exe().expect("the test knows its own path");
    path.pop();
    path.pop();
    path.push("examples");
    path.push(format!("{name}{}", env::consts::EXE_SUFFIX));
    assert!(
        path.is_file(),
        "{} is missing: `cargo test` builds it, `cargo test --test examples` does not; \
         run `cargo build --examples` (with the same profile and features) first",
        path.display()
    );
    let mut command = Command::new(path);
    for (name, _) in env::vars_os() {
        if name.to_string_lossy().starts_with("OTEL_") {
            command.env_remove(name);
        }
    }
    command.stdin(Stdio::null());
    command
}

pub(crate) fn run(name: &str, flags: &str) -> Output {
    example(name).args(flags.split_whitespace()).output().expect("the example starts")
}

pub(crate) fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).expect("the example prints UTF-8")
}

/// The document that `--format json` prints.
pub(crate) struct Exported {
    spans: Vec<Value>,
    counters: Value,
    /// Where the span of each trace id and span id stands.
    index: HashMap<(String, String), usize>,
}

/// Runs the example, which must succeed, and checks what holds for all of them.
pub(crate) fn json(name: &str, flags: &str) -> Exported {
    let output = run(name, &format!("{flags} --format json"));
    assert!(output.status.success(), "{}: {}", output.status, text(&output.stderr));
    assert_eq!(text(&output.stderr), "");
    let mut document: Value = serde_json::from_slice(&output.stdout).expect("one JSON document");
    let Value::Array(spans) = document["spans"].take() else { panic!("no spans in {document}") };
    let ids = |span: &Value| (string(&span["trace_id"]), string(&span["span_id"]));
    let index = spans.iter().map(ids).zip(0..).collect();
    let exported = Exported { spans, counters: document["counters"].take(), index };
    exported.assert_well_formed();
    exported
}

impl Exported {
    pub(crate) fn spans(&self) -> &[Value] {
        &self.spans
    }

    /// The spans of this name, by start; there must be one.
    pub(crate) fn named(&self, name: &str) -> Vec<&Value> {
        let found: Vec<_> = self.spans.iter().filter(|span| span["name"] == name).collect();
        assert!(!found.is_empty(), "no span {name} among {:?}", self.names());
        found
    }

    /// The only span of this name.
    pub(crate) fn the(&self, name: &str) -> &Value {
        let found = self.named(name);
        assert_eq!(found.len(), 1, "{name} among {:?}", self.names());
        found[0]
    }

    fn names(&self) -> Vec<&str> {
        self.spans.iter().filter_map(|span| span["name"].as_str()).collect()
    }

    /// The span that a link leads to, looked up by its ids.
    pub(crate) fn target(&self, link: &Value) -> &Value {
        let ids = (string(&link["trace_id"]), string(&link["span_id"]));
        &self.spans[*self.index.get(&ids).unwrap_or_else(|| panic!("{link} leads nowhere"))]
    }

    pub(crate) fn parent(&self, span: &Value) -> Option<&Value> {
        let parent = span["parent_span_id"].as_str()?;
        let ids = (string(&span["trace_id"]), parent.to_owned());
        Some(&self.spans[*self.index.get(&ids).unwrap_or_else(|| panic!("{span} is an orphan"))])
    }

    pub(crate) fn counter(&self, name: &str) -> u64 {
        number(&self.counters, name)
    }

    /// Ids are ids, parents are there, links lead to the span whose name they give, and nothing was
    /// cut by the SDK.
    fn assert_well_formed(&self) {
        assert_eq!(self.index.len(), self.spans.len(), "ids are used once");
        for span in &self.spans {
            assert_eq!(string(&span["trace_id"]).len(), 32, "{span}");
            assert_eq!(string(&span["span_id"]).len(), 16, "{span}");
            for dropped in ["dropped_attributes", "dropped_events", "dropped_links"] {
                assert_eq!(number(span, dropped), 0, "{dropped} of {span}");
            }
            self.parent(span);
            for link in links(span) {
                assert_eq!(self.target(link)["name"], link["target"], "{link}");
                assert_eq!(link["flags"], 1, "sampled: {link}");
            }
        }
    }
}

pub(crate) fn links(span: &Value) -> &[Value] {
    span["links"].as_array().expect("links are an array")
}

/// The events of this name.
pub(crate) fn events<'a>(span: &'a Value, name: &str) -> Vec<&'a Value> {
    let events = span["events"].as_array().expect("events are an array");
    events.iter().filter(|event| event["name"] == name).collect()
}

/// An integer attribute of a span, link or event.
pub(crate) fn int(of: &Value, attribute: &str) -> u64 {
    number(&of["attributes"], attribute)
}

fn number(object: &Value, key: &str) -> u64 {
    object[key].as_u64().unwrap_or_else(|| panic!("{key} is no count in {object}"))
}

fn string(value: &Value) -> String {
    value.as_str().unwrap_or_else(|| panic!("{value} is no string")).to_owned()
}
