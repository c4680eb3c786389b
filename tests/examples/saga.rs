//! Every completed step is undone, newest first, by a span that leads to it.

use super::exported::{Exported, events, int, json, links, run, text};
use serde_json::Value;

const STEPS: [&str; 4] = ["reserve_stock", "charge_card", "book_courier", "ship_order"];

fn assert_undone(exported: &Exported, completed: &[&str], fails: Option<&str>) {
    let place = exported.the("place_order");
    let reason = place["status_description"].as_str().expect("it failed").to_owned();
    let undone: Vec<&Value> = exported
        .spans()
        .iter()
        .filter(|span| text_of(&span["name"]).starts_with("compensate "))
        .collect();
    let names: Vec<_> =
        undone.iter().map(|span| &text_of(&span["name"])["compensate ".len()..]).collect();
    let newest_first: Vec<_> = completed.iter().rev().copied().collect();
    assert_eq!(names, newest_first);

    let cancel = exported.the("cancel_order");
    assert_ne!(cancel["trace_id"], place["trace_id"]);
    for (span, step) in undone.iter().zip(&newest_first) {
        let index = completed.iter().position(|name| name == step).expect("a step") as u64;
        assert_eq!(exported.parent(span), Some(cancel));
        for (attribute, value) in
            [("saga.name", "order"), ("saga.step", step), ("compensation.reason", &reason)]
        {
            assert_eq!(span["attributes"][attribute], *value);
        }
        assert_eq!(int(span, "saga.step_index"), index);
        assert_eq!(events(span, "undo").len(), 1, "in its own span");
        let [link] = links(span) else { panic!("{span}") };
        assert_eq!(
            (&link["type"], &link["attributes"]["link.reason"]),
            (&"compensation".into(), &reason.clone().into())
        );
        assert_eq!(
            (int(link, "saga.step_index"), &link["attributes"]["saga.step"]),
            (index, &(*step).into())
        );
        let target = exported.target(link);
        assert_eq!((&target["name"], &target["status"]), (&(*step).into(), &"unset".into()));
        assert_eq!(exported.parent(target), Some(place));
        if fails == Some(step) {
            assert_eq!(span["status_description"], format!("cannot undo {step}"));
        }
        assert_eq!(span["status"], if fails == Some(step) { "error" } else { "unset" });
    }
    let failed = u64::from(fails.is_some());
    assert_eq!(cancel["status"], if failed > 0 { "error" } else { "unset" });
    assert_eq!(int(cancel, "saga.steps"), completed.len() as u64);
    assert_eq!(int(cancel, "saga.compensated"), completed.len() as u64 - failed);
    assert_eq!(int(cancel, "saga.compensations_failed"), failed);
    assert_eq!(exported.counter("steps undone"), completed.len() as u64 - failed);
    assert_eq!(exported.counter("compensations failed"), failed);
}

fn text_of(value: &Value) -> &str {
    value.as_str().expect("a text")
}

#[test]
fn completed_steps_are_undone() {
    assert_undone(&json("saga", ""), &STEPS[..3], None);
    for (completed, failing) in STEPS.into_iter().enumerate() {
        assert_undone(&json("saga", &format!("--fail-at {failing}")), &STEPS[..completed], None);
    }
}

#[test]
fn failed_compensation_stops_no_other() {
    for step in &STEPS[..3] {
        assert_undone(&json("saga", &format!("--fail-undo {step}")), &STEPS[..3], Some(step));
    }
}

#[test]
fn successful_order_is_kept() {
    let exported = json("saga", "--succeed");
    assert_eq!(exported.spans().len(), 5);
    assert_eq!(exported.the("place_order")["status"], "unset");
    assert_eq!(exported.counter("steps completed"), 4);
    assert_eq!(exported.counter("steps undone"), 0);
}

#[test]
fn unknown_steps_are_refused() {
    for flags in ["--fail-at lunch", "--fail-undo lunch", "--succeed --fail-at ship_order"] {
        let output = run("saga", flags);
        assert_eq!(output.status.code(), Some(2), "{flags}: {}", text(&output.stderr));
    }
}
