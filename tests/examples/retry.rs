//! Every attempt leads to the earlier ones and says why they failed.

use super::exported::{Exported, int, json, links, run, text};
use serde_json::{Value, json as value};

/// The error of each attempt at a call, in order; `null` for success.
fn assert_attempts(exported: &Exported, operation: &str, call: &str, max: u64) -> Vec<Value> {
    let operation = exported.the(operation);
    let mut attempts = exported.named(call);
    attempts.sort_by_key(|span| int(span, "retry.attempt_number"));
    for (index, span) in attempts.iter().enumerate() {
        let number = index as u64 + 1;
        assert_eq!(int(span, "retry.attempt_number"), number);
        assert_eq!((exported.parent(span), &span["kind"]), (Some(operation), &"client".into()));
        let last = number == max && span["status"] == "error";
        assert_eq!(span["attributes"]["retry.exhausted"] == true, last, "{span}");
        assert_eq!(links(span).len(), index.min(32));
        let cut = index > 32;
        assert_eq!(span["attributes"]["links.truncated"] == true, cut, "{span}");
        if cut {
            assert_eq!(int(span, "links.original_count"), index as u64);
        }
        // The first and the latest, in order.
        let linked = (1..number).filter(|&earlier| earlier == 1 || earlier + 32 > number || !cut);
        for (link, earlier) in links(span).iter().zip(linked) {
            assert_eq!(link["type"], "retry");
            assert_eq!(exported.target(link), attempts[earlier as usize - 1]);
            assert_eq!(int(link, "previous.attempt_number"), earlier);
            assert_eq!(int(link, "retry.attempt_number"), number);
            let error = &exported.target(link)["status_description"];
            assert_eq!(&link["attributes"]["previous.error"], error);
        }
    }
    let errors: Vec<_> = attempts.iter().map(|span| span["status_description"].clone()).collect();
    let failed = errors.iter().filter(|error| !error.is_null()).count();
    assert_eq!(int(operation, "retry.attempts"), errors.len() as u64);
    assert_eq!(int(operation, "retry.failed"), failed as u64);
    if failed < errors.len() {
        assert_eq!(
            (failed + 1, attempts[failed]["status"].as_str()),
            (errors.len(), Some("unset"))
        );
        assert_eq!(int(operation, "retry.succeeded_on"), errors.len() as u64);
        assert_eq!(operation["status"], "unset");
    } else {
        assert_eq!(operation["attributes"]["retry.exhausted"], true);
        assert_eq!(operation["status"], "error");
    }
    errors
}

#[test]
fn attempts_link_earlier_ones() {
    for (failures, attempts) in [(2, 4), (0, 4), (5, 4), (1, 1), (0, 1), (50, 60)] {
        let exported = json("retry", &format!("--failures {failures} --attempts {attempts}"));
        let failed = failures.min(attempts);
        let made = if failures < attempts { failures + 1 } else { attempts };
        let unavailable = value!("503 Service Unavailable");
        let mut expected = vec![unavailable; failed as usize];
        expected.resize(made as usize, Value::Null);
        assert_eq!(assert_attempts(&exported, "pay_order", "charge_card", attempts), expected);
        if failed > 0 {
            expected[0] = value!("dropped before it finished");
        }
        assert_eq!(assert_attempts(&exported, "confirm_order", "send_receipt", attempts), expected);
        assert_eq!(exported.counter("attempts"), 2 * made);
        assert_eq!(exported.counter("failed"), 2 * failed);
        assert_eq!(
            exported.counter("operations given up"),
            if failures < attempts { 0 } else { 2 }
        );
    }
}

#[test]
fn bad_numbers_are_refused() {
    for flags in ["--attempts 0", "--attempts 102", "--failures 101", "--failures -1"] {
        let output = run("retry", flags);
        assert_eq!(output.status.code(), Some(2), "{flags}: {}", text(&output.stderr));
    }
}
