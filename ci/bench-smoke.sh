#!/usr/bin/env bash
# Every benchmark builds and runs, with tiny work. Results are compared among the contestants;
# no time is looked at.
set -euo pipefail
cd "$(dirname "$0")/.."
out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT

# Not in release: what is compared is the same, and dependencies are compiled in half the time.
cargo build --quiet -p batchlink-bench --bins --benches
bench=${CARGO_TARGET_DIR:-target}/debug/batchlink-bench
"$bench" --quick --smoke --out "$out" >"$out/quick.md"
status=0
"$bench" --no-such-flag >/dev/null 2>&1 || status=$?
[ "$status" = 2 ] || { echo "an unknown flag exits with $status instead of 2" >&2; exit 1; }
# The counters change the code, so they have a build of their own.
RUSTC_WORKSPACE_WRAPPER=$PWD/ci/cfg/count cargo run --quiet -p batchlink-bench -- \
    --scaling --smoke --out "$out" >"$out/scaling.md"
python3 - "$out" <<'PYTHON'
import json, pathlib, sys
out = pathlib.Path(sys.argv[1])
rows = json.loads((out / "results.json").read_text())
keys = {"bench", "contestant", "param", "unit", "median", "min", "max"}
assert rows and all(set(row) == keys for row in rows), "results.json is not the flat list it should be"
benches = {row["bench"] for row in rows}
assert benches == {"push", "cycle", "contention", "latency", "link_set", "allocs", "scaling"}, benches
plots = sorted(path.stem for path in out.glob("*.svg"))
assert {"throughput", "latency", "cycle", "scaling-balanced"} <= set(plots), plots
print(f"{len(rows)} figures of {len(benches)} benches, {len(plots)} plots")
PYTHON

cargo bench --quiet --profile dev -p batchlink-bench --benches -- --test >"$out/criterion.txt"
echo "criterion: $(grep -c '^Success' "$out/criterion.txt") benchmarks ran once"
