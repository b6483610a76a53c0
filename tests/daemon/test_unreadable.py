"""A trace that AgentOS stores but cannot serve: it answers with an error for it, and for every page that holds it.

The trace costs itself alone. All others are counted in the same poll, from the API and from the tables. Each kind of
trace by itself is in tests/long/test_unreadable.py.
"""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from pathlib import Path

import pytest

from tests.harness import load, proxy, sqltruth, truth
from tests.harness.driven import World
from tests.harness.unreadable import (
    IGNORED,
    KINDS,
    TOOLS,
    counted_but_for,
    healthy,
    nest,
    of_others,
    polls,
    refused,
    spoil,
)


async def test_one_of_each_kind_costs_itself_alone(world: World, folder: Path) -> None:
    tables = {"database": f"sqlite:///{world.path}"}
    async with world.exporter(folder, {"api": {}, "tables": tables}, zero_hold="0s") as exporter:
        await exporter.forward(15)
        healthy(world)
        expected = {"api": world.count("api").totals, "tables": sqltruth.count(world.database, "tables").totals}
        traces = set()
        for kind in KINDS.values():
            await world.run(TOOLS)
            traces.add(spoil(world.path, *kind))
        await exporter.agree(expected["api"], "api")
        shown = exporter.scrapes[-1]
        assert {line["trace_id"] for line in exporter.logged("trace_unreadable")} == traces
        assert shown(IGNORED, agentos="api", reason="unreadable") == len(KINDS)
        assert truth.difference(of_others(expected["tables"]), of_others(shown.of("tables"))) == []
        for agentos in ("api", "tables"):
            assert polls(shown, agentos, "ok") == shown("agentos_exporter_polls_total", agentos=agentos)


async def test_one_that_was_read_and_cannot_be_served_any_more_since_it_grew(world: World, folder: Path) -> None:
    """Its request was read while the run went on in the background; its spans are what AgentOS cannot serve."""
    async with world.exporter(folder, {"api": {}}, zero_hold="0s") as exporter:
        await exporter.forward(15)
        healthy(world)
        runs = sum(value for key, value in world.count("api").totals.items() if key[0] == "agentos_runs_total")
        await world.begin(load.Run("agents", "slow", "Take your time sleep=40", background=True))
        await exporter.forward(30)
        async with world.passing():
            with world.sql() as connection:
                while not connection.execute("SELECT 1 FROM agno_spans WHERE name LIKE 'Slow.%'").fetchone():  # noqa: ASYNC110
                    await asyncio.sleep(0.01)
        spoil(world.path, *KINDS["half a surrogate in a prompt"])
        for _ in range(4):
            shown = await exporter.forward(45)
            assert polls(shown, "api", "ok") == shown("agentos_exporter_polls_total")
            assert shown("agentos_up") == 1
        assert shown(IGNORED, reason="unreadable") == 1
        assert shown("agentos_runs_total") == runs


async def test_it_is_asked_for_no_more_and_counted_once_also_after_a_restart(world: World, folder: Path) -> None:
    async with world.exporter(folder, {"api": {}}, zero_hold="0s") as exporter:
        await exporter.forward(15)
        healthy(world)
        totals = world.count("api").totals
        await world.run(TOOLS)
        trace = spoil(world.path, *KINDS["half a surrogate in a prompt"])
        await counted_but_for(world, exporter, trace, totals)
        shown = exporter.scrapes[-1]
        later = await exporter.forward(300)
        assert refused(later) == refused(shown) <= 10
        await exporter.restart()
        shown = await exporter.forward(60)
        assert shown(IGNORED, agentos="api", reason="unreadable") == 1
        assert polls(shown, "api", "ok") == shown("agentos_exporter_polls_total", agentos="api")


async def test_spans_nested_too_deeply(world: World, folder: Path) -> None:
    async with world.exporter(folder, {"api": {}}, zero_hold="0s") as exporter:
        await exporter.forward(15)
        healthy(world)
        totals = world.count("api").totals
        await world.run(TOOLS)
        await counted_but_for(world, exporter, nest(world, 600), totals)


async def test_it_is_read_once_it_has_changed(world: World, folder: Path) -> None:
    async with world.exporter(folder, {"api": {}}, zero_hold="0s") as exporter:
        await exporter.forward(15)
        healthy(world)
        totals = world.count("api").totals
        await world.run(TOOLS)
        whole = world.count("api").totals
        trace = spoil(world.path, *KINDS["half a surrogate in a prompt"])
        await counted_but_for(world, exporter, trace, totals)
        with world.sql() as connection:
            connection.execute("UPDATE agno_spans SET attributes = replace(attributes, '\\udcff', '')")
            later = datetime.fromtimestamp(world.clock.now(), UTC).isoformat()
            connection.execute("UPDATE agno_traces SET end_time = ? WHERE trace_id = ?", (later, trace))
        await exporter.agree(whole, "api")


async def test_lists_and_details(world: World, folder: Path) -> None:
    async with world.exporter(folder, {"api": {}}, zero_hold="0s") as exporter:
        exporter.ways["api"].fail(proxy.status(405, "Method Not Allowed"), "/traces/search")
        await exporter.forward(15)
        healthy(world)
        totals = world.count("api").totals
        await world.run(TOOLS)
        trace = spoil(world.path, *KINDS["tokens as a list"])
        await counted_but_for(world, exporter, trace, totals)


@pytest.mark.parametrize("path", ["/traces", "/traces/search"])
async def test_an_agentos_that_answers_nothing_is_ill_at_once(world: World, folder: Path, path: str) -> None:
    healthy(world)
    async with world.exporter(folder, {"api": {}}, zero_hold="0s") as exporter:
        exporter.ways["api"].fail(proxy.status(500, "Internal Server Error"), path)
        shown = await exporter.forward(600)
        assert shown("agentos_up", agentos="api") == 0
        assert polls(shown, "api", "server_error") == shown("agentos_exporter_polls_total", agentos="api")
        assert shown(IGNORED, agentos="api", reason="unreadable") == 0
        assert len(exporter.ways["api"].requests) <= 4 * shown("agentos_exporter_polls_total", agentos="api")
        exporter.ways["api"].mend()
        await exporter.agree(world.count("api").totals, "api", within=900)


async def test_ten_of_them_in_a_backlog(world: World, folder: Path) -> None:
    for number in range(10):
        healthy(world, number)
        world.clock.forward(10)
    totals = world.count("api").totals
    for _ in range(10):
        await world.run(TOOLS)
        spoil(world.path, *KINDS["half a surrogate in a prompt"])
    async with world.exporter(folder, {"api": {}}, zero_hold="0s") as exporter:
        await exporter.agree(totals, "api")
        shown = exporter.scrapes[-1]
        assert shown(IGNORED, agentos="api", reason="unreadable") == 10
        assert polls(shown, "api", "ok") == shown("agentos_exporter_polls_total", agentos="api")


@pytest.mark.parametrize("value", [-7, 2**53, 1.5, True])
async def test_numbers_that_are_none_count_as_not_reported(world: World, folder: Path, value: object) -> None:
    """AgentOS serves them. They are said, from the API and from the tables, and are neither tokens nor money."""
    tables = {"database": f"sqlite:///{world.path}"}
    async with world.exporter(folder, {"api": {}, "tables": tables}, zero_hold="0s") as exporter:
        await exporter.forward(15)
        await world.run(load.Run("agents", "plain"))
        # Of a total that is known the tables would tell the input.
        counts = {"llm.token_count.prompt": value, "llm.token_count.total": value}
        spoil(world.path, "LLM", lambda attributes: attributes | counts)
        shown = await exporter.forward(60)
        for agentos in ("api", "tables"):
            assert shown("agentos_exporter_ignored_values_total", agentos=agentos, field="input_tokens") == 1
            assert shown("agentos_llm_tokens_total", agentos=agentos, token_class="input") == 0
            assert shown("agentos_llm_tokens_total", agentos=agentos, token_class="output") > 0
            assert shown("agentos_llm_calls_total", agentos=agentos) == 1
