"""The operators' files in config/operations: read by the programs that they are for, and held against a running daemon."""

import itertools
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import tomllib
from pathlib import Path

import pytest
import yaml
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter

from harness import Daemon, free_port, until
from prometheus import Prometheus
from senders import Application
from test_python_sdk import traffic

ROOT = Path(__file__).resolve().parents[2]
OPERATIONS = ROOT / "config" / "operations"
ALERTS = OPERATIONS / "alerts.yml"
UNIT = OPERATIONS / "nyx-daemon.service"


def run(*command, **options):
    """What a program that ends by itself said, and its status."""
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60, **options)
    return ended.returncode, ended.stdout + ended.stderr


def alerts():
    groups = yaml.safe_load(ALERTS.read_text())["groups"]
    return {rule["alert"]: rule for group in groups for rule in group["rules"]}


def dashboard():
    return json.loads((OPERATIONS / "dashboard.json").read_text())


def panels():
    return [panel for panel in dashboard()["panels"] if panel["type"] != "row"]


def selectors(expression):
    """Every series that an expression names; where a label may be one of several, one for each."""
    for name, matchers in re.findall(r"\b((?:nyx|process)_\w+|up\b)(?:\{([^}]*)\})?", expression):
        choices = [[]]
        for label, of, text in re.findall(r'(\w+)(=~|=)"([^"]*)"', matchers):
            several = of == "=~" and text != ".*"
            choices.append([f'{label}="{each}"' for each in text.split("|")] if several else [f'{label}{of}"{text}"'])
        for chosen in itertools.product(*choices[1:]):
            yield f"{name}{{{','.join(chosen)}}}"


@pytest.fixture
def observed(ending, destination, certificates, tmp_path):
    """A Prometheus with the alerts that has scraped a daemon for some time, with traffic; one of its doors speaks TLS."""
    daemon = ending(Daemon(tmp_path / "log", destination.endpoint, **certificates.door("HTTP", clients=False)))
    application = ending(Application(OTLPSpanExporter(f"http://{daemon.door}", insecure=True)))
    prometheus = ending(Prometheus(tmp_path / "prometheus", daemon.pages, [ALERTS]))
    until("a first scrape", lambda: prometheus.value("up") == 1)
    for spans in (180, 360, 540):
        traffic(application, 180)
        application.flush()
        daemon.settled(spans)
        until("a scrape", lambda: prometheus.value("sum(nyx_span_count_total)") == spans)
    return prometheus


def test_every_alert_has_a_case_and_fires_in_it():
    assert run("promtool", "check", "rules", str(ALERTS))[0] == 0
    status, said = run("promtool", "test", "rules", str(OPERATIONS / "alerts.test.yml"))
    assert status == 0, said
    cases = yaml.safe_load((OPERATIONS / "alerts.test.yml").read_text())["tests"]
    fires = {
        test["alertname"] for case in cases for test in case.get("alert_rule_test", []) if test["exp_alerts"]
    }
    assert fires == set(alerts())


def test_every_alert_has_its_section_in_the_runbook():
    text = (ROOT / "docs" / "operations.md").read_text()
    sections = re.findall(r"^### (Nyx\w+)$", text, re.MULTILINE)
    assert sections == list(alerts())
    for name, rule in alerts().items():
        assert rule["annotations"]["runbook"] == f"docs/operations.md#{name.lower()}"
        assert rule["labels"]["severity"] in ("critical", "warning")


def test_every_series_that_an_alert_names_is_scraped(observed):
    wanted = {selector for rule in alerts().values() for selector in selectors(rule["expr"])}
    assert len(wanted) > 30
    missing = [selector for selector in sorted(wanted) if not observed.query(f"count({selector})")]
    assert missing == []


def test_no_alert_is_raised_about_a_daemon_that_is_well(observed):
    def evaluated():
        rules = [rule for group in observed.api("rules")["groups"] for rule in group["rules"]]
        assert not any(rule.get("lastError") for rule in rules), rules
        return rules if all(rule["health"] == "ok" for rule in rules) else None

    rules = until("every rule is evaluated", evaluated)
    assert {rule["name"] for rule in rules} == set(alerts())
    assert {rule["name"]: rule["alerts"] for rule in rules if rule["alerts"]} == {}


def test_the_alert_about_a_destination_that_is_down_is_raised(ending, tmp_path):
    daemon = ending(Daemon(tmp_path / "log", f"http://127.0.0.1:{free_port()}"))
    prometheus = ending(Prometheus(tmp_path / "prometheus", daemon.pages, [ALERTS]))
    labels = {"alertname": "NyxDestinationUnavailable", "destination": "default", "job": "nyx"}
    matchers = ",".join(f'{name}="{text}"' for name, text in labels.items())
    until("it is pending", lambda: prometheus.query(f'ALERTS{{{matchers},alertstate="pending"}}'))


def test_the_alert_about_a_reload_that_was_refused_is_raised(ending, destination, tmp_path):
    file = tmp_path / "nyx.toml"
    file.write_text("[shutdown]\n")
    daemon = ending(Daemon(tmp_path / "log", destination.endpoint))
    prometheus = ending(Prometheus(tmp_path / "prometheus", daemon.pages, [ALERTS]))
    pending = 'ALERTS{alertname="NyxConfigurationNotReloaded",alertstate="pending"}'
    until("the daemon is scraped", lambda: prometheus.value("nyx_config_last_reload_successful") == 1)
    file.write_text("[shutdown]\ntimeouts = 1\n")
    daemon.process.send_signal(signal.SIGHUP)
    until("it is pending", lambda: prometheus.query(pending))
    file.write_text("[shutdown]\n")
    daemon.process.send_signal(signal.SIGHUP)
    until("it is gone", lambda: not prometheus.query(pending))


def test_every_panel_of_the_dashboard_shows_something(observed):
    empty = []
    for panel in panels():
        assert panel["targets"], panel["title"]
        for target in panel["targets"]:
            expression = target["expr"].replace("$__rate_interval", "30s")
            expression = expression.replace("$instance", ".*").replace("$service", ".*")
            assert "$" not in expression, expression
            missing = [each for each in selectors(expression) if not observed.query(f"count({each})")]
            if missing or not observed.query(expression):
                empty.append((panel["title"], expression, missing))
    assert empty == []


def test_the_dashboard_is_whole():
    board = dashboard()
    ids = [panel["id"] for panel in board["panels"]]
    assert len(set(ids)) == len(ids)
    cells = [
        (x, y)
        for panel in board["panels"]
        for place in [panel["gridPos"]]
        for x in range(place["x"], place["x"] + place["w"])
        for y in range(place["y"], place["y"] + place["h"])
    ]
    assert len(set(cells)) == len(cells) and max(x for x, _ in cells) < 24
    variables = {variable["name"] for variable in board["templating"]["list"]}
    used = set(re.findall(r"\$\{?(\w+)", json.dumps(board))) - {"__rate_interval", "__all"}
    assert used == variables == {"datasource", "instance", "service"}
    for panel in panels():
        references = [target["refId"] for target in panel["targets"]]
        assert len(set(references)) == len(references)


@pytest.fixture
def unit(tmp_path):
    """The unit, about the program that is tested: systemd looks whether it is there."""
    unit = tmp_path / UNIT.name
    unit.write_text(UNIT.read_text().replace("/usr/bin/nyx-daemon", os.environ["NYX_DAEMON"]))
    return str(unit)


def test_systemd_has_nothing_to_say_about_the_unit(unit):
    assert run("systemd-analyze", "verify", unit) == (0, "")


def test_systemd_calls_the_unit_well_protected(unit):
    # In tenths: 1.2, as docs/operations.md says.
    status, said = run("systemd-analyze", "security", "--offline=true", "--threshold=12", unit)
    assert status == 0, said
    assert "Overall exposure level for nyx-daemon.service: 1.2 OK" in said


def seconds(text):
    number, unit = re.fullmatch(r"(\d+)(ms|s|m)", text).groups()
    return int(number) * {"ms": 0.001, "s": 1, "m": 60}[unit]


def test_the_units_times_and_limits_are_more_than_the_daemons():
    of_unit = dict(line.split("=", 1) for line in UNIT.read_text().splitlines() if re.match(r"\w+=", line))
    defaults = tomllib.loads((ROOT / "config" / "default.toml").read_text())
    stop = seconds(defaults["shutdown"]["grace"]) + seconds(defaults["shutdown"]["timeout"])
    assert seconds(of_unit["TimeoutStopSec"]) > stop + 5
    assert seconds(of_unit["TimeoutStartSec"]) > seconds(defaults["log"]["lock_timeout"]) + 30
    segments = 10 * 1024 // 64
    assert (defaults["log"]["max_bytes"], defaults["log"]["segment_bytes"]) == ("10GiB", "64MiB")
    assert int(of_unit["LimitNOFILE"]) > defaults["ingest"]["max_connections"] + segments + 256


def containerfile():
    """Its instructions, with their words."""
    text = (OPERATIONS / "Containerfile").read_text().replace("\\\n", " ")
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    return [(line.split()[0], shlex.split(line)[1:]) for line in lines]


def test_the_image_is_built_from_a_whole_workspace(tmp_path):
    sources = [
        words[:-1] for instruction, words in containerfile() if instruction == "COPY" and "--from=build" not in words
    ]
    for source in itertools.chain(*sources):
        if (ROOT / source).is_dir():
            shutil.copytree(ROOT / source, tmp_path / source, ignore=shutil.ignore_patterns("corpus", "failures"))
        else:
            shutil.copy(ROOT / source, tmp_path / source)
    toolchain = tomllib.loads((ROOT / "Cargo.toml").read_text())["workspace"]["package"]["rust-version"]
    assert [words[0] for instruction, words in containerfile() if instruction == "FROM"] == [
        f"rust:{toolchain}-alpine",
        "scratch",
    ]
    status, said = run("cargo", "metadata", "--locked", "--format-version=1", "--no-deps", cwd=tmp_path)
    assert status == 0, said
    # What the program is compiled with, besides Rust.
    included = re.compile(r'include_(?:str|bytes)!\("([^"]+)"\)')
    for file in itertools.chain((tmp_path / "src").rglob("*.rs"), (tmp_path / "actors/src").rglob("*.rs")):
        for path in included.findall(file.read_text()):
            document = path.endswith(".md")
            assert document or (file.parent / path).is_file(), f"{file} includes {path}"


def test_the_images_settings_are_valid():
    environment = dict(
        word.split("=", 1) for instruction, words in containerfile() if instruction == "ENV" for word in words
    )
    status, said = run(os.environ["NYX_DAEMON"], "validate", env=environment)
    *warnings, last = said.splitlines()
    assert (status, last) == (0, "configuration is valid")
    # It listens everywhere, and says what to set.
    assert [line.split()[1] for line in warnings] == [
        "ingest.grpc.listen",
        "ingest.http.listen",
        "telemetry.prometheus_addr",
    ]
    assert all(": set " in line and "token_file" in line for line in warnings), warnings
    exposed = {port for instruction, words in containerfile() if instruction == "EXPOSE" for port in words}
    listening = {value.rsplit(":", 1)[1] for value in environment.values() if re.search(r":\d+$", value)}
    assert exposed == listening
