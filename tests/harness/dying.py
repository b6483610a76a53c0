"""The writes of a ledger, to die or fail at any of them, and its file as a process leaves it that dies.

A write is a statement that changes rows, or the COMMIT of a transaction that has such statements. All of them pass
through SQLAlchemy's engine, so none is missed, whatever the ledger's methods are called.
"""

from __future__ import annotations

import functools
import json
import sqlite3
from array import array
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import sqlalchemy as sa

from exporter.ledger.store import Ledger

_CHANGES = ("INSERT", "UPDATE", "DELETE")
WRITTEN = frozenset(
    {
        "COMMIT",
        "DELETE FROM sessions",
        "DELETE FROM traces",
        "INSERT INTO allowances",
        "INSERT INTO cursors",
        "INSERT INTO daily",
        "INSERT INTO series",
        "INSERT INTO sessions",
        "INSERT INTO spending",
        "INSERT INTO traces",
        "UPDATE series SET",
    }
)
"""Writes of the story at which something must have died or failed, or a test means nothing."""


@dataclass(frozen=True, slots=True)
class Write:
    """A write that is about to happen, or with `done` a COMMIT that just did.

    `number` counts all writes from 1, `place` those of its transaction; `transaction` is what the first one writes.
    """

    number: int
    place: int
    transaction: str
    what: str
    done: bool = False

    def __str__(self) -> str:
        """Return it for the message of a failure."""
        return f"{'after' if self.done else 'at'} write {self.number}, {self.what}"


class Writes:
    """Tells `meet` of every write of a ledger, before it happens, and of every COMMIT afterwards, too."""

    def __init__(self, ledger: Ledger, meet: Callable[[Write], None]) -> None:
        self.number = 0
        self._meet = meet
        self._place = 0
        self._transaction = ""
        engine = ledger._place.engine
        sa.event.listen(engine, "before_cursor_execute", self._statement)
        sa.event.listen(engine, "begin", self._begun)
        # There is no event where SQLAlchemy takes an error for one of COMMIT.
        self._do_commit = engine.dialect.do_commit
        engine.dialect.do_commit = self._commit

    def _statement(self, _connection: Any, _cursor: Any, statement: str, parameters: Any, *_: Any) -> None:
        if statement.lstrip().upper().startswith(_CHANGES):
            if not self._place:
                self._transaction = f"{statement} {parameters!r}"
            self._next(" ".join(statement.split()[:3]))

    def _begun(self, _connection: Any) -> None:
        self._place = 0

    def _commit(self, connection: Any) -> None:
        if not self._place:  # it has only read
            self._do_commit(connection)
            return
        self._next("COMMIT")
        self._do_commit(connection)
        place, self._place = self._place, 0
        self._meet(Write(self.number, place, self._transaction, "COMMIT", done=True))

    def _next(self, what: str) -> None:
        self.number += 1
        self._place += 1
        self._meet(Write(self.number, self._place, self._transaction, what))


def hurry(ledger: Ledger) -> None:
    """Let it not wait for the disk, as no test cuts the power; and keep the log, which is copied, short."""
    connection = ledger._place.engine.raw_connection()
    for setting in ("synchronous = OFF", "wal_autocheckpoint = 30"):
        connection.cursor().execute(f"PRAGMA {setting}").close()
    connection.close()


def disk_full() -> None:
    """Fail as SQLite does where it cannot write."""
    raise sqlite3.OperationalError("database or disk is full")


@dataclass(frozen=True, slots=True)
class Left:
    """The files of a state as they are at one moment: what a process leaves that is killed then."""

    main: bytes
    log: bytes

    @classmethod
    def of(cls, path: Path) -> Self:
        """Read the files."""
        log = path.with_name(path.name + "-wal")
        return cls(path.read_bytes(), log.read_bytes() if log.exists() else b"")

    def put(self, path: Path) -> None:
        """Lay them down elsewhere."""
        path.write_bytes(self.main)
        path.with_name(path.name + "-wal").write_bytes(self.log)


@dataclass(frozen=True, slots=True)
class Series:
    """A total as the file has it, `value` as the page shows it: (value,) or the counts and the sum of a histogram."""

    value: tuple[float, ...]
    shown: bool


Key = tuple[str, tuple[str, ...]]


@dataclass(frozen=True, slots=True)
class Trace:
    """A trace as the file has it, with the ids of the spans that are counted."""

    state: int
    spans: frozenset[int]


class StateFile:
    """A state file, read by a connection of one's own: what is committed, and nothing else."""

    def __init__(self, path: Path) -> None:
        self._connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    def series(self) -> dict[Key, Series]:
        """Return all totals."""
        rows = self._connection.execute("SELECT metric, labels, value, shown FROM series")
        return {(metric, _labels(labels)): Series(_value(value), bool(shown)) for metric, labels, value, shown in rows}

    def cursors(self) -> dict[str, dict[str, Any]]:
        """Return the cursors by database."""
        return {db: json.loads(data) for db, data in self._connection.execute("SELECT db, data FROM cursors")}

    def traces(self) -> dict[tuple[str, str], Trace]:
        """Return the traces by database and id."""
        rows = self._connection.execute("SELECT db, id, state, spans FROM traces")
        return {(db, trace): Trace(state, frozenset(array("Q", spans))) for db, trace, state, spans in rows}

    def spent(self) -> int:
        """Return what all budgets were charged, in 10**-18 USD."""
        return sum(int(spent) for (spent,) in self._connection.execute("SELECT spent FROM spending"))


@functools.cache
def _labels(text: str) -> tuple[str, ...]:
    return tuple(json.loads(text))


def _value(text: str) -> tuple[float, ...]:
    found = json.loads(text)
    if isinstance(found, int):
        return (found,)
    counts, total = found
    return (0, *counts, total)


@contextmanager
def told(where: object) -> Iterator[None]:
    """Say in the message of a failure where it happened."""
    try:
        yield
    except BaseException as error:
        error.add_note(str(where))
        raise
