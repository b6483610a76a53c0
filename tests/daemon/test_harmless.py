"""What reading costs AgentOS in requests and bytes, in production settings, however slow this machine is."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import httpx

from tests.harness import load
from tests.harness.agentos import UNSAMPLED
from tests.harness.driven import World
from tests.harness.reading import read_bytes, read_once

READING = {"/traces/search", "/traces"}
KINDS = [run for run in load.EACH_KIND if not run.leaves and "sleep" not in run.message]


async def test_hardly_more_is_read_than_there_is(world: World, folder: Path) -> None:
    """Runs end all the time for minutes; each poll looks back for an overlap of four intervals."""
    await world.drive(runs=1, kinds=KINDS[:1])
    async with world.exporter(folder, sessions_interval="24h", operations_interval="24h") as exporter:
        await exporter.forward(30)
        for seed in range(15):
            await world.drive(runs=4, kinds=KINDS[seed % len(KINDS) :][:4], seed=seed)
            await exporter.forward(30)
        counted = await exporter.exact()
        assert counted.traces > 55
        shown = exporter.scrapes[-1]
        read = read_bytes(shown)
        polls = shown("agentos_exporter_polls_total", outcome="ok")
        requests = Counter(request.path for request in exporter.ways["it"].requests)
    async with httpx.AsyncClient(transport=world.way(), base_url="http://agentos", headers=UNSAMPLED) as client:
        single = await read_once(client)
    print(f"{read / single:.3f} times the bytes, {sum(requests[path] for path in READING) / polls:.2f} requests a poll")
    assert read <= 1.25 * single
    assert sum(requests[path] for path in READING) <= 5 * polls


async def test_an_idle_agentos_is_asked_little_and_gets_no_trace(world: World, folder: Path) -> None:
    await world.drive(runs=8, kinds=KINDS)
    async with world.exporter(folder, sessions_interval="24h", operations_interval="24h") as exporter:
        await exporter.exact()
        before, traces = len(exporter.ways["it"].requests), world.count().traces
        await exporter.forward(900)
        asked = len(exporter.ways["it"].requests) - before
        # A poll that finds nothing asks for the sentinels, too; once an overlap there is a sweep.
        assert asked <= 60 * 2 + 16 * 6
        assert world.count().traces == traces
        assert not exporter.logged("own_requests_traced")


async def test_what_waits_costs_an_idle_agentos_little(world: World, folder: Path) -> None:
    await world.drive(runs=8, kinds=KINDS)
    async with world.exporter(folder, sessions_interval="24h") as exporter:
        await exporter.exact()
        way, before = exporter.ways["it"], len(exporter.ways["it"].requests)
        traces = world.count().traces
        await exporter.forward(900)
        asked = [request for request in way.requests[before:] if request.path not in READING]
        shown = exporter.scrapes[-1]
        assert shown("agentos_surface_up", surface="approvals") == 1
        assert not shown("agentos_surface_up", surface="queue"), "it has none, and /config says so"
        assert world.count().traces == traces
    print(Counter(request.path for request in asked))
    # Two requests for approvals, and one each for schedules, evaluations, memories and their users.
    assert len(asked) <= 16 * 6
