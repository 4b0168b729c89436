"""Who brings a bearer token, as OpenTelemetry's SDK and Prometheus bring one, and who brings none."""

import logging
import signal

import pytest
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter as OverGrpc
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter as OverHttp
from opentelemetry.sdk.trace.export import SpanExportResult

from destination import in_order
from harness import Daemon, until
from prometheus import Prometheus
from senders import Application
from test_python_sdk import traffic

TOKEN = "c2VjcmV0LXRva2VuLW9mLXRoZS1kb29ycw=="
NEXT = "c2VjcmV0LXRva2VuLXRoYXQtZm9sbG93cw=="


def file_of(path, *tokens):
    path.write_text("".join(f"{token}\n" for token in tokens))
    path.chmod(0o600)
    return path


@pytest.fixture
def tokens(tmp_path):
    return file_of(tmp_path / "tokens", TOKEN)


@pytest.fixture
def guarded(ending, destination, tmp_path, tokens):
    """A daemon whose doors and pages ask for a token."""
    files = {"INGEST__TOKEN_FILE": str(tokens), "TELEMETRY__PROMETHEUS_TOKEN_FILE": str(tokens)}
    return ending(Daemon(tmp_path / "log", destination.endpoint, token=TOKEN, **files))


def over(door, daemon):
    if door == "grpc":
        return OverGrpc(f"http://{daemon.door}", insecure=True, timeout=5)
    return OverHttp(f"http://{daemon.http}/v1/traces", timeout=5)


def refused(daemon, door):
    return daemon.stats()["door"][door]["refused"]["unauthenticated"]["requests"]


@pytest.mark.parametrize("door", ["grpc", "http"])
def test_an_sdk_that_is_told_as_the_refusal_says_is_let_in(ending, guarded, destination, monkeypatch, door):
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", f"authorization=Bearer%20{TOKEN.replace('=', '%3D')}")
    application = ending(Application(over(door, guarded)))
    traffic(application, 180)
    application.flush()
    guarded.settled(180)
    assert in_order(destination.spans()) == in_order(application.sent())
    assert refused(guarded, door) == 0


@pytest.mark.parametrize("headers", [None, "authorization=Bearer%20not-the-token-of-these-doors"], ids=["none", "wrong"])
@pytest.mark.parametrize("door", ["grpc", "http"])
def test_an_sdk_without_the_token_learns_what_is_missing(ending, guarded, destination, monkeypatch, caplog, door, headers):
    # The SDK does not say again what it said a moment ago, in another test.
    monkeypatch.setattr(logging.getLogger("opentelemetry.exporter.otlp.proto.grpc.exporter"), "filters", [])
    if headers:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", headers)
    application = ending(Application(over(door, guarded)))
    traffic(application, 20)
    application.provider.force_flush(30_000)
    assert application.witness.results == [SpanExportResult.FAILURE]
    # What is to be set is in the log of the one; that of the other has no room for it.
    said = {"grpc": ["UNAUTHENTICATED", "set OTEL_EXPORTER_OTLP_HEADERS=authorization=Bearer"], "http": ["401"]}
    assert all(text in caplog.text for text in said[door]), caplog.text
    # It does not repeat what is refused for good.
    assert refused(guarded, door) == 1
    stats = guarded.stats()
    assert (stats["spans"]["scanned"], stats["balanced"]) == (0, True)
    assert destination.spans() == []


@pytest.mark.parametrize("door", ["grpc", "http"])
def test_one_token_follows_the_other_while_an_sdk_sends(ending, guarded, tokens, monkeypatch, door):
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", f"authorization=Bearer%20{TOKEN.replace('=', '%3D')}")
    application = ending(Application(over(door, guarded)))

    def reloaded(*held):
        before = guarded.stats()["reloads"]["applied"]
        file_of(tokens, *held)
        guarded.process.send_signal(signal.SIGHUP)
        # Both may be asked for during the change.
        guarded.token = held[0]
        until("the reload is done", lambda: guarded.may_read() and guarded.stats()["reloads"]["applied"] == before + 1)

    for spans in (10, 20):
        traffic(application, 10)
        application.flush()
        guarded.settled(spans)
        reloaded(TOKEN, NEXT)
    opened = guarded.stats()["connections"][door]["opened"]
    reloaded(NEXT)
    traffic(application, 10)
    application.provider.force_flush(30_000)
    assert application.witness.results[-1] == SpanExportResult.FAILURE
    assert refused(guarded, door) == 1
    assert guarded.stats()["connections"][door]["opened"] == opened == 1


def test_prometheus_scrapes_with_its_credentials_file_and_not_without(ending, guarded, tmp_path):
    credentials = file_of(tmp_path / "credentials", TOKEN)
    allowed = ending(Prometheus(tmp_path / "allowed", guarded.pages, credentials=credentials))
    others = ending(Prometheus(tmp_path / "others", guarded.pages))
    until("it is scraped", lambda: allowed.value("up") == 1)
    assert allowed.value("nyx_spans_accepted_total") == 0
    until("the other one is told", lambda: others.value("up") == 0)
    assert others.target()["lastError"] == "server returned HTTP status 401 Unauthorized"
