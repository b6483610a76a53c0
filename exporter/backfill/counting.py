"""Traces → increments, each at the first sample at or after its time; counted as the daemon counts.

Figures of a whole trace or run count at the end of the trace. A session is observed when it has been idle for as long
as the daemon waits; a session that is not idle by the end is observed at the last sample.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import islice
from typing import TYPE_CHECKING, Final

from exporter.backfill.work import Row
from exporter.bookkeeping.intake import SESSION_IDLE
from exporter.core.model import RUN_KINDS, SpanKind
from exporter.counting.delta import Delta
from exporter.counting.fold import fold, observe_session, root_kind
from exporter.counting.runs import RunRecord, settle
from exporter.metrics.catalog import METRICS, Kind
from exporter.metrics.increments import Increments, Key
from exporter.metrics.series import StoredSeries

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from exporter.backfill.period import Period
    from exporter.backfill.work import Work
    from exporter.core.model import Span, Trace
    from exporter.counting.cashier import Cashier
    from exporter.counting.delta import SessionPart
    from exporter.ledger.coverage import Coverage
    from exporter.metrics.totals import Totals
    from exporter.sources.protocol import Batch

_AT_ONCE: Final = 1_000
"""Sessions that are observed at once; most of them have a sample of their own"""


class Counter:
    """Counts the past of one AgentOS into its work file. Methods block, and are called one at a time."""

    def __init__(
        self, agentos: str, period: Period, work: Work, cashier: Cashier, totals: Totals, coverage: Coverage
    ) -> None:
        """Count increments of one AgentOS into a work file.

        Args:
            agentos: Name of the instance.
            period: The samples that are wanted.
            work: The work file.
            cashier: Prices and charges calls.
            totals: Empty totals, with the limits of the configuration.
            coverage: What the state of the daemon says. A backfill that continues uses what it began with.

        """
        self._agentos = agentos
        self._period = period
        self._work = work
        self._cashier = cashier
        self._totals = totals
        """finds the label values that the limits admit; its totals stay 0"""
        self._keys: dict[Key, Key] = {}
        """series → the series that it is counted in"""
        with work.transaction():
            if not work.keys():
                work.admit(coverage.admitted)
                work.name(key for key in coverage.series if _is_of_spans(key[0]))
        self._totals.restore(map(_empty, work.keys()), work.admitted())

    def absorb(self, batch: Batch) -> int:
        """Count the new spans of a batch, and keep them with the batch's cursor; return how many traces were new."""
        deltas: dict[int, Delta] = {}
        counted_spans = self._work.counted([trace.id for trace in batch.traces])
        counted: dict[str, set[int]] = {}
        new = spans = hidden = 0
        for trace in sorted(batch.traces, key=lambda trace: (trace.end, trace.id)):
            before = counted.get(trace.id, counted_spans.get(trace.id, set()))
            fresh = self._count(deltas, trace, before, reported=trace.id in counted_spans or trace.id in counted)
            new += trace.id not in counted_spans and trace.id not in counted
            hidden += max(0, trace.total_spans - trace.nodes) if trace.id not in counted_spans else 0
            spans += len(fresh)
            counted[trace.id] = before | fresh
        with self._work.transaction():
            self._work.count(counted)
            self._commit(deltas)
            self._work.add_figures({"traces": new, "spans": spans, "hidden": hidden, "ignored": len(batch.ignored)})
            if batch.cursor is not None:
                self._work.reach(batch.db, batch.cursor["reached"])
        return new

    def _count(self, deltas: dict[int, Delta], trace: Trace, counted: set[int], *, reported: bool) -> set[int]:
        """Add the new spans of a trace to the deltas of their samples; return the ids of the spans that count then."""
        runs: dict[int, RunRecord] = {}
        fresh: set[int] = set()
        ids = {span.id for span in trace.spans}
        for at, some in self._by_sample(trace.spans, counted):
            delta = self._delta(deltas, at)
            fresh |= set(
                fold(delta, trace, ids - some, runs, now=trace.end, final=True, cashier=self._cashier),
            )
        at_end = self._delta(deltas, self._period.sample_of(trace.end))
        settle(at_end, runs, self._cashier)
        if not reported:
            at_end.add("agentos_traces_total", (self._agentos, root_kind(trace)))
        return fresh

    def _by_sample(self, spans: Iterable[Span], counted: set[int]) -> Iterator[tuple[int, set[int]]]:
        """(sample, ids of the spans that it is the first to show) of all that are new.

        Runs come before what ran in them, which may have ended earlier: a call is added to the run that it is of.
        """
        runs: dict[int, set[int]] = {}
        others: dict[int, set[int]] = {}
        for span in spans:
            if span.kind is not SpanKind.HTTP and span.id not in counted:
                group = runs if span.kind in RUN_KINDS else others
                group.setdefault(self._period.sample_of(span.end), set()).add(span.id)
        if len(runs) == 1 and runs.keys() == others.keys():  # nearly always, and half the work
            ((at, some),) = runs.items()
            yield at, some | others[at]
            return
        yield from runs.items()
        yield from others.items()

    def _delta(self, deltas: dict[int, Delta], at: int) -> Delta:
        if at not in deltas:
            deltas[at] = Delta(self._agentos)
        return deltas[at]

    def _commit(self, deltas: Mapping[int, Delta]) -> None:
        for at, delta in sorted(deltas.items()):
            rows = [
                Row(self._limited(key), at, (amount,)) for key, amount in delta.counters.items() if _is_of_spans(key[0])
            ]
            rows += [
                Row(self._limited(key), at, (*change.counts, change.total))
                for key, change in delta.histograms.items()
                if _is_of_spans(key[0])
            ]
            self._work.add(rows)
            self._work.take_part(delta.sessions)

    def _limited(self, key: Key) -> Key:
        """The series that a series is counted in, within the limits. Once decided, it stays so."""
        limited = self._keys.get(key)
        if limited is None:
            admitted = Increments()
            if METRICS[key[0]].kind is Kind.HISTOGRAM:
                admitted.histogram(*key)
            else:
                admitted.add(*key, 0)
            plan = self._totals.plan(admitted, show=True)
            self._totals.restore(map(_empty, plan.series), plan.admitted)
            self._work.admit(plan.admitted)
            limited = self._keys[key] = next(series for series in plan.series if series[0] == key[0])
        return limited

    def close_sessions(self) -> None:
        """Observe all sessions, once everything is read. To do so twice adds nothing."""
        idle = _idle(self._work.sessions())
        with self._work.transaction():
            while some := list(islice(idle, _AT_ONCE)):
                deltas: dict[int, Delta] = {}
                for session_part in some:
                    at = self._period.sample_of(session_part.last + SESSION_IDLE)
                    observe_session(self._delta(deltas, at), session_part)
                self._commit(deltas)
            self._work.forget_sessions()


def _idle(parts: Iterable[tuple[int, SessionPart]]) -> Iterator[SessionPart]:
    """The activity of each session until it was idle; if it goes on later, it begins again, as in the daemon."""
    session, open_part = None, None
    for digest, session_part in parts:
        if open_part is not None and digest == session and session_part.last - open_part.last <= SESSION_IDLE:
            open_part.join(session_part)
            continue
        if open_part is not None:
            yield open_part
        session, open_part = digest, replace(session_part)
    if open_part is not None:
        yield open_part


def _is_of_spans(metric: str) -> bool:
    """Whether a metric has a past. The state may name one that this version does not know."""
    definition = METRICS.get(metric)
    return definition is not None and definition.of_spans


def _empty(key: Key) -> StoredSeries:
    metric, labels = key
    buckets = METRICS[metric].buckets
    return StoredSeries(metric, labels, counts=(0,) * (len(buckets) + 1) if buckets else (), shown=True)
