"""How long users of an AgentOS wait, on a cheap route and for runs: rounds without and with something beside them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from statistics import median

import httpx

from benchmarks.measure import quantile
from tests.harness.agentos import UNSAMPLED

_PAUSE = 0.02
"""Seconds between two requests of the cheap route"""
_RUNS = 0.3
"""Seconds between two runs"""


async def users(
    url: str, seconds: float, work: Callable[[], Awaitable[object]] | None = None, every: float = 0.0
) -> tuple[float, ...]:
    """Quantiles of latency in a round, in seconds: of a cheap route and of runs, each p50 and p99.

    `work` is done meanwhile, with `every` seconds between two times.
    """
    health: list[float] = []
    runs: list[float] = []
    form = {"message": "Hello", "stream": "false"}
    async with httpx.AsyncClient(base_url=url, timeout=60, headers=UNSAMPLED, trust_env=False) as client:
        end = time.monotonic() + seconds
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(_until(end, lambda: client.get("/health"), health, _PAUSE))
            tasks.create_task(_until(end, lambda: client.post("/agents/plain/runs", data=form), runs, _RUNS))
            if work is not None:
                tasks.create_task(_until(end, work, [], every))
    return *_quantiles(health), *_quantiles(runs)


def say_latency(without: Sequence[tuple[float, ...]], beside: Sequence[tuple[float, ...]]) -> None:
    """Print ratios: the median over the rounds with the work to that without, and how far rounds differ."""
    names = ("p50 of /health", "p99 of /health", "p50 of a run", "p99 of a run")
    for name, calm, busy in zip(names, zip(*without, strict=True), zip(*beside, strict=True), strict=True):
        usual = median(calm)
        print(
            f"  {name}: {median(busy) / usual:.2f} times as long as without ({1000 * usual:.1f} ms); "
            f"rounds without {min(calm) / usual:.2f} to {max(calm) / usual:.2f}, "
            f"with {min(busy) / usual:.2f} to {max(busy) / usual:.2f}",
            flush=True,
        )


async def _until(end: float, work: Callable[[], Awaitable[object]], took: list[float], pause: float) -> None:
    """Do something over and over until a monotonic time, and note how long it takes."""
    while time.monotonic() < end:
        began = time.perf_counter()
        await work()
        took.append(time.perf_counter() - began)
        await asyncio.sleep(pause)


def _quantiles(took: Sequence[float]) -> tuple[float, float]:
    return median(took), quantile(took, 0.99)
