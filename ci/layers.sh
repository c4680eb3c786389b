#!/bin/sh
# Imports go downwards from room to room, and each room keeps to its rights: the table stands at the
# top of ci/layers.py. Then it plants what must be found
# in a copy (--self-test: only that, and shows it).
export PYTHONDONTWRITEBYTECODE=1
exec python3 "$(dirname "$0")/layers.py" "$@"
