"""Sums of counters by the day on which calls and runs began."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import sqlalchemy as sa

from exporter.core import times
from exporter.ledger import tables
from exporter.ledger.coverage import floors

if TYPE_CHECKING:
    from exporter.metrics.increments import Labels


class DaySum(NamedTuple):
    """The sum of a counter on one day.

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
    """The daily sums of an AgentOS, or of all.

    Args:
        connection: An open transaction.
        agentos: Name of the instance; None for all.
        first: The first day.
        last: The last day.

    Raises:
        ValueError: The state holds something else than sums.

    """
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
    """Of each AgentOS: calls that began at or after are all in the sums, in whichever of its databases they are."""
    meta = tables.meta.c
    begun = connection.execute(sa.select(meta.value).where(meta.key == tables.DAILY_SINCE)).scalar()
    if begun == "":
        return {}
    newest_floor: dict[str, int] = {}
    for name, floor in floors(connection):
        newest_floor[name] = max(floor, newest_floor.get(name, int(begun or floor)))
    return {name: since for name, since in newest_floor.items() if agentos in {None, name}}


def _number(day: dt.date) -> int:
    return day.toordinal() - times.EPOCH.toordinal()


def _date(number: int) -> dt.date:
    return dt.date.fromordinal(number + times.EPOCH.toordinal())
