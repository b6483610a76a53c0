"""AgentOS fails while runs go on, in real time and over real connections: nothing is lost or doubled afterwards.

What needs no real time is in tests/daemon/test_outages.py, one outage of each kind in tests/real/test_outage.py.
"""

import asyncio
import os
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.harness import proxy
from tests.harness.agentos import RunningAgentOS
from tests.harness.downtime import exact_but_for_hidden, failures, hide, polls, under_load, unhide
from tests.harness.inprocess import Exporter
from tests.harness.postgres import Postgres
from tests.harness.process import resident
from tests.harness.proxy import FaultyProxy
from tests.harness.seed import seed
from tests.harness.tools import or_skip

DAY = 86_400


async def test_database_unreadable_under_load(agentos: RunningAgentOS, database: str, tmp_path: Path) -> None:
    async with Exporter({"it": agentos.base_url}, tmp_path / "state.db", trace_horizon=30) as exporter:
        await under_load(exporter, agentos, lambda: hide(database), lambda: unhide(database))
        await exporter.exact(database, "it")
        assert (await exporter.shown())("agentos_exporter_source_resets_total") == 0


async def test_agentos_restarted_under_load(agentos: RunningAgentOS, database: str, tmp_path: Path) -> None:
    async with Exporter({"it": agentos.base_url}, tmp_path / "state.db", trace_horizon=30) as exporter:
        await under_load(exporter, agentos, agentos.stop, agentos.start)
        shown = await exact_but_for_hidden(exporter, database)
        assert shown("agentos_exporter_polls_total", outcome="unreachable") >= 1


@pytest.mark.postgres
async def test_postgresql_down_under_asynchronous_load(tmp_path: Path) -> None:
    with or_skip(Postgres) as server, RunningAgentOS(sys.executable, f"async-postgres:{server.url('agno')}") as agentos:
        # What AgentOS has begun to write it may finish after the outage: that must not be given up before.
        async with Exporter({"it": agentos.base_url}, tmp_path / "state.db", trace_horizon=40) as exporter:
            # AgentOS answers with no traces; on a loaded machine it may first take too long to answer at all.
            await under_load(exporter, agentos, server.stop, server.start, broken=polls("silent_empty"))
            shown = await exact_but_for_hidden(exporter, agentos.database)
            assert shown("agentos_exporter_polls_total", outcome="silent_empty") >= 1


# A backlog


def week_of_downtime(database: str, traces: int, prompt_bytes: tuple[int, int]) -> None:
    seed(database, traces, spread=timedelta(days=7) - timedelta(minutes=5), prompt_bytes=prompt_bytes, number=2)


async def stopped_a_week_ago(url: str, database: str, state: Path, **settings: Any) -> None:
    """Let an exporter read what there was a week ago, and stop it."""
    seed(database, 5, until=datetime.now(UTC) - timedelta(days=7), spread=timedelta(hours=1), number=1)
    async with Exporter({"it": url}, state, initial_lookback=8 * DAY, **settings) as exporter:
        await exporter.exact(database, "it")


async def test_a_week_of_downtime_is_caught_up(agentos: RunningAgentOS, database: str, tmp_path: Path) -> None:
    state = tmp_path / "state.db"
    await stopped_a_week_ago(agentos.base_url, database, state)
    week_of_downtime(database, 3_000, (4_000, 12_000))
    held, most, catching_up = resident(os.getpid()), 0.0, []
    async with Exporter({"it": agentos.base_url}, state, poll_deadline=5) as exporter:
        while not catching_up or catching_up[-1] or not any(catching_up):
            catching_up.append((await exporter.shown())("agentos_exporter_catching_up"))
            most = max(most, resident(os.getpid()))
            assert len(catching_up) < 1200
            await asyncio.sleep(0.1)
        await exporter.exact(database, "it")
        shown = await exporter.shown()
        assert shown("agentos_exporter_ignored_traces_total", reason="too_old") == 0
    read = shown("agentos_exporter_api_response_bytes_total")
    print(f"3,000 traces: {read / 2**20:.0f} MiB read, {most - held:.0f} MiB held")
    assert most - held < 150


async def test_database_unreadable_while_a_backlog_is_read(
    agentos: RunningAgentOS, database: str, tmp_path: Path
) -> None:
    state = tmp_path / "state.db"
    await stopped_a_week_ago(agentos.base_url, database, state)
    week_of_downtime(database, 2_500, (500, 1_000))
    async with Exporter({"it": agentos.base_url}, state, poll_deadline=5) as exporter:
        await exporter.until(lambda shown: shown("agentos_runs_total") >= 200)
        hide(database)
        shown = await exporter.until(polls("silent_empty", 2))
        assert shown("agentos_runs_total") < 2_500
        unhide(database)
        await exporter.exact(database, "it")
        assert (await exporter.shown())("agentos_exporter_source_resets_total") == 0


async def test_a_poll_beyond_its_deadline_keeps_its_progress(
    agentos: RunningAgentOS, database: str, tmp_path: Path
) -> None:
    seed(database, 450, spread=timedelta(minutes=20), prompt_bytes=(500, 1_000))
    async with FaultyProxy(agentos.base_url) as slow_way:
        slow_way.fail(proxy.slow(0.5), "/traces/search")
        async with Exporter({"it": slow_way.base_url}, tmp_path / "state.db", poll_deadline=5) as exporter:
            # On a slow machine the first polls may not come to anything.
            shown = await exporter.until(lambda shown: failures(shown) >= 1 and shown("agentos_runs_total") > 0)
            assert polls("timeout")(shown)
            assert shown("agentos_up") == 0
            assert 0 < shown("agentos_runs_total") < 450
            await exporter.exact(database, "it")
