"""Compares what the receiver got with what publishers sent and consumers processed.

    report.py DIR

Prints the counts, then each check; exits with 1 if one of them fails.
"""

import collections
import json
import pathlib
import sqlite3
import sys

REMOTE = 0x300  # in an OTLP link's flags: it is known whether the context is remote, and it is
CONSUMER = 5  # OTLP's span kind
# What all messages of a batch have in common, from NATS and from Kafka.
HOISTED = {"jetstream.stream", "messaging.destination.partition.id"}

Message = collections.namedtuple("Message", "id flags state")
Batch = collections.namedtuple("Batch", "consumer messages links")  # messages: [id, deliveries]
failures = 0


def row(what, *values):
    print(f"{what:<66}{', '.join(map(str, values))}")


def check(what, wrong):
    """`wrong`: how many things are not as they should be."""
    global failures
    failures += wrong != 0
    print(f"{'FAILED' if wrong else 'ok':<8}{what}{f' (wrong: {wrong})' if wrong else ''}")


def lines(path):
    with open(path, encoding="utf-8") as file:
        for line in file:
            if line.endswith("\n"):  # a killed process may leave a part of a line
                yield json.loads(line)


def read_publishers(folder):
    """The messages by the context in their headers, and each publisher's counts."""
    sent, counts = {}, []
    for path in sorted(folder.glob("publisher-*.jsonl")):
        for line in lines(path):
            if "traceparent" in line:
                _, trace, span, flags = line["traceparent"].split("-")
                state = line["tracestate"] or ""
                sent[f"{trace}-{span}"] = Message(line["id"], int(flags, 16), state)
            elif "published" in line:
                counts.append(line)
    return sent, counts


def read_consumers(folder):
    """The batches by span id, the span ids that the collector acknowledged, and for each consumer
    whether it ended in order."""
    batches, exported, ended = {}, set(), {}
    for path in sorted(folder.glob("consumer-*.jsonl")):
        name = path.stem.removeprefix("consumer-")
        ended[name] = False
        for line in lines(path):
            if "batch" in line:
                batches[line["batch"]] = Batch(name, line["messages"], line["links"])
            elif "exported" in line:
                exported.update(line["exported"])
            elif "ended" in line:
                ended[name] = True
    return batches, exported, ended


def read_receiver(folder):
    """The publishers' spans by context, the batch spans by span id, and how many came twice."""
    senders, processed, copies = {}, {}, 0
    for span in lines(folder / "spans.jsonl"):
        spans, key = senders, span["span"]
        if span["kind"] == CONSUMER:
            spans, key = processed, key.split("-")[1]
        copies += key in spans
        spans[key] = span
    return senders, processed, copies


def compare_links(sent, batches, senders, processed):
    """Each link of each batch span that arrived, against the headers of the message it is for."""
    seen = collections.Counter()
    flags = collections.Counter()
    by_id = {message.id: target for target, message in sent.items()}
    for key, span in processed.items():
        batch = batches.get(key, Batch("", [], 0))
        expected = {by_id.get(id) for id, _ in batch.messages}
        targets = [link["target"] for link in span["links"]]
        seen["wrong sets"] += sorted(targets) != sorted(expected, key=str)
        seen["wrong sets"] += len(targets) != batch.links
        seen["dropped"] += span["dropped_links"]
        count = span["attributes"].get("messaging.batch.message_count")
        seen["wrong counts"] += count != len(batch.messages)
        seen["hoisted"] += not HOISTED.isdisjoint(span["attributes"])
        for link in span["links"]:
            message = sent.get(link["target"])
            if message is None:
                continue  # counted among the wrong sets
            flags[link["flags"]] += 1
            seen["with state"] += link["state"] != ""
            seen["wrong flags"] += link["flags"] != REMOTE | message.flags
            seen["wrong states"] += link["state"] != message.state
            attributes = {**span["attributes"], **link["attributes"]}  # on the span of a single one
            seen["wrong ids"] += attributes.get("messaging.message.id") != message.id
            if message.flags & 1:
                seen["to sampled"] += 1
                sender = senders.get(link["target"], span)
                instances = {it["resource"].get("service.instance.id") for it in (span, sender)}
                seen["across processes"] += len(instances - {None}) == 2
    return seen, flags


def main(folder):
    sent, publishers = read_publishers(folder)
    batches, exported, ended = read_consumers(folder)
    senders, processed, copies = read_receiver(folder)
    seen, flags = compare_links(sent, batches, senders, processed)
    stored = dict(sqlite3.connect(folder / "orders.sqlite").execute("SELECT id, batch FROM orders"))

    ids = {message.id for message in sent.values()}
    sampled = {target for target, message in sent.items() if message.flags & 1}
    deliveries = [(id, delivered) for batch in batches.values() for id, delivered in batch.messages]
    times = collections.Counter(id for id, _ in deliveries)
    holds = {(id, key) for key, batch in batches.items() for id, _ in batch.messages}
    known, unknown = exported & batches.keys(), batches.keys() - exported
    arrived = known & processed.keys()
    expected = sum(batches[key].links for key in known)
    found = sum(len(processed[key]["links"]) for key in arrived)
    killed = [name for name, in_order in ended.items() if not in_order]

    row("messages published", len(ids))
    retries, repeated, duplicates = (
        sum(counts[name] for counts in publishers) for name in ("retries", "repeated", "duplicates")
    )
    row("  publications retried, repeated, recognised as duplicates", retries, repeated, duplicates)
    row("messages in SQLite", len(stored))
    row("publishers, consumers, killed ones", len(publishers), len(ended), " ".join(killed) or "none")
    for name in ended:
        mine = [len(batch.messages) for batch in batches.values() if batch.consumer == name]
        row(f"  {name}: batches, messages in them", len(mine), sum(mine))
    row("batches, messages in them", len(batches), len(deliveries))
    row("  redeliveries, by the broker's count", sum(delivered > 1 for _, delivered in deliveries))
    row("  messages in more than one batch", sum(count > 1 for count in times.values()))
    row("batch spans exported, arrived", len(known), len(arrived))
    row("links expected of them, found at the receiver", expected, found)
    row(
        "batches of killed consumers whose export is unknown, their links",
        len(unknown),
        sum(batches[key].links for key in unknown),
    )
    surprises = unknown & processed.keys()
    row(
        "  of these batches arrived, their links",
        len(surprises),
        sum(len(processed[key]["links"]) for key in surprises),
    )
    row(
        "links to sampled spans, to a span of another process",
        seen["to sampled"],
        seen["across processes"],
    )
    for value, count in sorted(flags.items()):
        row(f"  links with flags {value:#x}", count)
    row("  links with trace state", seen["with state"])
    row("batch spans with hoisted attributes", seen["hoisted"])
    row("spans that the collector sent twice", copies)
    print()

    check("every message published is in SQLite, and no other", len(ids ^ stored.keys()))
    check("the broker recognised what was published twice", max(0, repeated - duplicates))
    check("publishers counted what they published", len(ids) - sum(it["published"] for it in publishers))
    check("every message is in a batch", len(ids ^ times.keys()))
    check("every row was written by a batch that holds its message", len(stored.items() - holds))
    check("every batch span exported arrived", len(known - processed.keys()))
    check("every batch span that arrived was journaled", len(processed.keys() - batches.keys()))
    check("links at the receiver are as many as expected", abs(expected - found))
    check(
        "only of killed consumers it is unknown what they exported",
        sum(ended[batches[key].consumer] for key in unknown),
    )
    check("batch spans link each of their messages once, and no other", seen["wrong sets"])
    check("no link was dropped", seen["dropped"])
    check("batch spans count their messages", seen["wrong counts"])
    check("links have the flags that were published", seen["wrong flags"])
    check("links have the trace state that was published", seen["wrong states"])
    check("links have the id of their message", seen["wrong ids"])
    check("publishers' spans that arrived are the sampled ones", len(senders.keys() ^ sampled))
    check(
        "links to sampled spans lead to another process",
        seen["to sampled"] - seen["across processes"],
    )
    shown = {REMOTE, REMOTE | 1} == flags.keys() and 0 < seen["with state"] < flags.total()
    check("there are links with either flags, with and without trace state", 0 if shown else 1)
    print(f"\n{failures} checks FAILED" if failures else "\nall checks passed")
    return failures > 0


sys.exit(main(pathlib.Path(sys.argv[1])))
