"""Measures how documentation and names read, and fails where a threshold is missed.

A public function is a `pub fn`, or one of a `pub trait`; a public type is a `pub` struct, enum,
union, trait or type alias. rustc's `unreachable_pub` sees to it that `pub` means public.
A function's docs open with a verb if their first word is in VERBS ("Returns"), an adverb apart.
An item has an example if its own docs have a fenced block of Rust.
"""

import argparse
import pathlib
import re
import subprocess
import sys

from rust_source import File

ROOT = pathlib.Path(__file__).resolve().parent.parent

# What is wanted: (measure, at least or at most, threshold). Others are printed only.
THRESHOLDS = {
    "functions whose docs open with a verb, %": (">=", 95),
    "functions with an example, %": (">=", 33),
    "types with an example, %": (">=", 100),
    "persons per 1,000 words of docs": ("<=", 0),
    "test names over 6 words": ("<=", 0),
    "lines over 100 columns": ("<=", 0),
    "files of src/ over 350 lines": ("<=", 0),
}
COLUMNS, WORDS, LINES, MOST_LINES = 100, 6, 300, 350
# Generated, or not ours to wrap.
WIDE = re.compile(r"^docs/bench/|^fuzz/seeds/|(^|/)LICENSE")
# The only file with unsafe: what has to be read together stays together.
LONG = {"src/queue/ring.rs"}
# A link cannot be broken.
LINK = re.compile(r"\S{60,}")
PERSONS = re.compile(r"\b(who|whom|whoever|nobody|somebody|anybody|everybody|someone|anyone|everyone)\b", re.I)

VERBS = set("""
    Accepts Accounts Acquires Adds Adopts Advances Allocates Allows Answers Appends Applies Arms
    Asks Asserts Attaches Awaits Batches Begins Binds Blocks Borrows Bounds Builds Calls Cancels
    Caps Changes Checks Claims Clears Clones Closes Collects Combines Compares Compensates Completes
    Computes Configures Consults Consumes Continues Converts Copies Counts Creates Cuts Decides
    Declares Decodes Decrements Deduplicates Defers Defines Delays Delivers Denotes Derives
    Describes Deserializes Detaches Determines Disables Disarms Discards Dispatches Divides Does
    Downgrades Drains Drives Drops Emits Enables Encodes Ends Enqueues Ensures Enters Escapes
    Estimates Evaluates Evicts Examines Exchanges Executes Exits Expands Expires Exports Exposes
    Extends Extracts Fails Feeds Fetches Fills Filters Finds Finishes Fires Flattens Flushes Folds
    Forces Forgets Formats Forwards Frees Gathers Generates Gets Gives Grants Groups Grows
    Guarantees Halts Handles Hands Hashes Hides Hoists Holds Identifies Ignores Implements
    Increments Indicates Initializes Injects Inserts Inspects Installs Instruments Interprets
    Interrupts Invalidates Invokes Iterates Joins Keeps Labels Leaves Lends Lets Limits Links Lists
    Loads Locates Locks Logs Looks Makes Maps Marks Matches Measures Merges Moves Names Normalizes
    Notes Notifies Observes Obtains Offers Omits Opens Orders Overrides Overwrites Pairs Panics
    Parks Parses Passes Pauses Peeks Performs Permits Picks Pins Places Plans Points Polls Pops
    Posts Prepares Prevents Prints Processes Produces Promises Propagates Proves Provides Publishes
    Pulls Pushes Puts Queues Quotes Raises Reads Rearms Receives Reclaims Records Reduces Refers
    Refills Refuses Registers Rejects Releases Remembers Removes Renames Renders Repeats Replaces
    Replies Reports Represents Requests Requires Rereads Reserves Resets Resolves Restarts Restores
    Restricts Resumes Retains Retries Returns Reuses Reverses Rings Rounds Routes Runs Samples Saves
    Says Scales Scans Schedules Seals Searches Selects Sends Separates Serializes Sets Settles
    Shares Shows Shrinks Shuts Signals Skips Sorts Spawns Specifies Splits Stalls Starts States
    Steps Stops Stores Streams Submits Subscribes Subtracts Sums Suspends Swaps Takes Tells Tests
    Tracks Transfers Translates Traverses Tries Trims Truncates Turns Undoes Unlocks Unparks
    Unregisters Unwraps Updates Upgrades Uses Validates Verifies Visits Waits Wakes Warns Weighs
    Withdraws Wraps Writes Yields
""".split())

TEST = re.compile(r"#\[(?:\w+::)*test\b[^\]]*\]")
FENCE = re.compile(r"^\s*```(.*)$")
RUST_FENCE = re.compile(r"^(rust|no_run|should_panic|compile_fail|ignore|edition\d+)?(,.*)?$")
FUNCTION = re.compile(r"^\s*(pub )?(?:default |const |async |unsafe |extern \"C\" )*fn (\w+)")
TYPE = re.compile(r"^\s*pub (?:struct|enum|union|trait|type) (\w+)")


def tracked(*patterns):
    listed = subprocess.run(["git", "ls-files", "-co", "--exclude-standard", *patterns], cwd=ROOT, check=True,
                            capture_output=True, text=True).stdout
    return [ROOT / name for name in listed.splitlines() if (ROOT / name).is_file()]


def where(path, line):
    return f"{path.relative_to(ROOT)}:{line}"


class Measures:
    def __init__(self):
        self.rows = []

    def add(self, name, value, text, bad):
        self.rows.append((name, value, text, bad))

    def count(self, name, bad):
        self.add(name, len(bad), str(len(bad)), bad)

    def share(self, name, good, all_items):
        """`good` and `all_items` are lists of (place, text)."""
        percent = 100 * len(good) / max(1, len(all_items))
        bad = [item for item in all_items if item not in good]
        self.add(name, percent, f"{percent:.1f} ({len(good)} of {len(all_items)})", bad)

    def show(self, listed):
        failed = []
        width = max(len(name) for name, *_ in self.rows)
        print(f"{'measure':{width}}  {'figure':>20}  wanted")
        for name, value, text, bad in self.rows:
            how, limit = THRESHOLDS.get(name, ("", ""))
            missed = how == ">=" and value < limit or how == "<=" and value > limit
            print(f"{name:{width}}  {text:>20}  {how} {limit} {'MISSED' if missed else ''}".rstrip())
            if missed:
                failed.append(name)
        for name, _, _, bad in self.rows if listed else []:
            if bad and (not isinstance(listed, str) or listed in name):
                print(f"\n{name}: {'without' if '%' in name else 'these'}")
                print("\n".join(f"    {place}: {text}" for place, text in bad))
        return failed


def docs_above(lines, at):
    """The doc comment over line `at`, attributes apart, and whether it is hidden from the documentation."""
    docs, hidden, attribute = [], False, False
    for line in reversed(lines[:at]):
        text = line.strip()
        if attribute or text.startswith("#["):
            attribute = not text.startswith("#[")
            hidden |= "doc(hidden)" in text or "cfg(batchlink_" in text or "cfg(any(batchlink_" in text
        elif text.startswith("///"):
            docs.append(text[3:].removeprefix(" "))
        elif text.endswith(")]") and text[:1] in ")":
            attribute = True
        elif not text.startswith("//"):
            break
    return docs[::-1], hidden


def has_example(docs):
    inside = False
    for line in docs:
        if fence := FENCE.match(line):
            if not inside and RUST_FENCE.match(fence[1].strip()):
                return True
            inside = not inside
    return False


def opens_with_verb(docs):
    words = [word.strip(",.;:*").capitalize() for word in (docs[0] if docs else "").split()]
    return next((word for word in words if not word.endswith("ly")), "") in VERBS


def unreachable(file, block):
    """Whether a block is a module that no user of a release can name: sealed, or for checkers only."""
    header = "".join(token.text for token in file.tokens[block.header:block.opens])
    return block.kind == "mod" and (block.name == "sealed" or "cfg(batchlink_" in header)


def public_items(files):
    """[(kind, file, line, path, docs, type)] of the public functions and types."""
    for file in files:
        lines = file.text.splitlines()
        for number, line in enumerate(lines):
            function, named = FUNCTION.match(line), TYPE.match(line)
            if not function and not named:
                continue
            offset = file.starts[number] + len(line) - len(line.lstrip())
            around = [block for block in file.blocks
                      if file.tokens[block.opens].start < offset < file.tokens[block.closes].start]
            owner = around[-1] if around else None
            if any(block in file.tests or block.kind == "fn" or unreachable(file, block) for block in around):
                continue
            docs, hidden = docs_above(lines, number)
            if hidden:
                continue
            if named:
                yield "type", file, number + 1, named[1], docs, named[1]
                continue
            in_trait = owner and owner.kind == "trait" and file.tokens[owner.header].text == "pub"
            if function[1] or in_trait:
                name = owner.name if owner and owner.kind in ("impl", "trait") else None
                yield "function", file, number + 1, f"{name}::{function[2]}" if name else function[2], docs, name


def comments(files, docs):
    """[(place, line)] of doc comments, or of all others. What is quoted as code is no prose."""
    for file in files:
        for number, line in enumerate(file.text.splitlines(), 1):
            match = re.match(r"\s*(///|//!|//) ?(.*)", line)
            if match and (match[1] != "//") == docs:
                yield where(file.path, number), re.sub(r"`[^`]*`", "`_`", match[2])


def persons(lines):
    return [(place, text) for place, text in lines for _ in PERSONS.findall(text)]


def tests(files):
    for file in files:
        for block in file.blocks:
            if block.kind == "fn":
                header = file.text[file.tokens[block.header].start:file.tokens[block.opens].start]
                if TEST.search(header):
                    yield where(file.path, file.line(file.tokens[block.opens].start)), block.name


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--list", nargs="?", const=True, metavar="PART",
                        help="what is counted, of the measures whose name contains PART")
    options = parser.parse_args()
    rust = [File(path) for path in tracked("*.rs")]
    source = [file for file in rust if file.path.is_relative_to(ROOT / "src")]
    measures = Measures()

    functions, types, items, with_type = [], [], [], []
    shown = {"function": [], "type": []}
    verbs = []
    found = list(public_items(source))
    examples_of = {(item[3]) for item in found if item[0] == "type" and has_example(item[4])}
    for kind, file, line, path, docs, owner in found:
        item = where(file.path, line), f"{path}: {docs[0] if docs else '(no docs)'}"
        items.append(item)
        (functions if kind == "function" else types).append(item)
        if has_example(docs):
            shown[kind].append(item)
        if has_example(docs) or owner in examples_of:
            with_type.append(item)
        if kind == "function" and opens_with_verb(docs):
            verbs.append(item)
    measures.share("functions whose docs open with a verb, %", verbs, functions)
    measures.share("functions with an example, %", shown["function"], functions)
    measures.share("types with an example, %", shown["type"], types)
    measures.share("items with an example, %", shown["function"] + shown["type"], items)
    measures.share("items with an example, or whose type has one, %", with_type, items)

    lines = list(comments(source, docs=True))
    words = sum(len(re.findall(r"[A-Za-z']+", text)) for _, text in lines)
    bad = persons(lines)
    rate = 1000 * len(bad) / max(1, words)
    measures.add("persons per 1,000 words of docs", rate, f"{rate:.1f} ({len(bad)} of {words})", bad)
    others = [file for file in rust if file not in source]
    measures.count("persons in other comments of src/", persons(comments(source, docs=False)))
    measures.count("persons in comments elsewhere",
                   persons([*comments(others, docs=True), *comments(others, docs=False)]))

    names = list(tests(rust))
    long = [(place, name) for place, name in names if len(name.split("_")) > WORDS]
    measures.count(f"test names over {WORDS} words", long)
    measures.count("test names over 5 words", [one for one in names if len(one[1].split("_")) > 5])
    measures.add("tests", len(names), str(len(names)), [])

    wide, tables = [], []
    for path in tracked("*.rs", "*.md"):
        if WIDE.search(str(path.relative_to(ROOT))):
            continue
        for number, line in enumerate(path.read_text().splitlines(), 1):
            if len(line) > COLUMNS and not LINK.search(line):
                row = path.suffix == ".md" and line.startswith("|")
                (tables if row else wide).append((where(path, number), f"{len(line)} columns"))
    measures.count(f"lines over {COLUMNS} columns", wide)
    measures.count(f"rows of Markdown tables over {COLUMNS} columns", tables)

    lengths = sorted(((len(file.text.splitlines()), file) for file in source), key=lambda pair: -pair[0])
    for most in LINES, MOST_LINES:
        measures.count(f"files of src/ over {most} lines",
                       [(name, f"{count} lines") for count, file in lengths
                        if count > most and (name := str(file.path.relative_to(ROOT))) not in LONG])

    failed = measures.show(options.list)
    if failed:
        print(f"\nstyle: missed: {'; '.join(failed)}" + ("" if options.list else " (--list shows where)"), file=sys.stderr)
    sys.exit(bool(failed))


if __name__ == "__main__":
    main()
