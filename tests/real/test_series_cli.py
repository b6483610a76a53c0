"""`agentos-exporter series` against a real AgentOS: what it reads, and that nothing is left behind."""

import asyncio
import contextlib
import json
import sqlite3
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from exporter.cli import main as cli
from tests.harness import load
from tests.harness.agentos import RunningAgentOS
from tests.harness.commands import Said, surroundings

RUNS = (load.Run("agents", "tools"), load.Run("agents", "parallel-tools"), load.Run("agents", "failing-model"))


@pytest.fixture(autouse=True)
def own_surroundings(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with surroundings(monkeypatch):
        yield


@pytest.fixture(scope="module")
def agentos(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    database = tmp_path_factory.mktemp("agentos") / "agno.db"
    with RunningAgentOS(sys.executable, f"sqlite:{database}") as running:
        asyncio.run(load.drive(running.base_url, runs=len(RUNS), kinds=RUNS, leaving=False))
        running.wait_until_quiet()
        yield running.base_url, database


def series(capsys: pytest.CaptureFixture[str], *arguments: object) -> Said:
    code = cli.main(["series", *map(str, arguments)])
    return Said(code, *capsys.readouterr())


def traces(database: Path) -> int:
    with contextlib.closing(sqlite3.connect(database)) as connection:
        (count,) = connection.execute("SELECT count(*) FROM agno_traces").fetchone()
    return int(count)


def test_it_reads_all_that_the_daemon_reads_and_leaves_nothing(agentos, tmp_path, capsys):
    url, database = agentos
    before = traces(database)
    said = series(capsys, "--agentos.url", url, "--state", tmp_path / "state.db", "--output", "json")
    assert (said.code, said.err) == (0, "")
    (read,) = said.json["agentos"]
    assert (read["traces"], read["whole"]) == (before, True)
    rows: dict[str, dict[str, Any]] = {metric["name"]: metric for metric in said.json["metrics"]}
    assert rows["agentos_llm_call_duration_seconds"]["series_per_label_set"] == 18
    assert rows["agentos_tool_calls_total"]["label_sets"] > 1
    assert rows["agentos_component_info"]["label_sets"] > 1
    assert "agentos_surface_up" in rows
    assert said.json["labels"]["series_of_users"] > 0
    assert (traces(database), list(tmp_path.iterdir())) == (before, [])


def test_a_dropped_label_saves_what_it_tells_apart(agentos, tmp_path, capsys):
    file = tmp_path / "exporter.yml"
    found = []
    for drop in ({}, {"agentos_tool_call_duration_seconds": ["tool"]}):
        file.write_text(json.dumps({"agentos": [{"name": "it", "url": agentos[0]}], "labels": {"drop": drop}}))
        said = series(capsys, "--config.file", file, "--state", "memory", "--output", "json")
        assert (said.code, said.err) == (0, "")
        found.append({metric["name"]: metric["series"] for metric in said.json["metrics"]})
    whole, dropped = found
    assert dropped.pop("agentos_tool_call_duration_seconds") == 18
    assert whole.pop("agentos_tool_call_duration_seconds") > 18
    own = {name for name in whole if name.startswith("agentos_exporter_api_")}
    assert {k: v for k, v in whole.items() if k not in own} == {k: v for k, v in dropped.items() if k not in own}
