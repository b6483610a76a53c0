"""Times are integers: microseconds since the Unix epoch. What turns them into dates and texts, and back."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Final

EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
DAY: Final = 86_400_000_000
"""Microseconds"""
_MICROSECOND: Final = timedelta(microseconds=1)
_LATEST: Final = (datetime(9999, 1, 1, tzinfo=UTC) - EPOCH) // _MICROSECOND


def micros(moment: datetime) -> int:
    """Microseconds since the epoch; a time without zone is UTC, as agno stores it."""
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return (moment - EPOCH) // _MICROSECOND


def utc(at: int) -> datetime:
    """The date and time of microseconds since the epoch. Raises OverflowError beyond the year 9999."""
    return EPOCH + timedelta(microseconds=at)


def day_of(at: int) -> int:
    """The day in UTC, counted from the epoch."""
    return at // DAY


def stamp(at: int) -> str:
    """A time as agno writes it: UTC, `+00:00`, six digits. Times before 1970 or after 9998 become the limit."""
    return utc(max(0, min(at, _LATEST))).isoformat(timespec="microseconds")


def parse(text: str) -> int:
    """A date or time in ISO 8601; UTC if it has no zone.

    Raises:
        ValueError: for what is no time.
        OverflowError: for one that lies outside of the years 1 to 9999 in UTC.

    """
    moment = datetime.fromisoformat(text)
    return micros(moment if moment.tzinfo is None else moment.astimezone(UTC))
