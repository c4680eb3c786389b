#!/usr/bin/env bash
# The core's unit tests under Miri: no undefined behaviour, no data race and no leak in what they run.
# Says "skipped: no miri" where the nightly toolchain has no Miri, and that is no failure.
set -euo pipefail
cd "$(dirname "$0")/.."
if ! cargo +nightly miri --version >/dev/null 2>&1; then
    rustup toolchain install nightly --profile minimal --component miri --component rust-src >/dev/null 2>&1 || true
fi
if ! version=$(cargo +nightly miri --version 2>/dev/null); then
    echo "miri: skipped: no miri"
    exit 0
fi
cargo +nightly miri setup >/dev/null 2>&1
log=$(mktemp)
trap 'rm -f "$log"' EXIT
# Not what counts probes, links or attempts by the thousand, which takes Miri half an hour; and no feature, since
# a helper thread that keeps the time does not end in Miri's own time.
cargo +nightly miri test --quiet --lib --no-default-features -- \
    --skip flooding --skip attempts --skip evicted_links --skip few_links --skip removal_loses | tee "$log"
ran=$(sed -n 's/^test result: ok. \([0-9]*\) passed.*/\1/p' "$log")
echo "miri: ${ran:-0} unit tests, nothing found ($version)"
[ "${ran:-0}" -ge 20 ] || { echo "miri: there are more tests than that" >&2; exit 1; }
