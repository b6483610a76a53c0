"""How soon replicas take over from one that is killed, and how much faster four of them read than one."""

from __future__ import annotations

import os
import re
import tempfile
import time
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

import psycopg

from benchmarks.measure import cpu, quantile
from exporter.ledger.leases import FLEET, Leases
from exporter.ledger.postgres import StateDatabase
from exporter.ledger.store import Ledger
from tests.harness import truth
from tests.harness.postgres import Postgres
from tests.harness.replicas import IDLE, LEADER, LEASE, Replicas
from tests.harness.seed import seed

_NAMES = 64
"""Instances whose history is read: each is read gently, so it takes many to keep a core busy."""
_SPANS = re.compile(r"^agentos_spans_total\{.*\} (\S+)$", re.MULTILINE)


def main(*, quick: bool) -> None:
    """Print both."""
    with tempfile.TemporaryDirectory() as folder, Postgres() as postgres:
        _take_over(Path(folder), postgres, instances=20 if quick else 200, kills=2 if quick else 10)
        _throughput(Path(folder), postgres, traces=100 if quick else 800)


def _take_over(folder: Path, postgres: Postgres, *, instances: int, kills: int) -> None:
    names = {f"it{number}": "http://127.0.0.1:9" for number in range(instances)}
    (own := folder / "take-over").mkdir()
    took: list[float] = []
    others = 0
    with Replicas(own, 4, names, postgres.url("taken"), **IDLE) as replicas:
        for number in range(kills):
            before = replicas.wait_until_shared()
            dead = number % 4
            mine = {name for name, leader in before.items() if leader == dead}
            replicas.exporters[dead].kill()
            began, seen = time.monotonic(), set[str]()
            while seen != mine:
                pages = replicas.pages()
                new = {name for name in mine - seen if any(f'{LEADER}{{agentos="{name}"}} 1' in page for page in pages)}
                took += [(time.monotonic() - began) / LEASE] * len(new)
                seen |= new
            after = replicas.wait_until_shared()
            others += sum(after[name] != leader for name, leader in before.items() if name not in mine)
            replicas.exporters[dead].start()
    print(f"{instances} instances over 4 replicas, one killed {kills} times, in leases: "
          f"p50 {quantile(took, 0.5):.1f}, p99 {quantile(took, 0.99):.1f}, longest {max(took):.1f} (bound: 3); "
          f"instances of others that moved: {others} (bound: 0)")  # fmt: skip


def _throughput(folder: Path, postgres: Postgres, *, traces: int) -> None:
    """Let 8 instances be read from tables, so that no AgentOS is the limit."""
    database = f"sqlite:{folder}/agno.db"
    until = datetime.now(UTC) - timedelta(minutes=20)
    spans = _NAMES * seed(database, traces, until=until, prompt_bytes=(50, 80), http_roots=False)
    names = {f"it{number}": {"database": f"sqlite:///{folder}/agno.db"} for number in range(_NAMES)}
    print(f"{os.cpu_count()} cores; {spans:,} spans under {_NAMES} names, read from tables")
    rates = {}
    for count in (1, 4):
        (own := folder / f"replicas-{count}").mkdir()
        url = postgres.url(f"read{count}")
        # Until all of them run, none of them leads.
        connect = partial(psycopg.connect, url, prepare_threshold=None)
        holder = Ledger(StateDatabase("here", connect, Leases("benchmark", 600), schema="agentos_exporter"))
        holder.elect([*names, FLEET])
        with Replicas(own, count, names, url, initial_lookback="3h") as replicas:
            before, began = _cpu(replicas), time.monotonic()
            holder.close()
            truth.wait_until(lambda replicas=replicas: _read(replicas) >= spans, deadline=1200, pause=0.2)
            seconds = time.monotonic() - began
            rates[count] = spans / seconds
            print(f"{count} replicas: {rates[count]:,.0f} spans/s, {(_cpu(replicas) - before) / seconds:.2f} cores")
    print(f"4 replicas read {rates[4] / rates[1]:.1f} x as fast as one (bound: 3 where there are cores)")


def _cpu(replicas: Replicas) -> float:
    return sum(cpu(exporter.process.pid) for exporter in replicas.exporters if exporter.process is not None)


def _read(replicas: Replicas) -> float:
    return sum(float(value) for page in replicas.pages(timeout=30) for value in _SPANS.findall(page))
