#!/usr/bin/env bash
# Lines and regions of src/ that the test suite runs, per file; the tests in the documentation are
# not counted. In the files of the protocol each line must be run, or be named here with its reason.
set -euo pipefail
cd "$(dirname "$0")/.."
cargo llvm-cov --version >/dev/null 2>&1 || cargo install --quiet --locked cargo-llvm-cov
# Which LLVM wrote the profiles; rustup's own tools, or a distribution's of that version, read them.
version=$(rustc -vV | sed -n 's/^LLVM version: \([0-9]*\).*/\1/p')
if ! ls "$(rustc --print sysroot)"/lib/rustlib/*/bin/llvm-cov >/dev/null 2>&1; then
    if [ ! -x "/usr/bin/llvm-cov-$version" ]; then
        apt-get update -qq
        apt-get install -y -qq --no-install-recommends "llvm-$version" >/dev/null
    fi
    export LLVM_COV=/usr/bin/llvm-cov-$version LLVM_PROFDATA=/usr/bin/llvm-profdata-$version
fi
# Not worker_pool, nor the tests that stop processes, which run the examples.
tests=$({ basename -s .rs -a tests/*.rs; dirname tests/*/main.rs | xargs -n1 basename; } | grep -vx 'worker_pool\|examples' | sed 's/^/--test /')
report=${CARGO_TARGET_DIR:-target}/coverage.json
# shellcheck disable=SC2086 # it is a list
cargo llvm-cov --quiet --all-features --lib $tests --json --output-path "$report" -- --skip stopped::
python3 ci/coverage.py "$report"
