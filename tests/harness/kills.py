"""Daemons that are killed over and over while somebody watches what they show."""

import sqlite3
import time
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random

import httpx

from tests.harness.exporter import RunningExporter
from tests.harness.inprocess import PERSISTED
from tests.harness.repeating import Repeating


class Watch(Repeating):
    """Scrapes without a pause in a thread of its own, and notes each persisted series that falls or vanishes."""

    def __init__(self, url: str, *, pause: float = 0.1) -> None:
        super().__init__(pause=pause)
        self.scrapes = 0
        self.refused = 0
        self.violations: list[str] = []
        self.seen: dict[str, float] = {}
        self._url = url

    def _run(self) -> None:
        with httpx.Client(timeout=10, trust_env=False) as client:
            while self.again():
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
