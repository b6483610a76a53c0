"""Backfill: how fast it reads, beside a first read of the daemon, and what memory the past of a month takes.

The first read is that of `reading` and `database`: the same traces, counted and committed to a state file. A backfill
counts into its work file, and prices too. Writing the output is told apart: it depends on days and series, not traces.

What reading costs the users of AgentOS is measured in pairs of rounds, without and with a backfill beside them, at
several rates. So what else the machine does hits both alike, and how much rounds of a kind differ is the noise.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
import tempfile
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from benchmarks.measure import Cost, as_daemon, child, report
from benchmarks.users import say_latency, users
from tests.harness.agentos import RunningAgentOS
from tests.harness.exporter import reads
from tests.harness.past import backfill, configured
from tests.harness.seed import seed

_STEP = 60_000
_ROUNDS = 3
_RATES = (10, 20, 50, None)
"""Traces a second; None: no limit"""
_BEGUN = 200_000
"""Bytes of the work file's journal once a first batch is read"""


def main(*, quick: bool) -> None:
    """Seed, read both ways from both sources, then a month; then latency."""
    _rates(1_000 if quick else 10_000)
    _month(10_000 if quick else 100_000)
    latency(rounds=1 if quick else 6, seconds=3 if quick else 10)


def _rates(traces: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        database = f"sqlite:{folder}/agno.db"
        seed(database, traces, spread=timedelta(hours=12))
        with RunningAgentOS(sys.executable, database) as agentos:
            url = agentos.base_url
            _compare("API", ("benchmarks.reading", "ours", url), (__name__, "api", url), folder, traces)
        _compare(
            "database", ("benchmarks.database", "ours", database), (__name__, "database", database), folder, traces
        )


def _compare(source: str, first: tuple[str, str, str], past: tuple[str, str, str], folder: str, traces: int) -> None:
    """Run both in turn, as the machine may have others to serve, and compare the fastest of each."""
    firsts: list[Cost] = []
    pasts: list[Cost] = []
    for _ in range(_ROUNDS):
        new = Path(tempfile.mkdtemp(dir=folder))
        firsts.append(child(*first, new / "state.db" if source == "API" else new, traces))
        pasts.append(child(*past, tempfile.mkdtemp(dir=folder), 1, traces))
    _say_rate(
        source, *(min(costs, key=lambda cost: float(cost.figures["seconds"])) for costs in (firsts, pasts)), traces
    )


def _say_rate(source: str, first: Cost, past: Cost, traces: int) -> None:
    rates = [traces / float(cost.figures["seconds"]) for cost in (first, past)]
    print(f"{source:>8}: {rates[1]:.0f} traces/s, a first read {rates[0]:.0f}: {rates[1] / rates[0]:.2f} (bound: 0.8)")
    print(f"{'':>8}  written in {past.figures['writing']:.1f} s, peak {past.peak:.0f} MiB")


def _month(traces: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        database = f"sqlite:{folder}/agno.db"
        seed(database, traces, spread=timedelta(days=30), prompt_bytes=(50, 80))
        costs = {"database": child(__name__, "database", database, tempfile.mkdtemp(dir=folder), 31, traces)}
        with RunningAgentOS(sys.executable, database) as agentos:
            costs["API"] = child(__name__, "api", agentos.base_url, tempfile.mkdtemp(dir=folder), 31, traces)
    for source, cost in costs.items():
        figures = cost.figures
        print(
            f"{traces} traces of 30 days, {source}: read in {figures['seconds']:.0f} s, "
            f"{figures['size'] / 2**20:.0f} MiB written in {figures['writing']:.0f} s, "
            f"peak {cost.peak:.0f} MiB (bound: 200)"
        )


def latency(rounds: int, seconds: float) -> None:
    """Print how long AgentOS's users wait while a backfill reads at each rate, beside how long they do without."""
    with tempfile.TemporaryDirectory() as folder:
        database = f"sqlite:{folder}/agno.db"
        seed(database, 20_000, spread=timedelta(days=3), prompt_bytes=(1_000, 4_000))
        with RunningAgentOS(sys.executable, database) as agentos:
            asyncio.run(users(agentos.base_url, seconds))  # what is new to AgentOS is slow
            for rate in _RATES:
                _compare_latency(agentos.base_url, folder, rate, rounds, seconds)


def _compare_latency(url: str, folder: str, rate: int | None, rounds: int, seconds: float) -> None:
    without: list[tuple[float, ...]] = []
    beside: list[tuple[float, ...]] = []
    for _ in range(rounds):
        without.append(asyncio.run(users(url, seconds)))
        with _reading(url, Path(tempfile.mkdtemp(dir=folder)), rate):
            beside.append(asyncio.run(users(url, seconds)))
    print(f"users of AgentOS, with a backfill {f'of {rate} traces/s' if rate else 'as fast as it may'}:")
    say_latency(without, beside)


@contextlib.contextmanager
def _reading(url: str, folder: Path, rate: int | None) -> Iterator[None]:
    """The command reads meanwhile."""
    config = configured(folder, "memory", url=url)
    limit = ("--rate", rate) if rate else ()
    begin = (datetime.now(UTC) - timedelta(days=4)).isoformat()
    until = datetime.now(UTC).isoformat()
    process = backfill(config, "--from", begin, "--to", until, "--step", "5m", *limit, "--output", f"{folder}/past/")
    work = folder / "past.backfill-wal"
    while process.poll() is None and not (work.exists() and work.stat().st_size > _BEGUN):
        time.sleep(0.05)
    try:
        yield
        if process.poll() is not None:
            raise RuntimeError("it had read everything before the round was over")
    finally:
        process.kill()
        process.communicate()


async def _backfill(what: str, where: str, folder: str, days: int, expected: int) -> None:
    from exporter.backfill.counting import Counter
    from exporter.backfill.output import Output
    from exporter.backfill.period import Period
    from exporter.backfill.reading import Reading
    from exporter.backfill.work import Work
    from exporter.core.logs import configure
    from exporter.core.model import Clock
    from exporter.core.times import micros
    from exporter.counting.cashier import Cashier
    from exporter.ledger.coverage import Coverage
    from exporter.metrics.series import Limits
    from exporter.metrics.totals import Totals
    from exporter.pricing.entries import NO_PRICES
    from exporter.pricing.prices import Pricer

    configure("error")
    as_daemon()
    until = datetime.now(UTC)
    period = Period(micros(until - timedelta(days=days)), micros(until), _STEP)
    clock = Clock(time.time, time.monotonic)
    source = _source(what, where, clock)
    work = Work(Path(folder) / "past.backfill", {})
    pricer = Pricer(NO_PRICES, prices_update=False)
    counter = Counter("bench", period, work, Cashier(pricer), Totals(Limits(), zero_hold=0), Coverage())
    start_cpu, began = time.process_time(), time.monotonic()
    await Reading(source, counter, work, clock).run(period)
    counter.close_sessions()
    seconds, began = time.monotonic() - began, time.monotonic()
    if work.figures()["traces"] != expected:
        raise RuntimeError(f"read {work.figures()} of {expected} traces")
    paths = Output(work, period, ()).write(Path(folder) / "past", by_day=True)
    writing = time.monotonic() - began
    size = sum(path.stat().st_size for path in paths)
    work.remove()
    await source.aclose()
    report(seconds=seconds, writing=writing, size=size, start_cpu=start_cpu)


def _source(what: str, where: str, clock: Any) -> Any:
    from exporter.core.model import MICROSECONDS
    from exporter.sources.position import Settings

    settings = Settings(60 * MICROSECONDS, 0, 3600 * MICROSECONDS, 0.05)
    if what == "api":
        from exporter.sources.api.source import AgentOSSource, Target

        return AgentOSSource(Target("bench", where, lambda: None), settings, clock)
    from exporter.sources.database.location import parse
    from exporter.sources.database.source import DatabaseSource, DatabaseTarget

    location = parse(str(reads(where)["database"]), Path("/"))
    return DatabaseSource("bench", [DatabaseTarget(location, lambda: None)], settings, clock)


if __name__ == "__main__":
    asyncio.run(_backfill(sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4]), int(sys.argv[5])))
