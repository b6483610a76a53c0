"""End to end on the tables of a real AgentOS, at length: every server, older releases, kills, a switch from the API."""

import asyncio
import os
import sqlite3
import sys
from collections import defaultdict
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random

import httpx
import pytest

from tests.harness import damage, load, seed, sqltruth, truth, venvs
from tests.harness.agentos import RunningAgentOS
from tests.harness.database_exactness import API, HORIZON, NAME, SMALL, check_health, check_people, exact
from tests.harness.exporter import RunningExporter, reads, total
from tests.harness.kills import Watch, kill_often
from tests.harness.mariadb import MariaDB
from tests.harness.postgres import Postgres

SEED = int(os.environ.get("CRASH_SEED", "1"))


@pytest.mark.postgres
def test_postgresql(tmp_path: Path, postgres: Postgres) -> None:
    exact(f"postgres:{postgres.url('sync')}", tmp_path)


@pytest.mark.postgres
def test_asynchronous_postgresql(tmp_path: Path, postgres: Postgres) -> None:
    exact(f"async-postgres:{postgres.url('asynchronous')}", tmp_path)


@pytest.mark.mariadb
def test_mariadb(tmp_path: Path, mariadb: MariaDB) -> None:
    exact(f"mysql:{mariadb.url('sync')}", tmp_path)


@pytest.mark.compat
@pytest.mark.parametrize("name", ["newest-plain", "agno26", "agno23"])
def test_other_releases(name: str, tmp_path: Path) -> None:
    """Their tables have other columns, and their traces other roots."""
    database = f"sqlite:{tmp_path / 'agno.db'}"
    with (
        RunningAgentOS(venvs.python(name), database) as agentos,
        RunningExporter(tmp_path, {NAME: reads(database), API: agentos.base_url}) as exporter,
    ):
        asyncio.run(load.drive(agentos.base_url, runs=60, kinds=load.ACCOUNTED))
        agentos.wait_until_quiet()
        expected = sqltruth.count(database, NAME)
        assert expected.spans > 200
        exporter.agree(expected)
        check_health(exporter)
        check_people(exporter, database, expected)
        exporter.agree(truth.count(database, API), settle=1)


def test_runs_in_the_background_are_no_requests_however_long_they_take(tmp_path: Path) -> None:
    """Their request is answered, and all that is written of their trace, for longer than an overlap."""
    database = f"sqlite:{tmp_path / 'agno.db'}"
    with (
        RunningAgentOS(sys.executable, database) as agentos,
        RunningExporter(
            tmp_path, {NAME: reads(database), API: agentos.base_url}, overlap="3s", trace_horizon=HORIZON
        ) as exporter,
    ):
        background = load.Run("agents", "slow", "Take your time sleep=12", background=True)
        outcome = asyncio.run(load.drive(agentos.base_url, runs=3, kinds=[background]))
        assert outcome.codes == {202: 3}
        assert httpx.post(f"{agentos.base_url}/agents/nobody/runs", data={"message": "Hello"}).status_code == 404
        assert httpx.get(f"{agentos.base_url}/agents").status_code == 200
        # Soon the one that cannot start a run, from both.
        truth.wait_until(lambda: exporter.total("agentos_traces_total", root_kind="http") >= 2)
        assert exporter.total("agentos_traces_total", root_kind="http") == 2
        agentos.wait_until_quiet()
        for name, counted in ((NAME, sqltruth.count(database, NAME)), (API, truth.count(database, API))):
            assert counted.total("agentos_traces_total", root_kind="agent") == 3
            assert counted.total("agentos_traces_total", root_kind="http") == 2
            exporter.agree(counted)
            check_health(exporter, name)


# From the API to the tables and back, on one state file

BOTH = {
    "agentos_traces_total": (),
    "agentos_runs_total": ("root_kind", "root"),
    "agentos_run_errors_total": ("root_kind", "root", "error_type"),
    "agentos_run_duration_seconds_count": ("root_kind", "root"),
    "agentos_run_duration_seconds_sum": ("root_kind", "root"),
    "agentos_llm_calls_total": ("root", "agent", "model"),
    "agentos_llm_call_errors_total": ("root", "agent", "model", "error_type"),
    "agentos_llm_calls_without_usage_total": ("root", "agent", "model"),
    "agentos_llm_call_duration_seconds_sum": ("model",),
    "agentos_llm_call_input_tokens_sum": ("model",),
    "agentos_llm_call_output_tokens_sum": ("model",),
    "agentos_tool_calls_total": ("root", "agent", "tool"),
    "agentos_tool_call_duration_seconds_sum": ("tool",),
    "agentos_spans_total": ("root", "agent", "span_kind"),
    "agentos_error_spans_total": ("root", "agent", "span_kind", "error_type"),
}
"""What API and tables tell alike, by the labels that do not depend on who told it."""


def alike(totals: truth.Totals) -> dict[tuple[str, ...], float]:
    """Return what API and tables must agree on."""
    sums: defaultdict[tuple[str, ...], float] = defaultdict(float)
    for (name, labels), value in totals.items():
        if name in BOTH and value:
            have = dict(labels)
            sums[name, *(have[label] for label in BOTH[name])] += value
    return {key: round(value, 6) for key, value in sums.items()}


def test_switching_between_api_and_tables_under_load_loses_and_doubles_nothing(tmp_path: Path) -> None:
    database = f"sqlite:{tmp_path / 'agno.db'}"
    with RunningAgentOS(sys.executable, database) as agentos:

        def on(way: str) -> RunningExporter:
            """One state file, one name; only the way changes."""
            target = agentos.base_url if way == "api" else reads(database)
            return RunningExporter(tmp_path, {NAME: target}, trace_horizon=HORIZON)

        shown: list[float] = []

        def take_turns() -> None:
            for way in ("api", "tables", "api", "tables"):
                with on(way) as exporter:  # and is killed
                    exporter.wait_until_polled(4)
                    shown.append(exporter.total("agentos_spans_total"))

        async def go() -> load.Outcome:
            stop = asyncio.Event()
            traffic = asyncio.create_task(
                load.steady(agentos.base_url, rate=3, until=stop, kinds=load.ACCOUNTED, leaving=False)
            )
            try:
                await asyncio.to_thread(take_turns)
            finally:
                stop.set()
            return await traffic

        outcome = asyncio.run(go())
        assert outcome.failed == {}
        assert shown == sorted(shown)
        assert len(set(shown)) == len(shown)
        agentos.wait_until_quiet()
        expected = sqltruth.count(database, NAME)
        assert not expected.hidden
        with on("tables") as exporter:
            truth.wait_until(lambda: alike(exporter.samples()) == alike(expected.totals), pause=0.5)
            exporter.wait_until_polled(5)
            assert alike(exporter.samples()) == alike(expected.totals)
            check_health(exporter)
        with on("api") as exporter:
            exporter.wait_until_polled(8)
            assert alike(exporter.samples()) == alike(expected.totals)


def test_what_only_the_tables_show_is_counted_after_the_switch(tmp_path: Path) -> None:
    database = f"sqlite:{tmp_path / 'agno.db'}"
    with RunningAgentOS(sys.executable, database) as agentos:
        asyncio.run(load.drive(agentos.base_url, runs=20, seed=5, leaving=False))
        assert asyncio.run(damage.remote_parents(agentos.base_url, 10)) == 10
        agentos.wait_until_quiet()
        counted = truth.count(database, NAME)
        everything = sqltruth.count(database, NAME)
        assert len(everything.hidden) > 30
        with RunningExporter(tmp_path, {NAME: agentos.base_url}, trace_horizon="8s") as exporter:
            samples = exporter.agree(counted)
            assert total(samples, "agentos_exporter_hidden_spans_total") == len(counted.hidden)
    with RunningExporter(tmp_path, {NAME: reads(database)}, trace_horizon="8s", file="tables.yml") as exporter:
        spans = everything.total("agentos_spans_total")
        truth.wait_until(lambda: exporter.total("agentos_spans_total") >= spans, pause=0.5)
        exporter.wait_until_polled(5)
        samples = exporter.samples()
        assert total(samples, "agentos_spans_total") == spans
        assert total(samples, "agentos_runs_total") == everything.total("agentos_runs_total")
        assert total(samples, "agentos_llm_calls_total") == everything.total("agentos_llm_calls_total")
        assert total(samples, "agentos_exporter_orphan_spans_total") == everything.total(
            "agentos_exporter_orphan_spans_total"
        )
        assert total(samples, "agentos_traces_total") == everything.traces  # those that were unknown are not new


# Crashes of the exporter


def killed(database: str, folder: Path, *, history: int, kills: int) -> None:
    """Kill the daemon over and over while it reads history and runs go on; nothing falls, and all agrees at last."""
    random = Random(SEED)
    until = datetime.now(UTC) - timedelta(hours=1)
    seed.seed(database, history, until=until, spread=timedelta(hours=2), prompt_bytes=SMALL, number=SEED)

    async def go() -> load.Outcome:
        stop = asyncio.Event()
        traffic = asyncio.create_task(
            load.steady(agentos.base_url, rate=2, until=stop, seed=SEED, kinds=load.ACCOUNTED)
        )
        died = await asyncio.to_thread(kill_often, exporter, kills, random, watch)
        stop.set()
        print(f"{database.partition(':')[0]}: {dict(died)}")
        assert died["counting"] >= kills // 5
        return await traffic

    with (
        RunningAgentOS(sys.executable, database) as agentos,
        RunningExporter(folder, {NAME: reads(database)}, initial_lookback="3h10m", trace_horizon=HORIZON) as exporter,
        Watch(f"{exporter.base_url}/metrics") as watch,
    ):
        exporter.kill()
        outcome = asyncio.run(go())
        assert outcome.failed == {}
        agentos.wait_until_quiet()
        expected = sqltruth.count(database, NAME)
        assert expected.traces >= history + outcome.started - outcome.left
        exporter.start()
        exporter.agree(expected)
        check_health(exporter)
        assert exporter.stop() == (0, pytest.approx(0, abs=5))
    assert watch.violations == []
    assert watch.scrapes > 20


@pytest.mark.crash
def test_kills_on_sqlite(tmp_path: Path) -> None:
    killed(f"sqlite:{tmp_path / 'agno.db'}", tmp_path, history=6_000, kills=12)


@pytest.mark.crash
@pytest.mark.postgres
def test_kills_on_postgresql(tmp_path: Path, postgres: Postgres) -> None:
    killed(f"postgres:{postgres.url('kills')}", tmp_path, history=6_000, kills=8)


@pytest.mark.crash
@pytest.mark.mariadb
def test_kills_on_mariadb(tmp_path: Path, mariadb: MariaDB) -> None:
    killed(f"mysql:{mariadb.url('kills')}", tmp_path, history=3_000, kills=6)


@pytest.mark.parametrize("order", ["start_time", "start_time DESC"])
def test_spans_may_be_written_in_any_order_and_late(tmp_path: Path, order: str) -> None:
    """The spans of forty traces come one by one, over many polls: parents first, or children first."""
    whole, path = tmp_path / "whole.db", tmp_path / "agno.db"
    database = f"sqlite:{path}"
    seed.seed(f"sqlite:{whole}", 40, until=datetime.now(UTC), spread=timedelta(seconds=3), prompt_bytes=SMALL)
    seed.seed(database, 1, until=datetime.now(UTC) - timedelta(minutes=5), prompt_bytes=SMALL, number=1)
    connection = sqlite3.connect(path, timeout=30, isolation_level=None)
    connection.execute("ATTACH ? AS whole", (str(whole),))
    connection.execute("INSERT INTO agno_traces SELECT * FROM whole.agno_traces")
    numbered = f"SELECT *, row_number() OVER (PARTITION BY trace_id ORDER BY {order}, span_id) n FROM whole.agno_spans"
    columns = [row[1] for row in connection.execute("PRAGMA table_info(agno_spans)")]
    values = ", ".join("?" if column == "created_at" else column for column in columns)
    insert = f"INSERT INTO agno_spans ({', '.join(columns)}) SELECT {values} FROM ({numbered}) WHERE n = ?"
    # `overlap` is to be above the time from the end of a span to its commit: what is unchanged for so long is done.
    with RunningExporter(tmp_path, {NAME: reads(database)}, trace_horizon="30s", overlap="15s") as exporter:
        exporter.wait_until_polled(2)
        for number in range(1, 9):
            connection.execute(insert, (datetime.now(UTC).isoformat(), number))
            exporter.wait_until_polled(1)
        connection.close()
        expected = sqltruth.count(database, NAME)
        assert (expected.spans, len(expected.hidden)) == (41 * 8, 0)
        exporter.agree(expected)
        check_health(exporter)
