"""Traces and callers that are odd, but that AgentOS serves: none hides, doubles or loses another."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest

from tests.harness import proxy
from tests.harness.driven import World
from tests.harness.seed import seed

SMALL = (50, 100)


def now(world: World) -> datetime:
    return datetime.fromtimestamp(world.clock.now(), UTC)


@pytest.mark.parametrize("shown_before", [False, True])
async def test_traces_that_begin_at_the_same_moment(world: World, folder: Path, *, shown_before: bool) -> None:
    """AgentOS pages through rows with one start time in any order."""
    async with world.exporter(folder) as exporter:
        if shown_before:
            seed(world.database, 2, until=now(world), spread=timedelta(seconds=1), prompt_bytes=SMALL, number=1)
            await exporter.exact()
        # Each batch is one transaction: rows show with the tied time or not at all.
        spread = timedelta() if shown_before else timedelta(minutes=10)
        seed(world.database, 230, until=now(world), spread=spread, prompt_bytes=SMALL)
        tied = (now(world) - timedelta(minutes=11)).isoformat()
        with world.sql() as connection:
            connection.execute("UPDATE agno_traces SET start_time = ?", (tied,))
        await exporter.exact()


async def test_traces_dated_long_before_they_were_written_are_said(world: World, folder: Path) -> None:
    async with world.exporter(folder, poll_interval="1m") as exporter:
        await exporter.forward(60)
        seed(world.database, 3, until=datetime(1970, 1, 2, tzinfo=UTC), written=now(world), number=1)
        with world.sql() as connection:
            connection.execute("UPDATE agno_traces SET created_at = ?", (now(world).isoformat(),))
        seed(world.database, 2, until=now(world), spread=timedelta(), number=2)
        shown = await exporter.forward(3700)
        assert shown("agentos_runs_total") == 2
        assert shown("agentos_exporter_ignored_traces_total", reason="too_old") == 3


async def test_replicas_whose_clocks_differ_by_an_overlap(world: World, folder: Path) -> None:
    """One replica's clock is right, another's is an overlap behind; both write all the time."""
    async with world.exporter(folder) as exporter:
        for number in range(40):
            late = timedelta(seconds=60) if number % 2 else timedelta()
            until = now(world) - late
            seed(
                world.database,
                1,
                until=until,
                spread=timedelta(),
                prompt_bytes=SMALL,
                number=number,
                written=now(world),
            )
            await exporter.forward(5)
        counted = await exporter.exact()
        assert counted.traces == 40


async def test_callers_that_send_sampled_traceparents(world: World, folder: Path) -> None:
    """With HTTP roots AgentOS never shows such spans: they are exported as hidden, and no poll fails."""
    async with world.exporter(folder, trace_horizon="5m") as exporter:
        async with httpx.AsyncClient(transport=world.way(), base_url="http://agentos") as client, world.passing():
            for number in range(1, 21):
                sampled = {"traceparent": f"00-{number:032x}-{number:016x}-01"}
                form = {"message": "Hello", "stream": "false"}
                await client.post("/agents/tools/runs", data=form, headers=sampled)
        await world.drive(runs=4)
        counted = await exporter.exact()
        assert len(counted.hidden) > 60
        shown = await exporter.forward(400)
        assert shown("agentos_exporter_hidden_spans_total") == len(counted.hidden)
        assert shown("agentos_exporter_open_traces") == 0
        assert shown("agentos_exporter_polls_total") == shown("agentos_exporter_polls_total", outcome="ok")


async def test_a_backlog_is_read_through_an_outage_and_said_to_be_one(world: World, folder: Path) -> None:
    seed(world.database, 5, until=now(world), spread=timedelta(minutes=1), prompt_bytes=SMALL, number=1)
    async with world.exporter(folder) as exporter:
        await exporter.exact()
    world.clock.forward(7 * 86_400)
    seed(world.database, 1_200, until=now(world), spread=timedelta(days=6), prompt_bytes=SMALL, number=2)
    async with world.exporter(folder) as exporter:
        answered = 0

        async def fails_midway(_request: proxy.Request, forward: proxy.Forward) -> proxy.Reply | None:
            nonlocal answered
            answered += 1
            return await forward() if answered <= 12 else proxy.Reply(503, b"upstream error", {})

        exporter.ways["it"].fail(fails_midway, "/traces/search")
        shown = await exporter.forward(60)
        assert shown("agentos_exporter_catching_up") == 1
        assert 5 < shown("agentos_runs_total") < 1_205
        exporter.ways["it"].mend()
        await exporter.exact(within=1200)
        shown = await exporter.forward(120)
        assert shown("agentos_exporter_catching_up") == 0
        assert shown("agentos_exporter_ignored_traces_total") == 0


async def test_an_agentos_that_keeps_its_configuration_to_itself(world: World, folder: Path) -> None:
    async with world.exporter(folder) as exporter:
        refused = "Insufficient permissions. Required scope(s): config:read"
        exporter.ways["it"].fail(proxy.status(403, refused), "/config")
        await world.drive(runs=6)
        await exporter.exact()
        shown = exporter.scrapes[-1]
        assert shown("agentos_exporter_polls_total") == shown("agentos_exporter_polls_total", outcome="ok")
        said = exporter.logged("config_forbidden")
        assert len(said) == 1
        assert "config:read" in said[0]["reason"]
        assert not exporter.logged("survey")
        assert not [request for request in exporter.ways["it"].requests if "db_id" in request.target]
