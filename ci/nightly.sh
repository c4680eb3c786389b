#!/usr/bin/env bash
# What takes too long for .ci/run: hours, with nothing else on the machine. Every check runs, also after
# one that failed; the last lines say which did. Names of checks as arguments: only those.
set -euo pipefail
cd "$(dirname "$0")/.."
export CARGO_BUILD_JOBS="${CARGO_BUILD_JOBS:-2}" CARGO_TERM_COLOR="${CARGO_TERM_COLOR:-never}"

checks=(supply-chain coverage starvation memory soak san miri shuttle fuzz mutants loom-mutants)
run() {
    case $1 in
        fuzz) bash ci/fuzz.sh 1200 ;;
        shuttle) bash ci/shuttle.sh 1000000 ;;
        soak) bash ci/soak.sh 30 ;;
        memory) BATCHLINK_TEST_SECONDS=300 cargo test --release --all-features --test memory ;;
        supply-chain | coverage | starvation | san | miri | mutants | loom-mutants) bash "ci/$1.sh" ;;
        *) echo "no check is called $1; there are: ${checks[*]}" >&2 && return 2 ;;
    esac
}

[ $# -eq 0 ] || checks=("$@")
report=()
failed=0
for check in "${checks[@]}"; do
    printf '\n=== %s\n' "$check"
    started=$SECONDS
    # In a shell of its own: `set -e` does not hold in a condition.
    status=ok
    (set -e; run "$check") &
    wait $! || { status=FAILED; failed=1; }
    report+=("$(printf '%-13s %-6s %6d s' "$check" "$status" $((SECONDS - started)))")
done
printf '\n'
printf '%s\n' "${report[@]}"
exit "$failed"
