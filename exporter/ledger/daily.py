"""Sums of counters by the day on which calls and runs began."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from typing import NamedTuple


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
    labels: tuple[str, ...]
    value: int


class Days(NamedTuple):
    """Daily sums, and from when those of each AgentOS are complete, in microseconds since the epoch."""

    since: Mapping[str, int]
    rows: Sequence[DaySum]
