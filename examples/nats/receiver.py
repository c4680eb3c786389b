"""Receives spans by OTLP/gRPC and appends them to a file, one JSON document a line.

    receiver.py PORT FILE
"""

import json
import signal
import sys
from concurrent import futures

import grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2 as messages
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2_grpc as rpc


def attributes(pairs):
    return {pair.key: getattr(pair.value, pair.value.WhichOneof("value")) for pair in pairs}


def link(it):
    return {
        "target": f"{it.trace_id.hex()}-{it.span_id.hex()}",
        "flags": it.flags,
        "state": it.trace_state,
        "attributes": attributes(it.attributes),
    }


def span(resource, it):
    return {
        "span": f"{it.trace_id.hex()}-{it.span_id.hex()}",
        "name": it.name,
        "kind": it.kind,
        "state": it.trace_state,
        "resource": resource,
        "attributes": attributes(it.attributes),
        "links": [link(each) for each in it.links],
        "dropped_links": it.dropped_links_count,
    }


class Receiver(rpc.TraceServiceServicer):
    def __init__(self, file):
        self.file = file

    def Export(self, request, context):
        for group in request.resource_spans:
            resource = attributes(group.resource.attributes)
            for scope in group.scope_spans:
                self.file.writelines(json.dumps(span(resource, it)) + "\n" for it in scope.spans)
        self.file.flush()  # before the answer: what was acknowledged is in the file
        return messages.ExportTraceServiceResponse()


def main(port, path):
    with open(path, "w", encoding="utf-8") as file:
        one = futures.ThreadPoolExecutor(max_workers=1)  # one writer
        server = grpc.server(one, options=[("grpc.max_receive_message_length", -1)])
        rpc.add_TraceServiceServicer_to_server(Receiver(file), server)
        if server.add_insecure_port(f"127.0.0.1:{port}") == 0:
            sys.exit(f"port {port} is taken")
        signal.signal(signal.SIGTERM, lambda *_: server.stop(10))
        server.start()
        server.wait_for_termination()


main(*sys.argv[1:])
