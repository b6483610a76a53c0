"""The database source: against the API, the bare query, and query-exporter; flat in the size of the tables; harmless.

The bare query is what the source itself asks for, once more by the engine's driver alone, rows dropped without any
processing. Beside it stands a plain query, which asks for all columns, prompts included, by one statement: of a first
read for the whole table, of a poll for the new spans. Tables are in the page cache. Bounds are those of the project;
times are the fastest of several: a machine has others to serve.
"""

from __future__ import annotations

import asyncio
import os
import sqlite3
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.measure import Cost, as_daemon, child, quantile, report
from benchmarks.rival import QueryExporter
from tests.harness import load
from tests.harness.agentos import RunningAgentOS
from tests.harness.exporter import reads
from tests.harness.postgres import Postgres, PostgresMissingError
from tests.harness.seed import seed

_DAY = 86400.0
_NEW = 100
_WINDOW = 4
"""Seconds; longer than it takes to write the new traces, and all that a poll of query-exporter looks at."""
_OVERLAP = 20.0
"""Seconds: some four polls here, as the default is with polls of 15 s"""
_Statement = tuple[str, tuple[Any, ...]]
_COLUMNS = "trace_id, span_id, parent_span_id, name, status_code, status_message, start_time, end_time, created_at, "


def main(*, quick: bool) -> None:
    """Run the measurements on SQLite, and those of polls on PostgreSQL too."""
    _say("first read")
    _first_read(1_000 if quick else 10_000)
    sizes = (1_000, 10_000) if quick else (10_000, 300_000)
    for engine in ("sqlite", "postgres"):
        _say(f"polls, {engine}")
        try:
            _polls(engine, sizes, rounds=5 if quick else 9)
        except PostgresMissingError as missing:
            print(missing)
    _say("latency of AgentOS")
    asyncio.run(_latency(10 if quick else 40))


def _say(what: str) -> None:
    print(f"-- {what} (load average {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores)", flush=True)


# The first read


def _first_read(traces: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        database = f"sqlite:{folder}/agno.db"
        seed(database, traces, spread=timedelta(hours=12))
        costs = {
            "plain query": _best(lambda: child(__name__, "plain", database)),
            "bare query": _best(lambda: child(__name__, "replayed", database, tempfile.mkdtemp(dir=folder))),
        }
        costs["tables"] = _best(lambda: child(__name__, "ours", database, tempfile.mkdtemp(dir=folder), traces))
        with RunningAgentOS(sys.executable, database) as agentos:
            costs["API"] = child("benchmarks.reading", "ours", agentos.base_url, Path(folder) / "state.db", traces)
        with QueryExporter(database) as rival:
            rival.scrape()
            exact = min(rival.scrape()[0] for _ in range(2))
    rates = {name: 8 * traces / float(cost.figures["seconds"]) for name, cost in costs.items()}
    print(f"{traces} traces on SQLite, 8 spans each, prompts of 8 to 30 kB")
    print(f"{'':>12} {'seconds':>8} {'spans/s':>9} {'CPU s':>6} {'peak MiB':>9}")
    for name, cost in costs.items():
        used = cost.cpu - cost.figures["start_cpu"]
        print(f"{name:>12} {cost.figures['seconds']:>8.2f} {rates[name]:>9.0f} {used:>6.2f} {cost.peak:>9.0f}")
    print(f"{'all-time SQL':>12} {exact:>8.2f} {8 * traces / exact:>9.0f}   (query-exporter, exact form: at each poll)")
    print(f"spans/s: {rates['tables'] / rates['API']:.1f} x those over the API (bound: 5)")
    bare, plain = (rates["tables"] / rates[name] for name in ("bare query", "plain query"))
    print(f"spans/s: {bare:.2f} x those of the bare query, our own statements with rows dropped (bound: 0.4)")
    print(f"spans/s: {plain:.2f} x those of the plain query")
    print(f"peak memory: {costs['tables'].peak:.0f} MiB (bound: 150)")


def _best(measure: Callable[[], Cost]) -> Cost:
    """The faster of two: the first one warms the page cache."""
    return min(measure(), measure(), key=lambda cost: float(cost.figures["seconds"]))


def _plain(database: str) -> None:
    path = database.partition(":")[2]
    start_cpu, began, size = time.process_time(), time.monotonic(), 0
    connection = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
    for row in connection.execute(f"SELECT {_COLUMNS}attributes FROM agno_spans"):
        size += len(row[-1])
    report(seconds=time.monotonic() - began, start_cpu=start_cpu, bytes=size)


async def _replayed(database: str, folder: str) -> None:
    """The statements of a first read once more, by SQLite's driver alone."""
    from exporter.sources.database import connection

    said: list[_Statement] = []
    connection._no_query = lambda sql, params: said.append((sql, tuple(params)))  # type: ignore[assignment]  # noqa: SLF001
    poller, _ = _poller(database, Path(folder) / "state.db", _DAY)
    await poller.poll()
    await poller.aclose()
    sqlite = sqlite3.connect(f"file:{database.partition(':')[2]}?mode=ro", uri=True)
    start_cpu, began, rows = time.process_time(), time.monotonic(), 0
    for sql, params in said:
        for _ in sqlite.execute(sql, params):
            rows += 1
    report(seconds=time.monotonic() - began, start_cpu=start_cpu, rows=rows)


def _poller(database: str, state: Path, lookback: float) -> Any:
    """A poller as the daemon has one, prices aside, and the totals that it fills."""
    from exporter.bookkeeping.intake import Intake
    from exporter.bookkeeping.shared import Shared
    from exporter.core.logs import configure
    from exporter.core.model import MICROSECONDS, Clock
    from exporter.ledger.store import Ledger
    from exporter.metrics.series import Limits
    from exporter.metrics.totals import Totals
    from exporter.service.poller import Poller
    from exporter.sources.database.location import parse
    from exporter.sources.database.source import DatabaseSource, DatabaseTarget
    from exporter.sources.position import Settings

    configure("error")
    as_daemon()
    clock = Clock(time.time, time.monotonic)
    ledger, totals = Ledger(state), Totals(Limits(), zero_hold=60)
    shared = Shared(ledger, totals, clock)
    settings = Settings(round(_OVERLAP * MICROSECONDS), round(lookback * MICROSECONDS), 3600 * MICROSECONDS, 0.05)
    location = parse(str(reads(database)["database"]), Path("/"))
    source = DatabaseSource("bench", [DatabaseTarget(location, lambda: None)], settings, clock)
    intake = Intake("bench", shared, overlap=_OVERLAP, horizon=3600)
    return Poller("bench", source, intake, shared, interval=15, deadline=600), totals


async def _ours(database: str, folder: str, expected: int) -> None:
    poller, totals = _poller(database, Path(folder) / "state.db", _DAY)
    start_cpu, began = time.process_time(), time.monotonic()
    await poller.poll()
    seconds = time.monotonic() - began
    _expect(expected, totals, poller)
    await poller.aclose()
    report(seconds=seconds, start_cpu=start_cpu)


def _expect(runs: int, totals: Any, poller: Any) -> None:
    known = sum(int(series.value) for series in totals.stored() if series.metric == "agentos_runs_total")
    if known != runs:
        raise RuntimeError(f"counted {known} of {runs} runs: {poller.health}")


# Polls


def _polls(engine: str, sizes: tuple[int, int], rounds: int) -> None:
    """Polls that find 100 new traces, in small tables, in large ones, and in small ones with long prompts."""
    figures: dict[str, dict[str, Any]] = {}
    shapes = {
        "small": (sizes[0], (100, 300)),
        "large": (sizes[1], (100, 300)),
        "long prompts": (sizes[0], (8_000, 30_000)),
    }
    print(
        f"{'':>26} {'ours':>9} {'bare query':>11} {'plain query':>12} {'windowed SQL':>13} {'all-time SQL':>13}"
        f"   ms, fastest of {rounds}"
    )
    for name, (traces, prompt) in shapes.items():
        with _database(engine) as database:
            until = datetime.now(UTC) - timedelta(minutes=10)
            seed(database, traces, until=until, spread=timedelta(days=14), prompt_bytes=prompt)
            figures[name] = child(__name__, "polls", database, rounds, *prompt).figures
        times = figures[name]
        widths = {"bare": 12, "plain": 13, "windowed": 14, "exact": 14}
        rest = "".join(f"{times[key]:>{width}.1f}" for key, width in widths.items())
        print(f"{name:>13} ({traces:>7}) {times['ours']:>11.1f}{rest}", flush=True)
    flat = figures["large"]["ours"] / figures["small"]["ours"]
    print(f"ours at {sizes[1]} traces: {flat:.2f} x that at {sizes[0]} (bound: 1.3)")
    long = figures["long prompts"]
    print(f"ours, long prompts: {long['ours'] / long['bare']:.2f} x the bare query, our own statements (bound: 4)")
    print(f"ours, long prompts: {long['ours'] / long['plain']:.2f} x the plain query")
    for name, times in figures.items():
        print(
            f"{name}: query-exporter takes {times['windowed'] / times['ours']:.1f} x as long in its windowed, inexact "
            f"form and {times['exact'] / times['ours']:.1f} x in its exact one (bounds: 1)"
        )


@contextmanager
def _database(engine: str) -> Iterator[str]:
    if engine == "sqlite":
        with tempfile.TemporaryDirectory() as folder:
            yield f"sqlite:{folder}/agno.db"
    else:
        with Postgres() as server:
            yield f"postgres:{server.url('agno')}"


def _connect(database: str) -> tuple[Callable[[str, tuple[Any, ...]], list[Any]], str]:
    """A function that runs a statement by the engine's driver alone, and the plain query for what is new."""
    kind, _, rest = database.partition(":")
    if kind == "sqlite":
        sqlite = sqlite3.connect(f"file:{rest}?mode=ro", uri=True)
        plain = f"SELECT {_COLUMNS}attributes FROM agno_spans WHERE created_at >= ?"
        return lambda sql, params: sqlite.execute(sql, params).fetchall(), plain
    import psycopg
    from psycopg.types.string import TextLoader

    postgres = psycopg.connect(rest, autocommit=True)
    postgres.adapters.register_loader("jsonb", TextLoader)
    plain = f"SELECT {_COLUMNS}attributes::text FROM ai.agno_spans WHERE created_at >= %s"
    return lambda sql, params: postgres.execute(sql, params or None).fetchall(), plain  # type: ignore[arg-type]


async def _measure_polls(database: str, rounds: int, prompt: tuple[int, int]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        poller, totals = _poller(database, Path(folder) / "state.db", 300)
        scout, scouted = _poller(database, Path(folder) / "scout.db", 300)
        run, plain_query = _connect(database)
        said: list[_Statement] = []
        for feed in scout._source.feeds:  # noqa: SLF001
            feed.connection.on_query = lambda sql, params: said.append((sql, _parameters(sql, params)))
        with QueryExporter(database, _WINDOW) as windowed, QueryExporter(database) as exact:
            times: dict[str, list[float]] = {name: [] for name in ("ours", "bare", "plain", "windowed", "exact")}
            await poller.poll()
            await scout.poll()
            for number in range(rounds + 1):  # the first one warms up
                began = datetime.now(UTC)
                news = {"until": began, "spread": timedelta(seconds=1), "prompt_bytes": prompt, "written": began}
                await asyncio.to_thread(seed, database, _NEW, number=number + 1, **news)
                since = began.isoformat()
                said.clear()
                await scout.poll()  # its statements are those that ours is about to say, and nobody comes first
                _expect(_NEW * (number + 1), scouted, scout)

                async def ours() -> float:
                    began = time.perf_counter()
                    await poller.poll()
                    return time.perf_counter() - began

                async def plain(since: str = since) -> float:
                    began = time.perf_counter()
                    found = len(run(plain_query, (since,)))
                    took = time.perf_counter() - began
                    if found != 8 * _NEW:
                        raise RuntimeError(f"the plain query found {found} spans")
                    return took

                async def theirs(rival: QueryExporter = windowed) -> float:
                    return (await asyncio.to_thread(rival.scrape))[0]

                ways: dict[str, Callable[[], Awaitable[float]]] = {"plain": plain, "ours": ours, "windowed": theirs}
                ways["bare"] = partial(_replay, run, said)
                for name, way in ways.items() if number % 2 else reversed(ways.items()):
                    times[name].append(await way())
                if number in {0, 1}:  # it takes the longer, and always the same
                    times["exact"].append(await theirs(exact))
                _expect(_NEW * (number + 1), totals, poller)
                await asyncio.sleep(_WINDOW)
        await poller.aclose()
        await scout.aclose()
    report(**{name: 1000 * min(some[1:]) for name, some in times.items()})


async def _replay(run: Callable[[str, tuple[Any, ...]], list[Any]], said: Sequence[_Statement]) -> float:
    """Seconds that these statements take by themselves."""
    began = time.perf_counter()
    for statement in said:
        run(*statement)
    return time.perf_counter() - began


def _parameters(sql: str, params: Sequence[Any]) -> tuple[Any, ...]:
    """As the driver takes them: PostgreSQL's an array."""
    return (list(params),) if "ANY(%s)" in sql else tuple(params)


# Latency of AgentOS


async def _latency(seconds: float) -> None:
    """Latency of runs and of AgentOS's /health under the same load, without the exporter and with it, in turns."""
    from benchmarks.harmless import _health

    for engine in ("sqlite", "postgres"):
        try:
            with _database(engine) as database, tempfile.TemporaryDirectory() as folder:
                await asyncio.to_thread(
                    seed,
                    database,
                    2_000 if seconds < 20 else 10_000,
                    spread=timedelta(hours=6),
                    prompt_bytes=(1_000, 4_000),
                )
                with RunningAgentOS(sys.executable, database) as agentos:
                    await load.steady(agentos.base_url, rate=3, seconds=3, leaving=False)
                    took: dict[str, list[float]] = {"without": [], "with": []}
                    for turn in range(4):
                        name = "with" if turn % 2 else "without"
                        took[name] += await _beside(agentos.base_url, database, folder, seconds / 2, name, _health)
            for name, values in took.items():
                p50, p99 = 1000 * median(values), 1000 * quantile(values, 0.99)
                print(f"{engine}: AgentOS's latency {name:>7} the exporter: p50 {p50:.1f} ms, p99 {p99:.1f} ms")
        except PostgresMissingError as missing:
            print(missing)


async def _beside(
    url: str,
    database: str,
    folder: str,
    seconds: float,
    name: str,
    health: Callable[[str, float], Awaitable[list[float]]],
) -> list[float]:
    if name == "without":
        return await health(url, seconds)
    poller, _ = _poller(database, Path(tempfile.mkdtemp(dir=folder)) / "state.db", 60)
    stop = asyncio.Event()

    async def poll() -> None:
        while not stop.is_set():
            await poller.poll()
            await asyncio.sleep(2)

    polling = asyncio.create_task(poll())
    try:
        return await health(url, seconds)
    finally:
        stop.set()
        await polling
        await poller.aclose()


if __name__ == "__main__":
    what, arguments = sys.argv[1], sys.argv[2:]
    if what == "plain":
        _plain(arguments[0])
    elif what == "replayed":
        asyncio.run(_replayed(*arguments))
    elif what == "ours":
        asyncio.run(_ours(arguments[0], arguments[1], int(arguments[2])))
    else:
        asyncio.run(_measure_polls(arguments[0], int(arguments[1]), (int(arguments[2]), int(arguments[3]))))
