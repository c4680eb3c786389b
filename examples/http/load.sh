#!/usr/bin/env bash
# The service under a real HTTP load (wrk), with a real collector (rotel), each in a process of its
# own on 127.0.0.1. Ends all of them, prints a report, and fails if a count does not add up.
#
#   ./load.sh             # all parts
#   ./load.sh overhead    # requests per second with and without links, in turns
#   ./load.sh counts      # every request is linked once at the receiver behind the collector
#   ./load.sh outage      # the collector is killed during the load, and started again
#
# Settings, as environment variables: PAIRS, ROUND (seconds of each half of one), LOAD (seconds
# of the other parts), CONNECTIONS, KEEP=1 (adds the rounds to those of the runs before). Needs
# Rust, a C compiler, Python 3.10 or later with venv, and PyPI. Installs the packages of
# requirements.txt into target/http/venv, and Debian's wrk if there is none.
set -euo pipefail
cd "$(dirname "$0")"
target=${CARGO_TARGET_DIR:-$PWD/../../target}
venv=$target/http/venv

need() { # command…, what is missing if it fails
    local what=${*: -1}
    "${@:1:$#-1}" >/dev/null 2>&1 || {
        echo "load.sh: missing: $what" >&2
        exit 1
    }
}
need command -v cargo "Rust (https://rustup.rs)"
need command -v cc "a C compiler, for SQLite (Debian: gcc)"
need python3 -c 'import sys, ensurepip, venv; sys.exit(sys.version_info < (3, 10))' \
    "Python 3.10 or later with venv (Debian: python3-venv)"
if ! command -v wrk >/dev/null; then
    echo "installing wrk by apt-get"
    { apt-get update && apt-get install --yes wrk; } >/dev/null || true
    need command -v wrk "wrk (Debian: wrk; https://github.com/wg/wrk)"
fi

mkdir -p "$target/http"
if ! cmp -s requirements.txt "$venv/requirements.txt"; then
    echo "installing from PyPI into $venv: $(grep -v '^#' requirements.txt | xargs)"
    python3 -m venv "$venv"
    "$venv/bin/pip" --quiet --disable-pip-version-check install -r requirements.txt
    cp requirements.txt "$venv/"
fi
[[ ${BUILT:-} ]] || cargo build --locked --release --quiet --bin service --target-dir "$target"
exec "$venv/bin/python" load.py "$target/release/service" "$target/http" "${@:-all}"
