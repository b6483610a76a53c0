"""Instances that lists name: they come and go with the lists, and a list that is broken changes nothing."""

import http.server
import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.daemon.test_reload import Exporter, start  # noqa: F401 - a fixture

SUCCESSFUL = "agentos_exporter_discovery_last_refresh_successful"


def names(exporter: Exporter) -> list[str]:
    return [one.agentos.name for one in exporter.daemon.site.fleet.members]


def targets(*instances: str) -> str:
    return json.dumps(
        [{"targets": [f"127.0.0.1:{place + 1}"], "labels": {"agentos": name}} for place, name in enumerate(instances)]
    )


async def test_files(start: Callable[..., Exporter], tmp_path: Path) -> None:  # noqa: F811
    folder = tmp_path / "targets"
    folder.mkdir()
    (folder / "one.json").write_text(targets("x", "y"))
    async with start("a", agentos_file_sd=[{"files": ["targets/*.json"]}]) as exporter:
        assert names(exporter) == ["a", "x", "y"]
        (kept, *_) = exporter.daemon.pollers
        await exporter.forward(30)

        (folder / "one.json").write_text(targets("y", "zet"))
        (folder / "two.json").write_text(targets("a", "w"))  # the configuration's own `a` counts
        await exporter.forward(15)
        assert names(exporter) == ["a", "y", "zet", "w"]
        assert exporter.daemon.pollers[0] is kept
        assert exporter.value(SUCCESSFUL, "file") == 1

        (folder / "one.json").write_text("[")
        (folder / "two.json").write_text(targets("w", "v"))
        await exporter.forward(15)
        assert names(exporter) == ["a", "y", "zet", "w", "v"]
        assert exporter.value(SUCCESSFUL, "file") == 0
        assert len(exporter.logged("discovery", level="warning")) == 1

        (folder / "one.json").unlink()
        await exporter.forward(15)
        assert names(exporter) == ["a", "w", "v"]
        assert exporter.value(SUCCESSFUL, "file") == 1
        await exporter.counted("a")


async def test_lists_are_taken_over_by_a_reload(start: Callable[..., Exporter], tmp_path: Path) -> None:  # noqa: F811
    (tmp_path / "t.json").write_text(targets("x"))
    async with start("a") as exporter:
        exporter.read("a", agentos_file_sd=[{"files": ["t.json"]}])
        assert await exporter.reload() == ""
        assert names(exporter) == ["a", "x"]
        exporter.read("b")
        assert await exporter.reload() == ""
        assert names(exporter) == ["b"]
        assert exporter.value(SUCCESSFUL, "file") is None


class Endpoint(http.server.BaseHTTPRequestHandler):
    """What answers with a list."""

    status, body = 200, b"[]"
    asked: list[Any] = []  # noqa: RUF012

    def do_GET(self) -> None:
        self.asked.append(self.headers)
        self.send_response(self.status)
        self.end_headers()
        self.wfile.write(self.body)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def endpoint() -> Iterator[http.server.ThreadingHTTPServer]:
    Endpoint.status, Endpoint.body, Endpoint.asked = 200, b"[]", []
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Endpoint) as server:
        threading.Thread(target=server.serve_forever).start()
        yield server
        server.shutdown()


async def test_http(start: Callable[..., Exporter], endpoint: http.server.ThreadingHTTPServer, tmp_path: Path) -> None:  # noqa: F811
    (tmp_path / "token").write_text("s3cr3t-of-the-list")
    url = f"http://127.0.0.1:{endpoint.server_port}/targets"
    Endpoint.body = targets("x").encode()
    listed = {"url": url, "refresh_interval": "30s", "endpoint_token_file": "token"}
    async with start("a", agentos_http_sd=[listed]) as exporter:
        assert names(exporter) == ["a"]
        await exporter.forward(15)
        assert names(exporter) == ["a", "x"]
        headers = Endpoint.asked[0]
        assert headers["x-prometheus-refresh-interval-seconds"] == "30"
        assert headers["authorization"] == "Bearer s3cr3t-of-the-list"
        for status, body in ((500, b"[]"), (200, b"<html>"), (200, b"{}")):
            Endpoint.status, Endpoint.body = status, body
            await exporter.forward(45)
            assert names(exporter) == ["a", "x"]
            assert exporter.value(SUCCESSFUL, "http") == 0
        Endpoint.status, Endpoint.body = 200, targets("y").encode()
        await exporter.forward(45)
        assert names(exporter) == ["a", "y"]
        assert exporter.value(SUCCESSFUL, "http") == 1
        assert "s3cr3t" not in exporter.log
