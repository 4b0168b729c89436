"""The span metrics under the names of others, and the way from a bucket to its trace, as a Prometheus sees them."""

import base64
import json
import math
import time

import pytest
from google.protobuf import json_format
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Status

from destination import in_order, spans_of
from harness import Daemon, until
from senders import SECOND, Application, one_of_everything
from test_python_sdk import BOUNDS_MS, red_of, traffic

# By profile: the calls, the histogram of durations, the label with the service's name, and the histogram's units a second.
PROFILES = {
    "nyx": ("nyx_span_count_total", "nyx_span_duration_seconds", "service_name", 1),
    "spanmetrics": ("traces_span_metrics_calls_total", "traces_span_metrics_duration_milliseconds", "service_name", 1000),
    "tempo": ("traces_spanmetrics_calls_total", "traces_spanmetrics_latency", "service", 1),
}


@pytest.fixture(params=PROFILES)
def profile(request):
    return request.param


@pytest.fixture
def daemon(ending, destination, tmp_path, profile):
    return ending(Daemon(tmp_path / "log", destination.endpoint, METRICS__PROFILE=profile))


@pytest.fixture
def application(ending, daemon):
    return ending(Application(OTLPSpanExporter(f"http://{daemon.door}", insecure=True)))


def scraped(prometheus, profile):
    """What `red_of` says, from what Prometheus has: per label set calls, errors, nanoseconds and buckets."""
    calls, durations, service, a_second = PROFILES[profile]

    def by_labels(expression, *more):
        found = {}
        for labels, value in prometheus.query(expression):
            of = tuple(labels[name] for name in (service, "span_name", "span_kind", "status_code", *more))
            assert of not in found, of
            found[of] = value
        return found

    buckets = by_labels(f"{durations}_bucket", "le")
    buckets = {(*of, float(bound)): value for (*of, bound), value in buckets.items()}
    sums = by_labels(f"{durations}_sum")
    return {
        of: (
            value,
            value if of[3] == "STATUS_CODE_ERROR" else 0,
            round(sums[of] / a_second * SECOND),
            [buckets[(*of, bound if bound == math.inf else bound * a_second / 1000)] for bound in BOUNDS_MS],
        )
        for of, value in by_labels(calls).items()
    }


def test_prometheus_has_every_count_under_the_names_of_the_profile(application, daemon, scrape, profile):
    traffic(application, 900)
    application.flush()
    daemon.settled(900)
    prometheus = scrape(daemon.pages)
    calls, durations, _, _ = PROFILES[profile]
    until("all of it is scraped", lambda: prometheus.value(f"sum({durations}_count)") == 900)
    assert scraped(prometheus, profile) == red_of(application.finished())
    others = [names[:2] for other, names in PROFILES.items() if other != profile]
    for name in [name for calls_and_durations in others for name in calls_and_durations]:
        assert not prometheus.query(f'{{__name__=~"{name}.*"}}'), name
    until("two scrapes make a rate", lambda: prometheus.value(f"sum(rate({calls}[1m]))") is not None)


def exemplars(prometheus, profile):
    """Every exemplar that Prometheus has of the buckets, with the labels of its series."""
    now = time.time()
    found = prometheus.api(
        "query_exemplars", query=f"{PROFILES[profile][1]}_bucket", start=now - 3600, end=now + 3600
    )
    return [(series["seriesLabels"], exemplar) for series in found for exemplar in series["exemplars"]]


def test_prometheus_keeps_exemplars_and_each_leads_to_its_trace(application, daemon, scrape, profile):
    _, durations, _, a_second = PROFILES[profile]
    prometheus = scrape(daemon.pages)
    until("a first scrape", lambda: prometheus.value("up") == 1)
    tracer = application.tracer()
    for number in range(6):
        with tracer.start_as_current_span(f"GET /orders/{number % 2}"), tracer.start_as_current_span("query"):
            pass
    application.flush()
    daemon.settled(12)
    sent = {format(span.context.span_id, "016x"): span for span in application.finished()}

    # Of each of the three names at least one.
    def one_of_each():
        found = exemplars(prometheus, profile)
        return found if {labels["span_name"] for labels, _ in found} == {"GET /orders/0", "GET /orders/1", "query"} else None

    for labels, exemplar in until("Prometheus has exemplars", one_of_each):
        span = sent[exemplar["labels"]["span_id"]]
        trace_id = format(span.context.trace_id, "032x")
        assert (exemplar["labels"]["trace_id"], labels["span_name"]) == (trace_id, span.name)
        assert labels["__name__"] == f"{durations}_bucket"
        took = (span.end_time - span.start_time) / SECOND * a_second
        assert math.isclose(float(exemplar["value"]), took, rel_tol=1e-9)
        assert float(exemplar["value"]) <= float(labels["le"])
        of_trace = [each for each in application.finished() if each.context.trace_id == span.context.trace_id]
        assert len(of_trace) == 2
        assert retained(daemon, f"trace_id={trace_id}") == as_sent(of_trace)


def retained(daemon, query):
    """The spans that `/api/v1/spans` finds, read by protobuf's own reader of JSON."""
    page = json.loads(daemon.get(f"/api/v1/spans?{query}"))
    found = spans_of(json_format.ParseDict({"resourceSpans": in_base64(page["resourceSpans"])}, ExportTraceServiceRequest()))
    assert (page["spans"], page["truncated"]) == (len(found), False)
    return in_order(found)


def as_sent(spans):
    """The same of the SDK's own record. It sends a status that says nothing where the page has none."""
    sent = spans_of(encode_spans(spans))
    for *_, span in sent:
        if span.status == Status():
            span.ClearField("status")
    return in_order(sent)


def in_base64(json_of_otlp):
    """OTLP has ids in hexadecimal where protobuf's JSON has bytes in base64."""
    if isinstance(json_of_otlp, list):
        return [in_base64(each) for each in json_of_otlp]
    if not isinstance(json_of_otlp, dict):
        return json_of_otlp
    ids = ("traceId", "spanId", "parentSpanId")
    return {
        name: base64.b64encode(bytes.fromhex(value)).decode() if name in ids else in_base64(value)
        for name, value in json_of_otlp.items()
    }


@pytest.mark.parametrize("profile", ["nyx"])
def test_a_trace_of_the_sdk_is_found_with_every_field(application, daemon):
    one_of_everything(application.tracer())
    application.tracer().start_span("").end()
    traffic(application, 50)
    application.flush()
    daemon.settled(57)
    whole = [span for span in application.finished() if span.name in ("POST /orders/{id}", "charge")]
    trace_id = "0af7651916cd43dd8448eb211c80319c"
    assert {format(span.context.trace_id, "032x") for span in whole} == {trace_id}
    assert retained(daemon, f"trace_id={trace_id}") == as_sent(whole)
    crowded = [span for span in application.finished() if span.name == "crowded"]
    assert retained(daemon, "name=crowded") == as_sent(crowded)
    nameless = [span for span in application.finished() if span.name == ""]
    assert len(nameless) == 1 and retained(daemon, "name=") == as_sent(nameless)
    assert retained(daemon, f"trace_id={'f' * 32}") == []
