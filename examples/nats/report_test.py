"""Damages copies of a good run in every way that report.py is to notice, and sees it notice.

    report_test.py DIR
"""

import contextlib
import json
import pathlib
import re
import shutil
import sqlite3
import subprocess
import sys
import tempfile


def in_spans(change):
    """`change` gets all spans and returns those to keep."""

    def damage(folder):
        path = folder / "spans.jsonl"
        spans = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        lines = [json.dumps(span) + "\n" for span in change(spans)]
        path.write_text("".join(lines), encoding="utf-8")

    return damage


def first(spans, kind=5):
    return next(span for span in spans if span["kind"] == kind)


def in_batch_span(change):
    def damage(spans):
        change(first(spans))
        return spans

    return in_spans(damage)


def in_link(change):
    """Changes a link that has trace state."""

    def damage(spans):
        links = (link for span in spans for link in span["links"])
        change(next(link for link in links if link["state"]))
        return spans

    return in_spans(damage)


def without(spans, kind):
    lost = first(spans, kind)
    return [span for span in spans if span is not lost]


def with_stray(spans):
    return [*spans, {**first(spans), "span": STRAY}]


def in_store(sql):
    def damage(folder):
        with contextlib.closing(sqlite3.connect(folder / "orders.sqlite")) as database, database:
            database.execute(sql)

    return damage


def without_exports(folder):
    path = folder / "consumer-c3.jsonl"
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    path.write_text("".join(line for line in lines if "exported" not in line), encoding="utf-8")


def without_duplicates(folder):
    path = folder / "publisher-p1.jsonl"
    text = path.read_text(encoding="utf-8")
    path.write_text(re.sub('"duplicates":[0-9]+', '"duplicates":0', text), encoding="utf-8")


STRAY = f"{1:032x}-{1:016x}"
LINKS = "link each of their messages once"
ROWS = "every message published is in SQLite"
# What is damaged, how, and words of the check that must fail.
CASES = [
    ("a link is lost", in_batch_span(lambda span: span["links"].pop()), LINKS),
    ("a link is doubled", in_batch_span(lambda span: span["links"].extend(span["links"])), LINKS),
    ("a link leads elsewhere", in_link(lambda link: link.update(target=STRAY)), LINKS),
    ("a link is not remote", in_link(lambda link: link.update(flags=0x101)), "flags"),
    ("the flags change", in_link(lambda link: link.update(flags=link["flags"] ^ 1)), "flags"),
    ("a trace state is lost", in_link(lambda link: link.update(state="")), "trace state that was"),
    ("a message id is lost", in_link(lambda link: link["attributes"].clear()), "id of their"),
    ("a count is lost", in_batch_span(lambda span: span["attributes"].clear()), "count their"),
    ("a link is dropped", in_batch_span(lambda span: span.update(dropped_links=1)), "was dropped"),
    ("a batch span is lost", in_spans(lambda spans: without(spans, 5)), "exported arrived"),
    ("a batch span is unknown", in_spans(with_stray), "journaled"),
    ("a sender's span is lost", in_spans(lambda spans: without(spans, 4)), "the sampled ones"),
    ("a message is lost", in_store("DELETE FROM orders WHERE id = 'p1-1'"), ROWS),
    ("a message is invented", in_store("INSERT INTO orders VALUES ('p0-1', NULL, '')"), ROWS),
    ("a row is of another batch", in_store("UPDATE orders SET batch = ''"), "written by"),
    ("a repetition is kept", without_duplicates, "published twice"),
    ("a living consumer loses spans", without_exports, "only of killed consumers"),
]


def report(folder):
    command = [sys.executable, pathlib.Path(__file__).with_name("report.py"), folder]
    result = subprocess.run(command, capture_output=True, text=True)
    failed = [line for line in result.stdout.splitlines() if line.startswith("FAILED")]
    return result.returncode, failed


def main(run):
    code, failed = report(run)
    assert code == 0 and not failed, f"the run is not a good one: {failed}"
    for what, damage, check in CASES:
        with tempfile.TemporaryDirectory() as folder:
            folder = pathlib.Path(folder)
            for path in [*run.glob("*.jsonl"), *run.glob("orders.sqlite*")]:
                shutil.copy(path, folder)
            damage(folder)
            code, failed = report(folder)
        assert code == 1 and any(check in line for line in failed), f"{what}: not noticed: {failed}"
    print(f"report.py notices each of {len(CASES)} damages")


main(pathlib.Path(sys.argv[1]))
