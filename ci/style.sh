#!/bin/sh
# How the documentation and the names read, against the thresholds at the top of ci/style.py.
# --list shows what is counted against them.
export PYTHONDONTWRITEBYTECODE=1
exec python3 "$(dirname "$0")/style.py" "$@"
