"""AgentOS's own daily metrics as a statement."""

from __future__ import annotations

import datetime as dt
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from exporter.reconcile.figures import Key, Measure, Statement, days_between

if TYPE_CHECKING:
    from exporter.sources.api.daily import DailyMetrics

NAME: Final = "AgentOS"
_NO_SESSION: Final = {Measure.RUNS: 0, Measure.PROMPT: 0, Measure.COMPLETION: 0}


def statement(daily: Sequence[DailyMetrics], first: dt.date, last: dt.date) -> Statement:
    """AgentOS's own daily metrics as a statement.

    AgentOS leaves out days on which no session began, so their figures are 0. If it has no day at all, its database may
    be failing, which AgentOS does not tell: then the statement says nothing of any day.

    Args:
        daily: The days that AgentOS lists.
        first: The first day.
        last: The last day.

    """
    days = frozenset(days_between(first, last) if daily else ())
    rows: dict[Key, Counter[Measure]] = {(day, ""): Counter(_NO_SESSION) for day in days}
    for metrics in daily:
        if metrics.day in days:
            row = {Measure.RUNS: metrics.runs, Measure.PROMPT: metrics.prompt, Measure.COMPLETION: metrics.completion}
            rows[metrics.day, ""].update(row)
    models = frozenset(model for metrics in daily for model in metrics.models if model)
    figures = {key: dict(sums) for key, sums in rows.items()}
    return Statement(NAME, "", figures, days, days, {}, {}, {}, models=models)
