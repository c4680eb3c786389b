#!/usr/bin/env bash
# The test suite with every feature, the example that is a package of its own, and the seeds of the fuzzer.
set -euo pipefail
cd "$(dirname "$0")/.."
cargo test --all-features
cargo test -p batchlink-http-example
# The committed seeds, without a fuzzer.
cd fuzz && cargo test --test seeds
