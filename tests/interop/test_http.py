"""OpenTelemetry's SDKs for Python and for JavaScript send over OTLP/HTTP, in protobuf and in JSON."""

import json
import os
import subprocess

import pytest
import requests
from opentelemetry.exporter.otlp.proto.http import Compression
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.trace.export import SpanExportResult

from destination import attributes_of, in_order
from harness import LIMIT, Daemon
from senders import Application, one_of_everything
from test_python_sdk import red_of, red_on, traffic


def over_http(daemon, compression=Compression.NoCompression, timeout=20):
    return OTLPSpanExporter(f"http://{daemon.http}/v1/traces", compression=compression, timeout=timeout)


@pytest.mark.parametrize("compression", [Compression.NoCompression, Compression.Gzip], ids=["plain", "gzip"])
def test_every_field_arrives_over_http_as_the_python_sdk_sent_it(ending, daemon, destination, compression):
    application = ending(Application(over_http(daemon, compression)))
    one_of_everything(application.tracer())
    application.flush()
    stats = daemon.settled(6)
    assert in_order(destination.spans()) == in_order(application.sent())
    door = stats["door"]["http"]
    assert (door["received"]["requests"], door["accepted"]["requests"]) == (1, 1)


def test_every_count_over_http_is_the_python_sdks_own(ending, daemon, destination):
    application = ending(Application(over_http(daemon)))
    traffic(application, 1200)
    application.flush()
    stats = daemon.settled(1200)
    assert stats["balanced"] and stats["spans"]["scanned"] == 1200
    exports = len(application.witness.results)
    assert stats["door"]["http"]["accepted"]["requests"] == exports
    assert f'nyx_door_requests_accepted_total{{door="http"}} {exports}\n' in daemon.page()
    assert in_order(destination.spans()) == in_order(application.sent())
    assert red_on(daemon.page()) == red_of(application.finished())


def test_the_python_sdk_is_told_over_http_of_a_request_that_is_too_large(ending, destination, tmp_path, caplog):
    daemon = ending(Daemon(tmp_path / "log", destination.endpoint, INGEST__MAX_REQUEST_BYTES="4KiB"))
    application = ending(Application(over_http(daemon, timeout=2)))
    application.tracer().start_span("large", attributes={"text": "x" * 5000}).end()
    application.provider.force_flush(30_000)
    assert application.witness.results == [SpanExportResult.FAILURE]
    assert "413" in caplog.text
    # It does not repeat what is refused for good.
    stats = daemon.stats()
    assert stats["door"]["http"]["refused"]["too_large"]["requests"] == 1
    assert (stats["spans"]["accepted"], stats["balanced"]) == (0, True)


def javascript(daemon, compression, number):
    """Has the SDK for JavaScript send; returns its own record of what it sent."""
    ended = subprocess.run(
        ["node", os.environ["JAVASCRIPT_SENDER"], f"http://{daemon.http}/v1/traces", compression, str(number)],
        capture_output=True,
        text=True,
        timeout=LIMIT,
    )
    assert ended.returncode == 0, ended.stderr
    said = json.loads(ended.stdout)
    assert said["results"] and {result["code"] for result in said["results"]} == {0}, said["results"]
    return said


def like_javascript(resource, resource_schema, scope, scope_schema, span):
    """A span of OTLP in the words of the sender's record."""
    return {
        "resource": attributes_of(resource),
        "scope": {"name": scope.name, "version": scope.version},
        "traceId": span.trace_id.hex(),
        "spanId": span.span_id.hex(),
        "parentSpanId": span.parent_span_id.hex(),
        "traceState": span.trace_state,
        "name": span.name,
        "kind": span.kind,
        "start": str(span.start_time_unix_nano),
        "end": str(span.end_time_unix_nano),
        "attributes": attributes_of(span),
        "droppedAttributes": span.dropped_attributes_count,
        "events": [
            {"name": event.name, "time": str(event.time_unix_nano), "attributes": attributes_of(event)}
            for event in span.events
        ],
        "droppedEvents": span.dropped_events_count,
        "links": [
            {"traceId": link.trace_id.hex(), "spanId": link.span_id.hex(), "attributes": attributes_of(link)}
            for link in span.links
        ],
        "droppedLinks": span.dropped_links_count,
        "status": {"code": span.status.code, "message": span.status.message},
    }


@pytest.mark.parametrize("compression", ["none", "gzip"])
def test_every_field_arrives_in_json_as_the_javascript_sdk_sent_it(daemon, destination, compression):
    said = javascript(daemon, compression, 600)
    stats = daemon.settled(606)
    arrived = {span["spanId"]: span for span in (like_javascript(*each) for each in destination.spans())}
    sent = {span["spanId"]: span for span in said["sent"]}
    assert len(sent) == len(destination.spans()) == 606
    assert arrived == sent
    door = stats["door"]["http"]
    assert (door["received"]["requests"], door["accepted"]["requests"]) == (len(said["results"]),) * 2

    # Whole numbers have arrived as such, others as fractions.
    (parent,) = [each[-1] for each in destination.spans() if each[-1].name == "POST /orders/{id}"]
    types = {each.key: each.value.WhichOneof("value") for each in parent.attributes}
    assert (types["negative"], types["large"], types["half"]) == ("int_value", "int_value", "double_value")


def test_every_count_in_json_is_the_javascript_sdks_own(daemon):
    said = javascript(daemon, "none", 1000)
    daemon.settled(1006)
    red = {}
    for span in said["sent"]:
        kind = ["", "INTERNAL", "SERVER", "CLIENT", "PRODUCER", "CONSUMER"][span["kind"]]
        end = ["UNSET", "OK", "ERROR"][span["status"]["code"]]
        of = ("kiosk", span["name"], f"SPAN_KIND_{kind}", f"STATUS_CODE_{end}")
        calls, nanoseconds = red.get(of, (0, 0))
        red[of] = (calls + 1, nanoseconds + int(span["end"]) - int(span["start"]))
    measured = {of: (calls, nanoseconds) for of, (calls, _, nanoseconds, _) in red_on(daemon.page()).items()}
    assert measured == red


def test_a_number_that_json_has_no_place_for_is_refused_in_words(daemon):
    # As the SDK for JavaScript writes 1e300, which is a whole number to it.
    attribute = '{"key":"huge","value":{"intValue":1e+300}}'
    span = f'{{"traceId":"{"a1" * 16}","spanId":"{"b2" * 8}","name":"huge","attributes":[{attribute}]}}'
    body = f'{{"resourceSpans":[{{"scopeSpans":[{{"spans":[{span}]}}]}}]}}'
    answer = requests.post(
        f"http://{daemon.http}/v1/traces", body, headers={"Content-Type": "application/json"}, timeout=LIMIT
    )
    assert (answer.status_code, answer.headers["Content-Type"]) == (400, "application/json")
    assert "intValue" in answer.json()["message"]
    assert daemon.stats()["door"]["http"]["refused"]["invalid"]["requests"] == 1
