#!/usr/bin/env bash
# The test suite with every feature.
set -euo pipefail
cd "$(dirname "$0")/.."
cargo test --all-features
