"""What reading beside traces costs AgentOS: requests and bytes of a turn, and the latency of its users.

Latency is measured in rounds of one process: in every other one the job takes its turns, thirty times as often as it
does by default. So what else the machine does hits both alike, and how much rounds of a kind differ is the noise.
"""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

from benchmarks.measure import ROOT, cpu
from benchmarks.users import say_latency, users
from exporter.config import Address, AgentOS, Config, Web
from exporter.service.daemon import Daemon, running
from tests.harness.agentos import RunningAgentOS

_NAME = "bench"
_ENDPOINTS = (
    *("approvals", "approval", "schedules", "schedule_runs", "schedule_run", "queue_stats", "queue_jobs"),
    *("eval_runs", "knowledge_content", "user_memory_stats", "memories"),
)
_EVERY = 2.0
"""Seconds between two turns while latency is measured; by default they are 60 apart, so a turn is a minute."""


def main(*, quick: bool) -> None:
    """Measure a turn of the job, then latency; print."""
    from exporter.core.logs import configure

    configure("error")
    asyncio.run(_measure(turns=2, rounds=2, seconds=3) if quick else _measure(turns=10, rounds=10, seconds=10))


async def _measure(turns: int, rounds: int, seconds: float) -> None:
    with tempfile.TemporaryDirectory() as folder:
        database = f"sqlite:{folder}/agno.db"
        with RunningAgentOS(sys.executable, database, operations=True) as agentos:
            await asyncio.to_thread(_fill, database, 0)
            async with _daemon(agentos.base_url, Path(folder)) as daemon:
                look = await _begun(daemon)
                await _turns("idle", daemon, agentos, look, turns)
                await _latency(agentos.base_url, look, rounds, seconds)
                await _turns("busy", daemon, agentos, look, turns, lambda turn: _fill(database, turn))


def _fill(database: str, number: int) -> None:
    """Ask for 40 approvals more, and store 120 runs of evaluations."""
    command = (sys.executable, "tests/harness/waitingside.py", database, str(number))
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)


@contextlib.asynccontextmanager
async def _daemon(url: str, folder: Path) -> AsyncIterator[Daemon]:
    """A daemon whose job takes its first turn, and no other by itself."""
    config = Config(
        agentos=(AgentOS(_NAME, url),),
        state=folder / "state.db",
        web=Web((Address("127.0.0.1", 0),)),
        poll_interval=5.0,
        operations_interval=24 * 3600.0,
    )
    async with running(config) as daemon:
        yield daemon


async def _begun(daemon: Daemon) -> Callable[[], Awaitable[None]]:
    """What takes a turn; the first one is over."""
    while daemon.shared.totals.value("agentos_surface_up", (_NAME, "memory")) is None:
        await asyncio.sleep(0.05)
    operations = daemon.site.fleet.members[0].operations
    assert operations is not None
    return operations.look


async def _turns(
    what: str,
    daemon: Daemon,
    agentos: RunningAgentOS,
    look: Callable[[], Awaitable[None]],
    turns: int,
    before: Callable[[int], None] = lambda _: None,
) -> None:
    """Print the mean cost of a turn, after `before` was called with its number each time."""
    spent = [0.0, 0.0, 0.0]
    for turn in range(1, turns + 1):
        await asyncio.to_thread(before, turn)
        began = _spent(daemon, agentos)
        await look()
        for place, (earlier, later) in enumerate(zip(began, _spent(daemon, agentos), strict=True)):
            spent[place] += (later - earlier) / turns
    requests, size, seconds = spent
    print(
        f"{what}: {requests:.1f} requests and {size / 1000:.0f} kB a turn, which is a minute by default; "
        f"AgentOS spends {1000 * seconds:.0f} ms of CPU time on it",
        flush=True,
    )


def _spent(daemon: Daemon, agentos: RunningAgentOS) -> tuple[float, float, float]:
    """Requests and bytes so far, of what is read beside traces, and CPU seconds of AgentOS."""

    def total(metric: str) -> float:
        return sum(daemon.shared.totals.value(metric, (_NAME, name, "200")) or 0 for name in _ENDPOINTS)

    requests, size = "agentos_exporter_api_requests_total", "agentos_exporter_api_response_bytes_total"
    assert agentos.process is not None
    return total(requests), total(size), cpu(agentos.process.pid)


async def _latency(url: str, look: Callable[[], Awaitable[None]], rounds: int, seconds: float) -> None:
    """Print ratios: the median over the rounds with the job to that without, and how far rounds differ."""
    without: list[tuple[float, ...]] = []
    beside: list[tuple[float, ...]] = []
    await users(url, seconds)  # what is new to AgentOS is slow
    for number in range(rounds):
        if number % 2 == 1:
            beside.append(await users(url, seconds, look, _EVERY))
        else:
            without.append(await users(url, seconds))
    print(f"with a turn every {_EVERY:.0f} s:")
    say_latency(without, beside)
