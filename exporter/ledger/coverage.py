"""What a state says of one AgentOS to others than its daemon."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import sqlalchemy as sa

from exporter.ledger import tables

if TYPE_CHECKING:
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

    """

    since: int | None = None
    series: tuple[Key, ...] = ()
    admitted: tuple[tuple[str, str], ...] = ()
    user_key: bytes | None = None


def read(connection: sa.Connection, agentos: str) -> Coverage:
    """Read what is known of an AgentOS. Raises ValueError, TypeError or KeyError where it cannot be understood."""
    series, admissions = tables.series.c, tables.admissions.c
    known = connection.execute(sa.select(series.metric, series.labels).where(series.agentos == agentos))
    key = connection.execute(sa.select(tables.meta.c.value).where(tables.meta.c.key == USER_KEY)).scalar()
    return Coverage(
        floors(connection).get(agentos),
        tuple((metric, tuple(map(str, json.loads(labels)))) for metric, labels in known),
        tuple((label, value) for label, value in connection.execute(sa.select(admissions.label, admissions.value))),
        None if key is None else bytes.fromhex(key),
    )


def floors(connection: sa.Connection) -> dict[str, int]:
    """Of each AgentOS: traces that ended at or after are counted (the source's clock, microseconds)."""
    found: dict[str, int] = {}
    for agentos, data in connection.execute(sa.select(tables.cursors.c.agentos, tables.cursors.c.data)):
        floor = int(json.loads(data)["floor"])
        found[agentos] = min(floor, found.get(agentos, floor))
    return found
