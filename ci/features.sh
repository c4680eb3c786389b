#!/usr/bin/env bash
# Every pair of features compiles, and all together; and the core stays small. (All combinations are
# hundreds, and code that depends on features names two at most.)
set -euo pipefail
cd "$(dirname "$0")/.."
cargo hack --version >/dev/null 2>&1 || cargo install --quiet --locked cargo-hack
export RUSTFLAGS="-D warnings"
cargo hack check --feature-powerset --depth 2 --no-dev-deps --target-dir target/features
cargo hack check --all-features --no-dev-deps --target-dir target/features

allowed="ahash arrayvec atomic-waker crossbeam-utils opentelemetry"
found=$(cargo tree -e normal --no-default-features --depth 1 --prefix none | tail -n +2 | cut -d' ' -f1 | sort | tr '\n' ' ')
echo "direct dependencies of the core: $found"
[ "$found" = "$allowed " ] || { echo "allowed are: $allowed" >&2; exit 1; }
