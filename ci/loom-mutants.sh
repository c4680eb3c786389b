#!/bin/sh
export PYTHONDONTWRITEBYTECODE=1
# Breaks the protocol in every way we could think of; a model of loom-tests must notice each.
# Options: see ci/loom_mutants.py --help.
exec python3 "$(dirname "$0")/loom_mutants.py" "$@"
