"""What polling costs AgentOS: search time at 100,000 traces, bytes per new span, latency of its users under load."""

from __future__ import annotations

import asyncio
import sys
import tempfile
import time
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from statistics import mean, median
from typing import Any

import httpx

from benchmarks.measure import quantile
from exporter.core.model import MICROSECONDS
from exporter.metrics.catalog import METRICS
from tests.harness import load
from tests.harness.agentos import RunningAgentOS
from tests.harness.seed import seed

_BYTES = "agentos_exporter_api_response_bytes_total"
_DELAY = "agentos_exporter_span_ingest_delay_seconds"


def main(*, quick: bool) -> None:
    """Run the three measurements."""
    from exporter.core.logs import configure

    configure("error")
    asyncio.run(_search_time(2_000 if quick else 100_000))
    asyncio.run(_bytes(20 if quick else 90))
    asyncio.run(_latency(10 if quick else 40))


def _daemon(url: str, folder: str, **settings: Any) -> Any:
    from exporter.config import Address, AgentOS, Config, Web
    from exporter.service.daemon import running

    config = Config(
        agentos=(AgentOS("bench", url),),
        state=Path(tempfile.mkdtemp(dir=folder)) / "state.db",
        web=Web((Address("127.0.0.1", 0),)),
        **settings,
    )
    return running(config)


async def _search_time(traces: int) -> None:
    """Summed search_time_ms of a poll, sweeps included in the mean, against one search with end_time and status IN."""
    with tempfile.TemporaryDirectory() as folder:
        database = f"sqlite:{folder}/agno.db"
        await asyncio.to_thread(seed, database, traces, spread=timedelta(days=14), prompt_bytes=(100, 300))
        with RunningAgentOS(sys.executable, database) as agentos:
            async with _daemon(agentos.base_url, folder, poll_interval=2, overlap=8, initial_lookback=600) as daemon:
                stop = asyncio.Event()
                traffic = asyncio.create_task(load.steady(agentos.base_url, rate=2, until=stop, seed=3))
                spent: list[float] = []
                probes: list[float] = []
                while (
                    not daemon.site.ready()
                ):  # the first poll asks more: for the backlog, and for statuses that nobody knows
                    await asyncio.sleep(0.05)
                for _ in range(6 if traces < 10_000 else 24):  # some three sweeps
                    before = daemon.pollers[0].health.last_poll
                    while daemon.pollers[0].health.last_poll == before:
                        await asyncio.sleep(0.05)
                    spent.append(daemon.pollers[0].source.stats.search_ms)
                    probes.append(await _probe(agentos.base_url))
                stop.set()
                await traffic
    ratio = mean(spent) / median(probes)
    print(
        f"search time at {traces} traces: a poll {mean(spent):.1f} ms (median {median(spent):.1f}), "
        f"one filtered search {median(probes):.1f} ms: {ratio:.2f} x (bound: 2)"
    )


async def _probe(url: str) -> float:
    cutoff = (datetime.now(UTC) - timedelta(seconds=8)).isoformat()
    conditions = [
        {"op": "GTE", "key": "end_time", "value": cutoff},
        {"op": "IN", "key": "status", "values": ["OK", "ERROR", "UNSET"]},
    ]
    body = {"filter": {"op": "AND", "conditions": conditions}, "limit": 50}
    headers = {"traceparent": f"00-{'1' * 32}-{'1' * 16}-00"}
    async with httpx.AsyncClient(base_url=url, headers=headers, timeout=60) as client:
        return float((await client.post("/traces/search", json=body)).json()["meta"]["search_time_ms"])


async def _bytes(seconds: float) -> None:
    """Bytes read per new span against those of one single read of the same traces."""
    with tempfile.TemporaryDirectory() as folder:
        database = f"sqlite:{folder}/agno.db"
        with RunningAgentOS(sys.executable, database) as agentos:
            async with _daemon(
                agentos.base_url, folder, poll_interval=5, overlap=20, sessions_interval=3600, operations_interval=3600
            ) as daemon:
                await load.steady(agentos.base_url, rate=5, seconds=seconds, seed=4)
                await asyncio.sleep(60)
                polled = sum(
                    value
                    for name in ("traces_search", "traces_list", "traces_count", "trace_span")
                    if (
                        value := daemon.shared.totals.value(
                            "agentos_exporter_api_response_bytes_total", ("bench", name, "200")
                        )
                    )
                )
                stored = list(daemon.shared.totals.stored())
                spans = sum(one.value for one in stored if one.metric == "agentos_spans_total")
                (delays,) = (one.counts for one in stored if one.metric == _DELAY)
            single = await _read_once(agentos.base_url)
    print(
        f"bytes per span at a poll of 5 s, overlap 20 s, 5 runs/s for {seconds:.0f} s ({spans} spans): "
        f"{polled / spans:.0f}, one single read {single / spans:.0f}: {polled / single:.2f} x (bound: 1.25)"
    )
    late = _p99(delays, METRICS[_DELAY].buckets) / MICROSECONDS
    print(f"p99 of the time from a span's end until it was counted: {late:.1f} s (bound: 2 polls + 5 s = 15 s)")


def _p99(counts: Sequence[int], bounds: Sequence[int]) -> float:
    """As Prometheus's histogram_quantile works it out; in storage units."""
    wanted, below, low = 0.99 * sum(counts), 0, 0
    for count, high in zip(counts, bounds, strict=False):
        if below + count >= wanted:
            return low + (high - low) * (wanted - below) / count
        below, low = below + count, high
    return float("inf")


async def _read_once(url: str) -> int:
    headers = {"traceparent": f"00-{'1' * 32}-{'1' * 16}-00", "Accept-Encoding": "identity"}
    total = page = 0
    async with httpx.AsyncClient(base_url=url, headers=headers, timeout=60) as client:
        while True:
            page += 1
            answer = await client.post("/traces/search", json={"limit": 100, "page": page})
            if not answer.json()["data"]:
                return total
            total += len(answer.content)


async def _latency(seconds: float) -> None:
    """Latency of AgentOS's /health under load, without and with the exporter: a poll can stall its event loop."""
    with tempfile.TemporaryDirectory() as folder:
        database = f"sqlite:{folder}/agno.db"
        traces = 10_000 if seconds > 10 else 500
        await asyncio.to_thread(seed, database, traces, spread=timedelta(hours=6), prompt_bytes=(1_000, 4_000))
        with RunningAgentOS(sys.executable, database) as agentos:
            without = await _health(agentos.base_url, seconds)
            async with _daemon(agentos.base_url, folder, poll_interval=2, overlap=8, initial_lookback=60):
                beside = await _health(agentos.base_url, seconds)
    for name, took in (("without", without), ("with", beside)):
        p50, p99 = 1000 * median(took), 1000 * quantile(took, 0.99)
        print(f"AgentOS's latency {name:>7} the exporter: p50 {p50:.1f} ms, p99 {p99:.1f} ms")


async def _health(url: str, seconds: float) -> list[float]:
    stop = asyncio.Event()
    traffic = asyncio.create_task(load.steady(url, rate=3, until=stop, seed=5))
    took: list[float] = []
    end = time.monotonic() + seconds
    headers = {"traceparent": f"00-{'1' * 32}-{'1' * 16}-00"}
    async with httpx.AsyncClient(base_url=url, timeout=60, headers=headers) as client:
        while time.monotonic() < end:
            began = time.perf_counter()
            await client.get("/health")
            took.append(time.perf_counter() - began)
            await asyncio.sleep(0.02)
    stop.set()
    await traffic
    return took
