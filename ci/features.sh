#!/usr/bin/env bash
# Every feature alone, every pair of those whose code meets, and all together compile; and the core
# stays small. (All combinations are hundreds, and code that depends on features names two at most.
# serde, cache and sdk have a module each that no other feature touches.)
set -euo pipefail
cd "$(dirname "$0")/.."
cargo hack --version >/dev/null 2>&1 || cargo install --quiet --locked cargo-hack
export RUSTFLAGS="-D warnings"
# Not --no-dev-deps, which would change the manifest under other checks: without tests, cargo takes no
# feature from a dev-dependency.
check() { cargo hack check --target-dir target/features "$@"; }
check --each-feature
check --feature-powerset --depth 2 --exclude-features default,serde,cache,sdk

allowed="ahash arrayvec atomic-waker crossbeam-utils opentelemetry"
found=$(cargo tree -e normal --no-default-features --depth 1 --prefix none | tail -n +2 | cut -d' ' -f1 | sort | tr '\n' ' ')
echo "direct dependencies of the core: $found"
[ "$found" = "$allowed " ] || { echo "allowed are: $allowed" >&2; exit 1; }
