"""OpenTelemetry's SDK for Python sends over OTLP/HTTP, in protobuf."""

import pytest
from opentelemetry.exporter.otlp.proto.http import Compression
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.trace.export import SpanExportResult

from destination import in_order
from harness import Daemon
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
