#!/bin/sh
# Checks all models of the protocol; about a minute on two cores.
# LOOM_MAX_PREEMPTIONS=n explores further than the models ask for.
set -eu
cd "$(dirname "$0")/../loom-tests"
log=$(mktemp)
trap 'rm -f "$log"' EXIT
cargo test --release --no-run
began=$(date +%s)
# loom prints debug lines to stderr by the million; panics come on stdout.
if cargo test --release --test models 2>/dev/null >"$log"; then
    echo "loom: $(grep -c '\.\.\. ok$' "$log") models hold, $(($(date +%s) - began)) s"
else
    cat "$log"
    echo "loom: FAILED after $(($(date +%s) - began)) s"
    exit 1
fi
