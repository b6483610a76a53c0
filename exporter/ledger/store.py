"""The one place that is durable: which spans are counted, the totals, the cursors, and what was already exposed.

A batch is committed in one transaction. Whatever crashes, the file holds either all of a batch or nothing of it, so a
span is counted if and only if its id is here. SQLite by default; SQLAlchemy Core throughout, so that PostgreSQL can
take its place.
"""

from __future__ import annotations

import array
import contextlib
import fcntl
import functools
import json
import operator
import os
import secrets
import sqlite3
import sys
import threading
from dataclasses import dataclass, field
from itertools import chain
from os.path import commonprefix
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

import msgspec
import sqlalchemy as sa
from sqlalchemy.dialects.sqlite import insert
from sqlalchemy.pool import StaticPool

from exporter.core.errors import StateError, StateRefused
from exporter.core.model import FUTURE, Known, TraceState
from exporter.counting.budgets import Charge
from exporter.counting.delta import SessionPart
from exporter.counting.fold import RunRecord
from exporter.counting.waiting import CallKey, WaitingCall
from exporter.metrics.catalog import METRICS, Kind, Life
from exporter.metrics.totals import Plan, StoredSeries

if TYPE_CHECKING:
    from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from exporter.metrics.catalog import Metric
    from exporter.metrics.increments import Key, Labels

SCHEMA_VERSION: Final = 4
APPLICATION_ID: Final = 0x41474F58
""""AGOX", the SQLite application_id by which a state file is known."""
_HEADER: Final = b"SQLite format 3\0"
_HEADER_LENGTH: Final = 100
_CURE: Final = "restore it from a backup, or move it away to start anew"
_ANOTHER: Final = "name another file with `state`"
_CHUNK: Final = 500
"""ids in one IN clause: well below SQLite's limit of variables"""
_VALUES: Final = 900
"""values in one INSERT, likewise"""

_schema = sa.MetaData()
_meta = sa.Table(
    "meta", _schema, sa.Column("key", sa.Text, primary_key=True), sa.Column("value", sa.Text, nullable=False)
)
_cursors = sa.Table(
    "cursors",
    _schema,
    sa.Column("agentos", sa.Text, primary_key=True),
    sa.Column("db", sa.Text, primary_key=True),
    sa.Column("data", sa.Text, nullable=False),
)
_traces = sa.Table(
    "traces",
    _schema,
    sa.Column("agentos", sa.Text, primary_key=True),
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("db", sa.Text, primary_key=True),
    sa.Column("state", sa.Integer, nullable=False),
    sa.Column("total_spans", sa.Integer, nullable=False),
    sa.Column("nodes", sa.Integer, nullable=False),
    sa.Column("created", sa.BigInteger, nullable=False),
    sa.Column("end", sa.BigInteger, nullable=False),
    sa.Column("changed", sa.BigInteger, nullable=False),
    sa.Column("next_ask", sa.BigInteger, nullable=False),
    sa.Column("asks", sa.Integer, nullable=False),
    sa.Column("misses", sa.Integer, nullable=False),
    sa.Column("hidden", sa.Integer, nullable=False),
    sa.Column("root_kind", sa.Text, nullable=False),
    sa.Column("reported", sa.Boolean, nullable=False),
    sa.Column("runs", sa.Text, nullable=False),
    sa.Column("spans", sa.LargeBinary, nullable=False),
    sa.Index("traces_waiting", "agentos", "db", "state", "next_ask"),
    sa.Index("traces_ended", "agentos", "db", "state", "end"),
    sa.Index("traces_created", "agentos", "db", "created"),
)
_series = sa.Table(
    "series",
    _schema,
    sa.Column("metric", sa.Text, primary_key=True),
    sa.Column("labels", sa.Text, primary_key=True),
    sa.Column("value", sa.Text, nullable=False),
    sa.Column("shown", sa.Boolean, nullable=False),
)
_layouts = sa.Table(
    "layouts",
    _schema,
    sa.Column("metric", sa.Text, primary_key=True),
    sa.Column("layout", sa.Text, nullable=False),
)
"""What the labels and values in `series` mean: names of the labels, buckets and unit, as JSON"""
_admissions = sa.Table(
    "admissions",
    _schema,
    sa.Column("label", sa.Text, primary_key=True),
    sa.Column("value", sa.Text, primary_key=True),
)
_activity = sa.Table(
    "activity",
    _schema,
    sa.Column("agentos", sa.Text, primary_key=True),
    sa.Column("what", sa.Text, primary_key=True),
    sa.Column("digest", sa.BigInteger, primary_key=True),
    sa.Column("seen", sa.BigInteger, nullable=False),
    sa.Index("activity_seen", "agentos", "what", "seen"),
)
_sessions = sa.Table(
    "sessions",
    _schema,
    sa.Column("agentos", sa.Text, primary_key=True),
    sa.Column("digest", sa.BigInteger, primary_key=True),
    sa.Column("first", sa.BigInteger, nullable=False),
    sa.Column("last", sa.BigInteger, nullable=False),
    sa.Column("runs", sa.Integer, nullable=False),
    sa.Column("cost", sa.Text, nullable=False),  # 10**-18 USD: beyond 9 USD no integer of SQLite holds it
    sa.Index("sessions_last", "agentos", "last"),
)
_budgets = sa.Table(
    "budgets",
    _schema,
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("definition", sa.Text, nullable=False),
    sa.Column("since", sa.BigInteger, nullable=False),
)
_spending = sa.Table(
    "spending",
    _schema,
    sa.Column("budget", sa.Text, primary_key=True),
    sa.Column("start", sa.BigInteger, primary_key=True),
    sa.Column("spent", sa.Text, nullable=False),  # 10**-18 USD
)
_ADDED: Final = {"budgets": 2, "spending": 2, "waiting": 2, "layouts": 4}
"""Tables that came with a later schema than the first."""
_USER_KEY: Final = "user_key"
_KEY_BYTES: Final = 32
_waiting = sa.Table(
    "waiting",
    _schema,
    sa.Column("agentos", sa.Text, primary_key=True),
    sa.Column("trace", sa.Text, primary_key=True),
    sa.Column("span", sa.Text, primary_key=True),  # 64 bits without a sign
    sa.Column("session", sa.BigInteger),
    sa.Column("since", sa.BigInteger, nullable=False),
    sa.Column("data", sa.Text, nullable=False),
    sa.Index("waiting_since", "agentos", "since"),
)
"""LLM calls that are counted, but for tokens and cost: they wait for the detail of their run"""


@dataclass(slots=True)
class Record(Known):
    """A trace in the ledger: what is `Known` of it, and what was counted of it.

    `spans` are the ids of its counted spans, `hidden` how many of its spans were already reported as never shown,
    `reported` whether the trace itself was counted, `runs` its runs that are not settled, by id of their outermost
    span.
    """

    hidden: int = 0
    root_kind: str = "unknown"
    reported: bool = False
    runs: dict[int, RunRecord] = field(default_factory=dict)
    spans: set[int] = field(default_factory=set)


@dataclass(slots=True)
class Changes:
    """Everything that one transaction makes durable for one AgentOS."""

    agentos: str
    records: Sequence[Record] = ()
    plan: Plan = field(default_factory=Plan)
    activity: Mapping[tuple[str, int], int] = field(default_factory=dict)
    sessions: Mapping[int, SessionPart] = field(default_factory=dict)
    observed_sessions: Sequence[int] = ()
    waiting: Sequence[WaitingCall] = ()
    resolved: Sequence[CallKey] = ()
    """calls that waited, and whose tokens and cost are in this very plan"""
    cursor: tuple[str, Mapping[str, Any]] | None = None
    spending: Mapping[Charge, int] = field(default_factory=dict)


class Ledger:
    """The state file. Methods block: call them in a thread. One transaction at a time."""

    def __init__(self, path: Path | None) -> None:
        """Open `path`, creating the file on first start; None keeps everything in memory.

        Raises StateRefused for a file that must not be used, StateError where it cannot be written just now.
        """
        self.path = path
        self.begun_anew: list[str] = []
        """metrics whose series in the file had other labels, buckets or units than this version's: they start at 0"""
        self._guard = threading.Lock()
        self._lock_file: int | None = None
        self._started = False
        if path is not None:
            self._lock_file = _lock(path)
        try:
            if path is not None:
                _inspect(path)
            self._engine = _engine(path)
            with self._begin() as connection:
                self._prepare(connection)
                with self._understood("the layout of a total"):
                    self.begun_anew = _take_up_layouts(connection)
            self._started = True
        except BaseException:
            self._unlock()
            raise

    @property
    def durable(self) -> bool:
        """Whether what is committed survives the process."""
        return self.path is not None

    def close(self) -> None:
        """Release the file; closing twice is harmless."""
        self._engine.dispose()
        self._unlock()

    def _unlock(self) -> None:
        if self._lock_file is not None:
            os.close(self._lock_file)
            self._lock_file = None

    @contextlib.contextmanager
    def _begin(self) -> Iterator[sa.Connection]:
        with self._guard:
            try:
                with self._engine.begin() as connection:
                    yield connection
            except (sa.exc.DBAPIError, sqlite3.Error, OSError) as error:
                raise _explain(self.path, error, started=self._started) from error

    def _prepare(self, connection: sa.Connection) -> None:
        found = connection.exec_driver_sql("PRAGMA user_version").scalar_one()
        if found == 0:
            connection.exec_driver_sql(f"PRAGMA application_id = {APPLICATION_ID}")
            connection.exec_driver_sql(f"PRAGMA user_version = {SCHEMA_VERSION}")
            _schema.create_all(connection)
            connection.execute(sa.insert(_meta).values(key="format", value="agentos-exporter state"))
            return
        have = set(sa.inspect(connection).get_table_names())
        expected = {name for name in _schema.tables if _ADDED.get(name, 1) <= found}
        if missing := sorted(expected - have):
            raise StateRefused(f"state file {self.path}: broken: table {missing[0]} is missing; {_CURE}")
        if found < SCHEMA_VERSION:
            with self._understood("a trace or a call"):
                _upgrade(connection, have)

    @contextlib.contextmanager
    def _understood(self, what: str) -> Iterator[None]:
        """Refuse the file where a row of it cannot be understood."""
        try:
            yield
        except (ValueError, TypeError, KeyError, ArithmeticError, RecursionError) as error:
            raise StateRefused(
                f"state file {self.path}: broken: {what} cannot be read ({type(error).__name__}); {_CURE}"
            ) from error

    # Reading

    def load(self) -> tuple[list[StoredSeries], list[tuple[str, str]]]:
        """(all series, all admitted (label, value)). Raises StateRefused where a row cannot be understood."""
        with self._begin() as connection, self._understood("a total"):
            series = [_stored(row) for row in connection.execute(sa.select(_series))]
            admitted = [(label, value) for label, value in connection.execute(sa.select(_admissions))]
        return series, admitted

    def cursors(self, agentos: str) -> dict[str, dict[str, Any]]:
        """Committed cursors by database."""
        with self._begin() as connection:
            query = sa.select(_cursors.c.db, _cursors.c.data).where(_cursors.c.agentos == agentos)
            with self._understood("a cursor"):
                return {db: dict(json.loads(data)) for db, data in connection.execute(query)}

    def records(self, agentos: str, ids: Iterable[str]) -> dict[str, list[Record]]:
        """What is known of these traces, by id: one record for each database that holds a part of it."""
        found: dict[str, list[Record]] = {}
        with self._begin() as connection, self._understood("a trace"):
            for row in _find_records(connection, agentos, list(ids)):
                record = _record(row)
                found.setdefault(record.id, []).append(record)
        return found

    def known(self, agentos: str, db: str, ids: Iterable[str]) -> dict[str, Known]:
        """What is known of these traces in one database."""
        wanted = list(ids)
        found: dict[str, Known] = {}
        for start in range(0, len(wanted), _CHUNK):
            some = self._known(_NAMED, {"agentos": agentos, "db": db, "ids": wanted[start : start + _CHUNK]})
            found.update((one.id, one) for one in some)
        return found

    def open_due(self, agentos: str, db: str, now: int, limit: int) -> list[Known]:
        """Open traces to be asked for at `now`, the most overdue first."""
        return self._known(_OPEN_DUE, {"agentos": agentos, "db": db, "now": now, "most": limit})

    def unsettled(self, agentos: str, db: str, limit: int, *, due: int, before: int = FUTURE) -> list[Known]:
        """Complete traces that are to settle by `due` and ended before `before`, the most overdue first."""
        values = {"agentos": agentos, "db": db, "before": before, "due": due, "most": limit}
        return self._known(_UNSETTLED, values)

    def _known(self, query: sa.Select[Any], values: dict[str, Any]) -> list[Known]:
        with self._begin() as connection, self._understood("a trace"):
            rows = connection.execute(query, values).all()
            return [Known(trace, db, TraceState(state), *numbers) for trace, db, state, *numbers in rows]

    def sentinels(self, agentos: str, db: str, ages: Sequence[int]) -> list[str]:
        """Ids of known traces: for each of `ages` (source's clock, microseconds) the newest that ended before it."""
        chosen: list[str] = []
        with self._begin() as connection:
            for age in ages:
                wanted = {"agentos": agentos, "db": db, "age": age, "chosen": chosen}
                chosen = [*chosen, *connection.execute(_NEWEST, wanted).scalars()]
        return chosen

    def any_trace(self, agentos: str) -> bool:
        """Whether a trace of this AgentOS is known."""
        with self._begin() as connection:
            query = sa.select(_traces.c.id).where(_traces.c.agentos == agentos).limit(1)
            return connection.execute(query).first() is not None

    def count_open(self, agentos: str) -> int:
        """Number of open traces."""
        with self._begin() as connection:
            query = sa.select(sa.func.count()).where(_traces.c.agentos == agentos, _traces.c.state == TraceState.OPEN)
            return int(connection.execute(query).scalar_one())

    def active(self, agentos: str, what: str, since: int) -> int:
        """Distinct sessions or users whose latest span ended at or after `since` (microseconds)."""
        with self._begin() as connection:
            query = sa.select(sa.func.count()).where(
                _activity.c.agentos == agentos, _activity.c.what == what, _activity.c.seen >= since
            )
            return int(connection.execute(query).scalar_one())

    def idle_sessions(self, agentos: str, before: int, limit: int = 1000) -> dict[int, SessionPart]:
        """Sessions whose last run ended before `before` (microseconds), and none of whose costs is waited for."""
        with self._begin() as connection:
            awaited = sa.select(_waiting.c.session).where(
                _waiting.c.agentos == agentos, _waiting.c.session.is_not(None)
            )
            idle = _PARTS.where(_sessions.c.last < before, _sessions.c.digest.not_in(awaited)).limit(limit)
            return _parts(connection.execute(idle, {"agentos": agentos}).all())

    def spent(self, since: int) -> dict[Charge, int]:
        """What is spent in periods that start at or after `since` (microseconds), in 10**-18 USD."""
        with self._begin() as connection, self._understood("a budget"):
            rows = connection.execute(sa.select(_spending).where(_spending.c.start >= since))
            return {(row.budget, row.start): int(row.spent) for row in rows}

    def waiting(self, agentos: str) -> list[WaitingCall]:
        """LLM calls that wait for the detail of their run, those that wait longest first."""
        with self._begin() as connection, self._understood("a call"):
            query = sa.select(_waiting.c.data).where(_waiting.c.agentos == agentos).order_by(_waiting.c.since)
            return [_decode_call(data) for data in connection.execute(query).scalars()]

    def waiting_names(self) -> set[str]:
        """Names of the AgentOS instances that have calls which wait, configured or not."""
        with self._begin() as connection:
            return set(connection.execute(sa.select(_waiting.c.agentos).distinct()).scalars())

    def waiting_since(self, agentos: str) -> tuple[int, int] | None:
        """(oldest, newest) `since` of the calls that wait; None where none does."""
        with self._begin() as connection:
            query = sa.select(sa.func.min(_waiting.c.since), sa.func.max(_waiting.c.since))
            oldest, newest = connection.execute(query.where(_waiting.c.agentos == agentos)).one()
            return None if oldest is None else (int(oldest), int(newest))

    def seen(self, agentos: str, what: str, digests: Iterable[int]) -> set[int]:
        """Those of the digests that are noted as activity of this kind."""
        wanted = list(digests)
        found: set[int] = set()
        with self._begin() as connection:
            for start in range(0, len(wanted), _CHUNK):
                query = sa.select(_activity.c.digest).where(
                    _activity.c.agentos == agentos,
                    _activity.c.what == what,
                    _activity.c.digest.in_(wanted[start : start + _CHUNK]),
                )
                found.update(connection.execute(query).scalars())
        return found

    # Writing

    def user_key(self) -> bytes:
        """The secret that keys the hashes of user ids, made on first use."""
        with self._begin() as connection, self._understood("the key of users"):
            query = sa.select(_meta.c.value).where(_meta.c.key == _USER_KEY)
            found = connection.execute(query).scalar()
            if found is None:
                found = secrets.token_hex(_KEY_BYTES)
                connection.execute(sa.insert(_meta).values(key=_USER_KEY, value=found))
            key = bytes.fromhex(found)
            if len(key) < _KEY_BYTES:
                raise ValueError("too short")
            return key

    def budgets(self) -> dict[str, tuple[str, int]]:
        """By name of a budget: its definition, and since when (microseconds) its spending is known."""
        with self._begin() as connection, self._understood("a budget"):
            return {row.name: (row.definition, int(row.since)) for row in connection.execute(sa.select(_budgets))}

    def keep_budgets(self, budgets: Mapping[str, tuple[str, int]]) -> None:
        """Make these all the budgets there are; what was spent under another definition is dropped."""
        with self._begin() as connection, self._understood("a budget"):
            old = {row.name: row.definition for row in connection.execute(sa.select(_budgets))}
            for name, definition in old.items():
                if name not in budgets or budgets[name][0] != definition:
                    connection.execute(sa.delete(_spending).where(_spending.c.budget == name))
                if name not in budgets:
                    connection.execute(sa.delete(_budgets).where(_budgets.c.name == name))
            _write_budgets(connection, [(name, *known) for name, known in budgets.items()])

    def prune_spending(self, before: int) -> int:
        """Forget what was spent in periods that started before (microseconds); return how many."""
        with self._begin() as connection:
            return int(connection.execute(sa.delete(_spending).where(_spending.c.start < before)).rowcount)

    def commit(self, changes: Changes) -> None:
        """Make all of it durable, or nothing. Raises StateError."""
        with self._begin() as connection:
            _write_traces(connection, [_row(changes.agentos, record) for record in changes.records])
            self._write_plan(connection, changes.plan)
            self._write_people(connection, changes)
            self._write_spending(connection, changes.spending)
            self._write_waiting(connection, changes)
            if changes.cursor is not None:
                db, data = changes.cursor
                _write_cursors(connection, [(changes.agentos, db, json.dumps(dict(data)))])

    @staticmethod
    def _write_plan(connection: sa.Connection, plan: Plan) -> None:
        series = plan.series.values()
        _write_series(connection, [(one.metric, _labels(one.labels), _value(one), one.shown) for one in series])
        _write_admissions(connection, plan.admitted)

    def _write_people(self, connection: sa.Connection, changes: Changes) -> None:
        if changes.observed_sessions:
            gone = sa.delete(_sessions).where(
                _sessions.c.agentos == changes.agentos, _sessions.c.digest.in_(changes.observed_sessions)
            )
            connection.execute(gone)
        seen = changes.activity.items()
        _write_activity(connection, [(changes.agentos, what, digest, at) for (what, digest), at in seen])
        self._write_sessions(connection, changes)

    @staticmethod
    def _write_sessions(connection: sa.Connection, changes: Changes) -> None:
        before = _parts(_find_parts(connection, changes.agentos, list(changes.sessions)))
        rows = []
        for digest, part in changes.sessions.items():
            whole = before.get(digest, part)
            if whole is not part:
                whole.join(part)
            rows.append((changes.agentos, digest, whole.first, whole.last, whole.runs, str(whole.cost)))
        _write_sessions(connection, rows)

    def _write_spending(self, connection: sa.Connection, spending: Mapping[Charge, int]) -> None:
        rows = []
        for (budget, start), amount in spending.items():
            query = sa.select(_spending.c.spent).where(_spending.c.budget == budget, _spending.c.start == start)
            with self._understood("a budget"):
                before = int(connection.execute(query).scalar() or "0")
            rows.append((budget, start, str(before + amount)))
        _write_spending(connection, rows)

    @staticmethod
    def _write_waiting(connection: sa.Connection, changes: Changes) -> None:
        if changes.resolved:
            done = [{"agentos": changes.agentos, "id": trace, "span": str(span)} for trace, span in changes.resolved]
            connection.execute(_RESOLVED, done)
        rows = [
            (changes.agentos, call.trace, str(call.span), call.session, call.since, _json(call))
            for call in changes.waiting
        ]
        _write_waiting(connection, rows)

    def expose(self, keys: Iterable[Key]) -> None:
        """Commit that these series show their value from now on."""
        rows = [{"b_metric": metric, "b_labels": _labels(labels)} for metric, labels in keys]
        if not rows:
            return
        with self._begin() as connection:
            statement = (
                sa.update(_series)
                .where(_series.c.metric == sa.bindparam("b_metric"), _series.c.labels == sa.bindparam("b_labels"))
                .values(shown=True)
            )
            connection.execute(statement, rows)

    def prune(self, agentos: str, db: str, *, created_before: int, active_before: int) -> int:
        """Forget traces that can no longer come back, and activity nobody asks for; return how many traces."""
        with self._begin() as connection:
            old = sa.delete(_traces).where(
                _traces.c.agentos == agentos,
                _traces.c.db == db,
                _traces.c.created < created_before,
                _traces.c.state.in_([TraceState.SETTLED, TraceState.EXPIRED, TraceState.IGNORED]),
                # The cost of its run may still be to come.
                _traces.c.id.not_in(sa.select(_waiting.c.trace).where(_waiting.c.agentos == agentos)),
            )
            forgotten = connection.execute(old).rowcount
            idle = sa.delete(_activity).where(_activity.c.agentos == agentos, _activity.c.seen < active_before)
            connection.execute(idle)
        return int(forgotten)


def _upgrade(connection: sa.Connection, have: Container[str]) -> None:
    """Bring a file of an earlier schema, which has these tables, to this one, with all that it holds."""
    by_span = _waiting.name in have  # before schema 3, calls that wait were known by their span alone
    if by_span:
        for index in ("waiting_since", "waiting_trace"):
            connection.exec_driver_sql(f"DROP INDEX IF EXISTS {index}")
        connection.exec_driver_sql("ALTER TABLE waiting RENAME TO old")
    _schema.create_all(connection)
    if by_span:
        columns = [column.name for column in _waiting.c]
        moved = sa.select(sa.table("old", *map(sa.column, columns)))
        connection.execute(sa.insert(_waiting).from_select(columns, moved))
        connection.exec_driver_sql("DROP TABLE old")
    _name_fields(connection)
    connection.exec_driver_sql(f"PRAGMA user_version = {SCHEMA_VERSION}")


_RUN_FIELDS_3: Final = ("root_kind", "root", "llm_calls", "priced", "cost", "waiting", "settled")
_CALL_FIELDS_3: Final = (
    *("span", "trace", "db", "run_id", "session_id", "outer_run_id", "root", "session", "user_id", "root_name"),
    *("agent_name", "provider", "model", "model_class", "prompt", "completion", "start", "end", "since", "first"),
)


def _name_fields(connection: sa.Connection) -> None:
    """Name the fields of runs and of calls that wait; before schema 4 they were lists of values, in this order."""
    keys = (_traces.c.agentos, _traces.c.id, _traces.c.db)
    for *key, runs in connection.execute(sa.select(*keys, _traces.c.runs).where(_traces.c.runs != "[]")).all():
        named = {span: dict(zip(_RUN_FIELDS_3, values, strict=True)) for span, *values in json.loads(runs)}
        _set(connection, _traces.c.runs, zip(keys, key, strict=True), json.dumps(named))
    _set(connection, _traces.c.runs, [(_traces.c.runs, "[]")], "{}")
    keys = (_waiting.c.agentos, _waiting.c.trace, _waiting.c.span)
    for *key, data in connection.execute(sa.select(*keys, _waiting.c.data)).all():
        named = dict(zip(_CALL_FIELDS_3, json.loads(data), strict=True))
        _set(connection, _waiting.c.data, zip(keys, key, strict=True), json.dumps(named))


def _set(
    connection: sa.Connection, column: sa.Column[Any], where: Iterable[tuple[sa.Column[Any], Any]], value: str
) -> None:
    """Set a column in the rows that have these values in other columns."""
    rows = sa.and_(*(other == wanted for other, wanted in where))
    connection.execute(sa.update(column.table).where(rows).values({column: value}))


def _take_up_layouts(connection: sa.Connection) -> list[str]:
    """Drop series whose metric has other labels, buckets or another unit in the catalog; return those metrics."""
    before = {row.metric: json.loads(row.layout) for row in connection.execute(sa.select(_layouts))}
    now = {name: _layout(metric) for name, metric in METRICS.items() if metric.life is Life.DURABLE}
    changed = sorted(name for name, layout in now.items() if before.get(name, layout) != layout)
    for name in changed:
        connection.execute(sa.delete(_series).where(_series.c.metric == name))
    new = [(name, json.dumps(layout)) for name, layout in now.items() if before.get(name) != layout]
    _write_layouts(connection, new)
    return changed


def _layout(metric: Metric) -> dict[str, Any]:
    return {"labels": [*metric.labels], "buckets": [*metric.buckets], "unit": metric.unit}


# Statements: made once, as Core takes longer to understand a new one than SQLite takes to run it

_AGENTOS: Final[sa.BindParameter[str]] = sa.bindparam("agentos")
_MOST: Final = sa.bindparam("most", type_=sa.Integer)
_KNOWN: Final = sa.select(*(_traces.c[name] for name in Known.__match_args__)).where(
    _traces.c.agentos == _AGENTOS, _traces.c.db == sa.bindparam("db")
)
"""The columns of `Known`, in its order."""
_NAMED: Final = _KNOWN.where(_traces.c.id.in_(sa.bindparam("ids", expanding=True)))
_OPEN_DUE: Final = (
    _KNOWN.where(_traces.c.state == TraceState.OPEN, _traces.c.next_ask <= sa.bindparam("now"))
    .order_by(_traces.c.next_ask)
    .limit(_MOST)
)
_UNSETTLED: Final = (
    _KNOWN.where(
        _traces.c.state == TraceState.COMPLETE,
        _traces.c.end < sa.bindparam("before"),
        _traces.c.next_ask <= sa.bindparam("due"),
    )
    .order_by(_traces.c.next_ask)
    .limit(_MOST)
)


def _newest() -> sa.Select[Any]:
    """The newest trace, not ignored, that ended before `age`: of each state, as the index has them by their end."""
    ended = sa.select(_traces.c.id, _traces.c.end).where(
        _traces.c.agentos == _AGENTOS,
        _traces.c.db == sa.bindparam("db"),
        _traces.c.misses == 0,
        _traces.c.end <= sa.bindparam("age"),
        _traces.c.id.not_in(sa.bindparam("chosen", expanding=True)),
    )
    by_state = (
        ended.where(_traces.c.state == state).order_by(_traces.c.end.desc()).limit(1).subquery()
        for state in TraceState
        if state is not TraceState.IGNORED
    )
    newest = sa.union_all(*(sa.select(one) for one in by_state)).subquery()
    return sa.select(newest.c.id).order_by(newest.c.end.desc()).limit(1)


_NEWEST: Final = _newest()
_PARTS: Final = sa.select(
    _sessions.c.digest, _sessions.c.first, _sessions.c.last, _sessions.c.runs, _sessions.c.cost
).where(_sessions.c.agentos == _AGENTOS)
"""The columns of `_parts`, in its order."""
_RESOLVED: Final = sa.delete(_waiting).where(
    _waiting.c.agentos == _AGENTOS, _waiting.c.trace == sa.bindparam("id"), _waiting.c.span == sa.bindparam("span")
)


def _upsert(table: sa.Table, *, keep: tuple[str, ...] = (), newest: tuple[str, ...] = ()) -> sa.Insert:
    """Of a row that is there the columns `keep` stay, of `newest` the greater value; all others are replaced."""
    statement = insert(table)
    keys = [column.name for column in table.primary_key]
    change = {
        name: sa.func.max(column, statement.excluded[name]) if name in newest else statement.excluded[name]
        for name, column in table.c.items()
        if name not in {*keys, *keep}
    }
    if not change:
        return statement.on_conflict_do_nothing(index_elements=keys)
    return statement.on_conflict_do_update(index_elements=keys, set_=change)


class _Find:
    """Finds the rows of one AgentOS that have one of many values in a column; as the driver returns them.

    Core would write a new statement for each number of values, and look at each value of each row. Numbers are few
    here, the last value standing in for those that lack, so that a connection has the statements ready.
    """

    def __init__(self, query: sa.Select[Any], column: sa.Column[Any]) -> None:
        """`query` chooses columns of the rows of `_AGENTOS`."""
        self._statement = query.where(column.in_(sa.bindparam("values", expanding=True)))
        self._texts: dict[tuple[str, int], str] = {}

    def __call__(self, connection: sa.Connection, agentos: str, values: Sequence[Any]) -> Iterator[Sequence[Any]]:
        for start in range(0, len(values), _CHUNK):
            some = list(values[start : start + _CHUNK])
            size = 1 << (len(some) - 1).bit_length()
            text = self._text(connection.dialect, size)
            params = (agentos, *some, *some[-1:] * (size - len(some)))
            yield from connection.exec_driver_sql(text, params).all()

    def _text(self, dialect: sa.Dialect, size: int) -> str:
        key = dialect.name, size
        if key not in self._texts:
            statement = self._statement.params(agentos="", values=[None] * size)
            compiled = statement.compile(dialect=dialect, compile_kwargs={"render_postcompile": True})
            self._texts[key] = str(compiled)
        return self._texts[key]


class _Write:
    """Writes whole rows of a table: tuples in the order of its columns, with values as drivers take them.

    Core would look at each value of each row, which takes longer than to write it; so it only compiles the statements.
    Each takes many rows: a driver lets other threads run whenever it calls the database, and may wait 5 ms for its turn
    to go on. Their sizes are few, so that a connection has them all ready.
    """

    def __init__(self, statement: sa.Insert) -> None:
        self._statement = statement
        self._columns = [column.name for column in statement.table.c]
        self._most = _VALUES // len(self._columns)
        self._texts: dict[str, tuple[str, str, str]] = {}

    def __call__(self, connection: sa.Connection, rows: Sequence[tuple[Any, ...]]) -> None:
        if not rows:
            return
        head, further, tail = self._text(connection.dialect)
        start = 0
        while left := len(rows) - start:
            size = min(self._most, 1 << left.bit_length() - 1)
            values = tuple(chain.from_iterable(rows[start : start + size]))
            connection.exec_driver_sql(f"{head}{further * (size - 1)}{tail}", values)
            start += size

    def _text(self, dialect: sa.Dialect) -> tuple[str, str, str]:
        """The statement up to its first row, what each further row adds (placeholders are all alike), and the rest."""
        if dialect.name not in self._texts:
            row = dict.fromkeys(self._columns)
            one, two = (str(self._statement.values([row] * count).compile(dialect=dialect)) for count in (1, 2))
            head = commonprefix([one, two])  # noqa: RUF071 - of any texts, not of paths
            tail = one.removeprefix(head)
            self._texts[dialect.name] = head, two.removeprefix(head).removesuffix(tail), tail
        return self._texts[dialect.name]


_find_records: Final = _Find(sa.select(_traces).where(_traces.c.agentos == _AGENTOS), _traces.c.id)
_find_parts: Final = _Find(_PARTS, _sessions.c.digest)

_write_traces: Final = _Write(_upsert(_traces))
# `shown` is set at birth and raised by `expose` alone: a total that was exposed never becomes hidden again.
_write_series: Final = _Write(_upsert(_series, keep=("shown",)))
_write_layouts: Final = _Write(_upsert(_layouts))
_write_admissions: Final = _Write(_upsert(_admissions))
_write_activity: Final = _Write(_upsert(_activity, newest=("seen",)))
_write_sessions: Final = _Write(_upsert(_sessions))
_write_spending: Final = _Write(_upsert(_spending))
_write_budgets: Final = _Write(_upsert(_budgets))
_write_cursors: Final = _Write(_upsert(_cursors))
_write_waiting: Final = _Write(sa.insert(_waiting))

# Rows

_decode_runs: Final = msgspec.json.Decoder(dict[int, RunRecord]).decode
_decode_call: Final = msgspec.json.Decoder(WaitingCall).decode
_STANDING: Final = operator.attrgetter(*[column.name for column in _traces.c][4:-2])
"""What of a record is written as it is: all but its AgentOS, its id, database and state, its runs and spans."""


def _row(agentos: str, record: Record) -> tuple[Any, ...]:
    """A record in the order of the columns of its table."""
    runs = _json(record.runs) if record.runs else "{}"
    return (agentos, record.id, record.db, int(record.state), *_STANDING(record), runs, _pack(record.spans))


def _record(row: Sequence[Any]) -> Record:
    """The columns of its table have the order of its fields."""
    _, trace, db, state, *standing, reported, unsettled, spans = row
    runs = _decode_runs(unsettled)
    values = (trace, db, TraceState(state), *standing, bool(reported), runs, _unpack(spans))
    return Record(*values)


def _json(records: Mapping[int, RunRecord] | WaitingCall) -> str:
    """As JSON, with all fields by their names: a later version may add some."""
    return msgspec.json.encode(records).decode()


def _parts(rows: Iterable[Sequence[Any]]) -> dict[int, SessionPart]:
    return {digest: SessionPart(first, last, runs, int(cost)) for digest, first, last, runs, cost in rows}


def _pack(spans: Iterable[int]) -> bytes:
    """8 bytes a span id, sorted, little-endian whatever the machine."""
    packed = array.array("Q", sorted(spans))
    if sys.byteorder == "big":
        packed.byteswap()
    return packed.tobytes()


def _unpack(blob: bytes) -> set[int]:
    packed = array.array("Q")
    packed.frombytes(blob)
    if sys.byteorder == "big":
        packed.byteswap()
    return set(packed)


@functools.lru_cache(maxsize=8192)
def _labels(labels: Labels) -> str:
    """Labels as text: that of a series is asked for in each batch it is in."""
    return json.dumps(labels)


def _value(series: StoredSeries) -> str:
    """Totals as text: integers of any size stay exact. Lists of them are JSON as Python prints them."""
    return f"[{[*series.counts]}, {series.total}]" if series.counts else str(series.value)


def _stored(row: sa.Row[Any]) -> StoredSeries:
    labels = tuple(str(label) for label in json.loads(row.labels))
    metric = METRICS.get(row.metric)
    if metric is not None and len(labels) != len(metric.labels):
        raise ValueError(f"{row.metric}: labels")
    if metric is None or metric.kind is not Kind.HISTOGRAM:
        return StoredSeries(row.metric, labels, value=int(row.value), shown=bool(row.shown))
    counts, total = json.loads(row.value)
    if len(counts) != len(metric.buckets) + 1:
        raise ValueError(f"{row.metric}: shape")
    return StoredSeries(row.metric, labels, counts=tuple(map(int, counts)), total=int(total), shown=bool(row.shown))


# The file itself


def _engine(path: Path | None) -> sa.Engine:
    url = sa.URL.create("sqlite", database=None if path is None else str(path))
    engine = sa.create_engine(url, connect_args={"check_same_thread": False, "timeout": 5}, poolclass=StaticPool)

    @sa.event.listens_for(engine, "connect")
    def _configure(connection: sqlite3.Connection, _: object) -> None:
        connection.isolation_level = None  # transactions are ours: see _start
        cursor = connection.cursor()
        cursor.execute("PRAGMA journal_mode = WAL")
        # What a scraper has seen must not be lost with the power.
        cursor.execute("PRAGMA synchronous = FULL")
        cursor.execute("PRAGMA temp_store = MEMORY")
        cursor.close()

    @sa.event.listens_for(engine, "begin")
    def _start(connection: sa.Connection) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE")

    return engine


def _lock(path: Path) -> int:
    """Lock the state file for the life of this process, through a file beside it; return its descriptor."""
    beside = path.with_name(path.name + ".lock")
    if not path.parent.is_dir():
        raise StateRefused(
            f"state file {path}: there is no folder {path.parent}; create it, writable for this user, or {_ANOTHER}"
        )
    try:
        descriptor = os.open(beside, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise StateRefused(
            f"state file {path}: cannot create {beside.name} beside it ({error.strerror}); "
            f"make the folder writable for this user, or {_ANOTHER}"
        ) from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(descriptor)
        raise StateRefused(
            f"state file {path}: another agentos-exporter is using it; stop that one, or {_ANOTHER}"
        ) from error
    return descriptor


def _inspect(path: Path) -> None:
    """Refuse a file that is not ours, is broken or is from the future, before anything is written to it."""
    if not path.exists():
        return
    if not path.is_file():
        raise StateRefused(f"state file {path}: not a regular file; {_ANOTHER}")
    try:
        with path.open("rb") as file:
            header = file.read(_HEADER_LENGTH)
    except OSError as error:
        raise StateRefused(
            f"state file {path}: cannot be read ({error.strerror}); give this user access to it"
        ) from error
    if not header:
        raise StateRefused(f"state file {path}: truncated: it is empty; {_CURE}")
    if not header.startswith(_HEADER):
        raise StateRefused(f"state file {path}: not a state file of agentos-exporter; it was left as it is: {_ANOTHER}")
    if len(header) < _HEADER_LENGTH:
        raise StateRefused(f"state file {path}: truncated; {_CURE}")
    # Root may write anything; a file without any write permission still says that nobody should.
    if not path.stat().st_mode & 0o222 or not os.access(path, os.W_OK):
        raise StateRefused(f"state file {path}: read-only; make it writable for this user")
    size, page = path.stat().st_size, int.from_bytes(header[16:18], "big")
    journal = path.with_name(path.name + "-wal")
    if page > 1 and size % page and not (journal.exists() and journal.stat().st_size):
        raise StateRefused(f"state file {path}: truncated; {_CURE}")
    _inspect_database(path)


def _inspect_database(path: Path) -> None:
    """Refuse an SQLite database that is not ours, is broken or is from the future."""
    try:
        # Read-only: closing it must not move another program's write-ahead log into its file.
        uri = f"file:{quote(str(path.absolute()))}?mode=ro"
        with contextlib.closing(sqlite3.connect(uri, uri=True, timeout=5)) as connection:
            application = connection.execute("PRAGMA application_id").fetchone()[0]
            version = connection.execute("PRAGMA user_version").fetchone()[0]
            if application == version == 0 and not connection.execute("SELECT 1 FROM sqlite_master").fetchone():
                return  # a first start that was killed before it came to anything
            if application != APPLICATION_ID:
                raise StateRefused(
                    f"state file {path}: an SQLite database, but not a state file of agentos-exporter; "
                    f"it was left as it is: {_ANOTHER}"
                )
            if version > SCHEMA_VERSION:
                raise StateRefused(
                    f"state file {path}: of a later schema ({version}) than this version knows ({SCHEMA_VERSION}); "
                    "upgrade agentos-exporter, or move the file away to start anew"
                )
            verdict = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
    except (sqlite3.DatabaseError, UnicodeDecodeError) as error:
        raise StateRefused(f"state file {path}: broken ({error}); {_CURE}") from error
    if verdict != "ok":
        raise StateRefused(f"state file {path}: broken ({verdict}); {_CURE}")


def _explain(path: Path | None, error: Exception, *, started: bool) -> StateError:
    reason = str(error.orig) if isinstance(error, sa.exc.DBAPIError) else str(error)
    where = path if path is not None else "in memory"
    text = reason.lower()
    if "disk is full" in text or "no space" in text:
        rest = ": nothing was lost, and polling goes on from here" if started else " first"
        return StateError(f"state file {where}: the disk is full; free some space{rest}")
    if "readonly" in text or "read-only" in text:
        return StateError(f"state file {where}: read-only; make it writable for this user")
    if "malformed" in text or "not a database" in text:
        return StateRefused(f"state file {where}: broken ({reason}); {_CURE}")
    return StateError(f"state file {where}: {reason}")
