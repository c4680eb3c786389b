#!/usr/bin/env python3
"""Checks the documents: line lengths, links, and that the names they use exist."""
import pathlib
import re
import subprocess
import sys

COLUMNS = 100
PAGES = {"COOKBOOK.md", "GUIDE.md", "LIMITS.md", "METRICS.md"}
MOST_LINES = {"README.md": 120, "BENCHMARKS.md": 90}
# Where a name may be: as a word, in a file's name or in its text.
SOURCES = ["src", "tests", "loom-tests", "shuttle-tests", "fuzz", "examples", "bench", "ci", "Cargo.toml"]
# Names of other projects and systems.
FOREIGN = {"no_std", "dropped_links_count", "spawn_blocking", "fork", "SIGSTOP", "SIGCONT"}

root = pathlib.Path(__file__).resolve().parent.parent
problems = []


def tracked(*patterns):
    out = subprocess.run(["git", "ls-files", "-co", "--exclude-standard", *patterns],
                         cwd=root, check=True, capture_output=True, text=True).stdout
    return [root / line for line in out.splitlines() if (root / line).is_file()]


def report(path, line, text):
    problems.append(f"{path.relative_to(root)}:{line}: {text}")


def anchors(path):
    """The anchors of a file's headings, as forges and rustdoc make them."""
    found = set()
    for heading in re.findall(r"^#+ (.*)$", path.read_text(), re.M):
        found.add(re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-"))
    return found


def links(text):
    text = re.sub(r"```.*?```", lambda code: "\n" * code.group().count("\n"), text, flags=re.S)
    for link in re.finditer(r"\]\(([^)\s]+)\)|^\[[^\]]+\]: (\S+)", text, re.M):
        yield text.count("\n", 0, link.start()) + 1, link.group(1) or link.group(2)


def check(path):
    text = path.read_text()
    generated = "Generated: do not edit." in text
    lines = text.splitlines()
    if not generated:
        for number, line in enumerate(lines, 1):
            if len(line) > COLUMNS and not re.match(r"\[[^]]+\]: ", line):
                report(path, number, f"{len(line)} columns, more than {COLUMNS}")
    most = MOST_LINES.get(path.relative_to(root).as_posix())
    if most and len(lines) > most:
        report(path, len(lines), f"{len(lines)} lines, more than {most}")
    for number, target in links(text):
        if re.match(r"(https?|mailto):|crate::", target):
            continue
        # These are pages of docs.rs, which have no files beside them.
        if path.name in PAGES and not target.startswith("#"):
            report(path, number, f"not absolute, nor a path in the crate: {target}")
            continue
        file, _, anchor = target.partition("#")
        aim = (path.parent / file).resolve() if file else path
        if not aim.exists():
            report(path, number, f"leads nowhere: {target}")
        elif anchor and aim.suffix == ".md" and anchor not in anchors(aim):
            report(path, number, f"no such heading: {target}")


def known_words():
    files = [file for file in tracked(*SOURCES) if file.suffix in {".rs", ".toml", ".sh", ".py", ".txt"}]
    files = [file for file in files if file != pathlib.Path(__file__).resolve()]
    return {word for file in files for word in re.findall(r"\w+", file.read_text())} | {file.stem for file in files}


def check_names(path, words):
    """Names in the text: of items, tests, models and targets, alone or in a path."""
    text = re.sub(r"```.*?```", lambda code: "\n" * code.group().count("\n"), path.read_text(), flags=re.S)
    for number, line in enumerate(text.splitlines(), 1):
        for name in re.findall(r"`([A-Za-z]\w*(?:::\w+)*)`", line):
            for word in name.split("::"):
                if word not in words | FOREIGN:
                    report(path, number, f"`{name}`: {word} is nowhere in {', '.join(SOURCES)}")
        for module in re.findall(r"`([a-z_]+/[a-z_]+)`", line):
            if not (root / "tests" / f"{module}.rs").exists() and not (root / module).exists():
                report(path, number, f"there is no tests/{module}.rs")


def check_invariants(design):
    """Invariants that code and models refer to, as in "Invariant: claim-once."."""
    known = set(re.findall(r"^- `([a-z]+(?:-[a-z]+)+)`:", design.read_text(), re.M))
    used = 0
    for file in tracked("src", "loom-tests", "shuttle-tests"):
        if file.suffix != ".rs":
            continue
        for number, line in enumerate(file.read_text().splitlines(), 1):
            for name in re.findall(r"[Ii]nvariants?:? `?([a-z]+(?:-[a-z]+)+)", line):
                used += 1
                if name not in known:
                    report(file, number, f"docs/DESIGN.md names no invariant `{name}`")
    return len(known), used


def check_settings(guide):
    """Every method of a builder has a row in a table of the guide, by its name or without `with_`."""
    rows = set(re.findall(r"^\| `(\w+)`", guide.read_text(), re.M))
    count = 0
    for file in tracked("src/collector", "src/link_set", "src/processor", "src/messaging"):
        text = file.read_text()
        for setter in re.finditer(r"^ *pub fn (with(?:out)?_\w+)(?:<[^(]*>)?\(\s*(?:mut )?self\b", text, re.M):
            count += 1
            if not {setter[1], setter[1].removeprefix("with_")} & rows:
                report(file, text.count("\n", 0, setter.start()) + 1, f"{setter[1]} has no row in a table of GUIDE.md")
    return count


documents = tracked("*.md", ":!fuzz")
for document in documents:
    check(document)
words = known_words()
for name in ["README.md", "docs/COOKBOOK.md", "docs/GUIDE.md", "docs/LIMITS.md", "docs/METRICS.md", "docs/DESIGN.md", "docs/TESTING.md", "CONTRIBUTING.md"]:
    check_names(root / name, words)
named, used = check_invariants(root / "docs/DESIGN.md")
settings = check_settings(root / "docs/GUIDE.md")
print("\n".join(problems))
print(f"documents: {len(documents)}, {named} invariants named in DESIGN.md and referred to {used} times, {settings} settings")
sys.exit(bool(problems))
