"""A destination: the gRPC service that the OpenTelemetry project generates for Python, which keeps what it gets."""

import threading
from concurrent import futures

import grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc

from harness import LIMIT


class Destination(trace_service_pb2_grpc.TraceServiceServicer):
    """A receiver on a port of its own, or on `port`."""

    def __init__(self, port=0):
        self.requests = []
        self.lock = threading.Lock()
        self.server = grpc.server(futures.ThreadPoolExecutor(4))
        trace_service_pb2_grpc.add_TraceServiceServicer_to_server(self, self.server)
        self.port = self.server.add_insecure_port(f"127.0.0.1:{port}")
        assert self.port, "no port"
        self.endpoint = f"http://127.0.0.1:{self.port}"
        self.server.start()

    def Export(self, request, context):
        with self.lock:
            self.requests.append(request)
        return trace_service_pb2.ExportTraceServiceResponse()

    def spans(self):
        """Every span that arrived."""
        with self.lock:
            return [span for request in self.requests for span in spans_of(request)]

    def end(self):
        self.server.stop(None).wait(LIMIT)


def spans_of(request):
    """The spans of a request, each with all that is said about it: resource and scope with their schemas, and itself."""
    return [
        (of_resource.resource, of_resource.schema_url, of_scope.scope, of_scope.schema_url, span)
        for of_resource in request.resource_spans
        for of_scope in of_resource.scope_spans
        for span in of_scope.spans
    ]


def in_order(spans):
    """Spans in an order of their own, as text that shows every field: two lists are equal if and only if the same spans
    are in them, each as often."""
    texts = ["\n".join(str(part) for part in span) for span in spans]
    return sorted(texts)


def value_of(value):
    """An attribute's value as Python has it."""
    kind = value.WhichOneof("value")
    if kind == "array_value":
        return [value_of(each) for each in value.array_value.values]
    if kind == "kvlist_value":
        return {each.key: value_of(each.value) for each in value.kvlist_value.values}
    return getattr(value, kind)


def attributes_of(described):
    """The attributes of a span, an event, a resource, and so on, by key."""
    return {each.key: value_of(each.value) for each in described.attributes}
