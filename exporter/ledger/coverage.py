"""What a state tells others than its daemon about one AgentOS."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import sqlalchemy as sa

from exporter.ledger import tables

if TYPE_CHECKING:
    from collections.abc import Iterator

    from exporter.metrics.increments import Key

USER_KEY: Final = "user_key"
"""The key of `meta` with the secret that keys the hashes of user ids, in hexadecimal digits."""


@dataclass(frozen=True, slots=True)
class Coverage:
    """What of an AgentOS is counted already.

    Attributes:
        since: Traces that ended at or after are counted (the source's clock, microseconds); None: it was never read.
        series: All its series.
        admitted: All (label, value) within the limits, of any AgentOS.
        user_key: The secret that keys the hashes of user ids; None where none was made yet.
        hidden: Spans that the AgentOS announced and never showed.
        ignored: Traces of it that were not counted, but for the exporter's own requests.
        until: Traces that ended before were read (the source's clock, microseconds); None: it was never read.
        waiting: Calls that are counted and whose tokens and cost are not yet: they wait for the detail of their run.

    """

    since: int | None = None
    series: tuple[Key, ...] = ()
    admitted: tuple[tuple[str, str], ...] = ()
    user_key: bytes | None = None
    hidden: int = 0
    ignored: int = 0
    until: int | None = None
    waiting: int = 0


def read(connection: sa.Connection, agentos: str) -> Coverage:
    """Read what the state has of an AgentOS. Raises ValueError, TypeError or KeyError if it cannot be understood."""
    series, admissions = tables.series.c, tables.admissions.c
    metrics = connection.execute(sa.select(series.metric, series.labels).where(series.agentos == agentos))
    key = connection.execute(sa.select(tables.meta.c.value).where(tables.meta.c.key == USER_KEY)).scalar()
    return Coverage(
        min((floor for name, floor in floors(connection) if name == agentos), default=None),
        tuple((metric, tuple(map(str, json.loads(labels)))) for metric, labels in metrics),
        tuple((label, value) for label, value in connection.execute(sa.select(admissions.label, admissions.value))),
        None if key is None else bytes.fromhex(key),
        _total(connection, "agentos_exporter_hidden_spans_total", agentos),
        _total(connection, "agentos_exporter_ignored_traces_total", agentos),
        _read_until(connection, agentos),
        _waiting(connection, agentos),
    )


def _total(connection: sa.Connection, metric: str, agentos: str) -> int:
    """The sum of a counter over all its series of an AgentOS, without those of the exporter's own requests."""
    series = tables.series.c
    stored = sa.select(series.labels, series.value).where(series.metric == metric, series.agentos == agentos)
    return sum(int(value) for labels, value in connection.execute(stored) if "own" not in json.loads(labels)[1:])


def _read_until(connection: sa.Connection, agentos: str) -> int | None:
    cursors = tables.cursors.c
    stood = connection.execute(sa.select(cursors.data).where(cursors.agentos == agentos)).scalars()
    return min((int(cursor["cutoff"]) for cursor in map(json.loads, stood) if "cutoff" in cursor), default=None)


def _waiting(connection: sa.Connection, agentos: str) -> int:
    waiting = sa.select(sa.func.count()).select_from(tables.waiting).where(tables.waiting.c.agentos == agentos)
    return int(connection.execute(waiting).scalar_one())


def floors(connection: sa.Connection) -> Iterator[tuple[str, int]]:
    """(an AgentOS, since when traces of a database of it are counted, in microseconds of the source's clock)."""
    for agentos, data in connection.execute(sa.select(tables.cursors.c.agentos, tables.cursors.c.data)):
        yield agentos, int(json.loads(data)["floor"])
