"""Both sides, day by day and model by model: lines with our figures and theirs, and why they differ."""

from __future__ import annotations

import datetime as dt
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Final, NamedTuple, TypeVar

from exporter.reconcile.explain import AGENTOS_RULES, VENDOR_RULES, Case, Rule, explain
from exporter.reconcile.figures import DAY, Figures, Key, Measure, Statement, days_between, start_of
from exporter.reconcile.ours import Ours, Tally
from exporter.reconcile.reasons import Finding, Reason

T = TypeVar("T")

OK: Final = 0
DIFFERENT: Final = 1
NOT_COMPARED: Final = 2


class Line(NamedTuple):
    """One figure of a day, and of a model where `model` is not ''. None: that side does not know it."""

    day: dt.date
    model: str
    measure: Measure
    ours: int | None
    theirs: int | None
    differs: bool
    findings: tuple[Finding, ...]

    @property
    def difference(self) -> int | None:
        """Ours less theirs; None where either is not known."""
        return None if self.ours is None or self.theirs is None else self.ours - self.theirs

    @property
    def percent(self) -> Decimal | None:
        """The difference in percent of their figure, to two decimals; None if that makes no sense."""
        if self.difference is None or not self.theirs:
            return None
        return (Decimal(self.difference) * 100 / abs(self.theirs)).quantize(Decimal("0.01"))


class Gap(NamedTuple):
    """A day that could not be compared, and why."""

    day: dt.date
    finding: Finding


@dataclass(frozen=True, slots=True)
class Report:
    """What came of it.

    Attributes:
        by: Who was compared with.
        lines: All figures that both sides could have.
        gaps: Days that could not be compared.
        remarks: What was found in the export beside its figures.
        unmatched: Models that only one side names: (side, model).

    """

    by: str
    lines: tuple[Line, ...]
    gaps: tuple[Gap, ...]
    remarks: tuple[Finding, ...]
    unmatched: tuple[tuple[str, str], ...]

    @property
    def code(self) -> int:
        """0 where all is the same within the tolerance, 1 where something differs, 2 where a day is not compared."""
        if any(line.differs for line in self.lines):
            return DIFFERENT
        return NOT_COMPARED if self.gaps or not self.lines else OK


class Period(NamedTuple):
    """The days that are asked for; `today` is not over. `tolerance` is in percent."""

    first: dt.date
    last: dt.date
    today: dt.date
    tolerance: Decimal = Decimal(0)


def compare(ours: Ours, mine: Mapping[Key, Tally], statement: Statement, period: Period) -> Report:
    """Compare our figures with a statement.

    Args:
        ours: Our figures.
        mine: Our tallies, by the names that both sides have in common.
        statement: The other side, with the same names; '' stands for all models together.
        period: The days that are compared.

    """
    return _Comparison(ours, mine, statement, period).report()


class _Comparison:
    def __init__(self, ours: Ours, mine: Mapping[Key, Tally], statement: Statement, period: Period) -> None:
        self._ours = ours
        self._statement = statement
        self._period = period
        self._theirs = _by_day(statement.rows)
        self._by_model = _by_day(mine)
        self._rules: tuple[Rule, ...] = VENDOR_RULES if statement.vendor else AGENTOS_RULES
        self._all_stated = {measure for figures in statement.rows.values() for measure in figures}

    def report(self) -> Report:
        gaps, days = [], []
        for day in days_between(self._period.first, self._period.last):
            why = self._gap(day)
            gaps += [Gap(day, why)] if why is not None else []
            days += [day] if why is None else []
        cases = [case for day in days for case in self._cases(day)]
        sums = _sums(cases)
        lines = [self._line(case._replace(sums=sums)) for case in cases]
        for day in days:
            lines += self._beyond(day)
        lines.sort(key=lambda line: line.day)
        return Report(
            self._statement.by, tuple(lines), tuple(gaps), self._statement.remarks, tuple(self._unmatched(days))
        )

    def _gap(self, day: dt.date) -> Finding | None:
        """Why a day cannot be compared; None if it can."""
        if self._ours.since is None:
            return Finding(Reason.LEDGER_BEGINS_LATER, "the ledger has no daily sums of this AgentOS")
        if self._ours.since >= start_of(day) + DAY:
            return Finding(Reason.LEDGER_BEGINS_LATER, "the ledger's daily sums begin later")
        if day not in self._statement.days:
            return Finding(Reason.DAY_NOT_STATED, f"{self._statement.by} says nothing of this day")
        return None

    def _cases(self, day: dt.date) -> Iterator[Case]:
        theirs, counted = self._theirs.get(day, {}), self._by_model.get(day, {})
        stated = {measure for figures in theirs.values() for measure in figures} or self._all_stated
        stated_measures = set(theirs.get("", {}))
        if stated_measures:
            total, sums = Tally(), Counter[Measure]()
            for tally in counted.values():
                total.join(tally)
            for figures in theirs.values():
                sums.update({measure: amount for measure, amount in figures.items() if measure in stated_measures})
            yield from self._group(day, "", total, sums, stated_measures)
        for model in sorted({*counted, *theirs} - {""} if stated - stated_measures else ()):
            yield from self._group(day, model, counted.get(model), theirs.get(model), stated - stated_measures)

    def _group(
        self, day: dt.date, model: str, tally: Tally | None, theirs: Figures | None, measures: set[Measure]
    ) -> Iterator[Case]:
        counted = (tally or Tally()).figures(cache_known=self._ours.cache_known)
        for measure in Measure:
            if measure in measures:
                yield Case(self._ours, self._statement, self._period.today, day, model, measure, tally, counted, theirs)

    def _line(self, case: Case) -> Line:
        differs = self._differs(case)
        findings = explain(self._rules, case) if differs else ()
        return Line(case.day, case.model, case.measure, case.ours, case.theirs, differs, findings)

    def _differs(self, case: Case) -> bool:
        if case.ours is None or case.theirs is None:
            return True
        off = abs(case.ours - case.theirs)
        rounding = self._statement.rounding.get((case.day, case.model), 0) if case.measure is Measure.COST else 0
        return off > rounding and Decimal(off) * 100 > self._period.tolerance * abs(case.theirs)

    def _beyond(self, day: dt.date) -> Iterator[Line]:
        for (of, item), amount in sorted(self._statement.beyond.items()):
            if of == day and amount:
                text = "billed beyond tokens, which no LLM span tells"
                finding = Finding(Reason.BEYOND_TOKENS, text)
                yield Line(day, item, Measure.COST, None, amount, differs=True, findings=(finding,))

    def _unmatched(self, days: list[dt.date]) -> Iterator[tuple[str, str]]:
        counted = {model for day in days for model in self._by_model.get(day, ())}
        theirs = {model for day in days for model in self._theirs.get(day, ())}
        if theirs - {""}:
            yield from (("ours", model) for model in sorted(counted - theirs))
            yield from (("theirs", model) for model in sorted(theirs - counted - {""}))


def _by_day(rows: Mapping[Key, T]) -> dict[dt.date, dict[str, T]]:
    by_day: dict[dt.date, dict[str, T]] = {}
    for (day, model), row in rows.items():
        by_day.setdefault(day, {})[model] = row
    return by_day


def _sums(cases: list[Case]) -> dict[Measure, tuple[int, int]]:
    """Over the whole period: (ours, theirs) of each measure that both know on each day."""
    sums: dict[Measure, tuple[int, int]] = {}
    unknown: set[Measure] = set()
    for case in cases:
        if case.ours is None or case.theirs is None:
            unknown.add(case.measure)
            continue
        ours, theirs = sums.get(case.measure, (0, 0))
        sums[case.measure] = (ours + case.ours, theirs + case.theirs)
    return {measure: both for measure, both in sums.items() if measure not in unknown}
