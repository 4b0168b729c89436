"""Prometheus as Debian packs it, scraping a daemon four times a second."""

import json
import subprocess
import urllib.parse

import yaml

from harness import LIMIT, free_port, get, start, until


class Prometheus:
    """Scrapes `address` with the job `nyx`, and keeps what it gets in `folder`, exemplars too. `credentials` is a file with the
    token that it brings."""

    def __init__(self, folder, address, rule_files=(), credentials=None):
        folder.mkdir()
        job = {"job_name": "nyx", "static_configs": [{"targets": [address]}]}
        if credentials:
            job["authorization"] = {"credentials_file": str(credentials)}
        config = {
            "global": {"scrape_interval": "250ms", "scrape_timeout": "250ms", "evaluation_interval": "250ms"},
            "rule_files": [str(path) for path in rule_files],
            "scrape_configs": [job],
        }
        file = folder / "prometheus.yml"
        file.write_text(yaml.safe_dump(config))
        self.address = f"127.0.0.1:{free_port()}"
        self.log = (folder / "log").open("w")
        self.process = start(
            [
                "prometheus",
                f"--config.file={file}",
                f"--storage.tsdb.path={folder / 'data'}",
                f"--web.listen-address={self.address}",
                "--enable-feature=exemplar-storage",
            ],
            stdout=self.log,
            stderr=subprocess.STDOUT,
        )
        until("Prometheus answers", self._answers)

    def _answers(self):
        assert self.process.poll() is None, f"Prometheus ended: see {self.log.name}"
        try:
            return "Ready" in get(self.address, "/-/ready")
        except OSError:
            return False

    def api(self, path, **parameters):
        answer = json.loads(get(self.address, f"/api/v1/{path}?{urllib.parse.urlencode(parameters)}"))
        assert answer["status"] == "success"
        return answer["data"]

    def query(self, expression):
        """The samples of an instant vector: labels without the name, and value."""
        found = self.api("query", query=expression)
        assert found["resultType"] == "vector", expression
        return [
            ({name: text for name, text in sample["metric"].items() if name != "__name__"}, float(sample["value"][1]))
            for sample in found["result"]
        ]

    def value(self, expression):
        """The only sample's value, or None where there is none."""
        found = self.query(expression)
        assert len(found) <= 1, f"{expression}: {found}"
        return found[0][1] if found else None

    def target(self):
        (target,) = self.api("targets")["activeTargets"]
        return target

    def end(self):
        if self.process.poll() is None:
            self.process.terminate()
            self.process.wait(LIMIT)
        self.log.close()
