#!/usr/bin/env bash
# The test suite with every feature, the examples that are packages of their own, and the seeds of the fuzzer.
set -euo pipefail
cd "$(dirname "$0")/.."
cargo test --all-features
cargo test -p batchlink-http-example -p batchlink-prometheus-example
# The committed seeds, without a fuzzer.
cd fuzz && cargo test --test seeds
