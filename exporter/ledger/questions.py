"""The questions that a state answers: what is known of traces, sessions, budgets and lists. Nothing is written here."""

from __future__ import annotations

import contextlib
import json
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from exporter.core.errors import StateRefused
from exporter.core.model import FUTURE, KnownTrace, TraceState
from exporter.counting.budgets import Charge
from exporter.counting.delta import SessionPart
from exporter.counting.waiting import WaitingCall
from exporter.ledger import daily, statements, tables
from exporter.ledger.records import Record, decode_call, parts_of, read_series, read_trace
from exporter.metrics.series import StoredSeries

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Sequence
    from contextlib import AbstractContextManager
    from datetime import date

    from exporter.ledger.leases import Lease
    from exporter.ledger.place import Place


class Questions(ABC):
    """The part of a ledger that only reads. Methods block: call them in a thread."""

    _place: Place

    @abstractmethod
    def transaction(
        self, *, write: bool = False, agentos: str | None = None, lease: Lease | None = None
    ) -> AbstractContextManager[sa.Connection]:
        """See Ledger."""

    @contextlib.contextmanager
    def _understood(self, what: str) -> Iterator[None]:
        """Refuse the file where a row of it cannot be understood."""
        try:
            yield
        except (ValueError, TypeError, KeyError, ArithmeticError, RecursionError) as error:
            why = f"broken: {what} cannot be read ({type(error).__name__}); {self._place.cure}"
            raise StateRefused(f"{self._place}: {why}") from error

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
        """The known ones of these traces in one database, by id.

        Args:
            agentos: Name of the instance.
            db: The database.
            ids: Ids of the traces in question.

        """
        wanted = list(ids)
        traces: dict[str, KnownTrace] = {}
        for start in range(0, len(wanted), statements.CHUNK):
            some_ids = wanted[start : start + statements.CHUNK]
            some = self._known(statements.NAMED, {"agentos": agentos, "db": db, "ids": some_ids})
            traces.update((trace.id, trace) for trace in some)
        return traces

    def open_due(self, agentos: str, db: str, now: int, limit: int) -> list[KnownTrace]:
        """Open traces that are to be asked for again, the most overdue first.

        Args:
            agentos: Name of the instance.
            db: The database.
            now: Our clock, in microseconds.
            limit: Most traces.

        """
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
