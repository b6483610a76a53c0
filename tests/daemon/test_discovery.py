"""Instances that lists name: they come and go with the lists, and a list that is broken changes nothing."""

import asyncio
import contextlib
import http.server
import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from exporter.core.errors import ConfigError, StateError
from tests.daemon.test_reload import Exporter, start  # noqa: F401 - a fixture

SUCCESSFUL = "agentos_exporter_discovery_last_refresh_successful"


def names(exporter: Exporter) -> list[str]:
    return [member.agentos.name for member in exporter.daemon.site.fleet.members]


def targets(*instances: str) -> str:
    return json.dumps(
        [{"targets": [f"127.0.0.1:{place + 1}"], "labels": {"agentos": name}} for place, name in enumerate(instances)]
    )


@contextlib.contextmanager
def preparing_fails(monkeypatch: pytest.MonkeyPatch, exporter: Exporter, error: Exception) -> Iterator[None]:
    async def fails(*_: object, **__: object) -> None:
        raise error

    with monkeypatch.context() as patched:
        patched.setattr(exporter.daemon.site.fleet, "prepare", fails)
        yield


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


async def test_a_folder_that_is_away_for_a_moment_changes_nothing(
    start: Callable[..., Exporter],  # noqa: F811
    tmp_path: Path,
) -> None:
    (folder := tmp_path / "targets").mkdir()
    (folder / "t.json").write_text(targets("x"))
    lists = [{"files": ["targets/*.json"]}, {"files": ["targets/t.json"], "name_label": "agentos"}]
    async with start("a", agentos_file_sd=lists) as exporter:
        folder.rename(tmp_path / "elsewhere")
        await exporter.forward(15)
        assert (names(exporter), exporter.value(SUCCESSFUL, "file")) == (["a", "x"], 0)
        (tmp_path / "elsewhere").rename(folder)
        await exporter.forward(15)
        assert (names(exporter), exporter.value(SUCCESSFUL, "file")) == (["a", "x"], 1)


async def test_a_refused_reload_leaves_the_lists(
    start: Callable[..., Exporter],  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / "t.json").write_text(targets("x"))
    async with start("a", agentos_file_sd=[{"files": ["t.json"]}]) as exporter:
        exporter.read("a")
        with preparing_fails(monkeypatch, exporter, ConfigError(["agentos[0]: cannot be read"])):
            assert "the configuration is refused" in await exporter.reload()
        assert names(exporter) == ["a", "x"]
        exporter.read("a", agentos_file_sd=[{"files": ["t.json"]}])
        assert await exporter.reload() == ""
        assert names(exporter) == ["a", "x"]


async def test_a_list_that_only_moves_keeps_what_it_named(start: Callable[..., Exporter], tmp_path: Path) -> None:  # noqa: F811
    (tmp_path / "one.json").write_text(targets("x"))
    (tmp_path / "two.json").write_text(targets("y"))
    async with start("a", agentos_file_sd=[{"files": ["two.json"]}]) as exporter:
        kept = exporter.daemon.pollers[-1]
        (tmp_path / "two.json").write_text("[")
        exporter.read("a", agentos_file_sd=[{"files": ["one.json"]}, {"files": ["two.json"]}])
        assert await exporter.reload() == ""
        assert names(exporter) == ["a", "x", "y"]
        assert exporter.daemon.pollers[-1] is kept


async def test_a_reload_while_a_list_has_changed(start: Callable[..., Exporter], tmp_path: Path) -> None:  # noqa: F811
    """What a list names is put in force by a job of its own, which a reload does not wait for."""
    (tmp_path / "t.json").write_text(targets("x"))
    async with start("a", agentos_file_sd=[{"files": ["t.json"]}]) as exporter:
        (tmp_path / "t.json").write_text(targets("x", "y"))
        reloader = exporter.daemon.reloader
        async with reloader._lock:  # as in a reload
            await exporter.daemon.site.discoverer._refresh(next(iter(exporter.daemon.site.discoverer._lists)))
            waiting = asyncio.create_task(reloader.rediscover())
            await asyncio.sleep(0)
            await exporter.daemon.site.discoverer.use({})
        await waiting
        exporter.read("a")
        assert await exporter.reload() == ""
        assert names(exporter) == ["a"]


async def test_what_cannot_be_put_in_force_is_tried_again(
    start: Callable[..., Exporter],  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / "t.json").write_text(targets("x"))
    async with start("a", agentos_file_sd=[{"files": ["t.json"]}]) as exporter:
        with preparing_fails(monkeypatch, exporter, StateError("the disk is full")):
            (tmp_path / "t.json").write_text(targets("x", "y"))
            await exporter.forward(15)
            assert names(exporter) == ["a", "x"]
        await exporter.forward(15)
        assert names(exporter) == ["a", "x", "y"]


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
