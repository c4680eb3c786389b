//! What a poll took is linked, without duplicates, and what was cut is owned up to.

use super::exported::{Exported, int, json, links, run, text};
use serde_json::Value;
use std::collections::BTreeSet;

/// Checks every poll; returns how many links were cut in all.
fn assert_polls(exported: &Exported, sent: u64, max_poll: u64) -> u64 {
    let polls: Vec<&Value> =
        exported.spans().iter().filter(|span| span["kind"] == "consumer").collect();
    assert_eq!(exported.counter("polls"), polls.len() as u64);
    let mut ids = BTreeSet::new();
    let (mut delivered, mut linked, mut cut) = (0, 0, 0);
    for (index, poll) in polls.iter().enumerate() {
        assert_eq!(exported.parent(poll), None, "a poll has a trace of its own");
        assert!(poll["name"] == "process orders", "{poll}");
        assert_eq!(poll["attributes"]["messaging.system"], "in_process");
        assert_eq!(poll["attributes"]["messaging.destination.name"], "orders");
        assert_eq!(poll["attributes"]["messaging.operation.type"], "process");
        let size = int(poll, "batch.size");
        assert_eq!(int(poll, "messaging.batch.message_count"), size);
        // Of a message that is not linked the span knows no partition.
        let on_span = links(poll).len() as u64 == size;
        let partition = |of: &Value| of["attributes"]["messaging.destination.partition.id"] == "0";
        assert_eq!(partition(poll), on_span, "{poll}");
        assert!(size == max_poll || index + 1 == polls.len() && size < max_poll, "{size} at once");

        let mut targets = BTreeSet::new();
        for link in links(poll) {
            let send = exported.target(link);
            assert_eq!((&send["name"], &send["kind"]), (&"send orders".into(), &"producer".into()));
            assert_eq!(link["type"], "consumed_from");
            assert_eq!(link["is_remote"], true);
            let id = &link["attributes"]["messaging.message.id"];
            assert_eq!(id, &send["attributes"]["messaging.message.id"]);
            assert_eq!(send["attributes"]["messaging.operation.type"], "send");
            assert_eq!(partition(link), !on_span, "{link}");
            assert!(targets.insert(id.to_string()), "{id} is linked twice by one poll");
        }
        ids.extend(targets);
        let count = links(poll).len() as u64;
        assert_eq!(int(poll, "batch.links"), count);
        assert!(count <= 128);
        match poll["attributes"].get("links.truncated") {
            None => {}
            Some(truncated) => {
                assert_eq!((truncated, count), (&true.into(), 128));
                assert!(int(poll, "links.original_count") > 128);
                cut += int(poll, "links.original_count") - count;
            }
        }
        (delivered, linked) = (delivered + size, linked + count);
    }
    assert_eq!(exported.named("send orders").len() as u64, sent);
    assert_eq!(exported.counter("messages sent"), sent);
    assert_eq!(exported.counter("messages handled"), sent, "each once");
    assert_eq!(exported.counter("messages delivered"), delivered);
    assert_eq!(exported.counter("links"), linked);
    assert_eq!(exported.counter("not linked: truncated"), cut);
    assert_eq!(delivered, linked + cut + exported.counter("not linked: duplicates"));
    if cut == 0 {
        assert_eq!(ids.len() as u64, sent, "every message is linked");
    }
    cut
}

#[test]
fn long_poll_states_its_cut() {
    let exported = json("message_queue", "");
    assert!(assert_polls(&exported, 180, 160) > 0);
    assert_eq!(exported.counter("messages delivered"), 198);
    assert!(exported.counter("not linked: duplicates") > 0);
}

#[test]
fn short_poll_links_everything() {
    for (flags, sent, max_poll, delivered) in [
        ("--producers 8 --messages 100 --max-poll 64 --redeliver-every 3", 800, 64, 1066),
        ("--producers 1 --messages 128 --max-poll 128 --redeliver-every 0", 128, 128, 128),
        ("--producers 1 --messages 1 --max-poll 1 --redeliver-every 0", 1, 1, 1),
        ("--producers 2 --messages 50 --max-poll 256 --redeliver-every 1", 100, 256, 200),
    ] {
        println!("{flags}");
        let exported = json("message_queue", flags);
        assert_eq!(assert_polls(&exported, sent, max_poll), 0);
        assert_eq!(exported.counter("messages delivered"), delivered);
    }
    // Every message came twice to the same poll.
    let twice =
        json("message_queue", "--producers 2 --messages 50 --max-poll 256 --redeliver-every 1");
    assert_eq!(twice.counter("not linked: duplicates"), 100);
}

#[test]
fn bad_counts_are_refused() {
    for flags in [
        "--producers 0",
        "--messages 0",
        "--max-poll 0",
        "--max-poll 70000",
        "--redeliver-every -1",
    ] {
        let output = run("message_queue", flags);
        assert_eq!(output.status.code(), Some(2), "{flags}: {}", text(&output.stderr));
    }
}
