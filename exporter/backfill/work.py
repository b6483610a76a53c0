"""The work file: the increments of a backfill so far. A batch is one transaction, so a kill loses nothing.

It is a SQLite database beside the output. It keeps increments, not sums: traces come in the order of their ends, and
spans of a long trace may have ended before spans that are counted already.
"""

from __future__ import annotations

import array
import contextlib
import json
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple

from exporter.core.errors import ExporterError
from exporter.counting.delta import SessionPart
from exporter.metrics.catalog import METRICS
from exporter.metrics.increments import Key

_FORMAT: Final = "agentos-exporter backfill 1"
_PLACES: Final = {name: place for place, name in enumerate(METRICS)}
"""Metrics by their place in the catalog, the order of the output"""
_NAMES: Final = tuple(METRICS)
_TABLES: Final = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE reached (db TEXT PRIMARY KEY, at INTEGER NOT NULL);
CREATE TABLE figures (name TEXT PRIMARY KEY, value INTEGER NOT NULL);
CREATE TABLE traces (id TEXT PRIMARY KEY, spans BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE admitted (label TEXT, value TEXT, PRIMARY KEY (label, value)) WITHOUT ROWID;
CREATE TABLE series (id INTEGER PRIMARY KEY, metric INTEGER, labels TEXT, UNIQUE (metric, labels));
CREATE TABLE increments (metric INTEGER, at INTEGER, series INTEGER, amounts TEXT);
CREATE INDEX increments_at ON increments (metric, at);
CREATE TABLE sessions (digest INTEGER, first INTEGER, last INTEGER, runs INTEGER, cost TEXT);
"""


class WorkError(ExporterError):
    """The work file belongs to another backfill, is in use, or cannot be written."""


class Row(NamedTuple):
    """Increments of one series at one sample: of a counter one number, of a histogram its buckets, then its sum."""

    key: Key
    at: int
    amounts: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Series:
    """One series: `born` is its first sample with an increment, None if only the daemon has counted in it."""

    id: int
    labels: tuple[str, ...]
    born: int | None


class Work:
    """The work file. Methods block, and are called from one thread at a time."""

    def __init__(self, path: Path, plan: Mapping[str, object]) -> None:
        """Go on with the file at `path`, or begin it.

        `plan` is all that decides on the output. Raises WorkError where the file is of another plan, or in use.
        """
        self.path = path
        self.resumed = False
        self._series: dict[Key, int] = {}
        try:
            self._connection = sqlite3.connect(path, timeout=1, isolation_level=None, check_same_thread=False)
        except sqlite3.Error as error:
            raise WorkError(f"work file {path}: {error}") from error
        try:
            self._open(json.dumps({"format": _FORMAT, **plan}, sort_keys=True))
        except sqlite3.Error as error:
            self.close()
            raise WorkError(f"work file {path}: {error}; another backfill uses it, or it is none") from error
        except BaseException:
            self.close()
            raise

    def _open(self, plan: str) -> None:
        execute = self._connection.execute
        execute("PRAGMA locking_mode = EXCLUSIVE")
        execute("PRAGMA journal_mode = WAL")
        execute("PRAGMA synchronous = NORMAL")  # rows that a power failure loses are read again
        with self.transaction():
            if not execute("SELECT 1 FROM sqlite_master").fetchone():
                for statement in _TABLES.split(";")[:-1]:
                    execute(statement)
                execute("INSERT INTO meta VALUES ('plan', ?)", (plan,))
            (stored,) = execute("SELECT value FROM meta WHERE key = 'plan'").fetchone() or ("",)
        if stored != plan:
            raise WorkError(
                f"work file {self.path}: it is of a backfill with other arguments, another configuration or another "
                "version; go on with those, or remove it to begin anew"
            )
        self.resumed = bool(self.reached())
        for number, metric, labels in execute("SELECT id, metric, labels FROM series"):
            self._series[_NAMES[metric], tuple(json.loads(labels))] = number

    def close(self) -> None:
        """Close the file; closing twice is harmless."""
        self._connection.close()

    def remove(self) -> None:
        """Close the file, and delete it."""
        self.close()
        for suffix in ("", "-wal", "-shm"):
            self.path.with_name(self.path.name + suffix).unlink(missing_ok=True)

    @contextlib.contextmanager
    def transaction(self) -> Iterator[None]:
        """A transaction: all of it is committed, or nothing. Raises WorkError."""
        execute = self._connection.execute
        try:
            execute("BEGIN IMMEDIATE")
            yield
            execute("COMMIT")
        except sqlite3.Error as error:
            raise WorkError(f"work file {self.path}: {error}") from error
        finally:
            if self._connection.in_transaction:
                execute("ROLLBACK")

    # Reading

    def reached(self) -> dict[str, int]:
        """By database: all before was read."""
        return dict(self._connection.execute("SELECT db, at FROM reached"))

    def figures(self) -> dict[str, int]:
        """Figures for people: traces, spans and the like."""
        return dict(self._connection.execute("SELECT name, value FROM figures"))

    def counted(self, ids: Sequence[str]) -> dict[str, set[int]]:
        """By trace, of these: the ids of its spans that are counted."""
        counted_spans: dict[str, set[int]] = {}
        for start in range(0, len(ids), 500):
            some = ids[start : start + 500]
            query = f"SELECT id, spans FROM traces WHERE id IN ({','.join('?' * len(some))})"  # noqa: S608 - marks alone
            for trace_id, spans in self._connection.execute(query, some):
                counted_spans[trace_id] = set(array.array("Q", spans))
        return counted_spans

    def keys(self) -> list[Key]:
        """All series."""
        return list(self._series)

    def admitted(self) -> list[tuple[str, str]]:
        """All values of labels within the limits: (label, value)."""
        return self._connection.execute("SELECT label, value FROM admitted").fetchall()

    # Writing, within a transaction

    def reach(self, db: str, at: int) -> None:
        """All before `at` was read of a database."""
        self._connection.execute("INSERT OR REPLACE INTO reached VALUES (?, ?)", (db, at))

    def count(self, traces: Mapping[str, Iterable[int]]) -> None:
        """These spans of these traces are counted: all of each, with those that were before."""
        rows = [(trace_id, array.array("Q", sorted(spans)).tobytes()) for trace_id, spans in traces.items()]
        self._connection.executemany("INSERT OR REPLACE INTO traces VALUES (?, ?)", rows)

    def add_figures(self, figures: Mapping[str, int]) -> None:
        """Add to the figures for people."""
        query = "INSERT INTO figures VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET value = value + excluded.value"
        self._connection.executemany(query, list(figures.items()))

    def admit(self, admitted: Iterable[tuple[str, str]]) -> None:
        """Note values of labels that are within the limits."""
        self._connection.executemany("INSERT OR IGNORE INTO admitted VALUES (?, ?)", admitted)

    def name(self, keys: Iterable[Key]) -> None:
        """Note series without an increment."""
        for key in keys:
            if key not in self._series:
                self._enter(key)

    def add(self, rows: Iterable[Row]) -> None:
        """Add increments."""
        stored, enter = self._series, self._enter
        self._connection.executemany(
            "INSERT INTO increments VALUES (?, ?, ?, ?)",
            [
                (_PLACES[row.key[0]], row.at, stored.get(row.key) or enter(row.key), " ".join(map(str, row.amounts)))
                for row in rows
            ],
        )

    def _enter(self, key: Key) -> int:
        metric, labels = key
        query = "INSERT INTO series (metric, labels) VALUES (?, ?) RETURNING id"
        (number,) = self._connection.execute(query, (_PLACES[metric], json.dumps(labels))).fetchone()
        self._series[key] = number
        return int(number)

    def take_part(self, sessions: Mapping[int, SessionPart]) -> None:
        """Note what sessions did."""
        rows = [
            (digest, session.first, session.last, session.runs, str(session.cost))
            for digest, session in sessions.items()
        ]
        self._connection.executemany("INSERT INTO sessions VALUES (?, ?, ?, ?, ?)", rows)

    # Results

    def sessions(self) -> Iterator[tuple[int, SessionPart]]:
        """(digest, part) of all sessions, each in the order of its ends."""
        for digest, first, last, runs, cost in self._connection.execute(
            "SELECT digest, first, last, runs, cost FROM sessions ORDER BY digest, last, first, runs"
        ):
            yield digest, SessionPart(first, last, runs, int(cost))

    def forget_sessions(self) -> None:
        """All sessions are observed."""
        self._connection.execute("DELETE FROM sessions")

    def series(self, metric: str) -> list[Series]:
        """All series of a metric, in the order of the output."""
        query = (
            "SELECT id, labels, born FROM series LEFT JOIN "
            "(SELECT series, min(at) AS born FROM increments WHERE metric = ? GROUP BY series) ON series = id "
            "WHERE metric = ? ORDER BY labels"
        )
        rows = self._connection.execute(query, (_PLACES[metric], _PLACES[metric]))
        return [Series(number, tuple(json.loads(labels)), born) for number, labels, born in rows]

    def increments(self, metric: str, start: int, end: int) -> Iterator[tuple[int, int, tuple[int, ...]]]:
        """(series, sample, amounts) of the samples in [start, end], by series in the order of the output."""
        query = (
            "SELECT series, at, amounts FROM increments JOIN series ON series.id = increments.series "
            "WHERE increments.metric = ? AND at BETWEEN ? AND ? ORDER BY series.labels, at"
        )
        for number, at, amounts in self._connection.execute(query, (_PLACES[metric], start, end)):
            yield number, at, tuple(map(int, amounts.split()))
