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
[ ${#targets[@]} -gt 0 ] || { echo "fuzz: no targets" >&2; exit 1; }

fuzz() {
    local target=$1 corpus=fuzz/target/corpus/$1 log=fuzz/target/$1.log executed
    mkdir -p "$corpus"
    local options=(-max_total_time="$seconds" -timeout=20 -rss_limit_mb=2048 -max_len=1600 -print_final_stats=1)
    [ ! -f "fuzz/$target.dict" ] || options+=("-dict=fuzz/$target.dict")
    if ! cargo +nightly fuzz run "$target" "$corpus" "fuzz/target/seeds/$target" -- "${options[@]}" >"$log" 2>&1; then
        tail -n 80 "$log"
        echo "fuzz: $target FAILED" >&2
        return 1
    fi
    executed=$(sed -n 's/^stat::number_of_executed_units: *//p' "$log")
    [ "${executed:-0}" -gt 0 ] || { echo "fuzz: $target executed nothing" >&2; return 1; }
    touch "fuzz/target/$target.ok"
    echo "fuzz: $target: $executed executions, $(grep -oE 'cov: [0-9]+ ft: [0-9]+ corp: [^ ]+' "$log" | tail -n 1)"
}

cargo run --quiet --manifest-path fuzz/Cargo.toml --example seeds unpack
cargo +nightly fuzz build
# Two at a time: a target is one thread. Each leaves a file when it is done well.
rm -f fuzz/target/*.ok
running=0
for target in "${targets[@]}"; do
    if [ $((running += 1)) -gt 2 ]; then
        wait -n || true
    fi
    fuzz "$target" &
done
wait
for target in "${targets[@]}"; do
    [ -e "fuzz/target/$target.ok" ] || { echo "fuzz: $target did not end well" >&2; failed=1; }
done
exit "${failed:-0}"
