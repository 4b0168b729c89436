"""OpenTelemetry's SDK for Python sends over OTLP/gRPC, and a gRPC service of the same project receives."""

import itertools
import math
import tempfile
from collections import Counter
from concurrent import futures

import grpc
import pytest
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.proto.trace.v1.trace_pb2 import Span as Wire
from opentelemetry.sdk.trace.export import SpanExportResult
from opentelemetry.trace import SpanKind, StatusCode
from prometheus_client.parser import text_string_to_metric_families

from destination import Destination, attributes_of, in_order
from harness import LIMIT, Daemon, free_port, until
from senders import SECOND, Application, one_of_everything


def exporter(daemon, compression=grpc.Compression.NoCompression, timeout=20):
    return OTLPSpanExporter(f"http://{daemon.door}", insecure=True, compression=compression, timeout=timeout)


@pytest.fixture
def on_a_socket(ending, destination, tmp_path):
    """A daemon whose door is a socket in the file system. Its path may not be long."""
    with tempfile.TemporaryDirectory() as folder:
        door = f"unix:{folder}/otlp.sock"
        yield ending(Daemon(tmp_path / "log", destination.endpoint, INGEST__GRPC__LISTEN=door))


@pytest.fixture
def application(ending, daemon):
    return ending(Application(exporter(daemon), **{"deployment.environment.name": "test", "replicas": 3}))


def test_every_field_of_a_span_arrives_as_the_sdk_sent_it(application, daemon, destination):
    one_of_everything(application.tracer())
    one_of_everything(application.tracer("shop.cart", "0.9"))
    application.flush()
    daemon.settled(12)
    assert in_order(destination.spans()) == in_order(application.sent())


def test_what_arrives_says_what_the_application_said(application, daemon, destination):
    # By hand, so that it holds whatever the SDK's encoder makes of it.
    one_of_everything(application.tracer())
    application.flush()
    daemon.settled(6)
    arrived = {span[-1].name: span for span in destination.spans()}
    resource, resource_schema, scope, scope_schema, span = arrived["POST /orders/{id}"]

    of_resource = attributes_of(resource)
    assert (of_resource["service.name"], of_resource["replicas"]) == ("shop", 3)
    assert (of_resource["telemetry.sdk.language"], of_resource["telemetry.sdk.version"]) == ("python", "1.45.2")
    assert (resource_schema, scope_schema) == ("https://opentelemetry.io/schemas/1.40.0",) * 2
    assert (scope.name, scope.version, attributes_of(scope)) == ("shop.checkout", "2.1.0", {"team": "payments", "tier": 1})

    assert span.trace_id.hex() == "0af7651916cd43dd8448eb211c80319c"
    assert span.parent_span_id.hex() == "00f067aa0ba902b7"
    assert (span.trace_state, span.kind) == ("vendor=a:1,other=b", Wire.SPAN_KIND_SERVER)
    assert span.start_time_unix_nano == 1_700_000_000 * SECOND + 1
    assert span.end_time_unix_nano == 1_700_000_002 * SECOND + 7
    assert (span.status.code, span.status.message) == (2, "card declined")
    assert attributes_of(span) == {
        "text": "straße 🦀",
        "empty": "",
        "yes": True,
        "no": False,
        "zero": 0,
        "least": -(2**63),
        "greatest": 2**63 - 1,
        "half": -0.5,
        "tiny": 5e-324,
        "infinite": math.inf,
        "bytes": b"\x00\xff\x80",
        "texts": ["a", "", "c"],
        "numbers": [1, -2, 3],
        "fractions": [0.25, 1e300],
        "switches": [True, False],
        "nothing": [],
        "tree": {"leaf": 1, "branch": {"list": [1, "two", 3.0]}},
    }
    assert [(event.name, event.time_unix_nano, attributes_of(event)) for event in span.events] == [
        ("cache miss", 1_700_000_000 * SECOND + 2, {"key": "user:7", "tries": [1, 2]}),
        ("bare", 1_700_000_000 * SECOND + 3, {}),
    ]
    assert [(link.span_id.hex(), attributes_of(link)) for link in span.links] == [
        ("53995c3f42cd8ad8", {"why": "retry", "attempt": 2}),
        ("00f067aa0ba902b7", {}),
    ]

    child = arrived["charge"][-1]
    assert (child.parent_span_id, child.trace_id) == (span.span_id, span.trace_id)
    assert (child.kind, child.status.code) == (Wire.SPAN_KIND_CLIENT, 1)
    (exception,) = child.events
    assert (exception.name, exception.time_unix_nano) == ("exception", 1_700_000_000 * SECOND + 5)
    assert attributes_of(exception)["exception.message"] == "no funds"

    crowded = arrived["crowded"][-1]
    assert (len(crowded.attributes), crowded.dropped_attributes_count) == (32, 8)
    assert (len(crowded.events), crowded.dropped_events_count) == (4, 2)


BOUNDS_MS = [2, 4, 6, 8, 10, 50, 100, 200, 400, 800, 1000, 1400, 2000, 5000, 10_000, 15_000, math.inf]


def red_of(spans):
    """What the span metrics are to be, from the SDK's own record: per label set calls, errors, nanoseconds and buckets."""
    red = {}
    for span in spans:
        labels = (
            span.resource.attributes["service.name"],
            span.name,
            f"SPAN_KIND_{span.kind.name}",
            f"STATUS_CODE_{span.status.status_code.name}",
        )
        nanoseconds = span.end_time - span.start_time
        calls, errors, total, buckets = red.get(labels, (0, 0, 0, [0] * len(BOUNDS_MS)))
        buckets = [
            count + (nanoseconds <= bound * 1_000_000) for count, bound in zip(buckets, BOUNDS_MS, strict=True)
        ]
        errors += span.status.status_code is StatusCode.ERROR
        red[labels] = (calls + 1, errors, total + nanoseconds, buckets)
    return red


RED = {"nyx_span_count_total", "nyx_span_errors_total"} | {
    f"nyx_span_duration_seconds_{of}" for of in ("bucket", "count", "sum")
}


def red_on(page):
    """The same from a metrics page."""
    label_names = ("service_name", "span_name", "span_kind", "status_code")
    red = {}
    for family in text_string_to_metric_families(page):
        for sample in family.samples:
            if sample.name not in RED:
                continue
            labels = tuple(sample.labels[name] for name in label_names)
            of = red.setdefault(labels, {"buckets": {}})
            if sample.name.endswith("_bucket"):
                of["buckets"][float(sample.labels["le"])] = sample.value
            else:
                of[sample.name] = sample.value
    # An operation without errors has a series that says so.
    without = [labels for labels, of in red.items() if "nyx_span_count_total" not in of]
    assert [red.pop(labels)["nyx_span_errors_total"] for labels in without] == [0] * len(without)
    assert all(of["nyx_span_count_total"] == of["nyx_span_duration_seconds_count"] for of in red.values())
    return {
        labels: (
            of["nyx_span_count_total"],
            # Only errors have a series there.
            of.get("nyx_span_errors_total", 0),
            round(of["nyx_span_duration_seconds_sum"] * SECOND),
            [of["buckets"][bound / 1000] for bound in BOUNDS_MS],
        )
        for labels, of in red.items()
    }


def traffic(application, spans):
    """Spans of several names, kinds, ends and durations."""
    tracer = application.tracer()
    names, kinds = ["read", "write", "list"], [SpanKind.SERVER, SpanKind.CLIENT]
    ends = [StatusCode.UNSET, StatusCode.OK, StatusCode.ERROR]
    of = itertools.cycle(itertools.product(names, kinds, ends))
    # Every bound itself, and what lies just beside it.
    durations = itertools.cycle(
        [0] + [bound * 1_000_000 + beside for bound in BOUNDS_MS[:-1] for beside in (-1, 0, 1)]
    )
    for number, (name, kind, end), nanoseconds in zip(range(spans), of, durations):
        start = 1_700_000_000 * SECOND + number
        span = tracer.start_span(name, kind=kind, start_time=start)
        if end is not StatusCode.UNSET:
            span.set_status(end)
        span.end(start + nanoseconds)


def test_every_count_is_the_sdks_own(ending, daemon, destination):
    shop = ending(Application(exporter(daemon), "shop"))
    depot = ending(Application(exporter(daemon, grpc.Compression.Gzip), "depot"))
    traffic(shop, 1500)
    traffic(depot, 700)
    shop.flush()
    depot.flush()
    stats = daemon.settled(2200)

    assert stats["balanced"]
    assert (stats["spans"]["scanned"], stats["spans"]["accepted"], stats["spans"]["pending"]) == (2200, 2200, 0)
    default = stats["destinations"]["default"]
    assert (default["exported"], default["sampled_out"], default["queued"]) == (2200, 0, 0)
    assert not any(default["dropped"].values())
    exports = len(shop.witness.results) + len(depot.witness.results)
    door = stats["door"]["grpc"]
    assert (door["received"]["requests"], door["accepted"]["requests"]) == (exports, exports)
    assert not any(refused["requests"] for refused in door["refused"].values())

    assert in_order(destination.spans()) == in_order(shop.sent() + depot.sent())
    measured = red_on(daemon.page())
    assert len(measured) == 36
    assert measured == red_of(shop.finished() + depot.finished())
    ids = Counter(span[-1].span_id for span in destination.spans())
    assert set(ids.values()) == {1}


def test_an_sdk_sends_with_gzip(ending, daemon, destination):
    application = ending(Application(exporter(daemon, grpc.Compression.Gzip)))
    tracer = application.tracer()
    for _ in range(50):
        tracer.start_span("compressed", attributes={"text": "again and again " * 100}).end()
    application.flush()
    stats = daemon.settled(50)
    assert in_order(destination.spans()) == in_order(application.sent())
    # What was counted at the door is what came over the wire.
    assert 0 < stats["door"]["grpc"]["received"]["bytes"] < 50 * 1600 / 4


def test_an_sdk_sends_over_a_socket_in_the_file_system(ending, on_a_socket, destination):
    named = (("grpc.default_authority", "localhost"),)
    sender = OTLPSpanExporter(on_a_socket.door, insecure=True, channel_options=named, timeout=20)
    application = ending(Application(sender))
    traffic(application, 50)
    application.flush()
    on_a_socket.settled(50)
    assert in_order(destination.spans()) == in_order(application.sent())


def test_grpcs_core_is_refused_at_a_socket_unless_it_is_told_an_authority(ending, on_a_socket, caplog):
    # It names the socket's path, escaped, where HTTP/2 has the name of a host. docs/gaps.md says so.
    application = ending(Application(OTLPSpanExporter(on_a_socket.door, insecure=True, timeout=2)))
    traffic(application, 1)
    application.provider.force_flush(30_000)
    assert application.witness.results == [SpanExportResult.FAILURE]
    assert "RST_STREAM with error code 1" in caplog.text


def test_what_an_sdk_was_told_is_kept_survives_a_kill(ending, tmp_path):
    port = free_port()
    daemon = ending(Daemon(tmp_path / "log", f"http://127.0.0.1:{port}"))
    application = ending(Application(exporter(daemon)))
    traffic(application, 300)
    application.flush()
    daemon.kill()

    destination = ending(Destination(port))
    daemon.start()
    until("everything is delivered", lambda: len(destination.spans()) == 300)
    assert in_order(destination.spans()) == in_order(application.sent())
    until("everything is measured", lambda: "nyx_measure_position_ordinal 300\n" in daemon.page())
    assert red_on(daemon.page()) == red_of(application.finished())
    daemon.stop()


def test_an_sdk_goes_on_when_the_daemon_comes_back(ending, destination, tmp_path, caplog):
    door = f"127.0.0.1:{free_port()}"
    daemon = ending(Daemon(tmp_path / "log", destination.endpoint, INGEST__GRPC__LISTEN=door))
    application = ending(Application(exporter(daemon)))
    traffic(application, 100)
    application.flush()
    daemon.settled(100)
    daemon.stop()
    traffic(application, 100)
    with futures.ThreadPoolExecutor(1) as other:
        flushed = other.submit(application.flush)
        until("the SDK finds nobody", lambda: "Transient error StatusCode.UNAVAILABLE" in caplog.text)
        daemon.start()
        flushed.result(LIMIT)
    until("everything is delivered", lambda: len(destination.spans()) == 200)
    assert in_order(destination.spans()) == in_order(application.sent())


def test_an_sdk_is_told_of_a_request_that_is_too_large(ending, destination, tmp_path):
    daemon = ending(Daemon(tmp_path / "log", destination.endpoint, INGEST__MAX_REQUEST_BYTES="4KiB"))
    application = ending(Application(exporter(daemon, timeout=2)))
    application.tracer().start_span("large", attributes={"text": "x" * 5000}).end()
    application.provider.force_flush(30_000)
    assert application.witness.results == [SpanExportResult.FAILURE]
    # This SDK repeats it all the same, until its own timeout.
    stats = daemon.stats()
    refused = {why: count["requests"] for why, count in stats["door"]["grpc"]["refused"].items() if count["requests"]}
    assert refused == {"too_large": stats["door"]["grpc"]["received"]["requests"]}
    assert (stats["spans"]["accepted"], stats["balanced"]) == (0, True)
    assert destination.spans() == []


def test_an_sdk_stops_in_order_with_the_daemon(application, daemon, destination):
    traffic(application, 50)
    application.flush()
    daemon.stop()
    assert in_order(destination.spans()) == in_order(application.sent())
