#!/usr/bin/env bash
# Fuzzes every target from the committed seeds, under AddressSanitizer and LeakSanitizer:
# ci/fuzz.sh [seconds per target, 30 unless told] [targets]
# New inputs go to fuzz/target/corpus, where a later run goes on from; a crash to fuzz/artifacts.
set -euo pipefail
cd "$(dirname "$0")/.."
seconds=${1:-30}
cargo fuzz --version >/dev/null 2>&1 || cargo install --quiet --locked cargo-fuzz --version 0.13.2
cargo +nightly --version >/dev/null 2>&1 || rustup toolchain install nightly --profile minimal
targets=("${@:2}")
[ ${#targets[@]} -gt 0 ] || mapfile -t targets < <(cargo +nightly fuzz list)

fuzz() {
    local target=$1 corpus=fuzz/target/corpus/$1 log=fuzz/target/$1.log executed
    mkdir -p "$corpus"
    local options=(-max_total_time="$seconds" -timeout=20 -rss_limit_mb=2048 -max_len=1600 -print_final_stats=1)
    [ ! -f "fuzz/$target.dict" ] || options+=("-dict=fuzz/$target.dict")
    if ! cargo +nightly fuzz run "$target" "$corpus" "fuzz/seeds/$target" -- "${options[@]}" >"$log" 2>&1; then
        tail -n 80 "$log"
        echo "fuzz: $target FAILED" >&2
        return 1
    fi
    executed=$(sed -n 's/^stat::number_of_executed_units: *//p' "$log")
    echo "fuzz: $target: $executed executions, $(grep -oE 'cov: [0-9]+ ft: [0-9]+ corp: [^ ]+' "$log" | tail -n 1)"
}

cargo +nightly fuzz build
# Two at a time: a target is one thread.
running=0 failed=0
for target in "${targets[@]}"; do
    if [ $((running += 1)) -gt 2 ]; then
        wait -n || failed=1
    fi
    fuzz "$target" &
done
while [ "$(jobs -rp | wc -l)" -gt 0 ] || [ -n "$(jobs -p)" ]; do
    wait -n || { status=$?; [ "$status" -eq 127 ] && break; failed=1; }
done
exit "$failed"
