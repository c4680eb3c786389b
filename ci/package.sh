#!/usr/bin/env bash
# The package as it would be published: complete, and building from its own files alone.
set -euo pipefail
cd "$(dirname "$0")/.."
cargo publish --dry-run --allow-dirty --quiet
cargo package --list --allow-dirty | tr '\n' ' '
echo
