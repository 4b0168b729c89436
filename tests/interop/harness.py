"""Processes that a test starts, and the waiting for what they do. Everything is on the loopback interface, bounded in
time, and ended by its process id."""

import json
import os
import queue
import signal
import socket
import subprocess
import threading
import time
import urllib.error
import urllib.request

# Seconds until whatever a test waits for is taken to be never.
LIMIT = 30
# Asks for one metrics page or the other.
TEXT = "text/plain;version=0.0.4"
OPEN_METRICS = "application/openmetrics-text;version=1.0.0"


def until(what, holds):
    """Waits until `holds()` is true, and returns what it is then. What it last said is in the error."""
    deadline = time.monotonic() + LIMIT
    while True:
        found = holds()
        if found:
            return found
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {LIMIT} s: {what}")
        time.sleep(0.02)


def free_port():
    """A port that nobody has now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def get(address, path, accept=None, token=None):
    """The body of a page, as text."""
    headers = {"Accept": accept, "Authorization": token and f"Bearer {token}"}
    headers = {name: text for name, text in headers.items() if text}
    request = urllib.request.Request(f"http://{address}{path}", headers=headers)
    with urllib.request.urlopen(request, timeout=LIMIT) as answer:
        return answer.read().decode()


def start(command, **options):
    """A process that does not outlive this one."""
    return subprocess.Popen(["setpriv", "--pdeathsig", "KILL", "--", *command], **options)


class Daemon:
    """A nyx-daemon with its log on disk, in `folder`; `settings` are its `NYX__` variables without that prefix, `token` is
    what its pages ask for."""

    def __init__(self, folder, endpoint, token=None, **settings):
        self.folder = folder
        self.endpoint = endpoint
        self.token = token
        self.settings = settings
        self.process = None
        self.start()

    def start(self):
        variables = {
            "INGEST__GRPC__LISTEN": "127.0.0.1:0",
            "INGEST__HTTP__LISTEN": "127.0.0.1:0",
            "TELEMETRY__PROMETHEUS_ADDR": "127.0.0.1:0",
            "TELEMETRY__OTLP_ENDPOINT": self.endpoint,
            "EXPORT__DEFAULT__BATCH__MAX_DELAY": "10ms",
            "EXPORT__DEFAULT__RETRY__MAX": "200ms",
            "LOG__DIR": str(self.folder),
            "SHUTDOWN__GRACE": "0s",
            "SHUTDOWN__TIMEOUT": "10s",
            "TRACING__FORMAT": "json",
            **self.settings,
        }
        environment = {f"NYX__{name}": value for name, value in variables.items()}
        # In a folder without a nyx.toml.
        self.process = start(
            [os.environ["NYX_DAEMON"], "run"],
            env=environment,
            cwd=self.folder.parent,
            stderr=subprocess.PIPE,
            text=True,
        )
        lines = queue.Queue()
        threading.Thread(target=self._read, args=(self.process.stderr, lines), daemon=True).start()
        seen = []
        while True:
            line = lines.get(timeout=LIMIT)
            assert line is not None, f"the daemon ended: {seen}"
            seen.append(line)
            try:
                ready = json.loads(line)
            except ValueError:
                continue
            if ready["message"] == "ready":
                break
        self.door = ready["grpc"]
        self.http = ready["http"]
        self.pages = ready["pages"]

    @staticmethod
    def _read(stream, lines):
        for line in stream:
            lines.put(line)
        lines.put(None)

    def get(self, path, accept=None):
        return get(self.pages, path, accept, self.token)

    def may_read(self):
        """Whether the pages let us in."""
        try:
            return bool(self.get("/stats"))
        except urllib.error.HTTPError as error:
            assert error.code == 401, error
            return False

    def stats(self):
        return json.loads(self.get("/stats"))

    def page(self, accept=TEXT):
        return self.get("/metrics", accept)

    def settled(self, spans):
        """Waits until so many spans were accepted, delivered and measured, and returns /stats as it is then."""

        def holds():
            stats = self.stats()
            default = stats["destinations"]["default"]
            accepted = stats["spans"]["accepted"]
            return stats if (accepted, default["position"]) == (spans, spans) else None

        stats = until(f"{spans} spans are settled", holds)
        position = f"nyx_measure_position_ordinal {spans}\n"
        until(f"{spans} spans are measured", lambda: position in self.page())
        return stats

    def kill(self):
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(LIMIT)

    def stop(self):
        """Stops it in order."""
        self.process.send_signal(signal.SIGTERM)
        assert self.process.wait(LIMIT) == 0

    def end(self):
        """Whatever a test left of it."""
        if self.process.poll() is None:
            self.kill()
