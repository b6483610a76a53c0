"""A commit of 500 series and 800 spans to a file of SQLite, and to PostgreSQL on the same machine."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

import psycopg

from benchmarks.measure import quantile
from exporter.core.model import TraceState
from exporter.counting.delta import Delta
from exporter.ledger.leases import Leases
from exporter.ledger.postgres import StateDatabase
from exporter.ledger.records import Changes, Record
from exporter.ledger.store import Ledger
from exporter.metrics.series import Limits
from exporter.metrics.totals import Totals
from tests.harness.postgres import Postgres

_SERIES, _TRACES, _SPANS = 500, 100, 8


def main(*, quick: bool) -> None:
    """Commit the same to both, in turns; print the median and the worst of each."""
    rounds = 20 if quick else 200
    with tempfile.TemporaryDirectory() as folder, Postgres() as postgres:
        url = postgres.url("state")
        place = StateDatabase(
            "here",
            lambda: psycopg.connect(url, prepare_threshold=None),
            Leases("benchmark", 15.0),
            schema="agentos_exporter",
        )
        ledgers = {"SQLite": Ledger(Path(folder, "state.db")), "PostgreSQL": Ledger(place)}
        ledgers["PostgreSQL"].elect(["bench"])
        totals = {name: Totals(Limits(), zero_hold=0) for name in ledgers}
        took: dict[str, list[float]] = {name: [] for name in ledgers}
        for number in range(rounds):
            for name, ledger in ledgers.items():
                changes = _changes(number, totals[name])
                began = time.perf_counter()
                ledger.commit(changes)
                took[name].append(1000 * (time.perf_counter() - began))
                totals[name].apply(changes.plan)
        for ledger in ledgers.values():
            ledger.close()
    print(f"{'':>12} {'p50 ms':>8} {'p99 ms':>8}")
    for name, times in took.items():
        print(f"{name:>12} {quantile(times, 0.5):>8.1f} {quantile(times, 0.99):>8.1f}")
    print(f"p50: {quantile(took['PostgreSQL'], 0.5) / quantile(took['SQLite'], 0.5):.1f} x (bound: 4)")


def _changes(number: int, totals: Totals) -> Changes:
    delta = Delta("bench")
    for one in range(_SERIES):
        delta.add("agentos_spans_total", ("bench", f"root{one % 20}", f"agent{one // 20}", "llm"))
    records = [
        Record(
            f"{number:08x}{trace:024x}",
            "db",
            TraceState.SETTLED,
            *(_SPANS, _SPANS, number, number, number, number, 0, 0),
            spans={(number * _TRACES + trace) * _SPANS + span for span in range(_SPANS)},
        )
        for trace in range(_TRACES)
    ]
    cursor = ("db", {"cutoff": number})
    return Changes("bench", records, totals.plan(delta, show=True), cursor=cursor)
