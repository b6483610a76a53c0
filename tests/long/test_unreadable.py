"""Traces that AgentOS stores but cannot serve, alone among healthy ones; and what one of them costs in the long run."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.harness import proxy, sqltruth, truth
from tests.harness.driven import World
from tests.harness.seed import seed
from tests.harness.unreadable import KINDS, TOOLS, counted_but_for, healthy, of_others, polls, put, spoil


def nested(depth: int) -> Any:
    inner: Any = 1
    for _ in range(depth):
        inner = [inner]
    return inner


VALUES = {
    "null": None,
    "a truth value": True,
    "a number": 7,
    "a text": "x",
    "a list": [1],
    "an object": {"a": 1},
    "NaN": float("nan"),
    "10 MB": "x" * 10**7,
    "half a surrogate": "\ud800",
    "deep nesting": nested(400),
}
ATTRIBUTES = {
    "LLM": (
        "openinference.span.kind",
        "input.value",
        "input.mime_type",
        "output.value",
        "llm.model_name",
        "llm.provider",
        "llm.token_count.prompt",
        "llm.token_count.completion",
        "llm.token_count.total",
        "llm.token_count.prompt_details.cache_read",
        "llm.token_count.prompt_details.cache_write",
        "llm.token_count.completion_details.reasoning",
        "llm.cost.total",
        "llm.input_messages.0.message.content",
        "llm.invocation_parameters",
    ),
    "TOOL": (
        "openinference.span.kind",
        "tool.name",
        "tool.description",
        "tool.parameters",
        "input.value",
        "output.value",
    ),
    "AGENT": (
        "openinference.span.kind",
        "agent.name",
        "agno.agent.id",
        "agno.run.id",
        "agno.tools",
        "agno.team.id",
        "team.id",
        "graph.node.id",
        "graph.node.name",
        "session.id",
        "user.id",
        "input.value",
        "output.value",
        "output.mime_type",
        "metadata",
        "exception.message",
    ),
}
"""What agno writes, by the kind of the span, and what else the exporter reads."""


def emptied(world: World) -> None:
    with world.sql() as connection:
        for table in ("agno_traces", "agno_spans", "agno_sessions"):
            connection.execute(f"DELETE FROM {table}")


@pytest.mark.parametrize("name", KINDS)
async def test_it_costs_itself_alone(world: World, folder: Path, name: str) -> None:
    tables = {"database": f"sqlite:///{world.path}"}
    async with world.exporter(folder, {"api": {}, "tables": tables}, zero_hold="0s") as exporter:
        await exporter.forward(15)
        healthy(world)
        expected = {"api": world.count("api").totals, "tables": sqltruth.count(world.database, "tables").totals}
        await world.run(TOOLS)
        trace = spoil(world.path, *KINDS[name])
        await counted_but_for(world, exporter, trace, expected["api"])
        shown = exporter.scrapes[-1]
        assert truth.difference(of_others(expected["tables"]), of_others(shown.of("tables"))) == []
        assert polls(shown, "tables", "ok") == shown("agentos_exporter_polls_total", agentos="tables")


@pytest.mark.parametrize(("kind", "attribute"), [(kind, each) for kind, them in ATTRIBUTES.items() for each in them])
async def test_whatever_an_attribute_holds_costs_no_other_trace(
    world: World, folder: Path, kind: str, attribute: str
) -> None:
    tables = {"database": f"sqlite:///{world.path}"}
    for number, (name, value) in enumerate(VALUES.items()):
        emptied(world)
        place = folder / str(number)
        place.mkdir()
        async with world.exporter(place, {"api": {}, "list": {}, "tables": tables}, zero_hold="0s") as exporter:
            exporter.ways["list"].fail(proxy.status(405, "Method Not Allowed"), "/traces/search")
            await exporter.forward(15)
            healthy(world)
            expected = {each: world.count(each).totals for each in ("api", "list")}
            expected["tables"] = sqltruth.count(world.database, "tables").totals
            await world.run(TOOLS)
            spoil(world.path, kind, put(attribute, value))
            # Three polls for the counters; what is told of whole runs waits until they have settled.
            for seconds, only in ((45, lambda key: key[0].endswith("_total")), (120, lambda key: True)):
                shown = await exporter.forward(seconds)
                for each, totals in expected.items():
                    wanted, got = (
                        {key: n for key, n in of_others(t).items() if only(key)} for t in (totals, shown.of(each))
                    )
                    assert truth.difference(wanted, got) == [], (name, each, seconds)
            assert shown("agentos_up") == len(expected), name


async def test_what_one_among_ten_thousand_costs(world: World, folder: Path) -> None:
    """Over 100 polls, of 100 new traces each: bytes at most 1.3 times those without it, requests 1.5 times."""
    costs = {}
    for spoilt in (False, True):
        emptied(world)
        place = folder / str(spoilt)
        place.mkdir()
        async with world.exporter(place, {"api": {}}, zero_hold="0s") as exporter:
            await exporter.forward(15)
            for number in range(100):
                until = datetime.fromtimestamp(world.clock.now(), UTC)
                seed(
                    world.database, 100, until=until, spread=timedelta(seconds=9), prompt_bytes=(50, 80), number=number
                )
                if number == 20:
                    await world.run(TOOLS)
                    if spoilt:
                        spoil(world.path, *KINDS["half a surrogate in a prompt"])
                await exporter.forward(15)
            shown = await exporter.forward(120)
            assert shown("agentos_runs_total") == 10_000 + (not spoilt)
            assert polls(shown, "api", "ok") == shown("agentos_exporter_polls_total")
            costs[spoilt] = [shown(f"agentos_exporter_api_{what}_total") for what in ("response_bytes", "requests")]
    size, requests = (with_it / without for with_it, without in zip(costs[True], costs[False], strict=True))
    print(f"{size:.2f} times the bytes, {requests:.2f} times the requests")
    assert size <= 1.3
    assert requests <= 1.5
