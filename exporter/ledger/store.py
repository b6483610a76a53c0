"""The durable state: which spans are counted, the totals, the cursors, and which series were exposed.

A batch is committed in one transaction. Whatever crashes, the state has either all of a batch or nothing of it. So a
span is counted if and only if its id is here.
"""

from __future__ import annotations

import contextlib
import json
import secrets
import sqlite3
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import sqlalchemy as sa

from exporter.core.errors import StateRefused
from exporter.core.model import FUTURE, KnownTrace, TraceState
from exporter.core.times import DAY
from exporter.counting.budgets import Allowance, Charge
from exporter.counting.delta import SessionPart
from exporter.counting.waiting import WaitingCall
from exporter.ledger import daily, statements, tables
from exporter.ledger.coverage import USER_KEY
from exporter.ledger.records import (
    Changes,
    Record,
    agentos_of,
    as_json,
    day_row,
    decode_call,
    digest,
    parts_of,
    read_series,
    read_trace,
    series_key,
    series_row,
    trace_row,
)
from exporter.ledger.sqlite import StateFile
from exporter.ledger.upgrades import layouts_text, take_up_layouts, upgrade
from exporter.metrics.totals import Plan, StoredSeries

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
    from datetime import date

    from exporter.ledger.leases import Election, Lease, Leases
    from exporter.ledger.place import Place
    from exporter.metrics.increments import Key

_CREATED: Final = "created"
_KEY_BYTES: Final = 32


class Ledger:
    """The state. Methods block: call them in a thread. One transaction at a time."""

    def __init__(self, place: Place | Path | None) -> None:
        """Open a state: a path means a file, which is created on first start; None means memory.

        Raises StateRefused for a state that must not be used, StateError if it cannot be written at the moment.
        """
        self._place = StateFile(place) if place is None or isinstance(place, Path) else place
        self.begun_anew: list[str] = []
        """metrics whose stored series had other labels, buckets or units than this version's: they start at 0"""
        self._definitions: dict[str, str] = {}
        """of the budgets in force in this process, by name"""
        self.created = 0
        """when the totals began to count, in microseconds; see `date`"""
        self._mark = f"{tables.SCHEMA_VERSION} {digest(layouts_text())}"
        self._guard = threading.Lock()
        self._started = False
        try:
            with self.transaction(write=True) as connection:
                self._prepare(connection)
                with self._understood("the layout of a total"):
                    self.begun_anew = take_up_layouts(connection)
                self._put_mark(connection)
            self._started = True
        except BaseException:
            self._place.close()
            raise

    def _put_mark(self, connection: sa.Connection) -> None:
        """Keep replicas of other versions from writing: their series have other labels, buckets or units."""
        meta = tables.meta
        if connection.execute(sa.select(meta.c.value).where(meta.c.key == tables.MARK)).scalar() == self._mark:
            return
        self._place.fence(connection)
        connection.execute(sa.delete(meta).where(meta.c.key == tables.MARK))
        connection.execute(sa.insert(meta).values(key=tables.MARK, value=self._mark))

    @property
    def durable(self) -> bool:
        """Whether committed data survives the process."""
        return self._place.durable

    @property
    def leases(self) -> Leases | None:
        """What of the state is this process's; None where all of it is."""
        return self._place.leases

    def elect(self, wanted: Collection[str]) -> Election:
        """Renew the leases of this process, and take free ones of `wanted`.

        Raises StateError; then this process keeps its leases until they run out.
        """
        with self._guard, self._explained():
            return self._place.elect(wanted, self._mark)

    def release(self, names: Collection[str]) -> None:
        """Make these AgentOS instances free for other processes. Raises StateError."""
        with self._guard, self._explained():
            self._place.release(names)

    def break_off(self, *, for_good: bool = False) -> None:
        """Make threads that wait for the database fail now; with `for_good`, all later calls as well."""
        self._place.break_off(for_good=for_good)

    def close(self) -> None:
        """Close the state; closing twice is harmless."""
        self._place.close()

    def __str__(self) -> str:
        return str(self._place)

    @contextlib.contextmanager
    def transaction(
        self, *, write: bool = False, agentos: str | None = None, lease: Lease | None = None
    ) -> Iterator[sa.Connection]:
        """A transaction: all of it is committed, or nothing.

        Args:
            write: Whether it writes.
            agentos: The AgentOS that it writes for; None for what all share.
            lease: The lease under which its changes were worked out.

        Raises:
            StateError: The database failed, or the lease is lost.

        """
        place = self._place
        with (
            self._guard,
            self._explained(),
            place.transaction(write=write, agentos=agentos, lease=lease) as connection,
        ):
            yield connection

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except (sa.exc.DBAPIError, sqlite3.Error, OSError) as error:
            raise self._place.explain(error, started=self._started) from error

    def _prepare(self, connection: sa.Connection) -> None:
        version = self._place.version(connection)
        if version == 0:
            tables.schema.create_all(connection)
            connection.execute(sa.insert(tables.meta).values(key="format", value=tables.FORMAT))
            self._place.set_version(connection)
            return
        have = set(sa.inspect(connection).get_table_names(schema=self._place.schema))
        expected = {name for name in tables.schema.tables if tables.ADDED.get(name, 1) <= version}
        if missing := sorted(expected - have):
            raise StateRefused(f"{self._place}: broken: table {missing[0]} is missing; {self._place.cure}")
        if version < tables.SCHEMA_VERSION:
            with self._understood("a trace or a call"):
                upgrade(connection, have, version)
            self._place.set_version(connection)

    @contextlib.contextmanager
    def _understood(self, what: str) -> Iterator[None]:
        """Refuse the file where a row of it cannot be understood."""
        try:
            yield
        except (ValueError, TypeError, KeyError, ArithmeticError, RecursionError) as error:
            why = f"broken: {what} cannot be read ({type(error).__name__}); {self._place.cure}"
            raise StateRefused(f"{self._place}: {why}") from error

    # Reading

    def load(self, agentos: Collection[str] | None = None) -> tuple[list[StoredSeries], list[tuple[str, str]]]:
        """(series, all admitted (label, value)); the series are those of these AgentOS instances, None for all.

        Raises StateRefused where a row cannot be understood.
        """
        wanted = sa.select(tables.series)
        if agentos is not None:
            wanted = wanted.where(tables.series.c.agentos.in_(agentos))
        with self.transaction() as connection, self._understood("a total"):
            series = [read_series(row) for row in connection.execute(wanted)]
            admissions = tables.admissions.c
            query = sa.select(admissions.label, admissions.value)
            admitted = [(label, value) for label, value in connection.execute(query)]
        return series, admitted

    def cursors(self, agentos: str) -> dict[str, dict[str, Any]]:
        """Committed cursors by database."""
        with self.transaction() as connection:
            query = sa.select(tables.cursors.c.db, tables.cursors.c.data).where(tables.cursors.c.agentos == agentos)
            with self._understood("a cursor"):
                return {db: dict(json.loads(data)) for db, data in connection.execute(query)}

    def records(self, agentos: str, ids: Iterable[str]) -> dict[str, list[Record]]:
        """The records of these traces, by id: one for each database that has a part of the trace."""
        records: dict[str, list[Record]] = {}
        with self.transaction() as connection, self._understood("a trace"):
            for row in statements.find_records(connection, agentos, list(ids)):
                record = read_trace(row)
                records.setdefault(record.id, []).append(record)
        return records

    def known_traces(self, agentos: str, db: str, ids: Iterable[str]) -> dict[str, KnownTrace]:
        """The known ones of these traces in one database, by id."""
        wanted = list(ids)
        traces: dict[str, KnownTrace] = {}
        for start in range(0, len(wanted), statements.CHUNK):
            some_ids = wanted[start : start + statements.CHUNK]
            some = self._known(statements.NAMED, {"agentos": agentos, "db": db, "ids": some_ids})
            traces.update((trace.id, trace) for trace in some)
        return traces

    def open_due(self, agentos: str, db: str, now: int, limit: int) -> list[KnownTrace]:
        """Open traces to be asked for at `now`, the most overdue first."""
        return self._known(statements.OPEN_DUE, {"agentos": agentos, "db": db, "now": now, "most": limit})

    def unsettled(self, agentos: str, db: str, limit: int, *, due: int, before: int = FUTURE) -> list[KnownTrace]:
        """Complete traces that are about to settle, the most overdue first.

        Args:
            agentos: Name of the instance.
            db: The database.
            limit: Most traces.
            due: The time by which they settle unless they change, in microseconds.
            before: They ended before this time of the source's clock, in microseconds.

        """
        values = {"agentos": agentos, "db": db, "before": before, "due": due, "most": limit}
        return self._known(statements.UNSETTLED, values)

    def _known(self, query: sa.Select[Any], values: dict[str, Any]) -> list[KnownTrace]:
        with self.transaction() as connection, self._understood("a trace"):
            rows = connection.execute(query, values).all()
            return [KnownTrace(trace, db, TraceState(state), *numbers) for trace, db, state, *numbers in rows]

    def sentinels(self, agentos: str, db: str, ages: Sequence[int]) -> list[str]:
        """Ids of traces that are known to exist.

        Args:
            agentos: Name of the instance.
            db: The database.
            ages: Times of the source's clock, in microseconds: for each, the newest trace that ended before it.

        """
        chosen: list[str] = []
        with self.transaction() as connection:
            for age in ages:
                wanted = {"agentos": agentos, "db": db, "age": age, "chosen": chosen}
                chosen = [*chosen, *connection.execute(statements.NEWEST, wanted).scalars()]
        return chosen

    def any_trace(self, agentos: str) -> bool:
        """Whether a trace of this AgentOS is known."""
        with self.transaction() as connection:
            query = sa.select(tables.traces.c.id).where(tables.traces.c.agentos == agentos).limit(1)
            return connection.execute(query).first() is not None

    def count_open(self) -> dict[str, int]:
        """Number of open traces of each AgentOS that has any."""
        traces = tables.traces.c
        query = sa.select(traces.agentos, sa.func.count()).where(traces.state == TraceState.OPEN)
        with self.transaction() as connection:
            return dict(connection.execute(query.group_by(traces.agentos)).all())

    def active(self, since: Sequence[int]) -> dict[tuple[str, str], tuple[int, ...]]:
        """Distinct sessions and users whose latest span ended at or after each of these times (microseconds).

        They are counted by AgentOS and kind in one statement: with hundreds of instances, one each would be thousands.
        """
        activity = tables.activity.c
        counts = (sa.func.count(sa.case((activity.seen >= moment, 1))) for moment in since)
        query = sa.select(activity.agentos, activity.what, *counts).where(activity.seen >= min(since))
        with self.transaction() as connection:
            rows = connection.execute(query.group_by(activity.agentos, activity.what))
            return {(agentos, kind): tuple(active) for agentos, kind, *active in rows}

    def idle_sessions(self, agentos: str, before: int, limit: int = 1000) -> dict[int, SessionPart]:
        """Sessions to be observed: the cost of all their runs is known.

        Args:
            agentos: Name of the instance.
            before: Their last run ended before this time, in microseconds.
            limit: Most sessions.

        Returns:
            The sessions, by digest of their id.

        """
        with self.transaction() as connection:
            awaited = sa.select(tables.waiting.c.session).where(
                tables.waiting.c.agentos == agentos, tables.waiting.c.session.is_not(None)
            )
            sessions = tables.sessions.c
            idle = statements.PARTS.where(sessions.last < before, sessions.digest.not_in(awaited)).limit(limit)
            return parts_of(connection.execute(idle, {"agentos": agentos}).all())

    def spent(self, since: int) -> dict[Charge, int]:
        """Spending in periods that start at or after `since` (microseconds), in 10**-18 USD."""
        with self.transaction() as connection, self._understood("a budget"):
            rows = connection.execute(sa.select(tables.spending).where(tables.spending.c.start >= since))
            return {(row.budget, row.start): int(row.spent) for row in rows}

    def allowances(self, budget: str, start: int, *, most: int, at_least: int, top: int) -> dict[str, int]:
        """The values of a dimension that have spent most of the budget that each of them has.

        Args:
            budget: Name of the budget.
            start: Start of the period, in microseconds.
            most: Most values.
            at_least: All values are returned that have spent so much, in 10**-18 USD.
            top: So many values are returned in any case.

        Returns:
            What each has spent, in 10**-18 USD, the largest first.

        """
        with self.transaction() as connection, self._understood("a budget"):
            columns = tables.allowances.c
            query = sa.select(columns.value, columns.spent).where(columns.budget == budget, columns.start == start)
            rows = connection.execute(query.order_by(columns.spent.desc(), columns.value).limit(most)).all()
            spent = [(row.value, int(row.spent)) for row in rows]
        return dict(spent[:top]) | {value: amount for value, amount in spent[top:] if amount >= at_least}

    def allowed(self, budget: str, start: int) -> int:
        """How many values have spent anything of a budget that each has, in the period of this start."""
        with self.transaction() as connection:
            columns = tables.allowances.c
            query = sa.select(sa.func.count()).where(columns.budget == budget, columns.start == start)
            return int(connection.execute(query).scalar() or 0)

    def days(self, agentos: str | None, first: date, last: date) -> daily.Days:
        """The daily sums of an AgentOS, or of all, from the first to the last of these days."""
        with self.transaction() as connection, self._understood("the sum of a day"):
            return daily.read(connection, agentos, first, last)

    def waiting(self, agentos: str) -> list[WaitingCall]:
        """LLM calls that wait for the detail of their run, those that wait longest first."""
        with self.transaction() as connection, self._understood("a call"):
            calls = tables.waiting.c
            query = sa.select(calls.data).where(calls.agentos == agentos).order_by(calls.since)
            return [decode_call(data) for data in connection.execute(query).scalars()]

    def waiting_since(self, agentos: str) -> tuple[int, int] | None:
        """(oldest, newest) `since` of the calls that wait; None where none does."""
        with self.transaction() as connection:
            query = sa.select(sa.func.min(tables.waiting.c.since), sa.func.max(tables.waiting.c.since))
            oldest, newest = connection.execute(query.where(tables.waiting.c.agentos == agentos)).one()
            return None if oldest is None else (int(oldest), int(newest))

    def seen(self, agentos: str, what: str, digests: Iterable[int]) -> set[int]:
        """The digests that are noted as activity of a kind.

        Args:
            agentos: Name of the instance.
            what: The kind of activity.
            digests: The digests in question.

        """
        wanted = list(digests)
        noted: set[int] = set()
        with self.transaction() as connection:
            for start in range(0, len(wanted), statements.CHUNK):
                query = sa.select(tables.activity.c.digest).where(
                    tables.activity.c.agentos == agentos,
                    tables.activity.c.what == what,
                    tables.activity.c.digest.in_(wanted[start : start + statements.CHUNK]),
                )
                noted.update(connection.execute(query).scalars())
        return noted

    def position(self, agentos: str, surface: str) -> dict[str, Any] | None:
        """The position in a list of an AgentOS; None if it was never read."""
        columns = tables.surfaces.c
        query = sa.select(columns.position).where(columns.agentos == agentos, columns.surface == surface)
        with self.transaction() as connection, self._understood("the position in a list"):
            position = connection.execute(query).scalar()
            return None if position is None else dict(json.loads(position))

    def ended(self, agentos: str, surface: str, ids: Iterable[str]) -> set[str]:
        """The rows of a list that are counted already.

        Args:
            agentos: Name of the instance.
            surface: Name of the list.
            ids: Ids of the rows in question.

        """
        with self.transaction() as connection:
            rows = statements.find_ended(connection, agentos, list(ids))
            return {row for row_surface, row in rows if row_surface == surface}

    # Writing

    def date(self, now: int) -> None:
        """Read the time since which the totals count; if the state has none, it becomes `now` (microseconds)."""
        with self.transaction(write=True) as connection, self._understood("its date"):
            statements.add_meta(connection, [(_CREATED, str(now))])  # another process may do so at this moment
            since = sa.update(tables.meta).where(tables.meta.c.key == tables.DAILY_SINCE, tables.meta.c.value == "")
            connection.execute(since.values(value=str(now)))
            created = connection.execute(sa.select(tables.meta.c.value).where(tables.meta.c.key == _CREATED))
            self.created = int(created.scalar_one())

    def user_key(self) -> bytes:
        """The secret that keys the hashes of user ids, made on first use."""
        with self.transaction(write=True) as connection, self._understood("the key of users"):
            query = sa.select(tables.meta.c.value).where(tables.meta.c.key == USER_KEY)
            stored = connection.execute(query).scalar()
            if stored is None:
                stored = secrets.token_hex(_KEY_BYTES)
                connection.execute(sa.insert(tables.meta).values(key=USER_KEY, value=stored))
            key = bytes.fromhex(stored)
            if len(key) < _KEY_BYTES:
                raise ValueError("too short")
            return key

    def budgets(self) -> dict[str, tuple[str, int]]:
        """By name of a budget: its definition, and since when (microseconds) its spending is known."""
        with self.transaction() as connection, self._understood("a budget"):
            return {row.name: (row.definition, int(row.since)) for row in connection.execute(sa.select(tables.budgets))}

    def keep_budgets(self, budgets: Mapping[str, tuple[str, int]]) -> None:
        """Keep exactly these budgets. Spending under another definition is dropped.

        From then on nothing is charged to a budget whose definition another replica has changed.
        """
        budgets_table = tables.budgets
        with self.transaction(write=True) as connection, self._understood("a budget"):
            locked = connection.execute(sa.select(budgets_table).order_by(budgets_table.c.name).with_for_update())
            old = {row.name: row.definition for row in locked}
            for name, definition in old.items():
                if name not in budgets or budgets[name][0] != definition:
                    for table in (tables.spending, tables.allowances):
                        connection.execute(sa.delete(table).where(table.c.budget == name))
                if name not in budgets:
                    connection.execute(sa.delete(budgets_table).where(budgets_table.c.name == name))
            statements.write_budgets(connection, [(name, *budget) for name, budget in budgets.items()])
        self._definitions = {name: definition for name, (definition, _) in budgets.items()}

    def prune_spending(self, before: int) -> int:
        """Forget spending in periods that started before a time (microseconds); return the number of rows."""
        with self.transaction(write=True) as connection:
            gone = (sa.delete(table).where(table.c.start < before) for table in (tables.spending, tables.allowances))
            return sum(int(connection.execute(statement).rowcount) for statement in gone)

    def commit(self, changes: Changes) -> None:
        """Make all of it durable, or nothing. Raises StateError."""
        with self.transaction(write=True, agentos=changes.agentos, lease=changes.lease) as connection:
            statements.write_traces(connection, [trace_row(changes.agentos, record) for record in changes.records])
            self._write_plan(connection, changes.plan)
            self._write_days(connection, changes)
            self._write_people(connection, changes)
            self._write_spending(connection, changes.spending)
            self._write_allowances(connection, changes.allowances)
            self._write_waiting(connection, changes)
            self._write_surface(connection, changes)
            if changes.cursor is not None:
                db, data = changes.cursor
                statements.write_cursors(connection, [(changes.agentos, db, json.dumps(dict(data)))])

    @staticmethod
    def _write_plan(connection: sa.Connection, plan: Plan) -> None:
        statements.write_series(connection, [series_row(series) for series in plan.series.values()])
        # In one order everywhere: two that insert the same rows would wait for each other.
        admitted = sorted(plan.admitted)
        statements.write_admissions(connection, [(label, digest(value), value) for label, value in admitted])

    def _write_days(self, connection: sa.Connection, changes: Changes) -> None:
        amounts = {day_row(changes.agentos, key): amount for key, amount in changes.plan.days.items()}
        days = statements.find_days(connection, changes.agentos, [digest for _, digest, *_ in amounts])
        with self._understood("the sum of a day"):
            before = {digest: int(value) for digest, value in days}
        new = [(*row, str(before.get(row[1], 0) + amount)) for row, amount in amounts.items()]
        statements.write_days(connection, new)

    def _write_people(self, connection: sa.Connection, changes: Changes) -> None:
        if changes.observed_sessions:
            gone = sa.delete(tables.sessions).where(
                tables.sessions.c.agentos == changes.agentos, tables.sessions.c.digest.in_(changes.observed_sessions)
            )
            connection.execute(gone)
        last_seen = changes.activity.items()
        statements.write_activity(connection, [(changes.agentos, kind, digest, at) for (kind, digest), at in last_seen])
        self._write_sessions(connection, changes)

    @staticmethod
    def _write_sessions(connection: sa.Connection, changes: Changes) -> None:
        before = parts_of(statements.find_parts(connection, changes.agentos, list(changes.sessions)))
        rows = []
        for session, session_part in changes.sessions.items():
            session_sum = before.get(session, session_part)
            if session_sum is not session_part:
                session_sum.join(session_part)
            rows.append(
                (changes.agentos, session, session_sum.first, session_sum.last, session_sum.runs, str(session_sum.cost))
            )
        statements.write_sessions(connection, rows)

    def _write_spending(self, connection: sa.Connection, spending: Mapping[Charge, int]) -> None:
        if not spending:
            return
        self._check_budgets(connection, {budget for budget, _ in spending})
        rows = []
        for (budget, start), amount in spending.items():
            columns = tables.spending.c
            query = sa.select(columns.spent).where(columns.budget == budget, columns.start == start)
            with self._understood("a budget"):
                before = int(connection.execute(query).scalar() or "0")
            rows.append((budget, start, str(before + amount)))
        statements.write_spending(connection, rows)

    def _write_allowances(self, connection: sa.Connection, allowances: Mapping[Allowance, int]) -> None:
        if not allowances:
            return
        self._check_budgets(connection, {budget for budget, _, _ in allowances})
        columns = tables.allowances.c
        rows = []
        for (budget, start, value), amount in sorted(allowances.items()):
            query = sa.select(columns.spent).where(
                columns.budget == budget, columns.start == start, columns.value == value
            )
            with self._understood("a budget"):
                before = int(connection.execute(query).scalar() or "0")
            rows.append((budget, start, value, f"{before + amount:0{tables.AMOUNT_DIGITS}d}"))
        statements.write_allowances(connection, rows)

    def _check_budgets(self, connection: sa.Connection, names: set[str]) -> None:
        """Keep other processes from charging these budgets until the transaction ends. Raises StateRefused."""
        columns = tables.budgets.c
        locked = sa.select(columns.name, columns.definition).where(columns.name.in_(names)).order_by(columns.name)
        stored = dict(connection.execute(locked.with_for_update()).all())
        for name in names & self._definitions.keys():
            if stored.get(name) != self._definitions[name]:
                raise StateRefused(
                    f"{self}: another replica has another definition of budget {name}; give all the same configuration"
                )

    @staticmethod
    def _write_waiting(connection: sa.Connection, changes: Changes) -> None:
        if changes.resolved:
            done = [{"agentos": changes.agentos, "id": trace, "span": str(span)} for trace, span in changes.resolved]
            connection.execute(statements.RESOLVED, done)
        rows = [
            (changes.agentos, call.trace, str(call.span), call.session, call.since, as_json(call))
            for call in changes.waiting
        ]
        statements.write_waiting(connection, rows)

    @staticmethod
    def _write_surface(connection: sa.Connection, changes: Changes) -> None:
        if (surface := changes.surface) is None:
            return
        statements.write_surfaces(connection, [(changes.agentos, surface.surface, json.dumps(dict(surface.position)))])
        rows = [(changes.agentos, surface.surface, row, at) for row, at in surface.ended.items()]
        statements.write_ended(connection, rows)
        columns = tables.ended.c
        old = (
            columns.agentos == changes.agentos,
            columns.surface == surface.surface,
            columns.at < surface.forget_before,
        )
        connection.execute(sa.delete(tables.ended).where(*old))

    def expose(self, keys: Iterable[Key]) -> None:
        """Commit that these series show their value from now on; doing it twice is harmless."""
        rows: dict[str, list[dict[str, str]]] = {}
        for metric, labels in keys:
            key = {"b_metric": metric, "b_digest": series_key(labels)[0]}
            rows.setdefault(agentos_of(metric, labels), []).append(key)
        if not rows:
            return
        series = tables.series.c
        these = (series.metric == sa.bindparam("b_metric"), series.digest == sa.bindparam("b_digest"))
        shown = sa.update(tables.series).where(*these).values(shown=True)
        if self.leases is None:
            with self.transaction(write=True) as connection:
                connection.execute(shown, [row for some in rows.values() for row in some])
            return
        rows.pop("", None)  # rows of no AgentOS are not kept then
        for agentos, some in rows.items():
            with self.transaction(write=True, agentos=agentos) as connection:
                connection.execute(shown, some)

    @staticmethod
    def _raise_since(connection: sa.Connection, at: int) -> None:
        """Say that the sums of days are whole from this moment on, at the earliest."""
        columns = tables.meta.c
        before = connection.execute(sa.select(columns.value).where(columns.key == tables.DAILY_SINCE)).scalar()
        if before is None or (before and int(before) < at):
            statements.write_meta(connection, [(tables.DAILY_SINCE, str(at))])

    def prune(self, agentos: str, db: str, *, created_before: int, active_before: int, first_day: int = 0) -> int:
        """Forget old traces; return how many.

        Args:
            agentos: Of which AgentOS.
            db: Of which of its databases.
            created_before: Traces can no longer come back that were created before (microseconds).
            active_before: Activity before lies outside of all windows (microseconds).
            first_day: The first day whose sums are kept, counted from the epoch.

        """
        with self.transaction(write=True, agentos=agentos) as connection:
            old = sa.delete(tables.traces).where(
                tables.traces.c.agentos == agentos,
                tables.traces.c.db == db,
                tables.traces.c.created < created_before,
                tables.traces.c.state.in_([TraceState.SETTLED, TraceState.EXPIRED, TraceState.IGNORED]),
                # The cost of its run may still be to come.
                tables.traces.c.id.not_in(sa.select(tables.waiting.c.trace).where(tables.waiting.c.agentos == agentos)),
            )
            forgotten = connection.execute(old).rowcount
            activity, daily = tables.activity.c, tables.daily.c
            connection.execute(
                sa.delete(tables.activity).where(activity.agentos == agentos, activity.seen < active_before)
            )
            gone = connection.execute(sa.delete(tables.daily).where(daily.agentos == agentos, daily.day < first_day))
            if gone.rowcount:
                self._raise_since(connection, first_day * DAY)
        return int(forgotten)
