#!/usr/bin/env bash
# Producers frozen in the middle of a push, a flusher frozen in its handler, clocks that jump or stand
# still: by hooks that are compiled in for this alone.
set -euo pipefail
cd "$(dirname "$0")/.."
# In a folder of its own, or every other build would start afresh.
export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-target}/hooks"
RUSTFLAGS="${RUSTFLAGS:-} --cfg batchlink_hooks --cfg batchlink_count"
export RUSTFLAGS
# What counts steps counts those of the whole process.
cargo test --quiet --features tokio --test starvation
cargo test --quiet --features tokio --test starvation -- --ignored
cargo test --quiet --features tokio --test faults clock
