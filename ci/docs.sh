#!/usr/bin/env bash
# The documents: line lengths, links and names; then rustdoc without a warning: no broken link, nothing
# public undocumented.
set -euo pipefail
cd "$(dirname "$0")/.."
python3 ci/docs.py
RUSTDOCFLAGS="-D warnings" cargo doc --no-deps --all-features
