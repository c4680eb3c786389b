#!/usr/bin/env bash
# examples/nats: a real NATS server, a real collector, several processes. Without an argument a run
# of about 20 s, after a build of some minutes; with a number, clippy, a run of so many messages and
# one on Kafka's protocol. Needs PyPI; see examples/nats/README.md.
set -euo pipefail
cd "$(dirname "$0")/../examples/nats"
cargo fmt --check
if [ $# -eq 0 ]; then
    MESSAGES=6000 RATE=250 LIMIT=1500 ./run.sh
else
    cargo clippy --locked --release --all-targets --all-features -- -D warnings
    MESSAGES=10000 ./run.sh kafka
    MESSAGES=$1 ./run.sh
fi
python3 report_test.py "${CARGO_TARGET_DIR:-target}/run"
