#!/usr/bin/env bash
# examples/http: the service under wrk with a real collector, which is killed and started again, and
# every request and link counted. About 20 s after a build of some minutes. Needs PyPI and wrk; see
# examples/http/load.sh.
set -euo pipefail
cd "$(dirname "$0")/../examples/http"
LOAD=${1:-4} ./load.sh counts outage
