"""Mutants of the protocol, each of which must make a loom model fail.

Every `Ordering::{Acquire,Release,AcqRel}` of ring.rs and trigger.rs becomes a mutant (two for
AcqRel) by itself: WEAKENED must name each of them, no more and no fewer. MUTANTS lists the rest,
each as edits of text that must occur exactly once.

A mutant is applied to a copy of the crate, built, and given first to the models named as hints,
then to all others. Killed is: a test fails, panics, deadlocks or crashes. A mutant that nothing
kills must carry a reason. A mutant that does not build or does not apply is an error.
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

ROOT = pathlib.Path(__file__).resolve().parent.parent
WORK = ROOT / "loom-tests" / "target" / "mutants"
COPIED = ["src", "docs", "examples", "Cargo.toml", "Cargo.lock", "README.md", "loom-tests/src", "loom-tests/tests",
          "loom-tests/Cargo.toml", "loom-tests/Cargo.lock", "loom-tests/.cargo"]
# Seconds for one model; none needs a tenth of it when nothing is broken.
TIMEOUT = 100
SHORT = {"LOOM_MAX_PREEMPTIONS": "1"}


def weakenings():
    """A mutant per ordering, keyed `file function field.operation ordering`."""
    found = {}
    for name in ("src/queue/ring.rs", "src/queue/trigger.rs", "src/queue/mod.rs", "src/queue/weight.rs", "src/queue/waiters.rs"):
        text = (ROOT / name).read_text()
        text = text.split("#[cfg(test)]")[0]
        function = operation = None
        tokens = re.compile(
            r"//[^\n]*"
            r"|\bfn (?P<function>\w+)"
            r"|(?P<field>\w+)\s*\.(?P<operation>load|store|swap|fetch_\w+|compare_exchange(?:_weak)?)\("
            r"|Ordering::(?P<ordering>Acquire|Release|AcqRel)\b")
        for token in tokens.finditer(text):
            if token["function"]:
                function = token["function"]
            elif token["field"]:
                operation = f"{token['field']}.{token['operation']}"
            elif ordering := token["ordering"]:
                weaker = ["Acquire", "Release"] if ordering == "AcqRel" else ["Relaxed"]
                for new in weaker:
                    key = f"{name.removeprefix('src/queue/')} {function} {operation} {ordering}->{new}"
                    if key in found:
                        raise SystemExit(f"error: two orderings are called {key!r}")
                    start, end = token.span("ordering")
                    found[key] = (name, start, end, new)
    return found


class Mutant:
    def __init__(self, name, texts, hints, reason):
        self.name, self.texts, self.hints, self.reason = name, texts, hints, reason


def mutants():
    errors, all_mutants = [], []
    found = weakenings()
    errors += [f"no entry in WEAKENED for {key!r}" for key in found if key not in WEAKENED]
    errors += [f"WEAKENED names {key!r}, which is not there" for key in WEAKENED if key not in found]
    for key, (name, start, end, new) in found.items():
        text = (ROOT / name).read_text()
        hints, reason = WEAKENED.get(key, ("", None))
        all_mutants.append(Mutant(key, {name: text[:start] + new + text[end:]}, hints, reason))
    for name, edits, hints, reason in MUTANTS:
        texts = {}
        for file, old, new in edits:
            text = texts.get(file) or (ROOT / file).read_text()
            if text.count(old) != 1:
                errors.append(f"{name}: {text.count(old)} times in {file}: {old!r}")
            texts[file] = text.replace(old, new)
        all_mutants.append(Mutant(name, texts, hints, reason))
    return all_mutants, errors


class Worker:
    """A copy of the crate with a target directory of its own."""

    def __init__(self, number):
        self.dir = WORK / f"worker{number}"
        self.env = dict(os.environ, CARGO_TARGET_DIR=str(WORK / f"target{number}"), CARGO_BUILD_JOBS="1")
        self.changed = []
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
        for file in self.changed:
            shutil.copyfile(ROOT / file, self.dir / file)
        for file, text in texts.items():
            (self.dir / file).write_text(text)
        self.changed = list(texts)
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

    def run(self, binary, *arguments, **env):
        # stderr is loom's debug lines.
        return subprocess.run([binary, *arguments, "--nocapture", "--test-threads=1"], env={**self.env, **env},
                              stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, timeout=TIMEOUT)


def hunt(worker, mutant, seconds, full):
    """What became of a mutant, as (status, text)."""
    try:
        binary = worker.build(mutant.texts)
    except RuntimeError as error:
        return "error", f"does not build: {error}"
    hints = [model for hint in mutant.hints.split() for model in seconds if f"::{model}".endswith(f"::{hint}")]
    if len(hints) != len(mutant.hints.split()):
        return "error", f"hints name no model: {mutant.hints}"
    late = []
    for model in hints + sorted(set(seconds) - set(hints), key=seconds.get):
        # What is expected to survive gets a short look, unless a long one is asked for.
        env = SHORT if mutant.reason and not full else {}
        try:
            if worker.run(binary, "--exact", model, **env).returncode != 0:
                return "killed", f"by {model}" + ("" if model in hints[:1] else " (not the first hint)")
        except subprocess.TimeoutExpired:
            late.append(model)
    if late:
        return "error", f"{', '.join(late)} did not end in {TIMEOUT} s"
    return "survived", mutant.reason or "WITHOUT A REASON"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("names", nargs="*", help="only mutants whose name contains one of these")
    parser.add_argument("--full", action="store_true", help="search for killers of expected survivors too")
    parser.add_argument("--jobs", type=int, default=2)
    options = parser.parse_args()
    began = time.monotonic()
    chosen, errors = mutants()
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
