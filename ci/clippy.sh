#!/usr/bin/env bash
# Lints as errors: with all features and with none, and with the code that only models see.
set -euo pipefail
cd "$(dirname "$0")/.."
cargo clippy --workspace --all-targets --all-features -- -D warnings
cargo clippy --all-targets --no-default-features -- -D warnings
for package in loom-tests shuttle-tests fuzz; do
    (cd "$package" && cargo clippy --all-targets -- -D warnings)
done
