#!/usr/bin/env bash
# The test suite with every feature, and the example that is a package of its own.
set -euo pipefail
cd "$(dirname "$0")/.."
cargo test --all-features
cargo test -p batchlink-http-example
