"""The parts of load.sh: load.py SERVICE DIRECTORY PART."""

import collections
import json
import math
import os
import pathlib
import random
import re
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import time
import urllib.request

import rotel

HERE = pathlib.Path(__file__).resolve().parent
SERVICE, DIRECTORY = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2])
PAIRS, ROUND = int(os.environ.get("PAIRS", 40)), float(os.environ.get("ROUND", 1))
LOAD, CONNECTIONS = float(os.environ.get("LOAD", 20)), int(os.environ.get("CONNECTIONS", 64))
# In memory if possible: the disk's moods are not what is measured.
SCRATCH = pathlib.Path("/dev/shm" if os.access("/dev/shm", os.W_OK) else DIRECTORY)
SCRATCH /= f"batchlink-http-{os.getpid()}"
START = time.monotonic()

running = []
failures = []


def say(text):
    print(f"[{time.monotonic() - START:5.1f} s] {text}", flush=True)


def check(holds, text):
    say(f"{'ok    ' if holds else 'FAILED'} {text}")
    if not holds:
        failures.append(text)


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as it:
        return it.getsockname()[1]


def start(name, command, env=None):
    log = open(SCRATCH / f"{name}.log", "ab")
    out = open(SCRATCH / f"{name}.out", "wb")
    process = subprocess.Popen(command, stdout=out, stderr=log, env=os.environ | (env or {}))
    running.append(process)
    return process


def stop(process, how=signal.SIGTERM):
    """Its exit code."""
    process.send_signal(how)
    try:
        code = process.wait(60)
    except subprocess.TimeoutExpired:
        process.kill()
        code = process.wait()
    running.remove(process)
    return code


def listens(port):
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        except OSError:
            time.sleep(0.05)
    sys.exit(f"nothing listens on port {port}: see {SCRATCH}")


class Collector:
    """rotel, and behind it a receiver that writes to a file, or nothing."""

    def __init__(self, spans=None):
        self.http, self.grpc = free_port(), free_port()
        self.receiver = None
        if spans:
            port = free_port()
            receiver = HERE.parent / "nats" / "receiver.py"
            self.receiver = start("receiver", [sys.executable, receiver, str(port), spans])
            listens(port)
            self.exporter = ["otlp", "--otlp-exporter-endpoint", f"http://127.0.0.1:{port}",
                             "--otlp-exporter-compression", "none",
                             "--otlp-exporter-request-timeout", "60s"]
        else:
            self.exporter = ["blackhole"]
        self.start()

    def start(self):
        # Without batching: rotel 0.0.1a15 loses some spans of requests that it splits.
        agent = f"{list(rotel.__path__)[0]}/rotel-agent"
        self.process = start("rotel", [
            agent, "start", "--otlp-grpc-endpoint", f"127.0.0.1:{self.grpc}",
            "--otlp-http-endpoint", f"127.0.0.1:{self.http}", "--disable-batching",
            "--exporter", *self.exporter])
        listens(self.http)

    def settle(self, path):
        """Waits until nothing more comes: rotel 0.0.1a15 drops some of what it holds at its end."""
        size, since = -1, time.monotonic()
        while time.monotonic() - since < 2:
            if path.stat().st_size != size:
                size, since = path.stat().st_size, time.monotonic()
            time.sleep(0.1)

    def stop(self):
        stop(self.process)
        if self.receiver:
            stop(self.receiver)


class Service:
    def __init__(self, name, collector, *flags):
        self.name, self.port, self.rounds = name, free_port(), 0
        self.database = SCRATCH / f"{name}.db"
        self.process = start(name, [
            SERVICE, "--listen", f"127.0.0.1:{self.port}", "--database", self.database, *flags], {
                "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{collector.http}",
                "OTEL_BSP_MAX_QUEUE_SIZE": "500000", "OTEL_BSP_SCHEDULE_DELAY": "100",
                "OTEL_TRACES_SAMPLER": "always_on", "OTEL_SPAN_LINK_COUNT_LIMIT": "128"})
        listens(self.port)

    def load(self, seconds):
        """Starts wrk; see `result`."""
        self.rounds += 1
        command = ["wrk", "--threads", "1", "--connections", str(CONNECTIONS), "--duration",
                   f"{round(seconds)}s", "--timeout", "10s", "--script", str(HERE / "load.lua"),
                   f"http://127.0.0.1:{self.port}", "--", f"{self.name}-{self.rounds}",
                   str(random.randrange(1 << 30))]
        return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)

    def metrics(self):
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/metrics") as answer:
            return numbers(answer.read().decode())

    def drain(self):
        """Waits until all spans have been exported."""
        while True:
            now = self.metrics()
            ended = now["submitted"] + 2 * now["batches"]
            if now["spans_exported"] + now["spans_failed"] == ended:
                return
            time.sleep(0.02)

    def stop(self):
        """Its last metrics."""
        code = stop(self.process)
        self.exit = code
        return numbers((SCRATCH / f"{self.name}.out").read_text())


def cpu(process):
    """Microseconds of processor time that its threads have used. /proc/PID/stat counts in ticks of
    10 ms."""
    tasks = pathlib.Path(f"/proc/{process.pid}/task").glob("*/schedstat")
    return sum(int(task.read_text().split()[0]) for task in tasks) / 1000


def numbers(scrape):
    """The metrics that are used here, under names of one word."""
    samples = re.findall(r"^(\w+)\{(.*)\} (\d+)$", scrape, re.MULTILINE)

    def total(metric, label=""):
        return sum(int(value) for name, labels, value in samples
                   if name == metric and label in labels)

    contexts, items = "batchlink_contexts_total", "batchlink_items_total"
    it = {
        "submitted": total(contexts) - total(contexts, "error_type=")
        + total("batchlink_queue_size"),
        "succeeded": total(items, '"succeeded"'),
        "linked": total(contexts, '"linked"'),
        "batches": total("batchlink_batches_total"),
    }
    for what, metric in (("spans", "otel_sdk_exporter_span_exported_total"),
                         ("links", "exporter_link_exported_total")):
        it[f"{what}_failed"] = total(metric, "error_type=")
        it[f"{what}_exported"] = total(metric) - it[f"{what}_failed"]
    return it


def result(wrk):
    out, _ = wrk.communicate()
    return json.loads(out.strip().splitlines()[-1])


def overhead():
    """Two services, one with links and one without, take turns of ROUND seconds: A B, B A, and so
    on, with new ones after every 8 pairs. The other one idles meanwhile, and all that a turn made
    is exported before the next."""
    collector = Collector()
    kinds = {"links": (), "none": ("--no-links",)}
    path = DIRECTORY / "rounds.jsonl"
    before = path.read_text() if os.environ.get("KEEP") and path.exists() else ""
    pairs = [json.loads(line) for line in before.splitlines()]
    bad = collections.Counter()

    def turn(service):
        start = service.metrics(), cpu(service.process), cpu(collector.process)
        it = result(service.load(ROUND))
        service.drain()
        end = service.metrics(), cpu(service.process), cpu(collector.process)
        requests, linked = (end[0][what] - start[0][what]
                            for what in ("submitted", "links_exported"))
        bad["failed"] += it["status"] + it["socket"]
        bad["links"] += linked != (requests if service.kind == "links" else 0)
        return {"rps": it["requests"] / it["seconds"], "p50": it["p50"], "p99": it["p99"],
                "cpu": (end[1] - start[1]) / requests, "collector": (end[2] - start[2]) / requests}

    for number in range(PAIRS):
        if number % 8 == 0:
            services = {}
            for kind in kinds:
                services[kind] = Service(f"{kind}-{number}", collector, *kinds[kind])
                services[kind].kind = kind
                turn(services[kind])  # warms up
        order = ("links", "none") if number % 2 else ("none", "links")
        pairs.append({kind: turn(services[kind]) for kind in order})
        if number % 8 == 7 or number == PAIRS - 1:
            for service in services.values():
                service.stop()
                for file in SCRATCH.glob(f"{service.name}.db*"):
                    file.unlink()
    collector.stop()
    path.write_text("".join(json.dumps(pair) + "\n" for pair in pairs))

    say(f"{len(pairs)} pairs of turns, {CONNECTIONS} connections; medians:")
    for kind in kinds:
        of = {what: statistics.median(pair[kind][what] for pair in pairs)
              for what in pairs[0][kind]}
        say(f"  {kind:5} {of['rps']:6.0f} requests/s, p50 {of['p50']:.2f} ms, p99 {of['p99']:.2f} "
            f"ms; processor time a request: service {of['cpu']:.2f} µs, export included, "
            f"collector {of['collector']:.2f} µs")
    for what, word in (("cpu", "processor time of the service"),
                       ("collector", "processor time of the collector"),
                       ("rps", "time a request, by requests/s")):
        logs = [math.log(pair["links"][what] / pair["none"][what]) for pair in pairs]
        low, cost, high = sorted(
            100 * math.expm1(-it if what == "rps" else it) for it in typical(logs))
        say(f"  links cost {cost:.2f} % of the {word} "
            f"(95 % confidence: {low:.2f} to {high:.2f} %)")
    verdict = "shown" if high <= 2 else "refuted" if low > 2 else "neither shown nor refuted"
    check(cost <= 2, f"links cost {cost:.2f} % of the requests per second (<= 2 %): {verdict}")
    check(bad["failed"] == 0, f"{bad['failed']} requests failed")
    check(bad["links"] == 0, f"each request was exported with one link, or without: "
          f"{bad['links']} turns differ")


def typical(differences):
    """The Hodges-Lehmann estimate of paired differences between the ends of its 95 % confidence
    interval, which is that of Wilcoxon's signed-rank test."""
    n = len(differences)
    walsh = sorted((a + b) / 2 for i, a in enumerate(differences) for b in differences[i:])
    spread = 1.96 * math.sqrt(n * (n + 1) * (2 * n + 1) / 24)
    low = max(0, round(len(walsh) / 2 - spread))
    return walsh[low], statistics.median(walsh), walsh[len(walsh) - 1 - low]


def received(path):
    """Names of spans, the requests' ids, and how often each is linked."""
    names, requests, links = collections.Counter(), set(), collections.Counter()
    with open(path) as lines:
        for line in lines:
            span = json.loads(line)
            names[span["name"]] += 1
            if span["name"] == "POST /items":
                requests.add(span["span"])
            links.update(link["target"] for link in span["links"])
            if span["name"] == "insert_batch":
                attributes = span["attributes"]
                honest = attributes["batch.links"] == len(span["links"]) == attributes["batch.size"]
                names["untrue"] += not honest or span["dropped_links"] > 0
    return names, requests, links


def account(service, load, counters, path):
    """What holds whatever happens to the collector; returns what was received."""
    names, requests, links = received(path)
    say(f"wrk: {load['requests']} requests, {load['requests'] / load['seconds']:.0f} a second, "
        f"p50 {load['p50']:.2f} ms, p99 {load['p99']:.2f} ms")
    check(load["status"] == load["socket"] == 0,
          f"{load['status']} requests failed, {load['socket']} connections")
    submitted, linked = counters["submitted"], counters["linked"]
    under_way = submitted - load["requests"]
    check(0 <= under_way <= CONNECTIONS,
          f"service: {submitted} requests; {under_way} were under way when wrk ended")
    check(submitted == linked == counters["succeeded"],
          f"service: {counters['succeeded']} rows committed, {linked} requests linked")
    with_rows = int(subprocess.run(
        [sys.executable, "-c", "import sqlite3, sys; print(sqlite3.connect(sys.argv[1])"
         ".execute('SELECT count(*) FROM items').fetchone()[0])", service.database],
        capture_output=True, text=True, check=True).stdout)
    check(with_rows == submitted, f"database: {with_rows} rows")
    ended = submitted + 2 * counters["batches"]
    given = counters["spans_exported"] + counters["spans_failed"]
    check(given == ended, f"service: {ended} spans ended, {given} given to the exporter, "
          f"{ended - given} dropped in the SDK's queue")
    sent, lost = counters["links_exported"], counters["links_failed"]
    check(sent + lost == linked,
          f"exporter: {sent} links sent, {lost} failed (in {counters['spans_failed']} "
          f"spans); together {sent + lost}")
    check(names["untrue"] == 0, f"receiver: {names['insert_batch']} batch spans, "
          f"{names['untrue']} of them state a wrong number of links")
    check(all(count == 1 for count in links.values()), "receiver: no request is linked twice")
    return names, requests, links


def counts():
    path = SCRATCH / "counts.jsonl"
    collector = Collector(path)
    service = Service("counts", collector)
    load = result(service.load(LOAD))
    counters = service.stop()
    check(service.exit == 0, "service: ended by SIGTERM, all spans sent")
    collector.settle(path)
    collector.stop()
    names, requests, links = account(service, load, counters, path)
    check(set(links) == requests and len(requests) == counters["submitted"],
          f"receiver: {len(requests)} requests, {len(links)} links, each to one of them")
    check(counters["links_failed"] == 0, "nothing is lost on the way")


def outage():
    path = SCRATCH / "outage.jsonl"
    collector = Collector(path)
    service = Service("outage", collector)
    wrk = service.load(LOAD)
    time.sleep(LOAD / 4)
    before = service.metrics()
    stop(collector.process, signal.SIGKILL)
    say(f"killed the collector (SIGKILL) after {before['submitted']} requests")
    time.sleep(LOAD / 3)
    during = service.metrics()
    collector.start()
    say(f"started it again after {during['submitted']} requests")
    load = result(wrk)
    counters = service.stop()
    collector.settle(path)
    collector.stop()
    seconds = LOAD / 3
    meanwhile = during["submitted"] - before["submitted"]
    say(f"during the outage: {meanwhile / seconds:.0f} requests/s; "
        f"before: {before['submitted'] / (LOAD / 4):.0f}")
    names, requests, links = account(service, load, counters, path)
    lost = counters["links_failed"]
    check(0 < lost < counters["linked"], f"{lost} links were lost in the outage")
    swallowed = counters["links_exported"] - len(links)
    spans = counters["spans_exported"] - sum(
        names[name] for name in ("POST /items", "insert_batch", "INSERT items"))
    say(f"the killed collector took {swallowed} links (in {spans} spans) with it, which it had "
        "confirmed")
    check(0 <= swallowed <= before["submitted"],
          f"receiver: {len(links)} links = {counters['linked']} requests - {lost} failed "
          f"exports - {swallowed} lost in the killed collector")
    after = counters["submitted"] - during["submitted"]
    check(len(links) > after * 0.5, "links arrive again after the outage")


def main():
    parts = {"overhead": overhead, "counts": counts, "outage": outage}
    chosen = list(parts) if sys.argv[3] == "all" else sys.argv[3:]
    SCRATCH.mkdir(parents=True)
    try:
        for part in chosen:
            say(f"--- {part}")
            parts[part]()
    finally:
        for process in running:
            process.kill()
        if failures:
            shutil.copytree(SCRATCH, DIRECTORY / "failed", dirs_exist_ok=True)
        shutil.rmtree(SCRATCH)
    say(f"{len(failures)} checks failed")
    sys.exit(bool(failures))


main()
