//! The aggregation leads to the request and to every worker, and marks those that failed.

use super::exported::{Exported, int, json, links, run, text};
use std::collections::{BTreeSet, HashSet};

fn assert_merged(exported: &Exported, workers: u64, fail_every: u64, max_links: usize) {
    let request = exported.the("search_request");
    let fails = |index: u64| fail_every > 0 && (index + 1) % fail_every == 0;
    let failed = (0..workers).filter(|&index| fails(index)).count() as u64;

    let spans = exported.named("search_shard");
    assert_eq!(spans.len() as u64, workers);
    let traces: HashSet<_> = spans.iter().map(|span| span["trace_id"].as_str()).collect();
    assert!(traces.len() as u64 == workers && !traces.contains(&request["trace_id"].as_str()));
    for span in &spans {
        let index = int(span, "worker.index");
        assert_eq!(exported.parent(span), None);
        let [link] = links(span) else { panic!("{span}") };
        assert_eq!((exported.target(link), &link["type"]), (request, &"spawned_from".into()));
        if fails(index) {
            assert_eq!(span["status_description"], format!("shard {index} is offline"));
        }
        assert_eq!(span["status"], if fails(index) { "error" } else { "unset" });
    }
    let reads = exported.named("read_shard");
    let parents: HashSet<_> =
        reads.iter().map(|read| exported.parent(read).map(|of| int(of, "worker.index"))).collect();
    assert_eq!(parents.len() as u64, workers, "each read is within its own worker");

    let merge = exported.the("merge_hits");
    assert_eq!(exported.parent(merge), Some(request));
    assert_eq!((int(merge, "workers.started"), int(merge, "workers.failed")), (workers, failed));
    assert_eq!(int(merge, "workers.succeeded"), workers - failed);
    let all = workers as usize + 1;
    assert_eq!(links(merge).len(), all.min(max_links));
    assert_eq!(merge["attributes"]["links.truncated"] == true, all > max_links);
    if all > max_links {
        assert_eq!(int(merge, "links.original_count"), all as u64);
    }
    let (first, others) = links(merge).split_first().expect("it leads to the request");
    assert_eq!((exported.target(first), &first["type"]), (request, &"caused_by".into()));
    let mut linked = BTreeSet::new();
    for link in others {
        let (index, worker) = (int(link, "worker.index"), exported.target(link));
        assert_eq!(
            (&link["type"], &worker["name"]),
            (&"aggregation".into(), &"search_shard".into())
        );
        assert_eq!(int(worker, "worker.index"), index);
        assert_eq!(link["attributes"]["worker.failed"] == true, fails(index));
        assert_eq!(
            link["attributes"].get("worker.error"),
            fails(index).then_some(&worker["status_description"])
        );
        assert!(linked.insert(index), "once each");
    }
    if failed > 0 {
        assert_eq!(merge["status_description"], format!("{failed} of {workers} workers failed"));
    }
    assert_eq!(merge["status"], if failed > 0 { "error" } else { "unset" });
    assert_eq!(request["status"], if failed < workers { "unset" } else { "error" });
    let counted = ["workers", "succeeded", "failed"].map(|name| exported.counter(name));
    assert_eq!(counted, [workers, workers - failed, failed]);
}

#[test]
fn failed_workers_are_marked() {
    for on in ["threads", "tasks"] {
        assert_merged(&json("fan_in", &format!("--on {on}")), 6, 4, 128);
        for (workers, fail_every, max_links) in
            [(1, 0, 128), (1, 1, 2), (127, 10, 128), (150, 3, 20), (5, 1, 1)]
        {
            let flags = format!(
                "--workers {workers} --fail-every {fail_every} --max-links {max_links} --on {on}"
            );
            println!("{flags}");
            assert_merged(&json("fan_in", &flags), workers, fail_every, max_links);
        }
    }
}

#[test]
fn bad_numbers_are_refused() {
    for flags in
        ["--workers 0", "--max-links 0", "--max-links 129", "--fail-every -1", "--on fibres"]
    {
        let output = run("fan_in", flags);
        assert_eq!(output.status.code(), Some(2), "{flags}: {}", text(&output.stderr));
    }
}
