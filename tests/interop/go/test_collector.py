"""telemetrygen sends; an OpenTelemetry Collector receives what nyx delivers, and counts it again."""

import itertools
import os
import subprocess

import pytest
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from prometheus_client.parser import text_string_to_metric_families

from collector import BOUNDS_MS, Collector, alike
from harness import Daemon, until
from senders import Application, one_of_everything
from test_python_sdk import traffic


@pytest.fixture
def collector(ending, tmp_path):
    return ending(Collector(tmp_path / "collector"))


@pytest.fixture(params=["grpc", "http/protobuf"])
def protocol(request):
    """How OTLP is spoken to nyx and from it."""
    return request.param


@pytest.fixture
def daemon(ending, collector, protocol, tmp_path):
    return ending(Daemon(tmp_path / "log", collector.endpoint(protocol), EXPORT__DEFAULT__PROTOCOL=protocol))


def telemetrygen(daemon, protocol, traces, children, *more, workers=1):
    """Runs it to its end, and returns how many spans it made: each trace is a root and its children."""
    ended = subprocess.run(
        [
            os.environ["TELEMETRYGEN"],
            "traces",
            *([f"--otlp-endpoint={daemon.door}"] if protocol == "grpc" else [f"--otlp-endpoint={daemon.http}", "--otlp-http"]),
            "--otlp-insecure",
            f"--workers={workers}",
            f"--traces={traces}",
            f"--child-spans={children}",
            "--rate=0",
            *more,
        ],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert ended.returncode == 0, ended.stderr
    return workers * traces * (1 + children)


def red_of_nyx(daemon):
    """The span metrics in the form of Collector.red(): buckets are not cumulative there."""
    red = {}
    for family in text_string_to_metric_families(daemon.page()):
        for sample in family.samples:
            kind = {
                "nyx_span_count_total": "calls",
                "nyx_span_duration_seconds_count": "count",
                "nyx_span_duration_seconds_sum": "sum",
                "nyx_span_duration_seconds_bucket": "buckets",
            }.get(sample.name)
            if kind is None:
                continue
            of = tuple(sample.labels[name] for name in ("service_name", "span_name", "span_kind", "status_code"))
            row = red.setdefault(of, {"buckets": []})
            if kind == "buckets":
                row["buckets"].append((float(sample.labels["le"]), int(sample.value)))
            else:
                row[kind] = sample.value
    rows = {}
    for of, row in red.items():
        cumulative = [count for _, count in sorted(row["buckets"])]
        assert [bound for bound, _ in sorted(row["buckets"])][:-1] == [bound / 1000 for bound in BOUNDS_MS]
        buckets = [after - before for before, after in itertools.pairwise([0, *cumulative])]
        rows[of] = (int(row["calls"]), int(row["count"]), row["sum"], buckets)
    return rows


def same_red(daemon, collector, spans):
    """Waits until the collector has counted so many spans, and holds number against number."""

    def all_of_them():
        red = collector.red()
        return red if sum(row[0] for row in red.values()) == spans else None

    theirs = until(f"the collector counts {spans} spans", all_of_them)
    ours = red_of_nyx(daemon)
    assert set(ours) == set(theirs)
    for of in ours:
        assert (ours[of][:2], ours[of][3]) == (theirs[of][:2], theirs[of][3]), of
        # Both are sums of floating-point numbers, in another order.
        assert ours[of][2] == pytest.approx(theirs[of][2], rel=1e-9), of
    return ours


def test_nyx_and_the_spanmetrics_connector_count_the_same_of_telemetrygen(daemon, collector, protocol):
    made = 0
    for service, status, duration in [
        ("shop", "Ok", "3ms"),
        ("shop", "Error", "70ms"),
        ("depot", "Unset", "1200ms"),
        ("ledger", "Error", "20s"),
    ]:
        made += telemetrygen(
            daemon,
            protocol,
            100,
            2,
            f"--service={service}",
            f"--status-code={status}",
            f"--span-duration={duration}",
            '--otlp-attributes=region="north"',
            '--telemetry-attributes=answer="42"',
            workers=2,
        )
    assert made == 2400
    stats = daemon.settled(made)
    assert stats["balanced"]
    assert stats["destinations"]["default"]["exported"] == made

    until("every span is in the collector's file", lambda: len(collector.spans()) == made)
    assert set(alike(collector.spans()).values()) == {1}
    red = same_red(daemon, collector, made)
    assert {of[0] for of in red} == {"shop", "depot", "ledger"}
    assert {of[3] for of in red} == {"STATUS_CODE_OK", "STATUS_CODE_ERROR", "STATUS_CODE_UNSET"}


def test_nyx_and_the_spanmetrics_connector_put_the_same_durations_into_the_same_buckets(ending, daemon, collector):
    # Every bound itself, a nanosecond below and one above.
    application = ending(Application(OTLPSpanExporter(f"http://{daemon.door}", insecure=True)))
    traffic(application, 1800)
    application.flush()
    daemon.settled(1800)
    red = same_red(daemon, collector, 1800)
    assert all(any(row[3][bucket] for row in red.values()) for bucket in range(len(BOUNDS_MS) + 1))


def test_the_collector_gets_over_nyx_what_it_gets_directly(ending, daemon, collector, tmp_path):
    direct = ending(Collector(tmp_path / "direct"))
    application = ending(Application(OTLPSpanExporter(f"http://{daemon.door}", insecure=True)))
    one_of_everything(application.tracer())
    application.flush()
    spans = application.finished()
    OTLPSpanExporter(direct.endpoint("grpc"), insecure=True).export(spans)
    daemon.settled(len(spans))
    until("both have every span", lambda: len(collector.spans()) == len(direct.spans()) == len(spans))
    assert alike(collector.spans()) == alike(direct.spans())


def test_what_the_collector_misses_while_it_is_down_it_gets_when_it_comes_back(ending, daemon, collector, protocol, tmp_path):
    made = telemetrygen(daemon, protocol, 50, 1)
    daemon.settled(made)
    collector.end()
    made += telemetrygen(daemon, protocol, 50, 1)
    until("nyx notices", lambda: daemon.stats()["destinations"]["default"]["state"] == "unreachable")
    assert daemon.stats()["destinations"]["default"]["queued"] == made // 2
    again = ending(Collector(tmp_path / "again", collector.ports))
    daemon.settled(made)
    until("the rest arrives", lambda: len(again.spans()) == made // 2)
    until("all of the first half was there", lambda: len(collector.spans()) == made // 2)
    assert not set(again.spans()) & set(collector.spans())
