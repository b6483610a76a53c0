"""`agentos-exporter reconcile` beside the daily metrics of a real AgentOS: the same, and named where they are not."""

import contextlib
import json
import sqlite3
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import jwt
import pytest

from exporter.cli import main as cli
from tests.harness import truth
from tests.harness.agentos import RunningAgentOS
from tests.harness.commands import surroundings
from tests.harness.exporter import RunningExporter

RUNS = ("agents/plain", "agents/tools", "agents/failing-model", "agents/caching", "agents/claude", "agents/gemini")
"""without runs inside runs"""
TOKENS = ("prompt_tokens", "completion_tokens")
SAME = ("runs", *TOKENS)
_TIMES = {
    "agno_traces": ("start_time", "end_time", "created_at"),
    "agno_spans": ("start_time", "end_time", "created_at"),
    "agno_sessions": ("created_at",),
    "agno_runs": ("created_at",),
}
"""Columns of agno's tables that say when something was."""


@pytest.fixture(autouse=True)
def own_surroundings(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with surroundings(monkeypatch):
        yield


class Place:
    """An AgentOS whose runs are of some days ago, and an exporter that counts them all at once."""

    def __init__(self, folder: Path, agentos: RunningAgentOS) -> None:
        self.folder, self.agentos = folder, agentos
        self.today = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)

    def run(self, component: str, session: str) -> None:
        with httpx.Client(base_url=self.agentos.base_url, timeout=60, trust_env=False) as client:
            data = {"message": "hello", "stream": "false", "session_id": session}
            client.post(f"/{component}/runs", data=data).raise_for_status()

    def were(self, days: int) -> None:
        """Let all that ran in this hour have run at noon, so many days ago."""
        self.agentos.wait_until_quiet()
        now = datetime.now(UTC)
        back = now - (self.today - timedelta(days=days, hours=-12))
        recent = now - timedelta(hours=1)

        def earlier(at: str | int) -> str | int:
            if isinstance(at, int):
                return at - int(back.total_seconds())
            return (datetime.fromisoformat(at) - back).isoformat(timespec="microseconds")

        with contextlib.closing(sqlite3.connect(self.folder / "agno.db")) as connection:
            connection.create_function("earlier", 1, earlier)
            for table, columns in _TIMES.items():
                sets = ", ".join(f"{column} = earlier({column})" for column in columns)
                since = recent.isoformat() if "start_time" in columns else int(recent.timestamp())
                connection.execute(f"UPDATE {table} SET {sets} WHERE created_at > ?", (since,))
            connection.commit()

    def delete(self, session: str) -> None:
        with httpx.Client(base_url=self.agentos.base_url, timeout=60, trust_env=False) as client:
            client.request("DELETE", f"/sessions/{session}", params={"type": "agent"}).raise_for_status()

    def count(self, **keys: Any) -> None:
        """Let an exporter count all that is there."""
        traces, _ = truth.read(f"sqlite:{self.folder / 'agno.db'}")
        instance = {"it": {"url": self.agentos.base_url, **keys}}
        with RunningExporter(self.folder, instance, initial_lookback="6d", overlap="2s") as exporter:
            truth.wait_until(lambda: exporter.total("agentos_traces_total") >= len(traces), pause=0.2)
            truth.wait_until(lambda: not self.waiting(), pause=0.2)
            exporter.stop()

    def waiting(self) -> int:
        """Return how many calls wait for the detail of their run."""
        with contextlib.closing(sqlite3.connect(f"file:{self.folder / 'state.db'}?mode=ro", uri=True)) as connection:
            return int(connection.execute("SELECT count(*) FROM waiting").fetchone()[0])

    def reconcile(self, capsys: pytest.CaptureFixture[str], first: int, last: int) -> tuple[int, dict[str, Any]]:
        """Compare the days from so many days ago; return the exit code and the report."""
        period = [self.day(days) for days in (first, last)]
        arguments = ("--from", period[0], "--to", period[1], "--output", "json")
        code = cli.main(["reconcile", "--config.file", str(self.folder / "agentos-exporter.yml"), *arguments])
        said = capsys.readouterr()
        assert said.err == ""
        (report,) = json.loads(said.out)["reports"]
        return code, report

    def day(self, ago: int) -> str:
        return str((self.today - timedelta(days=ago)).date())

    def reasons(self, report: dict[str, Any], ago: int) -> dict[str, set[str]]:
        """Return why the lines of a day differ, by measure."""
        return {
            line["measure"]: {one["reason"] for one in line["reasons"]}
            for line in report["lines"]
            if line["day"] == self.day(ago) and line["differs"]
        }


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    with RunningAgentOS(sys.executable, f"sqlite:{tmp_path / 'agno.db'}") as agentos:
        yield Place(tmp_path, agentos)


@pytest.mark.parametrize("enriched", [False, True])
def test_sessions_within_a_day_are_the_same(place, capsys, enriched):
    for component in RUNS:
        place.run(component, f"first-{component[7:]}")
    place.were(3)
    for component in RUNS[:3]:
        place.run(component, f"second-{component[7:]}")
    place.were(2)
    place.count(enrich_runs=enriched)
    code, report = place.reconcile(capsys, 3, 1)
    assert code == 0, report
    assert [line["measure"] for line in report["lines"]] == [*SAME] * 3
    tokens = [line["ours"] for line in report["lines"] if line["measure"] == "prompt_tokens"]
    assert tokens[0] > tokens[1] > tokens[2] == 0
    assert report["unmatched_models"] == []


def test_a_session_that_goes_on_another_day_is_named(place, capsys):
    place.run("agents/plain", "long")
    place.were(3)
    place.run("agents/plain", "long")
    place.run("agents/tools", "short")
    place.were(2)
    place.count()
    code, report = place.reconcile(capsys, 3, 1)
    assert code == 1
    for ago in (3, 2):
        named = place.reasons(report, ago)
        assert named.keys() == {*SAME}
        assert all("dated_by_session" in named[measure] for measure in SAME)
        assert all(named[measure] == {"dated_by_session"} for measure in TOKENS)
    assert place.reasons(report, 1) == {}


def test_a_session_that_was_deleted_is_named(place, capsys):
    place.run("agents/plain", "kept")
    place.run("agents/tools", "deleted")
    place.were(3)
    place.count()
    place.delete("deleted")
    code, report = place.reconcile(capsys, 3, 2)
    assert code == 1
    assert place.reasons(report, 3) == {key: {"sessions_missing"} for key in SAME}
    assert place.reasons(report, 2) == {}


def test_runs_inside_runs_are_named(place, capsys):
    place.run("teams/research", "team")
    place.run("agents/nesting", "nested")
    place.were(3)
    place.count()
    code, report = place.reconcile(capsys, 3, 3)
    assert code == 1
    named = place.reasons(report, 3)
    assert named.keys() == {"runs"}
    assert "inner_runs" in named["runs"]


def test_a_token_without_the_scope_is_told_so(tmp_path, capsys):
    key, token = "k" * 32, tmp_path / "token"
    claims = {"sub": "exporter", "scopes": ["traces:read", "config:read"], "exp": int(time.time()) + 3600}
    token.write_text(jwt.encode(claims, key, algorithm="HS256"))
    with RunningAgentOS(sys.executable, f"sqlite:{tmp_path / 'agno.db'}", jwt_key=key) as agentos:
        instance = {"name": "it", "url": agentos.base_url, "token_file": str(token)}
        config = {"state": str(tmp_path / "state.db"), "agentos": [instance]}
        (tmp_path / "agentos-exporter.yml").write_text(json.dumps(config))
        arguments = (
            "--config.file",
            str(tmp_path / "agentos-exporter.yml"),
            "--from",
            "2026-11-17",
            "--to",
            "2026-11-17",
        )
        assert cli.main(["reconcile", *arguments]) == 2
    said = capsys.readouterr()
    assert "for the daily metrics it needs the scope metrics:read" in said.err
    assert said.out == ""
