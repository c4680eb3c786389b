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

cargo +nightly fuzz build
for target in "${targets[@]}"; do
    corpus=fuzz/target/corpus/$target log=fuzz/target/$target.log
    mkdir -p "$corpus"
    options=(-max_total_time="$seconds" -timeout=20 -rss_limit_mb=2048 -max_len=1600 -print_final_stats=1)
    [ ! -f "fuzz/$target.dict" ] || options+=("-dict=fuzz/$target.dict")
    if ! cargo +nightly fuzz run "$target" "$corpus" "fuzz/seeds/$target" -- "${options[@]}" >"$log" 2>&1; then
        tail -n 80 "$log"
        echo "fuzz: $target FAILED" >&2
        exit 1
    fi
    executed=$(sed -n 's/^stat::number_of_executed_units: *//p' "$log")
    echo "fuzz: $target: $executed executions, $(grep -oE 'cov: [0-9]+ ft: [0-9]+ corp: [^ ]+' "$log" | tail -n 1)"
done
