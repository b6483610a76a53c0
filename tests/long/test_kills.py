"""A daemon that is killed at any moment counts every span once, and no scraper ever sees a counter fall or vanish."""

import asyncio
import os
import signal
import sqlite3
import sys
import threading
import time
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random
from types import TracebackType
from typing import Self

import httpx
import pytest

from exporter.catalog import METRICS, Kind, Life
from tests.harness import load, seed, truth
from tests.harness.agentos import RunningAgentOS
from tests.harness.exporter import RunningExporter, total

pytestmark = [pytest.mark.crash, pytest.mark.slow]

NAME = "it"
SEED = int(os.environ.get("CRASH_SEED", "1"))
HISTORY = 10_000
KILLS = 50
RATE = 2.0
SMALL = (50, 80)
SEEDED = ("Support_Desk", "Researcher", "Code_Review", "Planner_v2.1", "Translator")
"""Names of the agents in the history, as spans spell them."""

PERSISTED = frozenset(
    name + suffix
    for name, metric in METRICS.items()
    if metric.life is Life.DURABLE
    for suffix in (("_bucket", "_count", "_sum") if metric.kind is Kind.HISTOGRAM else ("",))
)
"""Names of the samples that must never fall."""


class Watch:
    """Scrapes without a pause in a thread of its own, and notes each persisted series that falls or vanishes."""

    def __init__(self, url: str, *, pause: float = 0.1) -> None:
        self.scrapes = 0
        self.refused = 0
        self.violations: list[str] = []
        self.seen: dict[str, float] = {}
        self._url = url
        self._pause = pause
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._run, name="watch")

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._done.set()
        self._thread.join()

    def _run(self) -> None:
        with httpx.Client(timeout=10, trust_env=False) as client:
            while not self._done.wait(self._pause):
                try:
                    answer = client.get(self._url)
                except httpx.TransportError:
                    self.refused += 1
                    continue
                if answer.status_code == 200:
                    self.scrapes += 1
                    self.take(answer.text)
                else:
                    self.violations.append(f"scrape {self.scrapes}: {answer.status_code}")

    @property
    def spans(self) -> float:
        """Return how many spans were counted by the last scrape."""
        return sum(value for series, value in self.seen.copy().items() if series.startswith("agentos_spans_total{"))

    def take(self, text: str) -> None:
        """Compare one page with all before it."""
        now = persisted(text)
        for series, value in self.seen.items():
            if series not in now:
                self.violations.append(f"scrape {self.scrapes}: {series} vanished, it was {value}")
            elif now[series] < value:
                self.violations.append(f"scrape {self.scrapes}: {series} fell from {value} to {now[series]}")
        self.seen.update(now)


def persisted(text: str) -> dict[str, float]:
    """Persisted samples of a page; not by prometheus_client's parser, which takes 50 times as long."""
    found = {}
    for line in text.splitlines():
        series, _, value = line.rpartition(" ")
        if series.partition("{")[0] in PERSISTED:
            found[series] = float(value)
    return found


def history_counted(exporter: RunningExporter) -> float:
    """Return how many of the seeded runs are counted; the live ones have other names."""
    samples = exporter.samples()
    return sum(total(samples, "agentos_runs_total", root=agent) for agent in SEEDED)


def delete_half(path: Path, kept: Path, random: Random) -> int:
    """Delete half of the old traces from agno's tables, put them aside into `kept`, and return how many they were."""
    connection = sqlite3.connect(path, timeout=60, isolation_level=None)
    connection.execute("ATTACH ? AS kept", (str(kept),))
    for table in ("agno_traces", "agno_spans"):
        connection.execute(f"CREATE TABLE kept.{table} AS SELECT * FROM main.{table} WHERE FALSE")
    old = (datetime.now(UTC) - timedelta(minutes=30)).isoformat()
    query = "SELECT trace_id FROM agno_traces WHERE end_time < ? ORDER BY trace_id"
    traces = [row[0] for row in connection.execute(query, (old,))]
    gone = random.sample(traces, len(traces) // 2)
    for start in range(0, len(gone), 250):  # AgentOS goes on writing in between
        some = gone[start : start + 250]
        of = f"WHERE trace_id IN ({','.join('?' * len(some))})"
        connection.execute("BEGIN IMMEDIATE")
        for table in ("agno_spans", "agno_traces"):
            connection.execute(f"INSERT INTO kept.{table} SELECT * FROM main.{table} {of}", some)
            connection.execute(f"DELETE FROM main.{table} {of}", some)
        connection.execute("COMMIT")
    connection.close()
    return len(gone)


def kill_often(exporter: RunningExporter, times: int, random: Random, watch: Watch) -> Counter[str]:
    """Kill and start it over and over: every other time after it began to serve, else a while after its start.

    How long it may live depends on how long it takes to begin. Every fourth one hardly gets that far, and every fifth
    is no fork: as users start it.
    Returns how many lives ended before it served, while it served, and of these, after it had counted something.
    """
    died: Counter[str] = Counter()
    start = 0.0
    for number in range(times):
        scrapes, before = watch.scrapes, watch.spans
        if exporter.process is None:
            exporter.spawn(fork=number % 5 > 0)
        if number % 2:
            began = time.monotonic()
            exporter.wait_until_serving()
            took = time.monotonic() - began
            start = max(start, took)
            life = random.uniform(0.2, max(4.0, 2 * took))  # new series show after a second at the earliest
        elif number % 4:
            life = random.uniform(0.2, max(3.0, 1.5 * start))
        else:
            life = random.uniform(0.02, 0.3)
        time.sleep(life)
        assert exporter.process is not None
        assert exporter.process.poll() is None, "it ended by itself"
        exporter.kill()
        served, counted = watch.scrapes > scrapes, watch.spans > before
        died["counting" if counted else "serving" if served else "starting"] += 1
        assert watch.violations == []
    return died


async def test_fifty_kills_lose_nothing_and_no_counter_ever_falls(tmp_path: Path) -> None:
    began, random = time.monotonic(), Random(SEED)
    path, kept = tmp_path / "agno.db", tmp_path / "kept.db"
    database = f"sqlite:{path}"
    until = datetime.now(UTC) - timedelta(hours=1)
    spans = await asyncio.to_thread(
        seed.seed, database, HISTORY, until=until, spread=timedelta(hours=2), prompt_bytes=SMALL, number=SEED
    )
    with RunningAgentOS(sys.executable, database) as agentos:
        stop = asyncio.Event()
        with (
            RunningExporter(tmp_path, {NAME: agentos.base_url}, initial_lookback="3h10m") as exporter,
            Watch(f"{exporter.base_url}/metrics") as watch,
        ):
            exporter.kill()
            traffic = asyncio.create_task(load.steady(agentos.base_url, rate=RATE, until=stop, seed=SEED))
            try:
                died = await asyncio.to_thread(kill_often, exporter, KILLS // 2, random, watch)
                assert died["counting"] >= 3, "it was hardly ever killed in the middle of the history"

                # Only what was counted may be deleted.
                await asyncio.to_thread(exporter.start)
                await asyncio.to_thread(
                    truth.wait_until, lambda: history_counted(exporter) == HISTORY, deadline=120, pause=0.5
                )
                gone = await asyncio.to_thread(delete_half, path, kept, random)
                assert gone == HISTORY // 2

                died += await asyncio.to_thread(kill_often, exporter, KILLS - KILLS // 2, random, watch)
            finally:
                stop.set()
                outcome = await traffic
            await asyncio.to_thread(agentos.wait_until_quiet)
            expected = await asyncio.to_thread(truth.count, [database, f"sqlite:{kept}"], NAME)
            await asyncio.to_thread(exporter.start)
            samples = await asyncio.to_thread(exporter.agree, expected)
            assert exporter.stop() == (0, pytest.approx(0, abs=5))
    assert outcome.failed == {}
    assert expected.traces >= HISTORY + outcome.started
    assert expected.spans > spans
    assert not expected.hidden
    assert total(samples, "agentos_exporter_hidden_spans_total") == 0
    # With half of the traces all three that are asked for as witnesses may go: that is noticed, once.
    assert total(samples, "agentos_exporter_source_resets_total") <= 1
    assert total(samples, "agentos_exporter_ignored_traces_total") == 0
    assert watch.violations == []
    assert sum(died.values()) == KILLS
    assert died["starting"]
    assert died["counting"] > KILLS // 5
    assert watch.scrapes > 100
    print(
        f"seed {SEED}: {KILLS} kills ({died['starting']} before it served, {died['serving']} while it served, "
        f"{died['counting']} after it had counted spans in that life), {gone} of {HISTORY} old traces deleted, "
        f"{outcome.started} live runs, {expected.traces} traces, {expected.spans} spans, "
        f"{watch.scrapes} scrapes (+{watch.refused} refused) of up to {len(watch.seen)} persisted samples: "
        f"difference 0, nothing fell, {time.monotonic() - began:.0f} s"
    )


@pytest.mark.parametrize("repeat", range(3))
def test_sigterm_ends_it_in_order_in_the_middle_of_a_backlog(tmp_path: Path, repeat: int) -> None:
    database = f"sqlite:{tmp_path / 'agno.db'}"
    until = datetime.now(UTC) - timedelta(minutes=5)
    seed.seed(database, 3_000, until=until, prompt_bytes=SMALL)
    expected = truth.count(database, NAME)
    with (
        RunningAgentOS(sys.executable, database) as agentos,
        RunningExporter(tmp_path, {NAME: agentos.base_url}, initial_lookback="3h") as exporter,
        Watch(f"{exporter.base_url}/metrics") as watch,
    ):
        truth.wait_until(lambda: exporter.total("agentos_runs_total") > repeat * 500)
        assert exporter.total("agentos_exporter_catching_up") == 1
        before = exporter.total("agentos_runs_total")
        code, seconds = exporter.stop()
        assert (code, seconds) == (0, pytest.approx(0, abs=5))
        assert "msg=stopped" in exporter.logs
        assert "Traceback" not in exporter.logs
        assert before < 3_000
        exporter.start()
        samples = exporter.agree(expected)
        assert total(samples, "agentos_traces_total") == 3_000
    assert watch.violations == []


def test_sigterm_ends_it_while_agentos_hangs(tmp_path: Path) -> None:
    database = f"sqlite:{tmp_path / 'agno.db'}"
    with RunningAgentOS(sys.executable, database) as agentos:
        asyncio.run(load.drive(agentos.base_url, runs=20, leaving=False))
        agentos.wait_until_quiet()
        expected = truth.count(database, NAME)
        with RunningExporter(tmp_path, {NAME: agentos.base_url}) as exporter:
            exporter.agree(expected)
            assert agentos.process is not None
            agentos.process.send_signal(signal.SIGSTOP)
            try:
                # A poll a second: when none has ended for three, one of them hangs.
                polls, since = -1.0, time.monotonic()
                while time.monotonic() - since < 3:
                    if (now := exporter.total("agentos_exporter_polls_total")) != polls:
                        polls, since = now, time.monotonic()
                    time.sleep(0.1)
                code, seconds = exporter.stop()
            finally:
                agentos.process.send_signal(signal.SIGCONT)
            assert (code, seconds) == (0, pytest.approx(0, abs=5))
            exporter.start()
            exporter.agree(expected)
