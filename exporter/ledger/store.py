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
from typing import TYPE_CHECKING, Final

import sqlalchemy as sa

from exporter.core.errors import StateRefused
from exporter.core.model import TraceState
from exporter.core.times import DAY
from exporter.counting.budgets import Allowance, Charge
from exporter.ledger import statements, tables
from exporter.ledger.coverage import USER_KEY
from exporter.ledger.questions import Questions
from exporter.ledger.records import (
    Changes,
    agentos_of,
    as_json,
    day_row,
    digest,
    parts_of,
    series_key,
    series_row,
    trace_row,
)
from exporter.ledger.sqlite import StateFile
from exporter.ledger.upgrades import layouts_text, take_up_layouts, upgrade
from exporter.metrics.series import Plan

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping

    from exporter.ledger.leases import Election, Lease, Leases
    from exporter.ledger.place import Place
    from exporter.metrics.increments import Key

_CREATED: Final = "created"
_KEY_BYTES: Final = 32


class Ledger(Questions):
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
