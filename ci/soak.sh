#!/usr/bin/env bash
# Random load on several collectors: every context accounted for, memory within its bound and all given
# back. ci/soak.sh [minutes [more flags]], half a minute by default.
set -euo pipefail
cd "$(dirname "$0")/.."
minutes=${1:-0.5}
shift || true
cargo build --quiet --release --features tokio --example soak
log=$(mktemp)
trap 'rm -f "$log"' EXIT
# It ends by itself; whatever hangs in spite of that must not hang us.
limit=$(awk "BEGIN { print int($minutes * 60 + 180) }")
timeout "$limit" "${CARGO_TARGET_DIR:-target}/release/examples/soak" --minutes "$minutes" "$@" | tee "$log"
tail -n 1 "$log" | grep -qx 'lost: 0' || { echo "soak: no verdict at the end" >&2; exit 1; }
