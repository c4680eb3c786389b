"""Runs the mutants of src/ that cargo-mutants makes, and holds the survivors against a list.

cargo-mutants builds the crate once per mutant. Here all mutants are in one build: a function's body
becomes a `match` on a number from the environment, with a copy of the body for each of its mutants.
Mutants that do not build are found by the compiler's errors and left out. All tests are in that
build too, as modules of the unit tests: one binary, run once per mutant until the first failure.

Left out are LEFT_OUT and what stops a process, which need processes of their own, the tests in the
documentation; and code under a `batchlink_*` cfg, such as the doubles for loom, which the tests do not
compile.

A survivor is named by its mutation and function, in names.py's words, and numbered only if one function
has several that are alike: neither files nor lines nor code stand in the list. The run fails on a
survivor without a reason, on a reason that names no mutant, and on a mutant that is said to survive and
thrice does not. --check builds nothing and looks only for reasons that name no mutant.
"""

import argparse
import collections
import concurrent.futures
import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import time

from names import current
from rust_source import File

ROOT = pathlib.Path(__file__).resolve().parent.parent
LIST = ROOT / "ci" / "mutants_survivors.txt"
WORK = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")).resolve() / "mutants"
CRATE = WORK / "crate"
RESULTS = WORK / "results.json"
# Of tests/.
LEFT_OUT = {"examples", "memory", "worker_pool"}
# Run only for what survives all others.
SLOW = ["suite::config::", "suite::collector::conservation::", "suite::collector::oracle::", "suite::collector::order::",
        "suite::collector::trigger::", "suite::link_set::set::"]
# One stops processes, the other has a small stack.
SKIPPED = ["suite::faults::stopped", "large_payloads_need_no_large_stack"]

# What checkers run instead of src/sync/real.rs.
NOT_COMPILED = {"src/sync/loom.rs", "src/sync/model.rs", "src/sync/shuttle.rs"}

SIGNATURE = re.compile(r"^ *(?:pub(?:\([^)]*\))? )?(?P<constant>const )?(?:async )?fn \w+", re.MULTILINE)

LIBRARY = """
#[cfg(test)]
extern crate self as batchlink;
#[cfg(test)]
#[path = "../tests/all.rs"]
mod suite;

pub(crate) mod chosen {
    #![allow(unsafe_code)]
    use std::sync::atomic::{AtomicU32, Ordering};

    static MUTANT: AtomicU32 = AtomicU32::new(0);

    // Before main, so that no test sees the allocation.
    #[used]
    #[unsafe(link_section = ".init_array")]
    static READ: extern "C" fn() = read;

    extern "C" fn read() {
        let number = std::env::var("BATCHLINK_MUTANT").ok().and_then(|text| text.parse().ok());
        MUTANT.store(number.unwrap_or(0), Ordering::Relaxed);
    }

    pub(crate) fn mutant() -> u32 {
        MUTANT.load(Ordering::Relaxed)
    }
}
"""


def copy_crate():
    CRATE.mkdir(parents=True, exist_ok=True)
    for name in ("src", "tests", "docs"):
        shutil.rmtree(CRATE / name, ignore_errors=True)
        shutil.copytree(ROOT / name, CRATE / name)
    for name in ("README.md", "Cargo.lock"):
        shutil.copy(ROOT / name, CRATE)
    manifest = (ROOT / "Cargo.toml").read_text()
    manifest = re.sub(r"\n\[workspace\](?:\n[^\[\n].*)*", "\n[workspace]", manifest)
    manifest = re.sub(r"\n\[\[example\]\](?:\n[^\[\n].*)*", "", manifest)
    manifest = manifest.replace("[package]\n", "[package]\nautotests = false\nautoexamples = false\n", 1)
    (CRATE / "Cargo.toml").write_text(manifest)
    for file in (CRATE / "src").rglob("*.rs"):
        file.write_text(without_checkers(File(file)))
    tests = CRATE / "tests"
    modules = {file.stem: file for file in tests.glob("*.rs")} | {file.parent.name: file for file in tests.glob("*/main.rs")}
    (tests / "all.rs").write_text("".join(
        f'#[path = "{file.relative_to(tests)}"]\nmod {name};\n' for name, file in sorted(modules.items()) if name not in LEFT_OUT))
    # What types can do is checked by the compiler, and unit tests add fields.
    traits = tests / "traits.rs"
    traits.write_text(re.sub(r"^assert_(?:not_)?impl_\w+!\(.*?\);\n", "", traits.read_text(), flags=re.MULTILINE | re.DOTALL))
    # Some start themselves again as a child, by the name of a test.
    for file in tests.rglob("*.rs"):
        if "current_exe" in (text := file.read_text()):
            binary = file.relative_to(tests).parts[0].removesuffix(".rs")
            file.write_text(text.replace('"--exact", "', f'"--exact", "suite::{binary}::'))


def without_checkers(file):
    """The text of a file without what only checkers compile; lines keep their numbers."""
    text = file.text
    for block in file.blocks:
        header = "".join(token.text for token in file.tokens[block.header:block.opens])
        if block.kind and block.parent is None and re.search(r"cfg\((?:any\()?batchlink_", header):
            start = file.tokens[block.header - 1].end if block.header else 0
            end = file.tokens[block.closes].end
            text = text[:start] + re.sub(r"[^\n]", " ", text[start:end]) + text[end:]
    return text


def body(text, at):
    """Where the body begins of the function whose name ends at `at`: its parameters may have braces, too."""
    depth = 0
    while text[at] != "{" or depth:
        depth += {"(": 1, ")": -1}.get(text[at], 0)
        at += 1
    return at + 1


class Mutant:
    def __init__(self, number, made, text):
        self.number, self.file = number, made["file"]
        _, self.line, _, self.name = re.fullmatch(r"(.*?):(\d+):(\d+): (.*)", made["name"]).groups()
        starts = [0]
        for line in text.splitlines(keepends=True):
            starts.append(starts[-1] + len(line))
        at = lambda place: starts[place["line"] - 1] + place["column"] - 1
        span, function = made["span"], made["function"]["span"]
        self.start, self.end = at(span["start"]), at(span["end"])
        self.body_end = at(function["end"]) - 1
        signature = SIGNATURE.search(text, starts[function["start"]["line"] - 1], self.body_end)
        self.body, self.constant = body(text, signature.end()), bool(signature["constant"])
        self.replacement = made["replacement"]


def list_mutants():
    listed = subprocess.run(["cargo", "mutants", "--dir", CRATE, "--list", "--json", "--gitignore=false"],
                            check=True, capture_output=True, text=True).stdout
    texts, mutants = {}, []
    for number, made in enumerate(json.loads(listed), 1):
        text = texts.setdefault(made["file"], (CRATE / made["file"]).read_text())
        # Outside of functions, and in constant ones, nothing can be chosen when the tests run.
        if made["function"] and made["file"] not in NOT_COMPILED:
            mutant = Mutant(number, made, text)
            if not mutant.constant:
                mutants.append(mutant)
    alike = collections.defaultdict(list)
    for mutant in mutants:
        alike[mutant.name].append(mutant)
    for same in alike.values():
        for place, mutant in enumerate(sorted(same, key=lambda mutant: (mutant.file, mutant.start)), 1):
            if len(same) > 1:
                mutant.name += f" #{place}"
    return texts, mutants


def write(texts, mutants):
    """Writes the files with all mutants; gives {(file, line): mutant} for the lines of each."""
    where = {}
    for file, text in texts.items():
        bodies = collections.defaultdict(list)
        here = [mutant for mutant in mutants if mutant.file == file]
        for mutant in here:
            # A function within a function: the outer one's body has both.
            around = min((other for other in here if other.body <= mutant.body and mutant.body_end <= other.body_end),
                         key=lambda other: other.body)
            bodies[around.body, around.body_end].append(mutant)
        written, line, done = [], 1, 0

        def put(piece):
            nonlocal line
            written.append(piece)
            line += piece.count("\n")

        for (start, end), choices in sorted(bodies.items()):
            put(text[done:start] + "\nmatch crate::chosen::mutant() {\n")
            for mutant in choices:
                first = line
                put(f"{mutant.number} => {{\n{text[start:mutant.start]}{mutant.replacement}{text[mutant.end:end]}\n}}\n")
                where.update({(file, number): mutant for number in range(first, line)})
            put("_ => {" + text[start:end] + "}\n}\n")
            done = end
        put(text[done:])
        if file == "src/lib.rs":
            put(LIBRARY)
        (CRATE / file).write_text("".join(written))
    if "src/lib.rs" not in texts:
        (CRATE / "src/lib.rs").write_text((ROOT / "src/lib.rs").read_text() + LIBRARY)
    return where


def build(texts, mutants):
    """The test binary with as many of the mutants as build, and those."""
    environment = dict(os.environ, CARGO_TARGET_DIR=str(WORK / "build"), CARGO_INCREMENTAL="0")
    command = ["cargo", "test", "--all-features", "--lib", "--no-run", "--quiet", "--message-format=json"]
    while True:
        where = write(texts, mutants)
        done = subprocess.run(command, cwd=CRATE, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        messages = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
        if done.returncode == 0:
            return next(m["executable"] for m in messages if m.get("executable")), mutants
        bad, unclear = set(), []
        for message in messages:
            if message["reason"] == "compiler-message" and message["message"]["level"] == "error":
                spans = [span for span in message["message"]["spans"] if span["is_primary"]]
                guilty = {where.get((span["file_name"], span["line_start"])) for span in spans} - {None}
                bad |= guilty
                if spans and not guilty:
                    unclear.append(message["message"]["rendered"])
        if not bad:
            raise SystemExit("error: does not build:\n" + "\n".join(unclear) + done.stderr)
        mutants = [mutant for mutant in mutants if mutant not in bad]


def run(binary, number, timeout):
    """Runs the quick tests, then the slow ones, until one fails: "survived", "noticed" or "hung"."""
    for part in [argument for name in SLOW + SKIPPED for argument in ("--skip", name)], SLOW:
        outcome = run_part(binary, number, timeout, part)
        if outcome[0] != "survived":
            break
    return outcome


def run_part(binary, number, timeout, part):
    # RUSTC_BOOTSTRAP: the harness stops at a failure only if it is told so with -Z.
    # Many threads: a test that hangs does not keep others from failing.
    # Large stacks: a function has the variables of all its mutants.
    environment = dict(os.environ, BATCHLINK_MUTANT=str(number), RUSTC_BOOTSTRAP="1", RUST_TEST_THREADS="16",
                       RUST_MIN_STACK=str(64 << 20))
    process = subprocess.Popen([binary, "-Zunstable-options", "--fail-fast", *part], cwd=CRATE, env=environment,
                               stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                               errors="replace", start_new_session=True)
    try:
        output, _ = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        return "hung", ""
    failed = re.findall(r"^test (\S+).* FAILED$", output, re.MULTILINE)
    return ("survived", "") if process.returncode == 0 else ("noticed", failed[0] if failed else output[-200:])


def survivors():
    """The list: {mutant: reason}. A block is the mutant and, indented, the reason."""
    reasons = {}
    for block in re.split(r"\n\s*\n", LIST.read_text()):
        lines = [line for line in block.splitlines() if line and not line.startswith("#")]
        if not lines:
            continue
        if len(lines) < 2 or not all(line.startswith("    ") for line in lines[1:]):
            raise SystemExit(f"error: {LIST.name}: not a mutant and a reason:\n{block}")
        reasons[current(lines[0])] = " ".join(" ".join(lines[1:]).split())
    return reasons


def stale(reasons, mutants):
    """Reasons that name no mutant, as lines of text."""
    names = {mutant.name for mutant in mutants}
    return [f"HAS A REASON, but is no mutant: {name}" for name in reasons if name not in names]


def judge(results, reasons):
    errors = []
    for result in results:
        name, survived = result["name"], result["outcome"] == "survived"
        if survived and name not in reasons:
            errors.append(f"SURVIVED without a reason: {name}: {result['code']}")
        if not survived and name in reasons:
            errors.append(f"NOTICED, but said to survive: {name}: {result['code']}")
    counts = collections.Counter(result["outcome"] for result in results)
    for line in errors:
        print(line)
    print(f"mutants: {len(results)} in all, {counts['noticed']} failed a test, {counts['hung']} hung, "
          f"{counts['survived']} survived; {len(errors)} errors")
    return not errors


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("only", nargs="*", help="only mutants whose file or name contains one of these, in that order")
    parser.add_argument("--check", action="store_true", help="build nothing: does each reason name a mutant?")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--timeout", type=int, default=60, help="seconds until a mutant counts as hung")
    options = parser.parse_args()
    reasons = survivors()
    copy_crate()
    texts, mutants = list_mutants()
    listed = len(mutants)
    wrong = stale(reasons, mutants)
    for line in wrong:
        print(line)
    if options.check:
        print(f"mutants: {listed} listed, {len(reasons)} reasons, {len(wrong)} of them name no mutant")
        sys.exit(bool(wrong))
    began = time.monotonic()
    binary, mutants = build(texts, mutants)
    print(f"{len(mutants)} of {listed} mutants build ({time.monotonic() - began:.0f} s)", flush=True)
    outcome, test = run(binary, 0, 10 * options.timeout)
    if outcome != "survived":
        raise SystemExit(f"error: without any mutant the tests {outcome}: {test}")
    names = subprocess.run([binary, "--list"], cwd=CRATE, check=True, capture_output=True, text=True).stdout
    wrong += [f"{name}: no test is called so" for name in SLOW + SKIPPED if name not in names]
    if options.only:
        mutants = [mutant for only in options.only for mutant in mutants if only in f"{mutant.file}: {mutant.name}"]

    def attempt(mutant):
        # What needs two threads to meet is noticed at times only, and a machine may be slow: such a test says nothing
        # against a reason.
        for _ in range(3 if mutant.name in reasons else 1):
            outcome = run(binary, mutant.number, options.timeout)
            if outcome[0] == "survived":
                break
        return outcome

    results = []
    with concurrent.futures.ThreadPoolExecutor(options.jobs) as pool:
        for mutant, (outcome, test) in zip(mutants, pool.map(attempt, mutants)):
            where = f"{mutant.file}:{mutant.line}"
            code = " ".join(texts[mutant.file].splitlines()[int(mutant.line) - 1].split())
            results.append({"name": mutant.name, "code": f"{where}: {code}", "outcome": outcome, "test": test})
            RESULTS.write_text(json.dumps(results, indent=1))
            print(f"{outcome:8} {where}: {mutant.name} {test}", flush=True)
    print(f"{time.monotonic() - began:.0f} s")
    for line in wrong:
        print(line)
    sys.exit(not judge(results, reasons) or bool(wrong))


if __name__ == "__main__":
    main()
