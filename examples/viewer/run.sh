#!/usr/bin/env bash
# Shows batch spans and their links in Jaeger's UI: ./run.sh [--screenshot FILE]
# Builds the viewer, runs the example batch_service against it, and serves until Ctrl-C.
# PORT is where, 4318 by default; only this machine can reach it. Needs Rust and protoc (Debian's
# protobuf-compiler). --screenshot also needs Python and Debian's chromium-headless-shell, installs
# playwright and pillow from PyPI into target/venv, writes the picture and ends.
set -euo pipefail
cd "$(dirname "$0")"
port=${PORT:-4318} url=http://127.0.0.1:${PORT:-4318}
command -v protoc >/dev/null || { echo "run.sh: protoc is missing (Debian: protobuf-compiler)" >&2; exit 1; }

export CARGO_TARGET_DIR=$PWD/target # where the viewer is looked for below
echo "run.sh: building, which takes some minutes the first time" >&2
cargo build --quiet --release
target/release/batchlink-viewer "$port" &
viewer=$!
trap 'kill "$viewer" 2>/dev/null || true' EXIT
for _ in $(seq 50); do
    (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null && break
    kill -0 "$viewer" # it ended, as if the port is taken
    sleep 0.1
done

(cd ../.. && OTEL_EXPORTER_OTLP_ENDPOINT=$url \
    cargo run --quiet --example batch_service --features processor -- "${ARGS:---orders=40}" >/dev/null)

if [ "${1:-}" = --screenshot ]; then
    python3 -m venv target/venv
    target/venv/bin/pip install --quiet playwright pillow
    target/venv/bin/python screenshot.py "$url" validate_batch "$2"
    exit
fi
cat <<TEXT
$url/search?service=batchlink-batch-service&operation=validate_batch
  Open a trace, click its first span, then References: the requests that the batch served.
  Spans of any other example: OTEL_EXPORTER_OTLP_ENDPOINT=$url cargo run --release --example …
  Ctrl-C ends it.
TEXT
wait "$viewer"
