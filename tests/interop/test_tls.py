"""OpenTelemetry's SDK for Python sends through TLS, with certificates on both sides."""

import signal

import grpc
import pytest
import trustme
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter as OverGrpc
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter as OverHttp
from opentelemetry.sdk.trace.export import SpanExportResult

from destination import in_order
from harness import Daemon, until
from senders import Application, one_of_everything
from test_python_sdk import traffic


@pytest.fixture
def secured(ending, destination, certificates, tmp_path):
    """A daemon whose doors speak TLS and ask for a client's certificate."""
    settings = {**certificates.door("GRPC"), **certificates.door("HTTP")}
    return ending(Daemon(tmp_path / "log", destination.endpoint, **settings))


def over(door, daemon, certificates, own="client"):
    """An exporter that trusts the authority, and shows the certificate of this name, if any."""
    files = (certificates.key(own), certificates.certificate(own)) if own else (None, None)
    if door == "http":
        key, certificate = files
        return OverHttp(
            f"https://{daemon.http}/v1/traces",
            timeout=5,
            certificate_file=certificates.ca,
            client_key_file=key,
            client_certificate_file=certificate,
        )
    ca, key, certificate = (
        open(file, "rb").read() if file else None for file in (certificates.ca, *files)
    )
    credentials = grpc.ssl_channel_credentials(ca, key, certificate)
    return OverGrpc(f"https://{daemon.door}", credentials=credentials, timeout=5)


def failures(daemon, door, reason):
    return daemon.stats()["tls"][door]["failures"][reason]


@pytest.mark.parametrize("door", ["grpc", "http"])
def test_every_field_arrives_through_tls_as_the_sdk_sent_it(ending, secured, destination, certificates, door):
    application = ending(Application(over(door, secured, certificates)))
    one_of_everything(application.tracer())
    application.flush()
    stats = secured.settled(6)
    assert in_order(destination.spans()) == in_order(application.sent())
    assert (stats["door"][door]["accepted"]["requests"], stats["balanced"]) == (1, True)
    assert sum(stats["tls"][door]["failures"].values()) == 0


@pytest.mark.parametrize("own, reason", [(None, "no_certificate"), ("stranger", "untrusted")])
@pytest.mark.parametrize("door", ["grpc", "http"])
def test_an_sdk_without_a_certificate_that_holds_is_not_let_in(ending, secured, destination, certificates, door, own, reason):
    certificates.sign("stranger", "shop.example", trustme.CA())
    application = ending(Application(over(door, secured, certificates, own)))
    traffic(application, 20)
    application.provider.force_flush(30_000)
    assert application.witness.results == [SpanExportResult.FAILURE]
    # It tries again until its time is over.
    assert failures(secured, door, reason) > 0
    assert (secured.stats()["spans"]["scanned"], destination.spans()) == (0, [])


def test_an_sdk_that_speaks_plain_text_is_refused(ending, secured, caplog):
    application = ending(Application(OverHttp(f"http://{secured.http}/v1/traces", timeout=5)))
    traffic(application, 20)
    application.provider.force_flush(30_000)
    assert application.witness.results == [SpanExportResult.FAILURE]
    # What the answer says besides has no room in its log.
    assert "code: 400" in caplog.text, caplog.text
    assert failures(secured, "http", "plaintext") == 1


@pytest.mark.parametrize("door", ["grpc", "http"])
def test_an_sdk_sends_on_while_the_certificates_are_renewed(ending, secured, certificates, door):
    application = ending(Application(over(door, secured, certificates)))
    traffic(application, 10)
    application.flush()
    secured.settled(10)
    certificates.sign("server", "127.0.0.1")
    secured.process.send_signal(signal.SIGHUP)
    until("the reload is done", lambda: secured.stats()["reloads"]["applied"] == 1)
    traffic(application, 10)
    application.flush()
    other = ending(Application(over(door, secured, certificates), service="other"))
    traffic(other, 10)
    other.flush()
    secured.settled(30)
    assert secured.stats()["connections"][door]["opened"] == 2
    assert sum(secured.stats()["tls"][door]["failures"].values()) == 0
