"""Checks that imports in src/ go downwards from room to room, and that each keeps to its rights.

A room is a folder of src/ or a file beside them; lib.rs stands above all. Every path that begins
with `crate`, `self` or `super` counts, wherever it stands: in a function, in a path written out, and
in unit tests, which may look up no more than the code may: a test that needs a higher room belongs
to tests/. A name of the crate's root counts as the room that lib.rs takes it from. Comments and
strings do not count: documentation may point upwards.
"""

import argparse
import collections
import pathlib
import re
import shutil
import sys
import tempfile

from rust_source import File

ROOT = pathlib.Path(__file__).resolve().parent.parent

# Rooms, lowest first, and what each may import.
MAY_IMPORT = {
    "sync": "",
    "error": "",
    "panic": "",
    "span": "panic sync",
    "stats": "sync",
    "meter": "panic stats",
    "queue": "sync error panic stats",
    "links": "error panic",
    "link_set": "links error panic stats",
    "collector": "links link_set meter queue sync error panic stats",
    "processor": "collector links link_set meter queue sync error panic span stats",
    "patterns": "links link_set error panic span stats",
    "messaging": "links link_set patterns error panic span stats",
    "carrier": "panic",
    "bridges": "collector processor links link_set error panic span stats",
}

ATOMICS = r"\batomic\b|\bAtomic[A-Z]\w*"
# What is read once and never changed, as in a `LazyLock`, is no state.
SHARED = r"\bthread::|\b(?:Mutex|RwLock|Condvar|mpsc|thread_local)\b|\bstatic mut\b"

# What may be named where: what, pattern of code, rooms and files that it is forbidden in, except these.
ALONE = "links link_set carrier messaging"
RIGHTS = [
    ("only sync names atomics, loom and shuttle", r"\bsync::atomic\b|\b(?:loom|shuttle)::", "*", "sync"),
    ("only queue/ring.rs is unsafe", r"\bunsafe\b", "*", "queue/ring.rs"),
    ("no OpenTelemetry in here", r"\bopentelemetry(?:_\w+)?::", "queue sync", ""),
    ("no atomics in here", ATOMICS, f"{ALONE} patterns", ""),
    ("no threads and no shared state in here", SHARED, ALONE, "links/cache.rs"),
]


def room_of(path):
    """The room of a path below src/, or None for lib.rs."""
    first = path.parts[0].removesuffix(".rs")
    return None if first == "lib" else first


def module_of(path):
    parts = list(path.parts[:-1]) + [path.stem]
    return parts[:-1] if parts[-1] in ("mod", "lib") else parts


def trees(tokens, at):
    """The paths of a use tree, each as (names, index of its last token), and where the tree ends."""
    names, paths = [], []
    while at < len(tokens):
        token = tokens[at]
        if token.kind == "word" and (not names or tokens[at - 1].text == ":"):
            names.append(token.text)
            at += 1
        elif token.text == ":" and at + 1 < len(tokens) and tokens[at + 1].text == ":":
            at += 2
        elif token.text == "{" and names and tokens[at - 1].text == ":":
            at += 1
            while tokens[at].text != "}":
                if tokens[at].text == ",":
                    at += 1
                    continue
                inner, at = trees(tokens, at)
                paths += [(names + rest, index) for rest, index in inner]
                if tokens[at].text == "as":
                    at += 2
            return paths, at + 1
        elif token.text == "*" and names and tokens[at - 1].text == ":":
            names.append("*")
            at += 1
        else:
            break
    return [(names, at - 1)], max(at, 1)


def paths_of(file, root_names, relative):
    """[(offset, path from the crate's root)] of all that a file names of its own crate."""
    tokens = file.tokens
    at = 0
    while at < len(tokens):
        path = tokens[at].text in ("crate", "self", "super")
        if not path or [token.text for token in tokens[at + 1:at + 3]] != [":", ":"]:
            at += 1
            continue
        around = [block.name for block in file.blocks
                  if block.kind == "mod" and block.opens < at < block.closes]
        found, after = trees(tokens, at)
        for names, index in found:
            here = [] if names[0] == "crate" else module_of(relative) + around
            for name in names:
                if name == "super":
                    here = here[:-1]
                elif name not in ("crate", "self"):
                    here = here + [name]
            if here and here[0] in root_names:
                here = root_names[here[0]] + here[1:]
            yield tokens[index].start, here
        at = max(after, at + 1)


def exports(lib):
    """{name: path} of what lib.rs takes from the rooms."""
    names = {}
    for at, token in enumerate(lib.tokens):
        if token.text == "use" and at + 1 < len(lib.tokens):
            for path, _ in trees(lib.tokens, at + 1)[0]:
                names[path[-1]] = path
    return names


def check(source):
    """All that is wrong, as lines of text; and the imports between rooms."""
    wrong, edges = [], collections.defaultdict(set)
    files = {path.relative_to(source): File(path) for path in sorted(source.rglob("*.rs"))}
    root_names = exports(files[pathlib.Path("lib.rs")])
    for relative, file in files.items():
        room = room_of(relative)
        code = blank(file)
        for what, pattern, forbidden, allowed in RIGHTS:
            here = {room, relative.as_posix()}
            if (forbidden == "*" or here & set(forbidden.split())) and not here & set(allowed.split()):
                for match in re.finditer(pattern, code):
                    wrong.append(f"src/{relative}:{file.line(match.start())}: {match[0]}: {what}")
        if room is None:
            continue
        if room not in MAY_IMPORT:
            wrong.append(f"src/{relative}:1: no room is called {room}; see MAY_IMPORT")
            continue
        for offset, path in paths_of(file, root_names, relative):
            other = path[0] if path else None
            if other == room:
                continue
            place = f"src/{relative}:{file.line(offset)}"
            if other in MAY_IMPORT:
                edges[room].add(other)
                if other not in MAY_IMPORT[room].split():
                    wrong.append(f"{place}: {room} may not import {other}: {'::'.join(path)}")
            else:
                wrong.append(f"{place}: in no room: crate::{'::'.join(path)}")
    return wrong + circles(edges), edges


def blank(file):
    """The code without comments and strings, each token at its place; no spaces around `::`."""
    code = [" "] * len(file.text)
    for token in file.tokens:
        if token.kind != "string":
            code[token.start:token.end] = token.text
    return "".join(code)


def circles(edges):
    """The circles among rooms: those that reach each other."""
    reach = {room: set(others) for room, others in edges.items()}
    for middle in reach:
        for others in reach.values():
            if middle in others:
                others |= reach[middle]
    found = {frozenset(other for other in others if room in reach.get(other, ()))
             for room, others in reach.items() if room in others}
    return [f"circle among {', '.join(sorted(circle))}" for circle in sorted(found, key=sorted)]


# What the check must find: (file, what is added to it, what the check says, None: nothing).
PLANTED = [
    ("queue/ring.rs", "use crate::collector::LinkCollector;", "queue may not import collector"),
    ("queue/ring.rs", "use crate::{error::PushError as E, link_set::LinkSet};",
     "queue may not import link_set"),
    ("queue/ring.rs", "fn f() { crate::links::link(); }", "queue may not import links"),
    ("queue/ring.rs", "struct S { f: crate::collector::Producer }", "queue may not import collector"),
    ("queue/ring.rs", "fn f() { g(crate::collector::h) }", "queue may not import collector"),
    ("queue/ring.rs", "mod deep { fn f() { super::super::super::processor::run(); } }",
     "queue may not import processor"),
    ("queue/ring.rs", "#[cfg(test)] mod more { use crate::LinkSet; }", "queue may not import link_set"),
    ("patterns/saga.rs", "use crate::LinkCollector;", "patterns may not import collector"),
    ("links/mod.rs", "use crate::link_set::LinkSet;", "circle among"),
    ("error.rs", "use crate::stats::Stats;", "error may not import stats"),
    ("carrier/mod.rs", "use crate::error::PushError;", "carrier may not import error"),
    ("link_set/mod.rs", "use std::sync::atomic::AtomicU8;", "only sync names"),
    ("link_set/mod.rs", "use std::sync::{Arc, atomic::AtomicU8};", "no atomics"),
    ("link_set/record.rs", "fn f() { std::thread::spawn(|| ()); }", "no threads"),
    ("queue/drain.rs", "fn f() { loom::thread::yield_now(); }", "only sync names"),
    ("queue/drain.rs", "fn f() { unsafe { g() } }", "only queue/ring.rs"),
    ("queue/drain.rs", "use opentelemetry::Context;", "no OpenTelemetry"),
    ("attic.rs", "fn f() {}", "no room is called attic"),
    ("queue/drain.rs", "use crate::nowhere::Thing;", "in no room"),
    ("queue/drain.rs", "// use crate::collector::LinkCollector; unsafe", None),
    ("queue/drain.rs", "/// See [`LinkSet`](crate::link_set::LinkSet).", None),
    ("queue/drain.rs", 'const TEXT: &str = "crate::collector::LinkCollector";', None),
    ("collector/mod.rs", "use crate::{LinkSet, stats::{Counts, Stats}};", None),
]


def self_test(show):
    """Plants each of PLANTED in a copy, and sees what the check says of it. True if that is right."""
    before, _ = check(ROOT / "src")
    failed = 0
    for path, code, expected in PLANTED:
        with tempfile.TemporaryDirectory() as folder:
            source = pathlib.Path(folder) / "src"
            shutil.copytree(ROOT / "src", source)
            with open(source / path, "a") as file:
                file.write(f"\n{code}\n")
            new = [line for line in check(source)[0] if line not in before]
            passed = any(expected in line for line in new) if expected else not new
            failed += not passed
            if show or not passed:
                said = "\n       ".join(new) or "says nothing"
                print(f"{'ok' if passed else 'FAILED':6} {path}: {code}\n       {said}")
    print(f"layers: {len(PLANTED) - failed} of {len(PLANTED)} planted lines are judged right")
    return not failed


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--self-test", action="store_true", help="only what is planted in a copy, all of it")
    if parser.parse_args().self_test:
        sys.exit(not self_test(show=True))
    wrong, edges = check(ROOT / "src")
    for line in wrong:
        print(line)
    for room in MAY_IMPORT:
        print(f"{room:10} imports {' '.join(sorted(edges[room])) or 'nothing'}")
    print(f"layers: {len(wrong)} violations")
    passed = self_test(show=False)
    sys.exit(bool(wrong) or not passed)


if __name__ == "__main__":
    main()
