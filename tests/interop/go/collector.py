"""An OpenTelemetry Collector: what it receives over OTLP it writes to a file, and counts with its spanmetrics connector."""

import json
import os
import subprocess
from collections import Counter

import yaml

from harness import LIMIT, free_port, start, until

# Those of nyx, so that bucket can be held against bucket.
BOUNDS_MS = [2, 4, 6, 8, 10, 50, 100, 200, 400, 800, 1000, 1400, 2000, 5000, 10_000, 15_000]
DIMENSIONS = ("service.name", "span.name", "span.kind", "status.code")


class Collector:
    """Runs in `folder`, on ports of its own or those of another, by protocol."""

    def __init__(self, folder, ports=None):
        folder.mkdir()
        self.ports = ports or {"grpc": free_port(), "http/protobuf": free_port()}
        self.traces = folder / "traces.json"
        self.metrics = folder / "metrics.json"
        histogram = {"unit": "s", "explicit": {"buckets": [f"{bound}ms" for bound in BOUNDS_MS]}}
        config = {
            "receivers": {
                "otlp": {
                    "protocols": {
                        "grpc": {"endpoint": f"127.0.0.1:{self.ports['grpc']}"},
                        "http": {"endpoint": f"127.0.0.1:{self.ports['http/protobuf']}"},
                    }
                }
            },
            "connectors": {"spanmetrics": {"histogram": histogram, "metrics_flush_interval": "500ms"}},
            "exporters": {
                "file/traces": {"path": str(self.traces), "flush_interval": "100ms"},
                "file/metrics": {"path": str(self.metrics), "flush_interval": "100ms"},
            },
            "service": {
                "telemetry": {"metrics": {"level": "none"}},
                "pipelines": {
                    "traces": {"receivers": ["otlp"], "exporters": ["file/traces", "spanmetrics"]},
                    "metrics": {"receivers": ["spanmetrics"], "exporters": ["file/metrics"]},
                },
            },
        }
        file = folder / "config.yaml"
        file.write_text(yaml.safe_dump(config))
        self.log = (folder / "log").open("w+")
        self.process = start(
            [os.environ["OTELCOL"], f"--config=file:{file}"], stdout=self.log, stderr=subprocess.STDOUT
        )
        until("the collector is ready", self._ready)

    def endpoint(self, protocol):
        return f"http://127.0.0.1:{self.ports[protocol]}"

    def _ready(self):
        with open(self.log.name) as log:
            said = log.read()
        assert self.process.poll() is None, f"the collector ended: {said}"
        return "Everything is ready" in said

    @staticmethod
    def _lines(path):
        """What it wrote, as far as whole lines go."""
        text = path.read_text() if path.exists() else ""
        return [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]

    def spans(self):
        """Every span that arrived, with its resource and scope, as the collector's own JSON has them."""
        return [
            json.dumps([of_resource["resource"], of_resource.get("schemaUrl"), of_scope["scope"], span], sort_keys=True)
            for line in self._lines(self.traces)
            for of_resource in line["resourceSpans"]
            for of_scope in of_resource["scopeSpans"]
            for span in of_scope["spans"]
        ]

    def red(self):
        """The newest of what its spanmetrics connector counted: per label set calls, calls of the histogram, seconds,
        and calls per bucket."""
        calls, durations = {}, {}
        for line in self._lines(self.metrics):
            for of_resource in line["resourceMetrics"]:
                for of_scope in of_resource["scopeMetrics"]:
                    for metric in of_scope["metrics"]:
                        if metric["name"] == "traces.span.metrics.calls":
                            for point in metric["sum"]["dataPoints"]:
                                calls[labels(point)] = int(point["asInt"])
                        if metric["name"] == "traces.span.metrics.duration":
                            assert metric["unit"] == "s"
                            for point in metric["histogram"]["dataPoints"]:
                                durations[labels(point)] = point
        assert set(calls) == set(durations)
        return {
            of: (
                count,
                int(durations[of]["count"]),
                durations[of]["sum"],
                [int(number) for number in durations[of]["bucketCounts"]],
            )
            for of, count in calls.items()
        }

    def end(self):
        if self.process.poll() is None:
            self.process.terminate()
            self.process.wait(LIMIT)
        self.log.close()


def labels(point):
    """Its dimensions, in the order of DIMENSIONS."""
    of = {each["key"]: each["value"].get("stringValue") for each in point["attributes"]}
    return tuple(of[name] for name in DIMENSIONS)


def alike(spans):
    """How often each span is there."""
    return Counter(spans)
