"""The whole daemon on a whole AgentOS, in production settings: each span counts once, whenever and however it comes."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from tests.harness import load, sqltruth
from tests.harness.driven import World
from tests.harness.server import FAILURES

HOUR = 3600.0
MINUTE = 60.0
HALF_AN_HOUR = load.Run("agents", "slow", "Take your time sleep=1800", background=True)


async def test_history_and_news_are_counted_and_survive_restarts(world: World, folder: Path) -> None:
    await world.drive(runs=36)
    async with world.exporter(folder) as exporter:
        await exporter.exact()
        await world.drive(runs=12, seed=1)
        await exporter.forward(15)
        await exporter.restart()
        counted = await exporter.exact()
        assert counted.traces == 48
        await exporter.restart()
        await exporter.exact()
        shown = exporter.scrapes[-1]
        assert shown("agentos_exporter_polls_total", outcome="ok") == shown("agentos_exporter_polls_total")
        assert shown("agentos_exporter_hidden_spans_total") == 0
        assert shown("agentos_exporter_ignored_traces_total") == 0
        assert shown("agentos_exporter_source_resets_total") == 0
        assert shown("agentos_exporter_open_traces") == 0


async def test_api_and_tables_are_read_alike_by_one_daemon(world: World, folder: Path) -> None:
    tables = {"database": f"sqlite:///{world.path}"}
    async with world.exporter(folder, {"api": {}, "tables": tables}) as exporter:
        await world.drive(runs=43, kinds=load.ACCOUNTED)
        await exporter.exact("api")
        await exporter.agree(sqltruth.count(world.database, "tables").totals, "tables")


async def test_why_calls_fail_is_told_by_api_and_tables_alike(world: World, folder: Path) -> None:
    tables = {"database": f"sqlite:///{world.path}"}
    async with world.exporter(folder, {"api": {}, "tables": tables}) as exporter:
        await world.drive(runs=len(load.EACH_FAILURE), kinds=load.EACH_FAILURE)
        await exporter.exact("api")
        await exporter.restart()
        await exporter.agree(sqltruth.count(world.database, "tables").totals, "tables")
        shown = exporter.scrapes[-1]
        for name in ("api", "tables"):
            for why in FAILURES:
                assert shown("agentos_llm_call_errors_by_class_total", agentos=name, error_class=why) == 2
            assert shown("agentos_llm_call_errors_total", agentos=name) == 2 * len(FAILURES)


@pytest.mark.parametrize("seconds", [10, 40])
async def test_a_run_in_the_background_is_counted_soon_after_it_ends(world: World, folder: Path, seconds: int) -> None:
    """Its request is long over and read by then; requests that begin no run come all the time."""
    slow = load.Run("agents", "slow", f"Take your time sleep={seconds}", background=True)
    async with world.exporter(folder, zero_hold="0s") as exporter:
        await exporter.forward(30)
        await world.begin(slow)
        shown = await exporter.forward(seconds + 2 * 15 + 5)
        assert shown("agentos_runs_total", root="Slow") == 1
        await exporter.exact()


async def test_a_run_that_was_continued_counts_as_such(world: World, folder: Path) -> None:
    tables = {"database": f"sqlite:///{world.path}"}
    async with world.exporter(folder, {"api": {}, "tables": tables}) as exporter:
        await world.run(load.Run("agents", "plain"))
        async with (
            world.passing(),
            httpx.AsyncClient(base_url="http://agentos", transport=world.way(), timeout=60) as client,
        ):
            form = {"message": "Write to Bob", "stream": "false", "session_id": "s"}
            paused = (await client.post("/agents/confirming/runs", data=form)).json()
            assert paused["status"] == "PAUSED"
            decided = [{**one, "confirmed": True} for one in paused["tools"]]
            path = f"/agents/confirming/runs/{paused['run_id']}/continue"
            form = {"tools": json.dumps(decided), "stream": "false", "session_id": "s"}
            done = (await client.post(path, data=form)).json()
            assert (done["status"], done["run_id"]) == ("COMPLETED", paused["run_id"])
        await exporter.exact("api")
        await exporter.agree(sqltruth.count(world.database, "tables").totals, "tables")
        shown = exporter.scrapes[-1]
        for name in ("api", "tables"):
            assert shown("agentos_runs_total", agentos=name, root="Confirming") == 2
            assert shown("agentos_runs_continued_total", agentos=name) == 1


async def test_history_is_counted_as_far_back_as_asked(world: World, folder: Path) -> None:
    await world.drive(runs=5, kinds=[load.Run("agents", "plain")])
    world.clock.forward(2 * HOUR)
    await world.drive(runs=3, kinds=[load.Run("agents", "tools")])
    async with world.exporter(folder) as exporter:
        shown = await exporter.forward(600)
        assert shown("agentos_runs_total", root="Plain") == 0
        assert shown("agentos_runs_total", root="Tool_User") == 3


async def test_a_new_series_is_shown_at_0_for_a_minute_after_it_was_first_scraped(world: World, folder: Path) -> None:
    await world.run(load.Run("agents", "plain"))
    async with world.exporter(folder) as exporter:
        shown = await exporter.until(lambda shown: shown("agentos_runs_total", root="Plain") == 1, within=60)
        assert shown("agentos_runs_total", root="Plain") == 1, "what the first pass brings shows at once"
        await world.run(load.Run("agents", "local"))
        born = await exporter.until(lambda shown: shown.present("agentos_runs_total", root="Local"), within=60)
        assert born("agentos_runs_total", root="Local") == 0
        shown = await exporter.forward(45)
        assert shown("agentos_runs_total", root="Local") == 0
        await exporter.restart()
        shown = await exporter.scrape()
        assert shown.present("agentos_runs_total", root="Local")
        assert shown("agentos_runs_total", root="Local") == 0, "that nobody saw it long enough is known after a restart"
        shown = await exporter.forward(75)
        assert shown("agentos_runs_total", root="Local") == 1
        await exporter.restart()
        assert (await exporter.scrape())("agentos_runs_total", root="Local") == 1


@contextmanager
def written_later(world: World, traces: int) -> Iterator[None]:
    """Take the newest traces out of agno's tables, and write them back at the end: their commit came late."""
    tables = ("agno_traces", "agno_spans")
    with world.sql() as connection:
        newest = connection.execute("SELECT trace_id FROM agno_traces ORDER BY end_time DESC LIMIT ?", (traces,))
        ids = [row[0] for row in newest]
        some = f"trace_id IN ({','.join('?' * len(ids))})"
        kept = {table: connection.execute(f"SELECT * FROM {table} WHERE {some}", ids).fetchall() for table in tables}
        for table in tables:
            connection.execute(f"DELETE FROM {table} WHERE {some}", ids)
    yield
    with world.sql() as connection:
        for table, rows in kept.items():
            connection.executemany(f"INSERT INTO {table} VALUES ({','.join('?' * len(rows[0]))})", rows)


async def test_rows_that_are_committed_within_the_overlap_are_counted(world: World, folder: Path) -> None:
    await world.drive(runs=6)
    async with world.exporter(folder) as exporter:
        await exporter.exact()
        await world.drive(runs=6, seed=5)
        with written_later(world, 4):
            for seed in (6, 7):
                await exporter.forward(15)
                await world.drive(runs=2, seed=seed)
            await exporter.forward(15)
        counted = await exporter.exact()
        assert counted.traces == 16


def lose_root(connection: sqlite3.Connection) -> str:
    """Delete the root span of the newest trace: AgentOS then hides all others. Returns its trace."""
    (trace,) = connection.execute("SELECT trace_id FROM agno_traces ORDER BY end_time DESC LIMIT 1").fetchone()
    deleted = connection.execute("DELETE FROM agno_spans WHERE trace_id = ? AND parent_span_id IS NULL", (trace,))
    assert deleted.rowcount == 1
    return str(trace)


async def test_hidden_spans_are_waited_for_as_long_as_the_horizon_says(world: World, folder: Path) -> None:
    await world.run(load.Run("agents", "plain"))
    async with world.exporter(folder, trace_horizon="20m") as exporter:
        await exporter.exact()
        await world.run(load.Run("agents", "tools"))
        with world.sql() as connection:
            lose_root(connection)
        counted = world.count()
        assert len(counted.hidden) > 4
        shown = await exporter.forward(19 * MINUTE)
        assert shown("agentos_exporter_open_traces") == 1
        assert shown("agentos_exporter_hidden_spans_total") == 0
        shown = await exporter.forward(4 * MINUTE)
        assert shown("agentos_exporter_open_traces") == 0
        assert shown("agentos_exporter_hidden_spans_total") == len(counted.hidden)
        assert shown("agentos_traces_total", root_kind="unknown") == 1
        await exporter.exact()


async def test_spans_that_show_before_the_horizon_are_not_hidden(world: World, folder: Path) -> None:
    await world.run(load.Run("agents", "plain"))
    async with world.exporter(folder, trace_horizon="20m") as exporter:
        await exporter.exact()
        await world.run(load.Run("agents", "tools"))
        with world.sql() as connection:
            root = "trace_id = (SELECT trace_id FROM agno_traces ORDER BY end_time DESC) AND parent_span_id IS NULL"
            row = connection.execute(f"SELECT * FROM agno_spans WHERE {root}").fetchone()
            connection.execute(f"DELETE FROM agno_spans WHERE {root}")
        shown = await exporter.forward(10 * MINUTE)
        assert shown("agentos_exporter_open_traces") == 1
        with world.sql() as connection:
            connection.execute(f"INSERT INTO agno_spans VALUES ({','.join('?' * len(row))})", row)
        await exporter.exact(within=HOUR)
        assert exporter.scrapes[-1]("agentos_exporter_hidden_spans_total") == 0


async def test_a_run_in_the_background_is_no_request_though_it_takes_half_an_hour(world: World, folder: Path) -> None:
    await world.run(load.Run("agents", "plain"))
    async with world.exporter(folder) as exporter:
        await exporter.exact()
        await world.begin(HALF_AN_HOUR)
        shown = await exporter.forward(HOUR / 2 - MINUTE)
        assert shown("agentos_traces_total") == 1, "its request is complete, but its run is awaited"
        await exporter.forward(5 * MINUTE)
        await exporter.exact()
        shown = exporter.scrapes[-1]
        assert shown("agentos_traces_total", root_kind="agent") == 2
        assert shown("agentos_traces_total", root_kind="http") == 0


async def test_jobs_run_at_their_intervals(world: World, folder: Path) -> None:
    async with world.exporter(folder, poll_interval="20s", sessions_interval="100s") as exporter:
        await exporter.forward(610)
        assert len(exporter.logged("poll")) == 31
        requests = [request.path for request in exporter.ways["it"].requests]
        # The first poll asks for the configuration, its survey does, and then each survey, from the start every 100 s.
        assert requests.count("/config") == 2 + 7
