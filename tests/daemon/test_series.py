"""`agentos-exporter series` beside a daemon: it foretells what the daemon shows, and touches nothing."""

import asyncio
import json
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from exporter.cli import main as cli
from exporter.metrics.catalog import METRICS, Kind, Life
from exporter.service import sampling
from tests.daemon.test_discovery import Endpoint, endpoint, targets  # noqa: F401 - a fixture
from tests.harness.agentos import free_port
from tests.harness.commands import Said, own_logging, without_settings
from tests.harness.driven import Driven, DrivenClock
from tests.harness.seed import seed

DROP = {"agentos_llm_tokens_total": ["root", "agent"], "agentos_tool_call_duration_seconds": ["tool"]}


@pytest.fixture
def database(tmp_path: Path) -> str:
    path = tmp_path / "agno.db"
    seed(f"sqlite:{path}", 30, until=datetime.now(UTC), spread=timedelta(minutes=20), prompt_bytes=(50, 100))
    return f"sqlite:///{path}"


@pytest.fixture
def say(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Any:
    without_settings(monkeypatch)

    def ask(*arguments: str, **keys: Any) -> Said:
        file = tmp_path / "series.yml"
        file.write_text(json.dumps({"state": str(tmp_path / "state.db"), **keys}))
        with own_logging(monkeypatch):
            code = cli.main(["series", "--config.file", str(file), *arguments])
        return Said(code, *capsys.readouterr())

    return ask


def shown_by(text: str) -> Counter[str]:
    """By metric: time series on a page, of those that live in the state."""
    durable = {name: metric for name, metric in METRICS.items() if metric.life is Life.DURABLE}
    parts = {
        f"{name}{suffix}": name
        for name, metric in durable.items()
        for suffix in (("_bucket", "_sum", "_count") if metric.kind is Kind.HISTOGRAM else ("",))
    }
    names = (line.partition("{")[0] for line in text.splitlines() if not line.startswith("#"))
    return Counter(parts[name] for name in names if name in parts)


@pytest.mark.parametrize("labels", [{}, {"user": "plain", "drop": DROP}], ids=["default", "users and dropped labels"])
async def test_it_foretells_what_a_daemon_shows(labels, database, say, tmp_path):
    keys = {"agentos": [{"name": "it", "database": database}], "labels": labels}
    said = await asyncio.to_thread(say, "--output", "json", **keys)
    assert (said.code, said.err) == (0, "")
    assert said.json["agentos"] == [{"name": "it", "traces": 30, "whole": True, "error": None}]
    assert not (tmp_path / "state.db").exists()
    foretold = {
        metric["name"]: metric["series"]
        for metric in said.json["metrics"]
        if METRICS[metric["name"]].life is Life.DURABLE
    }
    assert said.json["series"] == sum(metric["series"] for metric in said.json["metrics"])
    world: Any = SimpleNamespace(clock=DrivenClock(), way=lambda: None)
    async with Driven(world, tmp_path, {"it": {"database": database}}, {"labels": labels}) as exporter:
        shown = await exporter.forward(40 * 60)  # until all sessions are idle
        again = await asyncio.to_thread(say, "--output", "json", **keys)  # the state is the daemon's meanwhile
    assert foretold == shown_by(shown.text)
    assert again.json == said.json


async def test_users_and_dropped_labels_are_told_apart(database, say):
    instances = [{"name": "it", "database": database}]
    found = []
    for labels in ({}, {"user": "hashed"}, {"drop": DROP}):
        said = await asyncio.to_thread(say, "--output", "json", agentos=instances, labels=labels)
        found.append((said.json["series"], *said.json["labels"].values()))
    whole, users, saved = found[0][0], found[0][2], found[2][3]
    assert users > 0
    assert saved > 0
    assert found == [
        (whole, "off", users, 0),
        (whole + users, "hashed", users, 0),
        (whole - saved, "off", users, saved),
    ]


def test_a_table_for_people(database, say):
    keys: dict[str, Any] = {"agentos": [{"name": "it", "database": database}], "labels": {"drop": DROP}}
    said, document = say(**keys), say("--output", "json", **keys).json
    lines = said.out.splitlines()
    assert lines[0] == "it: 30 traces, of the last 1h"
    rows = {line.split()[0]: line.split()[1:] for line in lines[3:] if line.startswith("agentos_")}
    assert rows["agentos_tool_call_duration_seconds"][:4] == ["1", "18", "18", "10000"]
    assert len(rows) == len(document["metrics"])
    (together,) = (line.split() for line in lines if line.startswith("together"))
    assert together[1:] == [str(document["series"]), str(document["labels"]["series_saved_by_drop"])]
    assert f"hashed or plain would add {document['labels']['series_of_users']}" in said.out


def test_what_cannot_be_read_is_no_0(database, say):
    away = {"name": "away", "url": f"http://127.0.0.1:{free_port()}"}
    said = say(agentos=[{"name": "it", "database": database}, away])
    assert said.code == 1
    assert "away: could not be read, and is not counted" in said.out
    assert said.err.startswith("error: agentos away: ")
    assert said.err.count("\n") == 1
    alone = say(agentos=[away])
    assert (alone.code, alone.out) == (1, "")
    assert alone.err.startswith("error: agentos away: ")


def test_instances_of_lists_are_read(database, say, tmp_path):
    listed = {"agentos_file_sd": [{"files": ["targets.json"]}]}
    target = f"127.0.0.1:{free_port()}"
    (tmp_path / "targets.json").write_text(json.dumps([{"targets": [target], "labels": {"agentos": "listed"}}]))
    said = say(**listed)
    assert said.code == 1
    assert "error: agentos listed: " in said.err
    (tmp_path / "targets.json").write_text("[]")
    said = say(**listed)
    assert (said.code, said.err) == (1, "error: no AgentOS to read: the lists name none\n")
    (tmp_path / "targets.json").write_text("{")
    said = say(**listed, agentos=[{"name": "it", "database": database}])
    assert said.code == 1
    assert said.err.startswith("error: agentos_file_sd ")


def test_addresses_of_lists_are_asked(say, endpoint):  # noqa: F811
    listed = {"agentos_http_sd": [{"url": f"http://127.0.0.1:{endpoint.server_port}/targets"}]}
    Endpoint.body = targets("listed").encode()
    said = say(**listed)
    assert said.code == 1
    assert said.err.startswith("error: agentos listed: ")
    Endpoint.status = 500
    said = say(**listed)
    assert said.code == 1
    assert said.err.startswith("error: agentos_http_sd ")
    assert len(Endpoint.asked) == 2


def test_a_configuration_with_mistakes(say):
    said = say(labels={"drop": {"agentos_up": ["agentos"]}}, agentos=[{"name": "it", "url": "http://x"}])
    assert (said.code, said.out) == (1, "")
    assert "labels.drop.agentos_up: is a gauge" in said.err


def test_a_part_that_could_not_be_read_is_said(say, monkeypatch):
    problem = "agentos it: search: no answer in time"

    async def sample(*_: object) -> sampling.Sample:
        return sampling.Sample([sampling.Reading("it", 7, whole=False, error="no answer in time")], [problem], ())

    monkeypatch.setattr(sampling, "sample", sample)
    said = say(agentos=[{"name": "it", "url": "http://x", "enrich_runs": True}], initial_lookback="1d")
    assert (said.code, said.err) == (1, f"error: {problem}\n")
    first, *_, last = said.out.splitlines()
    assert first == "it: 7 traces, a part of the last 1d"
    assert last.startswith("enrich_runs: details of runs were not asked for")
