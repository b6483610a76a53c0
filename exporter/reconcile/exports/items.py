"""Items of an export → one statement: which days they are of, and which of them came twice."""

from __future__ import annotations

import datetime as dt
from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Iterable
from typing import Final, NamedTuple

from exporter.core.document import shown
from exporter.core.errors import ExportError
from exporter.core.times import utc
from exporter.pricing.money import USD
from exporter.reconcile.exports.records import Record
from exporter.reconcile.figures import DAY, Figures, Key, Measure, Statement, start_of
from exporter.reconcile.reasons import Finding, Reason


class Item(NamedTuple):
    """What one row says.

    Attributes:
        place: Where the row is, for messages.
        start: When its time begins, in microseconds since the epoch.
        end: When its time ends; that moment is not part of it.
        model: The model, as the vendor spells it; '' where the row is of all models.
        figures: What it states; nothing where it only says that there was nothing.
        beyond: The name of what costs money and is no token; '' for tokens.
        key: What tells it apart from all other rows of the vendor; None where nothing does.
        rounding: By how much its money may be off.
        zone: Why its day is not that of UTC; '' where it is.
        more: The name of its file, where that says that the export goes on behind this row, in another file.

    """

    place: str
    start: int
    end: int
    model: str = ""
    figures: Figures = {}  # noqa: RUF012 - a mapping that nobody changes
    beyond: str = ""
    key: Hashable = None
    rounding: int = 0
    zone: str = ""
    more: str = ""


Remark = Callable[[Reason, str], None]
"""Takes a remark about a file."""

NOISE: Final = USD // 10**6
"""By how much money may be off, in units of 10**-18 USD, that is stated as a float or in cents with some decimals."""
_CROSSES: Final = "a row of it spans midnight in UTC"


class Collector:
    """Adds up the items of one vendor."""

    def __init__(self, by: str, vendor: str) -> None:
        self._by = by
        self._vendor = vendor
        self._rows: dict[Key, Counter[Measure]] = defaultdict(Counter)
        self._beyond: Counter[tuple[dt.date, str]] = Counter()
        self._rounding: Counter[Key] = Counter()
        self._ends: dict[dt.date, int] = {}
        self._shifted: dict[dt.date, str] = {}
        self._known: dict[Hashable, Item] = {}
        self._twice = 0
        self._starts: set[int] = set()
        self._unfinished: dict[int, str] = {}
        """ends of pages that are not the last ones → their files"""
        self._remarks: list[Finding] = []

    def remark(self, reason: Reason, text: str) -> None:
        """Note a remark about the files, each only once."""
        if Finding(reason, text) not in self._remarks:
            self._remarks.append(Finding(reason, text))

    def add(self, items: Iterable[Item]) -> None:
        """Add items. Raises ExportError where one contradicts another."""
        for item in items:
            self._starts.add(item.start)
            if item.more:
                self._unfinished[item.end] = item.more
            if not self._is_twice(item):
                self._take(item)

    def _is_twice(self, item: Item) -> bool:
        if item.key is None:
            return False
        before = self._known.setdefault(item.key, item)
        if before is item:
            return False
        if before.figures != item.figures:
            raise ExportError(
                f"{item.place}: states other figures than {before.place} for the same time and the same fields; "
                "give the newer export alone"
            )
        self._twice += bool(item.figures)
        return True

    def _take(self, item: Item) -> None:
        if item.end <= item.start:
            raise ExportError(f"{item.place}: ends before it begins; export it once more")
        day, last = utc(item.start).date(), utc(item.end - 1).date()
        if item.zone or last != day:
            for date in {day, last}:
                self._shifted[date] = item.zone or _CROSSES
        self._ends[day] = max(item.end, self._ends.get(day, 0))
        if item.beyond:
            self._beyond[day, item.beyond] += item.figures[Measure.COST]
            return
        if item.figures:
            figures = self._rows[day, item.model]
            for measure, amount in item.figures.items():
                figures[measure] += amount
            self._rounding[day, item.model] += item.rounding

    def statement(self) -> Statement:
        """All that was added."""
        newest = max(self._ends, default=dt.date.min)
        remarks = list(self._remarks)
        for end, file in self._unfinished.items():
            if end not in self._starts:
                text = f"{file} is not the last page of its export; give the next one too"
                remarks.append(Finding(Reason.PAGES_MISSING, text))
        if self._twice:
            rows = "1 row is" if self._twice == 1 else f"{self._twice} rows are"
            remarks.append(Finding(Reason.DUPLICATE_ROWS, f"{rows} in the files twice, and counted once"))
        return Statement(
            self._by,
            self._vendor,
            {key: dict(figures) for key, figures in self._rows.items()},
            frozenset(self._ends),
            frozenset(day for day, end in self._ends.items() if day < newest or end >= start_of(day) + DAY),
            dict(self._beyond),
            self._shifted,
            dict(self._rounding),
            tuple(remarks),
        )


def remark_unknown(names: Iterable[str], known: frozenset[str], file: str, remark: Remark) -> None:
    """Name the fields of a file that are not compared.

    Args:
        names: The fields of the file.
        known: The fields that are compared.
        file: The file.
        remark: Takes the remark.

    """
    if unknown := sorted(set(names) - known):
        remark(Reason.PASSED_OVER, f"{file}: fields that are not known: {shown(', '.join(unknown), 300)}")


def more_behind(page: Record, bucket: Record, file: str) -> str:
    """The name of the file where a bucket is the last one of a page that is not the last one; else ''."""
    buckets = page.fields["data"]
    return file if page.fields.get("has_more") is True and bucket.fields is buckets[-1] else ""
