"""Mutants of the protocol, each of which must make a loom model fail.

Every `Ordering::{Acquire,Release,AcqRel}` of ROOMS, tests apart, becomes a mutant (two for AcqRel) by
itself. MUTANTS lists the rest, each as edits of code. A mutant is applied to a copy of the
crate, built, and given first to the models named as hints, then to all others. Killed is: a test
fails, panics, deadlocks or crashes. A mutant that nothing kills must carry a reason. A mutant that
does not build or does not apply is an error; --check applies all of them and builds none.

What keeps the list alive when the source changes: an edit names neither file nor function nor line.
It is a piece of code that must be found exactly once in ROOMS, compared token by token, so that layout
and comments do not count; `$x` in it stands for any one token, `$$x` for any balanced run of them, and
both can be used in what replaces it. An ordering is named by function, field and operation. A name that
was changed in the source gets an entry in names.py, once for all lists, and --check says which. Markers
in the source would survive more, but they would stand in the way of those who read the protocol.
"""

import argparse
import concurrent.futures
import os
import pathlib
import queue
import re
import shutil
import subprocess
import sys
import time
from loom_mutants_list import MUTANTS, WEAKENED
from names import current
from rust_source import File, tokens

ROOT = pathlib.Path(__file__).resolve().parent.parent
WORK = ROOT / "loom-tests" / "target" / "mutants"
COPIED = ["src", "docs", "examples", "Cargo.toml", "Cargo.lock", "README.md", "loom-tests/src", "loom-tests/tests",
          "loom-tests/Cargo.toml", "loom-tests/Cargo.lock", "loom-tests/.cargo"]
ROOMS = ["queue", "collector", "processor"]
# Seconds for one model at least; or so many times what a short look at it took, with nothing broken.
TIMEOUT, TIMES = 100, 20
SHORT = {"LOOM_MAX_PREEMPTIONS": "1"}
OPERATION = re.compile(r"load|store|swap|fetch_\w+|compare_exchange(?:_weak)?")
WEAKER = {"Acquire": ["Relaxed"], "Release": ["Relaxed"], "AcqRel": ["Acquire", "Release"]}


def code(text):
    """The tokens of a pattern: ("token", text), ("one", variable) or ("run", variable)."""
    elements, found = [], trimmed(tokens(text))
    while found:
        marks = 0
        while found[0].text == "$":
            marks += 1
            found.pop(0)
        token = found.pop(0)
        elements.append((("token", "one", "run")[marks], token.text if marks else current(token.text)))
    return elements


def trimmed(found):
    """Tokens without the commas before a closing bracket, which are a matter of layout."""
    return [token for token, after in zip(found, found[1:] + [None])
            if not (token.text == "," and after and after.text in ")]}")]


def match(found, at, pattern):
    """The end of a match that begins at a token, and {variable: (first, end)} of what it stands for; or None."""
    if not pattern:
        return at, {}
    kind, text = pattern[0]
    if kind == "run":
        depth, end = 0, at
        while depth >= 0:
            if depth == 0 and (rest := match(found, end, pattern[1:])):
                return rest[0], {text: (at, end), **rest[1]}
            if end == len(found):
                return None
            depth += {"(": 1, "[": 1, "{": 1, ")": -1, "]": -1, "}": -1}.get(found[end].text, 0)
            end += 1
        return None
    if at == len(found) or kind == "token" and found[at].text != text:
        return None
    rest = match(found, at + 1, pattern[1:])
    if rest and kind == "one":
        if text in rest[1] and found[rest[1][text][0]].text != found[at].text:
            return None
        rest[1][text] = at, at + 1
    return rest


class Source:
    """What is looked through for the places of mutants: the rooms of the protocol, tests apart."""

    def __init__(self):
        self.files = [File(path) for room in ROOMS for path in sorted((ROOT / "src" / room).rglob("*.rs"))]
        self.words = {token.text for file in self.files for token in file.tokens}

    def edit(self, texts, old, new):
        """Puts the files into `texts` as an edit leaves them; says what is wrong, or None."""
        pattern, hits = code(old), []
        for file in self.files:
            name = str(file.path.relative_to(ROOT))
            edited = File(file.path, texts[name]) if name in texts else file
            found = trimmed(edited.tokens)
            hits += [(name, edited, found, at, hit) for at in range(len(found))
                     if (hit := match(found, at, pattern)) and not edited.in_tests(edited.tokens.index(found[at]))]
        if len(hits) != 1:
            unknown = sorted({word for kind, word in pattern if kind == "token" and word not in self.words})
            places = ", ".join(f"{name}:{file.line(found[at].start)}" for name, file, found, at, _ in hits)
            return f"found {len(hits)} times ({places or f'not in src: {unknown}'}): {' '.join(old.split())}"
        name, file, found, at, (end, variables) = hits[0]

        def word(it):
            if not it[1]:
                return current(it[0])
            first, last = variables[it[1]]
            return file.text[found[first].start:found[last - 1].end] if last > first else ""

        new = re.sub(r"\$\$?(\w+)|\w+", word, new)
        texts[name] = file.text[:found[at].start] + new + file.text[found[end - 1].end:]
        return None

    def weakenings(self):
        """A mutant per ordering, keyed `function field.operation ordering`: {key: (file, start, end, new)}."""
        places = {}
        for file in self.files:
            operation = None
            for at, token in enumerate(file.tokens):
                words = [token.text for token in file.tokens[at:at + 4]]
                if words[1:2] == ["."] and words[3:] == ["("] and OPERATION.fullmatch(words[2]):
                    operation = f"{words[0]}.{words[2]}"
                if words[:3] != ["Ordering", ":", ":"] or words[3] not in WEAKER or file.in_tests(at):
                    continue
                function = [block for block in file.blocks if block.kind == "fn" and block.opens < at < block.closes][-1]
                ordering = file.tokens[at + 3]
                for weaker in WEAKER[ordering.text]:
                    key = f"{function.path()} {operation} {ordering.text}->{weaker}"
                    if key in places:
                        raise SystemExit(f"error: two orderings are called {key!r}")
                    places[key] = str(file.path.relative_to(ROOT)), ordering.start, ordering.end, weaker
        return places


class Mutant:
    def __init__(self, name, texts, hints, reason):
        self.name, self.texts, self.reason = name, texts, reason
        self.hints = current(hints).split()


def mutants():
    """All mutants; what is wrong with the list, and what may be."""
    errors, notes, all_mutants = [], [], []
    source = Source()
    known = {current(key): value for key, value in WEAKENED.items()}
    found = source.weakenings()
    notes += [f"not in WEAKENED, so it has to be killed: {key}" for key in found if key not in known]
    for key, (_, reason) in known.items():
        if key not in found:
            (errors if reason else notes).append(f"WEAKENED names an ordering that is not there: {key}")
    for key, (name, start, end, new) in found.items():
        text = (ROOT / name).read_text()
        all_mutants.append(Mutant(key, {name: text[:start] + new + text[end:]}, *known.get(key, ("", None))))
    for name, edits, hints, reason in MUTANTS:
        texts = {}
        wrong = [text for old, new in edits if (text := source.edit(texts, old, new))]
        errors += [f"{name}: {text}" for text in wrong]
        all_mutants.append(Mutant(name, texts, hints, reason))
    models = "".join(path.read_text() for path in (ROOT / "loom-tests" / "tests").rglob("*.rs"))
    for mutant in all_mutants:
        notes += [f"{mutant.name}: no model is called {hint}" for hint in mutant.hints
                  if not re.search(rf"\bfn {hint.rpartition('::')[2]}\b", models)]
    return all_mutants, errors, notes


class Worker:
    """A copy of the crate with a target directory of its own."""

    def __init__(self, number):
        self.dir = WORK / f"worker{number}"
        self.env = dict(os.environ, CARGO_TARGET_DIR=str(WORK / f"target{number}"), CARGO_BUILD_JOBS="1")
        self.originals = {}
        shutil.rmtree(self.dir, ignore_errors=True)
        for path in COPIED:
            source, target = ROOT / path, self.dir / path
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copytree(source, target) if source.is_dir() else shutil.copy(source, target)
        # Workspace members stay behind, so their mention must too.
        manifest = (self.dir / "Cargo.toml").read_text()
        manifest = re.sub(r"\n\[workspace\](?:\n[^\[\n].*)*", "\n[workspace]", manifest)
        (self.dir / "Cargo.toml").write_text(manifest)

    def build(self, texts):
        """The test binary; raises RuntimeError if it does not build."""
        for file, text in self.originals.items():
            (self.dir / file).write_text(text)
        self.originals = {file: (self.dir / file).read_text() for file in texts}
        for file, text in texts.items():
            (self.dir / file).write_text(text)
        done = subprocess.run(
            ["cargo", "test", "--profile", "mutant", "--test", "models", "--no-run"],
            cwd=self.dir / "loom-tests", env=self.env, capture_output=True, text=True)
        binary = re.search(r"Executable .*\((.+)\)", done.stderr)
        if done.returncode != 0 or not binary:
            raise RuntimeError(done.stderr)
        return binary[1]

    def models(self, binary):
        done = self.run(binary, "--list")
        return re.findall(r"^(\S+): test$", done.stdout, re.MULTILINE)

    def run(self, binary, *arguments, timeout=None, **env):
        # stderr is loom's debug lines.
        return subprocess.run([binary, *arguments, "--nocapture", "--test-threads=1"], env={**self.env, **env},
                              stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, timeout=timeout)


def hunt(worker, mutant, seconds, full):
    """What became of a mutant, as (status, text)."""
    try:
        binary = worker.build(mutant.texts)
    except RuntimeError as error:
        return "error", f"does not build: {error}"
    hints = [model for hint in mutant.hints for model in seconds if f"::{model}".endswith(f"::{hint}")]
    late = []
    for model in hints + sorted(set(seconds) - set(hints), key=seconds.get):
        # What is expected to survive gets a short look, unless a long one is asked for.
        env = SHORT if mutant.reason and not full else {}
        try:
            timeout = max(TIMEOUT, TIMES * seconds[model])
            if worker.run(binary, "--exact", model, timeout=timeout, **env).returncode != 0:
                return "killed", f"by {model}" + ("" if model in hints[:1] else " (not the first hint)")
        except subprocess.TimeoutExpired:
            late.append(model)
    if late:
        return "error", f"{', '.join(late)} did not end in time"
    return "survived", mutant.reason or "WITHOUT A REASON"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("names", nargs="*", help="only mutants whose name contains one of these")
    parser.add_argument("--full", action="store_true", help="search for killers of expected survivors too")
    parser.add_argument("--check", action="store_true", help="apply all mutants to the text, and build none")
    parser.add_argument("--jobs", type=int, default=2)
    options = parser.parse_args()
    began = time.monotonic()
    chosen, errors, notes = mutants()
    print("\n".join(f"note: {note}" for note in notes), end="\n" if notes else "")
    if options.check:
        print("\n".join(f"error: {error}" for error in errors), end="\n" if errors else "")
        print(f"loom-mutants: {len(chosen)} mutants, {len(errors)} errors, {len(notes)} notes")
        sys.exit(bool(errors))
    if errors:
        raise SystemExit("\n".join(f"error: {error}" for error in errors))
    if options.names:
        chosen = [mutant for mutant in chosen if any(name in mutant.name for name in options.names)]
    workers = queue.Queue()
    seconds = {}

    def with_worker(work, *arguments):
        worker = workers.get()
        try:
            return work(worker, *arguments)
        finally:
            workers.put(worker)

    def time_model(worker, model):
        start = time.monotonic()
        # A short look: that all models hold in full is for loom.sh to find out.
        if worker.run(binaries[worker], "--exact", model, **SHORT).returncode != 0:
            raise SystemExit(f"error: {model} fails without any mutant")
        seconds[model] = time.monotonic() - start

    with concurrent.futures.ThreadPoolExecutor(options.jobs) as pool:
        made = [Worker(number) for number in range(options.jobs)]
        binaries = dict(zip(made, pool.map(lambda worker: worker.build({}), made)))
        for worker in made:
            workers.put(worker)
        models = made[0].models(binaries[made[0]])
        list(pool.map(lambda model: with_worker(time_model, model), models))
        print(f"{len(models)} models hold; {len(chosen)} mutants ({time.monotonic() - began:.0f} s)", flush=True)
        results = pool.map(lambda mutant: with_worker(hunt, mutant, seconds, options.full), chosen)
        counts = {"killed": 0, "survived": 0, "error": 0}
        failed = False
        for mutant, (status, text) in zip(chosen, results):
            if status == "killed" and mutant.reason:
                status, text = "error", f"killed {text}, though it is said to survive: {mutant.reason}"
            counts[status] += 1
            failed |= status == "error" or status == "survived" and not mutant.reason
            print(f"{status.upper():8} {mutant.name}: {text}", flush=True)
    print(f"{counts['killed']}/{len(chosen)} killed, {counts['survived']} survived, {counts['error']} errors, "
          f"{time.monotonic() - began:.0f} s")
    sys.exit(failed)


if __name__ == "__main__":
    main()
