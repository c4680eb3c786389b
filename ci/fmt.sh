#!/usr/bin/env bash
# Formatting of every package.
set -euo pipefail
cd "$(dirname "$0")/.."
cargo fmt --all --check
for manifest in loom-tests/Cargo.toml shuttle-tests/Cargo.toml fuzz/Cargo.toml; do
    [ ! -f "$manifest" ] || cargo fmt --manifest-path "$manifest" --check
done
