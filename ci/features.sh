#!/usr/bin/env bash
# Every combination of features compiles, and the core stays small.
set -euo pipefail
cd "$(dirname "$0")/.."
cargo hack --version >/dev/null 2>&1 || cargo install --quiet --locked cargo-hack
RUSTFLAGS="-D warnings" cargo hack check --feature-powerset --no-dev-deps --target-dir target/features

allowed="ahash arrayvec atomic-waker crossbeam-utils opentelemetry"
found=$(cargo tree -e normal --no-default-features --depth 1 --prefix none | tail -n +2 | cut -d' ' -f1 | sort | tr '\n' ' ')
echo "direct dependencies of the core: $found"
[ "$found" = "$allowed " ] || { echo "allowed are: $allowed" >&2; exit 1; }
