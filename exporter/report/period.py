"""The days of a report, in UTC."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Period:
    """From `first` to `last`, both included; `today` is the day on which the report is made."""

    first: dt.date
    last: dt.date
    today: dt.date

    @property
    def over(self) -> bool:
        """Whether its last day is over."""
        return self.last < self.today

    def days(self) -> list[dt.date]:
        """Its days, up to today."""
        last = min(self.last, self.today)
        return [self.first + dt.timedelta(days=n) for n in range((last - self.first).days + 1)]
