"""First read of 10,000 traces with prompts of 8 to 30 kB: the exporter against the documented pattern.

The documented pattern is `AgentOSClient.get_traces`, then `get_trace` for each. Both read the same AgentOS, one after
the other, each in a process of its own; the exporter's figures include decoding, counting and committing to its state
file.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
import time
from datetime import timedelta
from pathlib import Path

from benchmarks.measure import Cost, as_daemon, child, report
from tests.harness.agentos import RunningAgentOS
from tests.harness.seed import seed

_DAY = 86400.0


def main(*, quick: bool) -> None:
    """Seed, read both ways, print."""
    traces = 1_000 if quick else 10_000
    sample = traces if quick else 3_000
    with tempfile.TemporaryDirectory() as folder:
        database = f"sqlite:{folder}/agno.db"
        seed(database, traces, spread=timedelta(hours=12))
        with RunningAgentOS(sys.executable, database) as agentos:
            ours = child(__name__, "ours", agentos.base_url, Path(folder) / "state.db", traces)
            theirs = child(__name__, "documented", agentos.base_url, sample)
    print(f"{traces} traces on SQLite, 8 spans each (the documented pattern reads {theirs.figures['traces']} of them)")
    print(f"{'':>12} {'traces/s':>10} {'spans/s':>10} {'CPU ms/trace':>13} {'peak MiB':>9}")
    for name, cost in (("exporter", ours), ("documented", theirs)):
        rate = cost.figures["traces"] / cost.figures["seconds"]
        spans = cost.figures["spans"] / cost.figures["seconds"]
        each = 1000 * (cost.cpu - cost.figures["start_cpu"]) / cost.figures["traces"]
        print(f"{name:>12} {rate:>10.0f} {spans:>10.0f} {each:>13.2f} {cost.peak:>9.0f}")
    print(f"throughput: {_rate(ours) / _rate(theirs):.2f} x the documented pattern's (bound: 2.5)")
    print(f"peak memory: {ours.peak:.0f} MiB (bound: 150)")


def _rate(cost: Cost) -> float:
    return float(cost.figures["traces"]) / float(cost.figures["seconds"])


async def _ours(url: str, state: str, expected: int) -> None:
    from exporter.bookkeeping.intake import Intake
    from exporter.bookkeeping.shared import Shared
    from exporter.core.model import MICROSECONDS, Clock
    from exporter.ledger.store import Ledger
    from exporter.metrics.series import Limits
    from exporter.metrics.totals import Totals
    from exporter.service.poller import Poller
    from exporter.sources.api.source import AgentOSSource, Target
    from exporter.sources.position import Settings

    as_daemon()
    clock = Clock(time.time, time.monotonic)
    ledger, totals = Ledger(Path(state)), Totals(Limits(), zero_hold=60)
    shared = Shared(ledger, totals, clock)
    settings = Settings(60 * MICROSECONDS, int(_DAY * MICROSECONDS), 3600 * MICROSECONDS, 0.05)
    source = AgentOSSource(Target("bench", url, lambda: None), settings, clock)
    intake = Intake("bench", shared, overlap=60, horizon=3600)
    poller = Poller("bench", source, intake, shared, interval=15, deadline=600)
    start_cpu, began = time.process_time(), time.monotonic()
    await poller.poll()
    seconds = time.monotonic() - began
    spans = sum(int(series.value) for series in totals.stored() if series.metric == "agentos_spans_total")
    known = sum(int(series.value) for series in totals.stored() if series.metric == "agentos_runs_total")
    if known != expected:
        raise RuntimeError(f"read {known} of {expected} traces: {poller.health}")
    await poller.aclose()
    report(traces=known, spans=spans, seconds=seconds, start_cpu=start_cpu)


async def _documented(url: str, sample: int) -> None:
    from agno.client import AgentOSClient

    client = AgentOSClient(url)
    start_cpu, began = time.process_time(), time.monotonic()
    traces = spans = page = 0
    while traces < sample:
        page += 1
        found = await client.get_traces(limit=100, page=page)
        if not found.data:
            break
        for summary in found.data:
            detail = await client.get_trace(summary.trace_id)
            traces += 1
            spans += _count(detail.tree)  # type: ignore[union-attr]
    report(traces=traces, spans=spans, seconds=time.monotonic() - began, start_cpu=start_cpu)


def _count(nodes: list[object]) -> int:
    """Spans as the exporter counts them: without the HTTP requests."""
    return sum((node.type != "UNKNOWN") + _count(node.spans or []) for node in nodes)  # type: ignore[attr-defined]


if __name__ == "__main__":
    if sys.argv[1] == "ours":
        asyncio.run(_ours(sys.argv[2], sys.argv[3], int(sys.argv[4])))
    else:
        asyncio.run(_documented(sys.argv[2], int(sys.argv[3])))
