"""Budgets: which of them a call is charged to, and in which period of their calendars. Pure: no clock, no state.

A period starts at the first instant of its first day in the budget's time zone: at midnight, or where clocks jump over
midnight at the instant of the jump. An hour that clocks show twice belongs to the period that has begun. So every
instant lies in exactly one period. A call belongs to the period of its start, whenever it is counted.
"""

from __future__ import annotations

import enum
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from typing import Final
from zoneinfo import ZoneInfo

from exporter.core.model import MICROSECONDS
from exporter.core.times import EPOCH, micros, utc

KEPT: Final = 400 * 24 * 3600 * MICROSECONDS
"""How long a closed period is kept: 13 months and a little more."""

_EARLIEST: Final = micros(datetime(2, 1, 1, tzinfo=UTC))
_LATEST: Final = micros(datetime(9998, 1, 1, tzinfo=UTC))
_REMEMBERED: Final = 64
_DECEMBER: Final = 12

Charge = tuple[str, int]
"""Name of a budget and start of the period that is charged, in microseconds since the epoch."""
Allowance = tuple[str, int, str]
"""A charge of a budget that each value of a dimension has for itself, and the value."""


class Period(enum.StrEnum):
    """How long a budget lasts, by the calendar; a week starts on Monday (ISO 8601)."""

    DAY = "day"
    WEEK = "week"
    MONTH = "month"

    def first_day(self, day: date) -> date:
        """First day of the period that holds `day`."""
        if self is Period.WEEK:
            return day - timedelta(days=day.weekday())
        return day.replace(day=1) if self is Period.MONTH else day

    def next_day(self, first: date) -> date:
        """First day of the period after the one that starts with `first`."""
        if self is Period.MONTH:
            years, month = divmod(first.month, _DECEMBER)
            return date(first.year + years, month + 1, 1)
        return first + timedelta(days=7 if self is Period.WEEK else 1)


class Calendar:
    """The periods of one time zone."""

    def __init__(self, period: Period, time_zone: str) -> None:
        """`time_zone` is an IANA name. Raises ZoneInfoNotFoundError or ValueError if there is no such zone."""
        self._period = period
        self._zone = ZoneInfo(time_zone)
        self._remembered: dict[int, int] = {}
        """start → end of the periods that were asked for last"""
        self._last = (0, 0)

    def bounds(self, at: int) -> tuple[int, int]:
        """(start, end) of the period that holds `at`, all in microseconds since the epoch; the end is excluded."""
        if self._last[0] <= at < self._last[1]:
            return self._last
        for start, end in self._remembered.items():
            if start <= at < end:
                self._last = (start, end)
                return self._last
        self._last = start, end = self._bounds(min(max(at, _EARLIEST), _LATEST))
        if len(self._remembered) >= _REMEMBERED:
            self._remembered.clear()
        self._remembered[start] = end
        return self._last

    def _bounds(self, at: int) -> tuple[int, int]:
        local = utc(at).astimezone(self._zone)
        first = self._period.first_day(local.date())
        start = first_instant(first, self._zone)
        following = self._period.next_day(first)
        end = first_instant(following, self._zone)
        while at >= end:  # clocks went back over midnight, and show a past date
            following = self._period.next_day(following)
            start, end = end, first_instant(following, self._zone)
        return start, end


def first_instant(day: date, zone: ZoneInfo) -> int:
    """When clocks in `zone` first show this date or a later one, in microseconds since the epoch."""
    midnight = datetime.combine(day, time(), zone)
    early, late = (round((midnight.replace(fold=fold) - EPOCH).total_seconds()) for fold in (0, 1))
    if early <= late:
        return early * MICROSECONDS
    # Clocks jump over this midnight; fold=0 is taken for an instant after the jump, fold=1 for one before it.
    before, after = late, early
    while after - before > 1:
        middle = (before + after) // 2
        before, after = (before, middle) if _date(middle, zone) >= day else (middle, after)
    return after * MICROSECONDS


def _date(seconds: int, zone: ZoneInfo) -> date:
    return utc(seconds * MICROSECONDS).astimezone(zone).date()


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """What may be spent in a period; `limit` in 10**-18 USD. Filters that are '' leave nothing out.

    `root`, `agent` and `model` are spelled as the labels are, `user` is the id itself and shows in no repr. With `per`,
    the name of a dimension, each of its values has such a budget.
    """

    name: str
    period: Period
    limit: int
    time_zone: str = "UTC"
    agentos: str = ""
    root: str = ""
    agent: str = ""
    model: str = ""
    user: str = field(default="", repr=False)
    per: str = ""

    def definition(self, user: str, per: str = "") -> str:
        """The parts of the budget that its spending depends on, as text; the limit is not among them.

        `user` stands for the user's id, `per` is the mark of the dimension whose values have the budget.
        """
        fields = [self.agentos, self.root, self.agent, self.model, user, self.period.value, self.time_zone]
        return json.dumps([*fields, per] if self.per else fields)


class Budgets:
    """All budgets, ready to be charged."""

    def __init__(self, budgets: Sequence[Budget] = ()) -> None:
        self.all = tuple(budgets)
        calendars = {(budget.period, budget.time_zone) for budget in self.all}
        self._calendars = {key: Calendar(*key) for key in calendars}
        self._everywhere = self._matchers("")
        self._by_agentos = {budget.agentos: self._matchers(budget.agentos) for budget in self.all if budget.agentos}

    def _matchers(self, agentos: str) -> tuple[tuple[Budget, Calendar], ...]:
        return tuple((budget, self.calendar(budget)) for budget in self.all if budget.agentos in {"", agentos})

    def __bool__(self) -> bool:
        return bool(self.all)

    def calendar(self, budget: Budget) -> Calendar:
        """The calendar of one of these budgets."""
        return self._calendars[budget.period, budget.time_zone]

    def charges(self, base: tuple[str, str, str], model: str, user: str, at: int) -> Iterator[Charge]:
        """The budgets that a call is charged to, with the start of their periods.

        Args:
            base: The call's AgentOS, root and agent.
            model: Its model.
            user: Id of its user, '' if it has none.
            at: When it began, in microseconds.

        """
        for budget, calendar in self._of_call(base, model):
            if not budget.per and (not budget.user or budget.user == user):
                yield budget.name, calendar.bounds(at)[0]

    def allowances(
        self, base: tuple[str, str, str], model: str, values: Mapping[str, str], at: int
    ) -> Iterator[Allowance]:
        """The budgets of dimension values that a call is charged to.

        Args:
            base: The call's AgentOS, root and agent.
            model: Its model.
            values: Its values, by dimension; an unknown value has no budget.
            at: When it began, in microseconds.

        """
        for budget, calendar in self._of_call(base, model):
            if value := values.get(budget.per):
                yield budget.name, calendar.bounds(at)[0], value

    def _of_call(self, base: tuple[str, str, str], model: str) -> Iterator[tuple[Budget, Calendar]]:
        agentos, root, agent = base
        for budget, calendar in self._by_agentos.get(agentos, self._everywhere):
            if (
                (not budget.root or budget.root == root)
                and (not budget.agent or budget.agent == agent)
                and (not budget.model or budget.model == model)
            ):
                yield budget, calendar


def known_since(*, known: int | None, agentos: Mapping[str, bool], now: int, lookback: int) -> int:
    """Since when a budget's spending is known.

    Args:
        known: What the ledger has for this very definition; None for a new one.
        agentos: Each AgentOS in the budget's reach, and whether it was ever read before.
        now: The present, in microseconds since the epoch.
        lookback: Microseconds of history that are counted of an AgentOS which was never read.

    Returns:
        Microseconds since the epoch.

    """
    fresh = now - lookback
    if known is None:
        return now if any(agentos.values()) else fresh
    return known if all(agentos.values()) else max(known, fresh)
