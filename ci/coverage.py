"""Prints the coverage of each file of src/ and fails on an unexplained line of the protocol.

The protocol is named by its types: each line of what is implemented for one of them must be run.
"""

import json
import pathlib
import sys

from names import current
from rust_source import File

# Every line of these types must be run ...
PROTOCOL = "Word Snapshot Ring Claim Consumer Take Signal TriggerState LinkSet LinkSetBuilder Table Outcome"
# ... but for what begins so in these functions.
UNCOVERED = {
    "Ring::claim": ("Err(", "another thread changed the word in between: in some runs only"),
    "Ring::close": ("Err(", "the same"),
}


def uncovered(file):
    """Numbers of lines that no test runs. A segment is [line, column, count, counted, starts, is gap]."""
    runs = {}
    segments = file["segments"]
    for this, following in zip(segments, segments[1:]):
        line, _, count, counted, _, gap = this
        if counted and not gap:
            for number in range(line, following[0] + (following[1] > 1)):
                runs[number] = max(runs.get(number, 0), count)
    return [number for number, count in sorted(runs.items()) if count == 0]


def function_at(source, line):
    """The function that a line is in, or None; tests are none."""
    around = [block for block in source.blocks
              if block.kind == "fn" and source.line(source.tokens[block.header].start) <= line
              <= source.line(source.tokens[block.closes].start) and not source.in_tests(block.opens)]
    return around[-1].path() if around else None


def row(name, counts):
    lines, regions = counts["lines"], counts["regions"]
    return (f"{name:28} {lines['count']:6} {lines['percent']:6.1f}% "
            f"{regions['count']:8} {regions['percent']:6.1f}%")


def main():
    data = json.loads(pathlib.Path(sys.argv[1]).read_text())["data"][0]
    protocol = current(PROTOCOL).split()
    excused = {current(function): excuse for function, excuse in UNCOVERED.items()}
    print(f"{'file':28} {'lines':>6} {'run':>7} {'regions':>8} {'run':>7}")
    owners, bad = set(), []
    for file in sorted(data["files"], key=lambda file: file["filename"]):
        path = pathlib.Path(file["filename"])
        if "src" not in path.parts or path.name == "flooding.rs":
            continue
        name = "/".join(path.parts[len(path.parts) - path.parts[::-1].index("src"):])
        print(row(name, file["summary"]))
        source = File(path)
        owners |= {block.name for block in source.blocks if block.kind == "impl"}
        code = source.text.splitlines()
        for number in uncovered(file):
            function = function_at(source, number)
            line = code[number - 1].strip()
            begins, reason = excused.get(function, (None, ""))
            excuse = begins is not None and line.startswith(begins)
            print(f"    {name}:{number}: {line}" + (f"   # {reason}" if excuse else ""))
            if function and function.partition("::")[0] in protocol and not excuse:
                bad.append(f"{name}:{number}: run by no test, and has no reason: {function}: {line}")
    print(row("all", data["totals"]))
    bad += [f"no type is called {name}: see PROTOCOL, and names.py" for name in protocol if name not in owners]
    for line in bad:
        print(line)
    sys.exit(bool(bad))


if __name__ == "__main__":
    main()
