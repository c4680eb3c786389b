#!/usr/bin/env bash
# Formatting of every package.
set -euo pipefail
cd "$(dirname "$0")/.."
cargo fmt --all --check
for manifest in {loom-tests,shuttle-tests,fuzz,examples/nats,examples/viewer}/Cargo.toml; do
    [ ! -f "$manifest" ] || cargo fmt --manifest-path "$manifest" --check
done
