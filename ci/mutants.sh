#!/bin/sh
# Breaks src/ in every way that cargo-mutants knows; a test must notice each, or
# ci/mutants_survivors.txt must say why none can. A quarter of an hour on two cores.
# Options: see ci/mutants.py --help.
set -eu
export PYTHONDONTWRITEBYTECODE=1
cargo mutants --version >/dev/null 2>&1 || cargo install --quiet --locked cargo-mutants
exec python3 "$(dirname "$0")/mutants.py" "$@"
