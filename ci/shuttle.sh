#!/usr/bin/env bash
# Random schedules of many threads, all scenarios of shuttle-tests together.
# ci/shuttle.sh [schedules]; the nightly run asks for more. A failure names the file of its schedule:
# BATCHLINK_REPLAY=<file> cargo test --release <scenario> in shuttle-tests/ runs it again.
set -euo pipefail
schedules=${1:-100000}
cd "$(dirname "$0")/../shuttle-tests"
cargo test --release --test scenarios --no-run
began=$SECONDS
scenarios=$(cargo test --release --test scenarios -- --list 2>/dev/null | grep -c ': test$')
log=$(mktemp)
trap 'rm -f "$log"' EXIT
BATCHLINK_SCHEDULES=$(((schedules + scenarios - 1) / scenarios)) \
    cargo test --release --test scenarios -- --nocapture 2>&1 | tee "$log"
ran=$(grep -oE '[0-9]+ schedules, ' "$log" | awk '{ sum += $1 } END { print sum + 0 }')
echo "shuttle: $ran schedules of $scenarios scenarios hold, $((SECONDS - began)) s"
[ "$ran" -ge "$schedules" ] || { echo "asked for were $schedules" >&2; exit 1; }
