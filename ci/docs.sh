#!/usr/bin/env bash
# The documents: line lengths, links and names; then rustdoc without a warning, with the default and
# with all features: no broken link, nothing public undocumented.
set -euo pipefail
cd "$(dirname "$0")/.."
python3 ci/docs.py
export RUSTDOCFLAGS="-D warnings"
cargo doc --no-deps
cargo doc --no-deps --all-features
