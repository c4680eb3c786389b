#!/usr/bin/env bash
# The README's two commands, as written there.
set -euo pipefail
cd "$(dirname "$0")/.."
for command in 'cargo run --release --example worker_pool' 'cargo test'; do
    grep -qxF "$command" README.md || { echo "README.md does not show: $command" >&2; exit 1; }
    echo "\$ $command"
    $command
done
