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
    models=$(grep -c '\.\.\. ok$' "$log" || true)
    echo "loom: $models models hold, $(($(date +%s) - began)) s"
    # None would be compiled if RUSTFLAGS took the place of those in .cargo/config.toml.
    [ "$models" -ge 50 ] || { echo "loom: there are more models than that" >&2; exit 1; }
else
    cat "$log"
    echo "loom: FAILED after $(($(date +%s) - began)) s"
    exit 1
fi
