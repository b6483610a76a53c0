"""Each kind of trace that AgentOS stores but cannot serve, alone among healthy ones."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.harness import sqltruth, truth
from tests.harness.driven import World
from tests.harness.unreadable import KINDS, TOOLS, counted_but_for, healthy, of_others, polls, spoil


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
