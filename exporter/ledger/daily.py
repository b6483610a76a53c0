"""Sums of counters by the day on which calls and runs began."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Final, NamedTuple

import sqlalchemy as sa

from exporter.core import times
from exporter.ledger import tables
from exporter.ledger.coverage import floors

if TYPE_CHECKING:
    from exporter.metrics.increments import Labels

SINCE: Final = "daily_since"
"""The key of `meta` with the moment from which on the sums of days are kept, in microseconds since the epoch."""


class DaySum(NamedTuple):
    """What a counter added up to on one day.

    Attributes:
        agentos: The name of the AgentOS.
        day: The day in UTC on which the calls or runs began.
        metric: The counter.
        labels: Its labels, in the order of the catalog.
        value: The sum, in storage units.

    """

    agentos: str
    day: dt.date
    metric: str
    labels: Labels
    value: int


class Days(NamedTuple):
    """Daily sums, and from when those of each AgentOS are complete, in microseconds since the epoch."""

    since: Mapping[str, int] = {}
    rows: Sequence[DaySum] = ()


def read(connection: sa.Connection, agentos: str | None, first: dt.date, last: dt.date) -> Days:
    """The sums of an AgentOS, or of all, from the first to the last of these days. Raises ValueError."""
    kept = tables.daily
    query = sa.select(kept).where(kept.c.day.between(_number(first), _number(last)))
    if agentos is not None:
        query = query.where(kept.c.agentos == agentos)
    rows = connection.execute(query.order_by(kept.c.agentos, kept.c.day, kept.c.metric, kept.c.labels))
    sums = tuple(
        DaySum(row.agentos, _date(row.day), row.metric, tuple(map(str, json.loads(row.labels))), int(row.value))
        for row in rows
    )
    return Days(_since(connection, agentos), sums)


def _since(connection: sa.Connection, agentos: str | None) -> dict[str, int]:
    """Calls that began later are all in the sums: those that an AgentOS shows, since the state has sums at all."""
    known = dict(connection.execute(sa.select(tables.meta.c.key, tables.meta.c.value)).all())
    begun = int(known[SINCE]) if SINCE in known else None
    if begun is None:
        return {}
    # A state that had sums from its first start also has those of what it read back then.
    always = known.get("created") == known[SINCE]
    floor_of = floors(connection)
    return {name: floor if always else max(floor, begun) for name, floor in floor_of.items() if agentos in {None, name}}


def _number(day: dt.date) -> int:
    return day.toordinal() - times.EPOCH.toordinal()


def _date(number: int) -> dt.date:
    return dt.date.fromordinal(number + times.EPOCH.toordinal())
