"""Prints the coverage of each file of src/ and fails on an unexplained line of the protocol's files."""

import json
import pathlib
import sys

# Tests that are modules of src/.
TESTS = ["flooding.rs"]
# Every line of these must be run ...
PROTOCOL = ["ring.rs", "trigger.rs", "link_set/mod.rs"]
# ... but for these, by their text: {file: {line: reason}}. They may be run as well.
UNCOVERED = {
    "ring.rs": {
        "Err(now) => word = Word(now),": "another thread changed the word in between: in some runs only",
    },
}


def uncovered(file):
    """Numbers of lines that no test runs. A segment is [line, column, count, has count, starts, is gap]."""
    runs = {}
    active = None
    segments = file["segments"]
    for this, following in zip(segments, segments[1:]):
        line, _, count, counted, _, gap = this
        if counted and not gap:
            for number in range(line, following[0] + (following[1] > 1)):
                runs[number] = max(runs.get(number, 0), count)
    return [number for number, count in sorted(runs.items()) if count == 0]


def main():
    data = json.loads(pathlib.Path(sys.argv[1]).read_text())["data"][0]
    print(f"{'file':22} {'lines':>6} {'run':>7} {'regions':>8} {'run':>7}")
    bad = []
    for file in sorted(data["files"], key=lambda file: file["filename"]):
        path = pathlib.Path(file["filename"])
        if "src" not in path.parts or path.name in TESTS:
            continue
        name = "/".join(path.parts[len(path.parts) - path.parts[::-1].index("src"):])
        counted, regions = file["summary"]["lines"], file["summary"]["regions"]
        print(f"{name:22} {counted['count']:6} {counted['percent']:6.1f}% {regions['count']:8} {regions['percent']:6.1f}%")
        text = path.read_text().splitlines()
        lines = {line.strip() for line in text}
        bad += [f"{path.name} has no line: {code}" for code in UNCOVERED.get(path.name, {}) if code not in lines]
        for number in uncovered(file):
            code = text[number - 1].strip()
            if path.name not in PROTOCOL:
                print(f"    {name}:{number}: {code}")
            elif code in UNCOVERED.get(path.name, {}):
                print(f"    {path.name}:{number}: {code}   # {UNCOVERED[path.name][code]}")
            else:
                bad.append(f"{path.name}:{number} is run by no test and has no reason: {code}")
    totals = data["totals"]
    print(f"{'all':22} {totals['lines']['count']:6} {totals['lines']['percent']:6.1f}% "
          f"{totals['regions']['count']:8} {totals['regions']['percent']:6.1f}%")
    print("\n".join(bad))
    sys.exit(bool(bad))


if __name__ == "__main__":
    main()
