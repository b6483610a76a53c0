"""Daily sums, added up by group. A figure without a sum is missing from its group: it is unknown, not 0."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction

from exporter.ledger.daily import DaySum
from exporter.metrics.catalog import METRICS
from exporter.report.columns import DAY, Column, Grouping, dimension_name


@dataclass(frozen=True, slots=True)
class Group:
    """Figures of one group.

    Attributes:
        labels: Its values of the keys, in their order; days are in ISO 8601.
        figures: By name of a column, in storage units. What is not in it is unknown.

    """

    labels: tuple[str, ...]
    figures: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Table:
    """All groups, those of a day together, the dearest first.

    Attributes:
        grouping: By what they are grouped.
        groups: The groups.
        total: All of them together.

    """

    grouping: Grouping
    groups: tuple[Group, ...]
    total: Group

    @property
    def shown(self) -> tuple[Column, ...]:
        """The columns for people: tokens by class if the groups have classes, else all together."""
        columns = [column for column in self.grouping.columns if column.title]
        classes = any(column.classes for column in columns)
        return tuple(column for column in columns if not (classes and column.name == "tokens"))

    def split(self, most: int) -> tuple[Sequence[Group], Group | None]:
        """The first groups, and the others as one; None if there are no others."""
        groups, others = self.groups[:most], self.groups[most:]
        sums: Counter[str] = Counter()
        for group in others:
            sums.update(group.figures)
        return groups, Group((), sums) if others else None

    def share(self, group: Group) -> Fraction | None:
        """A group's part of the cost; None where either is unknown, or nothing cost anything."""
        cost, whole = group.figures.get("cost_usd"), self.total.figures.get("cost_usd")
        return None if cost is None or not whole else Fraction(cost, whole)


def tabulate(rows: Iterable[DaySum], grouping: Grouping) -> Table:
    """Add up daily sums by group."""
    readers = {column.metric: _Reader(column.metric, grouping) for column in grouping.columns}
    sums: defaultdict[tuple[str, ...], Counter[str]] = defaultdict(Counter)
    total: Counter[str] = Counter()
    for row in rows:
        reader = readers.get(row.metric)
        if reader is None or not reader.counts(row):
            continue
        labels = reader.labels(row)
        for name in reader.columns(row):
            sums[labels][name] += row.value
            total[name] += row.value
    groups = [Group(labels, _completed(figures, grouping)) for labels, figures in sums.items()]
    groups.sort(key=_order(grouping))
    return Table(grouping, tuple(groups), Group((), _completed(total, grouping)))


class _Reader:
    """How rows of one counter are read."""

    def __init__(self, metric: str, grouping: Grouping) -> None:
        labels = METRICS[metric].labels
        self._dimension = dimension_name(grouping.dimension)
        self._dimension_place = labels.index("dimension") if "dimension" in labels else None
        self._places = [None if key == DAY else labels.index(key) for key in grouping.labels_of(metric)]
        self._class_place = labels.index("token_class") if "token_class" in labels else None
        self._columns = [column for column in grouping.columns if column.metric == metric]

    def counts(self, row: DaySum) -> bool:
        """Whether a row belongs to the dimension of the report, if there is one."""
        return self._dimension_place is None or row.labels[self._dimension_place] == self._dimension

    def labels(self, row: DaySum) -> tuple[str, ...]:
        """The row's values of the keys."""
        return tuple(row.day.isoformat() if place is None else row.labels[place] for place in self._places)

    def columns(self, row: DaySum) -> list[str]:
        """The names of the columns that the row adds to."""
        token_class = "" if self._class_place is None else row.labels[self._class_place]
        return [column.name for column in self._columns if not column.classes or token_class in column.classes]


def _completed(figures: Counter[str], grouping: Grouping) -> dict[str, int]:
    """With 0 for parts of a known whole."""
    parts = {column.name: 0 for column in grouping.columns if column.beside in figures}
    return parts | figures


def _order(grouping: Grouping) -> Callable[[Group], tuple[object, ...]]:
    day = grouping.keys.index(DAY) if DAY in grouping.keys else None

    def place(group: Group) -> tuple[object, ...]:
        cost = group.figures.get("cost_usd")
        dearest = (cost is None, -(cost or 0), -group.figures.get("tokens", 0))
        return ("" if day is None else group.labels[day], *dearest, group.labels)

    return place
