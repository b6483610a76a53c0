"""End to end with a real AgentOS, at length: asynchronous databases, older releases, two databases, damaged traces."""

import asyncio
import sqlite3
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tests.harness import load, seed, truth, venvs
from tests.harness.agentos import RunningAgentOS
from tests.harness.exactness import NAME, RUNS, LostByAgentOSError, check_health, check_people, exact
from tests.harness.exporter import RunningExporter
from tests.harness.postgres import Postgres


def exact_at_last(kind: str, new_database: Callable[[int], str], folder: Path) -> None:
    """As `exact` on an asynchronous database; once more, and again, where AgentOS lost what nobody can count."""
    for attempt in range(6):
        place = folder / str(attempt)
        place.mkdir()
        try:
            database = f"{kind}:{new_database(attempt)}"
            return exact(sys.executable, database, place, concurrency=2, overlap="10s")
        except LostByAgentOSError as lost:
            print(f"{kind}: {lost}")
    pytest.fail("AgentOS lost spans six times in a row")


def test_asynchronous_sqlite(tmp_path: Path) -> None:
    exact_at_last("async-sqlite", lambda attempt: str(tmp_path / f"agno{attempt}.db"), tmp_path)


@pytest.mark.postgres
def test_asynchronous_postgresql(tmp_path: Path, postgres: Postgres) -> None:
    exact_at_last("async-postgres", lambda attempt: postgres.url(f"asynchronous{attempt}"), tmp_path)


@pytest.mark.compat
@pytest.mark.parametrize("name", ["newest-plain", "agno26"])
def test_other_releases(name: str, tmp_path: Path) -> None:
    database = f"sqlite:{tmp_path / 'agno.db'}"
    exact(venvs.python(name), database, tmp_path, http_roots=venvs.SETUPS[name].http_roots)


def test_two_databases_and_what_stands_in_both(tmp_path: Path) -> None:
    first, second = (f"sqlite:{tmp_path / name}" for name in ("first.db", "second.db"))
    until, small = datetime.now(UTC) - timedelta(minutes=2), (50, 80)
    at_once = timedelta(0)  # all traces end, and many pages break, at the same moment
    seed.seed(first, 120, until=until, spread=at_once, prompt_bytes=small, number=1, errors=0.2)
    seed.seed(second, 30, until=until, spread=at_once, prompt_bytes=small, number=1, errors=0.2)
    seed.seed(
        second,
        90,
        until=until,
        spread=timedelta(minutes=30),
        prompt_bytes=small,
        number=2,
        errors=0.2,
        http_roots=False,
    )
    assert truth.count([first, second], NAME).spans == 8 * 210
    with (
        RunningAgentOS(sys.executable, first, second_db=second) as agentos,
        RunningExporter(tmp_path, {NAME: agentos.base_url}) as exporter,
    ):
        asyncio.run(load.drive(agentos.base_url, runs=RUNS, seed=2))
        agentos.wait_until_quiet()
        expected = truth.count([first, second], NAME)
        samples = exporter.agree(expected)
        check_health(samples)
        check_people(exporter, expected)


def test_spans_below_missing_ones_are_counted_as_hidden(tmp_path: Path) -> None:
    path = tmp_path / "agno.db"
    database = f"sqlite:{path}"
    with RunningAgentOS(sys.executable, database) as agentos:
        asyncio.run(load.drive(agentos.base_url, runs=60, seed=3))
        agentos.wait_until_quiet()
        with sqlite3.connect(path, timeout=30) as connection:
            traces = [row[0] for row in connection.execute("SELECT trace_id FROM agno_traces ORDER BY trace_id")]
            # The whole trace, all below the agent, a few below a workflow's step; the last trace has no span at all.
            lost = {
                "parent_span_id IS NULL": traces[:5],
                "name LIKE '%.arun'": traces[5:20],
                "name LIKE '%.aexecute%'": traces[20:40],
                "TRUE": traces[-1:],
            }
            for condition, of in lost.items():
                some = ",".join("?" * len(of))
                connection.execute(f"DELETE FROM agno_spans WHERE {condition} AND trace_id IN ({some})", of)
        connection.close()
        expected = truth.count(database, NAME)
        assert len(expected.hidden) > 30
        assert expected.total("agentos_traces_total", root_kind="unknown") == 6
        with RunningExporter(tmp_path, {NAME: agentos.base_url}, trace_horizon="8s") as exporter:
            truth.wait_until(lambda: exporter.total("agentos_exporter_open_traces") > 0)
            samples = exporter.agree(expected)
            check_health(samples, hidden=len(expected.hidden))
            check_people(exporter, expected)
            exporter.restart()
            samples = exporter.agree(expected)
            check_health(samples, hidden=len(expected.hidden))


def test_a_run_is_as_long_as_its_root_although_a_hidden_span_ended_later(tmp_path: Path) -> None:
    path = tmp_path / "agno.db"
    database = f"sqlite:{path}"
    # AgentOS shows the trace's end as that of a root that is an agent; what moved it may not be visible.
    until = datetime.now(UTC) - timedelta(minutes=1)
    seed.seed(database, 40, until=until, spread=timedelta(minutes=5), prompt_bytes=(50, 80), http_roots=False)
    connection = sqlite3.connect(path, timeout=30)
    for trace_id, end in connection.execute("SELECT trace_id, end_time FROM agno_traces").fetchall():
        later = (datetime.fromisoformat(end) + timedelta(seconds=3)).isoformat()
        late = "SELECT max(span_id) FROM agno_spans WHERE trace_id = ? AND parent_span_id IS NOT NULL"
        move = f"UPDATE agno_spans SET parent_span_id = 'ffffffffffffffff', end_time = ? WHERE span_id = ({late})"
        connection.execute(move, (later, trace_id))
        connection.execute("UPDATE agno_traces SET end_time = ? WHERE trace_id = ?", (later, trace_id))
    connection.commit()
    connection.close()
    expected = truth.count(database, NAME)
    assert len(expected.hidden) == 40
    with (
        RunningAgentOS(sys.executable, database) as agentos,
        RunningExporter(tmp_path, {NAME: agentos.base_url}, trace_horizon="8s") as exporter,
    ):
        check_health(exporter.agree(expected), hidden=40)
