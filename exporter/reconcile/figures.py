"""What both sides state: figures by day and model. A measure that is absent is not known."""

from __future__ import annotations

import datetime as dt
import enum
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from exporter.core.model import MICROSECONDS
from exporter.core.times import EPOCH

if TYPE_CHECKING:
    from exporter.reconcile.reasons import Finding

DAY: Final = 86_400 * MICROSECONDS


class Measure(enum.StrEnum):
    """A figure that is compared: a count, or money in units of 10**-18 USD."""

    RUNS = "runs"
    CALLS = "calls"
    PROMPT = "prompt_tokens"
    """as agno has them: with or without cached tokens, as the provider reports it"""
    COMPLETION = "completion_tokens"
    INPUT = "input_tokens"
    """neither read from a cache nor written to one"""
    CACHE_READ = "cache_read_tokens"
    CACHE_WRITE = "cache_write_tokens"
    OUTPUT = "output_tokens"
    """with reasoning, which no vendor states apart"""
    COST = "cost_usd"


TOKENS: Final = (
    *(Measure.PROMPT, Measure.COMPLETION, Measure.INPUT),
    *(Measure.CACHE_READ, Measure.CACHE_WRITE, Measure.OUTPUT),
)

Figures = Mapping[Measure, int]
Key = tuple[dt.date, str]
"""(day in UTC, model); '' means all models together"""


@dataclass(frozen=True, slots=True)
class Statement:
    """What another side says.

    Attributes:
        by: Who says it, for people.
        vendor: The vendor whose models it is about; '' for those of all vendors.
        rows: Its figures. What a day has under '' is not told by model.
        days: The days that it covers: what it does not list of them, it did not see.
        complete: Those of them that it covers until their end.
        beyond: Money that no token costs, by day and name: searches, storage.
        shifted: Days that are not those of UTC, and why.
        rounding: By how much money may be off because it is stated in cents.
        remarks: What was found in it beside its figures.
        models: Models that it names beside its figures.

    """

    by: str
    vendor: str
    rows: Mapping[Key, Figures]
    days: frozenset[dt.date]
    complete: frozenset[dt.date]
    beyond: Mapping[tuple[dt.date, str], int]
    shifted: Mapping[dt.date, str]
    rounding: Mapping[Key, int]
    remarks: tuple[Finding, ...] = ()
    models: frozenset[str] = frozenset()


def start_of(day: dt.date) -> int:
    """When a day begins in UTC, in microseconds since the epoch."""
    return (day - EPOCH.date()).days * DAY


def days_between(first: dt.date, last: dt.date) -> list[dt.date]:
    """All days from the first to the last."""
    return [first + dt.timedelta(days=count) for count in range((last - first).days + 1)]
