"""Prometheus scrapes; its own tools and its client library's strict parser read the pages."""

import subprocess

import pytest
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from prometheus_client.openmetrics.parser import text_string_to_metric_families as open_metrics
from prometheus_client.parser import text_string_to_metric_families as text

from harness import OPEN_METRICS, Daemon, free_port, get, until
from senders import Application
from test_python_sdk import traffic


def send(application, spans):
    traffic(application, spans)
    application.flush()


@pytest.fixture
def application(ending, daemon):
    return ending(Application(OTLPSpanExporter(f"http://{daemon.door}", insecure=True)))


def shows(prometheus, expression, value):
    until(f"{expression} is {value}", lambda: prometheus.value(expression) == value)


def test_prometheus_scrapes_what_was_sent(application, daemon, scrape):
    prometheus = scrape(daemon.pages)
    send(application, 900)
    daemon.settled(900)
    shows(prometheus, "sum(nyx_span_count_total)", 900)

    assert prometheus.value("up") == 1
    assert prometheus.target()["lastError"] == ""
    # 3 names × 2 kinds × 3 ends, evenly.
    counts = prometheus.query("nyx_span_count_total")
    assert len(counts) == 18 and {count for _, count in counts} == {50}
    assert {labels["service_name"] for labels, _ in counts} == {"shop"}
    assert prometheus.value("sum(nyx_span_errors_total)") == 300
    assert prometheus.value("sum(nyx_span_duration_seconds_count)") == 900
    assert prometheus.value('sum(nyx_span_duration_seconds_bucket{le="+Inf"})') == 900
    assert prometheus.value("nyx_spans_accepted_total") == 900
    assert prometheus.value("sum(nyx_destination_exported_spans_total)") == 900
    assert prometheus.value("count(histogram_quantile(0.99, sum by (le) (nyx_span_duration_seconds_bucket)))") == 1


def test_prometheus_takes_every_sample_of_the_page(application, daemon, scrape):
    send(application, 18)
    daemon.settled(18)
    families = list(open_metrics(daemon.page(OPEN_METRICS)))
    samples = sum(len(family.samples) for family in families)
    prometheus = scrape(daemon.pages)
    shows(prometheus, "scrape_samples_scraped", samples)
    assert prometheus.value("scrape_samples_post_metric_relabeling") == samples

    # Under the names of the OpenMetrics page, which is what Prometheus asks for: without _total.
    known = until("the metadata is there", lambda: prometheus.api("metadata"))
    for family in families:
        if family.name.startswith("nyx_") and family.samples:
            (entry,) = known[family.name]
            assert (entry["type"], entry["help"]) == (family.type, family.documentation), family.name


def test_no_counter_goes_back_over_a_kill_and_a_restart(ending, destination, tmp_path, scrape):
    pages = f"127.0.0.1:{free_port()}"
    door = f"127.0.0.1:{free_port()}"
    daemon = ending(
        Daemon(tmp_path / "log", destination.endpoint, TELEMETRY__PROMETHEUS_ADDR=pages, INGEST__GRPC__LISTEN=door)
    )
    application = ending(Application(OTLPSpanExporter(f"http://{door}", insecure=True)))
    prometheus = scrape(pages)
    send(application, 180)
    shows(prometheus, "sum(nyx_span_count_total)", 180)
    daemon.kill()
    shows(prometheus, "up", 0)
    daemon.start()
    shows(prometheus, "up", 1)
    send(application, 180)
    shows(prometheus, "sum(nyx_span_count_total)", 360)
    # It does see that the process is another one.
    assert prometheus.value("changes(nyx_start_time_seconds[5m])") == 1
    for counter in ("nyx_span_count_total", "nyx_span_errors_total", "nyx_span_duration_seconds_count"):
        assert prometheus.value(f"sum(resets({counter}[5m]))") == 0, counter


def test_promtool_finds_nothing_to_say_about_the_text_page(ending, destination, tmp_path):
    # Names of families that are named after spans are whatever the spans are called.
    daemon = ending(Daemon(tmp_path / "log", destination.endpoint, METRICS__SEED_FAMILIES="false"))
    application = ending(Application(OTLPSpanExporter(f"http://{daemon.door}", insecure=True)))
    send(application, 36)
    daemon.settled(36)
    page = daemon.page()
    assert "nyx_span_count_total{" in page
    found = subprocess.run(
        ["promtool", "check", "metrics"], input=page, capture_output=True, text=True, timeout=30
    )
    assert (found.returncode, found.stdout, found.stderr) == (0, "", "")


def test_promtool_would_find_something():
    found = subprocess.run(
        ["promtool", "check", "metrics"],
        input="# TYPE wrong counter\nwrong 1\n",
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert found.returncode != 0 and "wrong" in found.stderr


def test_the_strict_parser_reads_the_open_metrics_page(application, daemon):
    send(application, 36)
    daemon.settled(36)
    families = {family.name: family for family in open_metrics(daemon.page(OPEN_METRICS))}
    assert sum(sample.value for sample in families["nyx_span_count"].samples if sample.name.endswith("_total")) == 36
    assert (families["nyx_span_count"].type, families["nyx_span_duration_seconds"].type) == ("counter", "histogram")
    assert families["nyx_span_duration_seconds"].unit == "seconds"
    created = [sample for sample in families["nyx_span_count"].samples if sample.name.endswith("_created")]
    assert len(created) == 18


def test_both_pages_have_the_same_samples(application, daemon):
    send(application, 36)
    daemon.settled(36)

    def labels(sample):
        # A bound is written as 1 in one format and as 1.0 in the other.
        return sorted((name, float(text) if name == "le" else text) for name, text in sample.labels.items())

    def samples(families):
        return {
            (sample.name, *labels(sample)): sample.value
            for family in families
            for sample in family.samples
            # OpenMetrics alone has _created; the process's own move by themselves.
            if sample.name.startswith("nyx_") and not sample.name.endswith("_created")
        }

    def both():
        one, other = samples(text(daemon.page())), samples(open_metrics(daemon.page(OPEN_METRICS)))
        return one if one == other else None

    assert len(until("both pages say the same", both)) > 300


def test_a_page_without_a_preference_is_text(daemon):
    assert get(daemon.pages, "/metrics").startswith("# HELP ")
    assert not get(daemon.pages, "/metrics").endswith("# EOF\n")
    assert get(daemon.pages, "/metrics", OPEN_METRICS).endswith("# EOF\n")


def test_a_service_with_ids_in_its_span_names_breaks_no_page_and_no_other_service(ending, destination, tmp_path, scrape):
    # promtool has something to say about families that are named after spans.
    settings = {"METRICS__MAX_SERIES": "100", "METRICS__DIMENSIONS": "tenant", "METRICS__SEED_FAMILIES": "false"}
    daemon = ending(Daemon(tmp_path / "log", destination.endpoint, **settings))

    def sender(service):
        return ending(Application(OTLPSpanExporter(f"http://{daemon.door}", insecure=True), service))

    depot, shop = sender("depot"), sender("shop")
    for tenant in ("a \"quoted\" one", "with\nlines \\ and 🦀"):
        for _ in range(10):
            depot.tracer().start_span("store", attributes={"tenant": tenant}).end()
    depot.flush()
    for number in range(500):
        shop.tracer().start_span(f"GET /orders/{number}").end()
    shop.flush()
    for _ in range(10):
        depot.tracer().start_span("store", attributes={"tenant": "a \"quoted\" one"}).end()
    depot.flush()
    stats = daemon.settled(530)
    (offender,) = stats["metrics"]["offenders"]
    assert (offender["service"], offender["label"]) == ("shop", "span_name")

    found = subprocess.run(
        ["promtool", "check", "metrics"], input=daemon.page(), capture_output=True, text=True, timeout=30
    )
    assert (found.returncode, found.stdout, found.stderr) == (0, "", "")
    (family,) = [family for family in open_metrics(daemon.page(OPEN_METRICS)) if family.name == "nyx_span_count"]
    counts = {
        (sample.labels["service_name"], sample.labels.get("tenant"), sample.labels.get("otel_metric_overflow")): sample.value
        for sample in family.samples
        if sample.name == "nyx_span_count_total" and sample.labels["span_name"] in ("store", "__other__")
    }
    folded = counts.pop(("shop", None, "true"))
    assert counts == {("depot", "a \"quoted\" one", None): 20, ("depot", "with\nlines \\ and 🦀", None): 10}
    assert 400 <= folded == offender["folded_spans"]

    prometheus = scrape(daemon.pages)
    shows(prometheus, "sum(nyx_span_count_total)", 530)
    shows(prometheus, "nyx_measure_folded_spans_total", folded)
    assert prometheus.value('nyx_span_count_total{tenant="with\\nlines \\\\ and 🦀"}') == 10
