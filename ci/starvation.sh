#!/usr/bin/env bash
# Producers frozen in the middle of a push, a flusher frozen in its handler, clocks that jump or stand
# still: by hooks that are compiled in for this alone.
set -euo pipefail
cd "$(dirname "$0")/.."
export RUSTC_WORKSPACE_WRAPPER=$PWD/ci/cfg/hooks
log=$(mktemp)
trap 'rm -f "$log"' EXIT
# A filter that finds no test would pass. All features, as in test.sh, so that dependencies are shared.
run() {
    cargo test --quiet --all-features "$@" | tee "$log"
    grep -q '^test result: ok. [1-9]' "$log" || { echo "no test was run: $*" >&2; exit 1; }
}
# What counts steps counts those of the whole process.
run --test starvation
run --test starvation -- --ignored
run --test faults clock
