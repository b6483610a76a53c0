"""One batch becomes one transaction: which spans are new, their increments, and the state of each trace.

States of a trace: OPEN while spans are hidden → COMPLETE → SETTLED. It settles when it is unchanged for an overlap; if
it shows only a request whose run may still be going on in the background, when it is unchanged for the horizon. An OPEN
trace that is unchanged for the horizon is EXPIRED, and its missing spans count as hidden. A reading that shows more
opens the trace again.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from exporter.core.model import MICROSECONDS, Trace, TraceState
from exporter.core.times import day_of
from exporter.counting.budgets import KEPT
from exporter.counting.cashier import Cashier
from exporter.counting.delta import Delta, digest
from exporter.counting.fold import awaits_run, count_details, fold, note_values, observe_session, root_kind, roots_of
from exporter.counting.run_details import BLOCKED, count_blocks
from exporter.counting.runs import RunRecord, settle
from exporter.ledger.records import Changes, Record
from exporter.metrics.catalog import IGNORED_REASONS, ROOT_KINDS, VALUE_FIELDS
from exporter.sources.protocol import Batch

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable

    from exporter.bookkeeping.shared import Shared

FIRST_ASK: Final = 15 * MICROSECONDS
"""An open trace is asked for after 15 s, 30 s, 1 min ... up to the horizon."""
GONE_AFTER: Final = 3
"""An id that three believed polls in a row did not return is gone."""
LATE: Final = 10 * 60 * MICROSECONDS
"""A trace that ended this long before its first reading belongs to the past, and not to present rates."""
_ANNOUNCED: Final = (
    "agentos_exporter_hidden_spans_total",
    "agentos_exporter_orphan_spans_total",
    "agentos_exporter_source_resets_total",
)
SESSION_IDLE: Final = 30 * 60 * MICROSECONDS
ACTIVITY_KEPT: Final = 25 * 3600 * MICROSECONDS


@dataclass(slots=True)
class Absorbed:
    """What one batch brought. `late` of its `spans` are of traces that ended long ago."""

    traces: int = 0
    spans: int = 0
    skipped: int = 0
    late: int = 0


@dataclass(frozen=True, slots=True)
class _Reading:
    """How a reading of a trace compares with the ledger.

    Attributes:
        changed: It shows something else than the last reading.
        expiring: Spans are missing, and nothing has changed for the horizon.
        old: The trace ended long enough ago for every clock.
        was_complete: The last reading was complete.
        final: No later reading is waited for.

    """

    changed: bool
    expiring: bool
    old: bool
    was_complete: bool
    final: bool


class Intake:
    """Makes batches of one AgentOS durable. Methods block; the caller keeps them from overlapping."""

    def __init__(
        self,
        agentos: str,
        shared: Shared,
        *,
        overlap: float,
        horizon: float,
        cashier: Cashier | None = None,
        enriches: Callable[[], bool] | None = None,
    ) -> None:
        """Take in the batches of one AgentOS.

        Args:
            agentos: Name of the instance.
            shared: What all instances share.
            overlap: The `overlap` of the configuration, in seconds.
            horizon: Its `trace_horizon`, in seconds.
            cashier: Prices and charges calls; without one, calls have no cost.
            enriches: Says whether tokens and cost of calls wait for the detail of their run.

        """
        self.agentos = agentos
        self._ledger = shared.ledger
        self._shared = shared
        self._lease = shared.lease(agentos)
        self._clock = shared.clock
        self._overlap = round(overlap * MICROSECONDS)
        self._horizon = round(horizon * MICROSECONDS)
        self._cashier = cashier if cashier is not None else Cashier()
        self._enriches = enriches or (lambda: False)

    def announce(self) -> None:
        """Create, at 0, the series whose labels are known from the start. Raises StateError."""
        delta = Delta(self.agentos)
        name = (self.agentos,)
        for metric in _ANNOUNCED:
            delta.add(metric, name, 0)
        for reason in IGNORED_REASONS:
            delta.add("agentos_exporter_ignored_traces_total", (self.agentos, reason), 0)
        for field_name in VALUE_FIELDS:
            delta.add("agentos_exporter_ignored_values_total", (self.agentos, field_name), 0)
        for kind in ROOT_KINDS:
            delta.add("agentos_traces_total", (self.agentos, kind), 0)
        self._shared.commit(Changes(self.agentos, lease=self._lease), delta, show=True)

    def absorb(self, batch: Batch) -> Absorbed:
        """Count the new spans of the batch and commit them. Raises StateError; nothing is counted then."""
        delta = Delta(self.agentos)
        book = _Book(self._ledger.records(self.agentos, _named(batch)))
        absorbed = self._count(delta, book, batch)
        changes = Changes(
            self.agentos,
            book.touched,
            cursor=None if batch.cursor is None else (batch.db, batch.cursor),
            activity=delta.activity,
            sessions=delta.sessions,
            spending=delta.spending,
            allowances=delta.allowances,
            waiting=[replace(call, first=batch.first) for call in delta.waiting],
            lease=self._lease,
        )
        self._shared.commit(changes, delta, show=batch.first)
        return absorbed

    def _count(self, delta: Delta, book: _Book, batch: Batch) -> Absorbed:
        late, now = 0, self._clock.now_us()
        as_of = batch.as_of or now
        for trace in batch.traces:
            before = delta.spans
            self._read(delta, book, trace, batch, now=now, as_of=as_of)
            # The end of the trace decides: the first spans of a long run show only when it ends, and are not late.
            # Orphans are not late either: the exporter itself waited for their ancestors.
            if as_of - trace.end > LATE and not trace.orphans:
                late += delta.spans - before
        for trace_id in batch.settled:
            if (record := book.find(trace_id, batch.db)) is not None and record.state is TraceState.COMPLETE:
                self._settle(delta, book, record)
        for trace_id in batch.missed:
            if (record := book.find(trace_id, batch.db)) is not None:
                self._miss(delta, book, record, now)
        skipped = self._ignore(delta, book, batch, now) + batch.own
        if batch.own:
            delta.add("agentos_exporter_ignored_traces_total", (self.agentos, "own"), batch.own)
        if batch.reset:
            delta.add("agentos_exporter_source_resets_total", (self.agentos,))
        return Absorbed(len(batch.traces), delta.spans, skipped, late)

    def _read(self, delta: Delta, book: _Book, trace: Trace, batch: Batch, *, now: int, as_of: int) -> None:
        """Count the new spans of one reading of a trace, and update the state of the trace.

        Args:
            delta: What the transaction adds up to.
            book: The records that the transaction works on.
            trace: The reading.
            batch: What the reading is part of.
            now: Our clock, in microseconds.
            as_of: The source's clock, in microseconds.

        """
        record = book.record(trace)
        reading = self._compare(book, record, trace, now=now, as_of=as_of)
        runs = book.runs(trace.id)
        runs_elsewhere = set(runs) - set(record.runs)
        deferred = delta.deferred
        fresh = fold(
            delta,
            trace,
            book.counted(trace.id),
            runs,
            now=now,
            final=reading.final,
            cashier=self._cashier,
            enrich=self._enriches(),
        )
        self._count_details(delta, trace, batch, fresh, runs)
        record.spans.update(fresh)
        record.runs.update((span, run) for span, run in runs.items() if span not in runs_elsewhere)
        record.total_spans, record.nodes, record.end = trace.total_spans, trace.nodes, trace.end
        record.created = trace.created
        record.misses = 0
        if trace.nodes:
            record.root_kind = root_kind(trace)
        if reading.changed:
            record.changed, record.asks = now, 0
        if reading.expiring:
            self._expire(delta, book, record)
        elif trace.open or delta.deferred > deferred:
            self._keep_open(record, reading, now, follows=batch.follows and trace.open)
        elif reading.changed or record.state is not TraceState.SETTLED:
            record.state = TraceState.COMPLETE
            at_once = reading.old and not reading.was_complete
            record.next_ask = self._settles(record, trace, now=now, as_of=as_of, at_once=at_once)
            if record.next_ask <= now:
                self._settle(delta, book, record)
        book.touch(record)

    def _compare(self, book: _Book, record: Record, trace: Trace, *, now: int, as_of: int) -> _Reading:
        """Compare a reading of a trace with what the ledger has of it."""
        new = book.is_new(record)
        stored = (record.total_spans, record.nodes, record.end)
        changed = new or stored != (trace.total_spans, trace.nodes, trace.end)
        unchanged_for = 0 if changed else now - record.changed
        expiring = trace.open and not changed and unchanged_for >= self._horizon
        # The overlap, and half as much again for each of the two clocks.
        old = as_of - trace.end > 5 * self._overlap // 2
        # An asynchronous database writes out of order: what looks complete may lack an agent for a moment.
        # With orphans among its spans the source has given up waiting for the others.
        whole = not trace.open and (old or unchanged_for >= FIRST_ASK or bool(trace.orphans))
        was_complete = not new and record.state in {TraceState.COMPLETE, TraceState.SETTLED}
        return _Reading(changed, expiring, old, was_complete, final=expiring or whole)

    def _keep_open(self, record: Record, reading: _Reading, now: int, *, follows: bool) -> None:
        """Say when a trace with missing spans is asked for again; `follows`: the source sees each added span."""
        if not reading.changed and record.state is not TraceState.OPEN:
            return
        record.state = TraceState.OPEN
        if follows:
            record.next_ask = max(record.changed + self._horizon, now + FIRST_ASK)
        else:
            self._ask_later(record, now, again=not reading.changed)

    def _count_details(
        self, delta: Delta, trace: Trace, batch: Batch, fresh: Collection[int], runs: dict[int, RunRecord]
    ) -> None:
        """Count details of runs whose spans are `fresh`, and note values of dimensions."""
        if batch.details:
            count_details(delta, trace, fresh, batch.details, self._cashier)
            blocked = {run for run, detail in batch.details.items() if detail.guardrail}
            if roots := roots_of(trace, fresh, blocked):
                counted = self._ledger.seen(self.agentos, BLOCKED, map(digest, roots))
                count_blocks(delta, roots, batch.details, counted, self._clock.now_us())
        if runs and self._cashier.dimensions:
            tags = batch.tags.get(trace.id, ())
            note_values(trace, runs, self._cashier.dimensions, details=batch.details, tags=tags)

    def _settles(self, record: Record, trace: Trace, *, now: int, as_of: int, at_once: bool) -> int:
        """When a complete trace settles unless it changes. `at_once`: it need not wait for an overlap."""
        due = now if at_once else record.changed + self._overlap
        if awaits_run(trace):
            # The horizon counts from the request's end, or from when it was first read if that is earlier.
            due = max(due, now + self._horizon - max(now - record.changed, as_of - trace.end))
        return due

    def _ask_later(self, record: Record, now: int, *, again: bool) -> None:
        if again and record.next_ask <= now:
            record.asks += 1
        elif again:
            return
        record.next_ask = min(now + (FIRST_ASK << min(record.asks, 40)), max(record.changed + self._horizon, now))

    def _miss(self, delta: Delta, book: _Book, record: Record, now: int) -> None:
        record.misses += 1
        if record.state is TraceState.OPEN:
            self._ask_later(record, now, again=True)
        if record.misses >= GONE_AFTER:
            if record.state is TraceState.OPEN:
                self._expire(delta, book, record)
            elif record.state is TraceState.COMPLETE:
                self._settle(delta, book, record)
        book.touch(record)

    def _settle(self, delta: Delta, book: _Book, record: Record) -> None:
        record.state = TraceState.SETTLED
        self._report(delta, book, record)

    def _expire(self, delta: Delta, book: _Book, record: Record) -> None:
        hidden = max(0, record.total_spans - record.nodes - record.hidden)
        record.hidden += hidden
        record.state = TraceState.EXPIRED
        delta.add("agentos_exporter_hidden_spans_total", (self.agentos,), hidden)
        self._report(delta, book, record)

    def _report(self, delta: Delta, book: _Book, record: Record) -> None:
        """Count the trace itself and the figures of its whole runs. Several databases with the trace count it once."""
        if not book.reported(record.id):
            delta.add("agentos_traces_total", (self.agentos, record.root_kind))
        record.reported = True
        settle(delta, record.runs, self._cashier)
        book.touch(record)

    def _ignore(self, delta: Delta, book: _Book, batch: Batch, now: int) -> int:
        skipped = 0
        for trace_id, reason in batch.ignored:
            if (record := book.find(trace_id, batch.db)) is not None:
                # The trace was readable before. An unreadable trace is treated like one that was not returned.
                self._miss(delta, book, record, now)
            key = _ignored_id(trace_id, reason)
            if book.find(key, batch.db) is None:
                book.add(Record(key, batch.db, TraceState.IGNORED, 0, 0, created=now, end=0, changed=now))
                delta.add("agentos_exporter_ignored_traces_total", (self.agentos, reason))
                skipped += 1
        return skipped

    def observe_idle_sessions(self, watermark: int) -> int:
        """Observe sessions idle for 30 minutes at `watermark` (source's clock, microseconds); return how many."""
        idle = self._ledger.idle_sessions(self.agentos, watermark - SESSION_IDLE)
        if idle:
            delta = Delta(self.agentos)
            for session in idle.values():
                observe_session(delta, session)
            changes = Changes(self.agentos, observed_sessions=list(idle), lease=self._lease)
            self._shared.commit(changes, delta, show=False)
        return len(idle)

    def prune(self, db: str, *, created_before: int) -> int:
        """Forget traces created before this moment of the source's clock, which it will not return again."""
        now = self._clock.now_us()
        return self._ledger.prune(
            self.agentos,
            db,
            created_before=created_before,
            active_before=now - ACTIVITY_KEPT,
            first_day=day_of(now - KEPT),
        )


def _named(batch: Batch) -> set[str]:
    """Ids of all records that the batch may touch."""
    ids = {trace.id for trace in batch.traces} | {*batch.settled, *batch.missed}
    for trace_id, reason in batch.ignored:
        ids |= {trace_id, _ignored_id(trace_id, reason)}
    return ids


def _ignored_id(trace_id: str, reason: str) -> str:
    """Where the ledger remembers that a trace was ignored, apart from the trace itself, which may yet be read well."""
    return f"{reason}:{trace_id}"


class _Book:
    """The records that one transaction works on."""

    def __init__(self, records: dict[str, list[Record]]) -> None:
        """`records` are what the ledger has, by trace id."""
        self._records = records
        self._touched: dict[tuple[str, str], Record] = {}
        self._new: set[tuple[str, str]] = set()

    @property
    def touched(self) -> list[Record]:
        return list(self._touched.values())

    def find(self, trace_id: str, db: str) -> Record | None:
        return next((record for record in self._records.get(trace_id, ()) if record.db == db), None)

    def add(self, record: Record) -> None:
        self._records.setdefault(record.id, []).append(record)
        self._new.add((record.id, record.db))
        self.touch(record)

    def record(self, trace: Trace) -> Record:
        record = self.find(trace.id, trace.db)
        if record is None:
            record = Record(
                trace.id,
                trace.db,
                TraceState.OPEN,
                trace.total_spans,
                trace.nodes,
                created=trace.created,
                end=trace.end,
                changed=0,
            )
            self.add(record)
        return record

    def is_new(self, record: Record) -> bool:
        """Whether this is the first reading; a second reading in the same batch is not."""
        key = (record.id, record.db)
        if key in self._new:
            self._new.discard(key)
            return True
        return False

    def counted(self, trace_id: str) -> set[int]:
        """Span ids counted in any database of the AgentOS."""
        parts: Iterable[Record] = self._records.get(trace_id, ())
        return set().union(*(record.spans for record in parts))

    def runs(self, trace_id: str) -> dict[int, RunRecord]:
        """Runs of the trace that are not settled, in any database; all their records count as touched."""
        runs: dict[int, RunRecord] = {}
        for record in self._records.get(trace_id, ()):
            if record.runs:
                runs |= record.runs
                self.touch(record)
        return runs

    def reported(self, trace_id: str) -> bool:
        return any(record.reported for record in self._records.get(trace_id, ()))

    def touch(self, record: Record) -> None:
        self._touched[record.id, record.db] = record
