"""An exporter that reads many AgentOS instances from a list, and what stands in for those that are down.

with fleets.down() as urls, Fleet(tmp_path, poll_interval="10s") as exporter:
    exporter.list({"up": agentos.base_url} | urls)
"""

from __future__ import annotations

import contextlib
import http.server
import json
import socket
import threading
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

from tests.harness import truth
from tests.harness.agentos import free_port
from tests.harness.exporter import RunningExporter

POLLS = "agentos_exporter_polls_total"


class _Failing(http.server.BaseHTTPRequestHandler):
    """What is there and can do nothing."""

    def do_GET(self) -> None:
        self.rfile.read(int(self.headers.get("content-length", 0)))
        self.send_error(500)

    def do_POST(self) -> None:
        self.do_GET()

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@contextlib.contextmanager
def down(each: int) -> Iterator[dict[str, str]]:
    """So many instances that refuse connections, that never answer, and that answer 500: name → URL.

    Each is named for the outcome of its polls, a hyphen and a number.
    """
    with contextlib.ExitStack() as stack:
        silent = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=128))  # accepts, as the system does
        failing = stack.enter_context(http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Failing))
        threading.Thread(target=failing.serve_forever).start()
        stack.callback(failing.shutdown)
        ports = {"unreachable": free_port(), "timeout": silent.getsockname()[1], "server_error": failing.server_port}
        yield {
            f"{outcome}-{number}": f"http://127.0.0.1:{port}"
            for outcome, port in ports.items()
            for number in range(each)
        }


class Fleet(RunningExporter):
    """An exporter that reads a list of instances, empty at first."""

    def __init__(self, folder: Path, **settings: object) -> None:
        """`settings` are those of RunningExporter; what is read here is idle, so nothing is swept or given up."""
        self._list = folder / "targets.json"
        self._list.write_text("[]")
        lists = [{"files": [self._list.name]}]
        idle = {"sessions_interval": "1h", "operations_interval": "1h", "overlap": "5m", "trace_horizon": "10m"}
        super().__init__(folder, {}, agentos_file_sd=lists, **idle, **settings)

    def list(self, urls: dict[str, str]) -> None:
        """Name these instances."""
        groups = [{"targets": [url], "labels": {"agentos": name}} for name, url in urls.items()]
        new = self._list.with_suffix(".new")
        new.write_text(json.dumps(groups))
        new.replace(self._list)

    def shown(self, *names: str) -> truth.Totals:
        """Return these samples; to parse all of hundreds of instances takes seconds."""
        begins = tuple(f"{name}{{" for name in names)
        return truth.scrape("\n".join(line for line in self.metrics().splitlines() if line.startswith(begins)))

    def up(self) -> dict[str, float]:
        """Return who is up: 1, and who is not: 0."""
        return {dict(labels)["agentos"]: value for (_, labels), value in self.shown("agentos_up").items()}

    def counters(self, instances: Iterable[str]) -> truth.Totals:
        """Return what was counted of these instances."""
        wanted = {("agentos", name) for name in instances}
        return {key: value for key, value in self.shown(*truth.COVERED).items() if wanted & key[1]}

    def polls(self) -> Counter[tuple[str, str]]:
        """Return how many polls of each instance ended with each outcome."""
        polls: Counter[tuple[str, str]] = Counter()
        for (_, labels), value in self.shown(POLLS).items():
            of = dict(labels)
            if value:
                polls[of["agentos"], of["outcome"]] = int(value)
        return polls
