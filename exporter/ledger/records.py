"""The content of the state, as the program's classes and as rows of tables."""

from __future__ import annotations

import array
import functools
import hashlib
import json
import operator
import sys
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import msgspec
import sqlalchemy as sa

from exporter.core.model import KnownTrace, TraceState
from exporter.counting.budgets import Allowance, Charge
from exporter.counting.delta import SessionPart
from exporter.counting.runs import RunRecord
from exporter.counting.waiting import CallKey, WaitingCall
from exporter.ledger import tables
from exporter.metrics.catalog import METRICS, Kind
from exporter.metrics.series import Plan, StoredSeries

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from exporter.ledger.leases import Lease
    from exporter.metrics.increments import DayKey, Labels


@dataclass(slots=True)
class Record(KnownTrace):
    """A trace in the ledger, with what was counted of it.

    `spans` are the ids of its counted spans, `hidden` how many of its spans were already reported as hidden, `reported`
    whether the trace itself was counted, `runs` its unsettled runs, by id of their outermost span.
    """

    hidden: int = 0
    root_kind: str = "unknown"
    reported: bool = False
    runs: dict[int, RunRecord] = field(default_factory=dict)
    spans: set[int] = field(default_factory=set)


@dataclass(frozen=True, slots=True)
class SurfaceChange:
    """The changes that a reading of one list of an AgentOS makes.

    Attributes:
        surface: The name of the list.
        position: How far it is read; opaque to everyone but its source.
        ended: Rows that are counted with it: their ids, and the times by which the list is ordered.
        forget_before: Rows dated before will not be read again.

    """

    surface: str
    position: Mapping[str, Any]
    ended: Mapping[str, int]
    forget_before: int


@dataclass(slots=True)
class Changes:
    """All changes that one transaction makes for one AgentOS."""

    agentos: str
    records: Sequence[Record] = ()
    plan: Plan = field(default_factory=Plan)
    activity: Mapping[tuple[str, int], int] = field(default_factory=dict)
    sessions: Mapping[int, SessionPart] = field(default_factory=dict)
    observed_sessions: Sequence[int] = ()
    waiting: Sequence[WaitingCall] = ()
    resolved: Sequence[CallKey] = ()
    """calls that waited, and whose tokens and cost are in this very transaction"""
    cursor: tuple[str, Mapping[str, Any]] | None = None
    lease: Lease | None = None
    """the lease under which the changes were worked out; None if any held lease will do"""
    spending: Mapping[Charge, int] = field(default_factory=dict)
    allowances: Mapping[Allowance, int] = field(default_factory=dict)
    surface: SurfaceChange | None = None


_decode_runs: Final = msgspec.json.Decoder(dict[int, RunRecord]).decode
decode_call: Final = msgspec.json.Decoder(WaitingCall).decode
_STANDING: Final = operator.attrgetter(*[column.name for column in tables.traces.c][4:-2])
"""Fields of a record that are written as they are: all but its AgentOS, id, database, state, runs and spans."""


def trace_row(agentos: str, record: Record) -> tuple[Any, ...]:
    """A record in the order of the columns of its table."""
    runs = as_json(record.runs) if record.runs else "{}"
    return (agentos, record.id, record.db, int(record.state), *_STANDING(record), runs, _pack(record.spans))


def read_trace(row: Sequence[Any]) -> Record:
    """The columns of its table have the order of its fields."""
    _, trace, db, state, *standing, reported, unsettled, spans = row
    runs = _decode_runs(unsettled)
    values = (trace, db, TraceState(state), *standing, bool(reported), runs, _unpack(spans))
    return Record(*values)


def as_json(records: Mapping[int, RunRecord] | WaitingCall) -> str:
    """As JSON, with all fields by their names: a later version may add some."""
    return msgspec.json.encode(records).decode()


def parts_of(rows: Iterable[Sequence[Any]]) -> dict[int, SessionPart]:
    """Parts of sessions, by digest of the session's id."""
    return {digest: SessionPart(first, last, runs, int(cost)) for digest, first, last, runs, cost in rows}


def _pack(spans: Iterable[int]) -> bytes:
    """8 bytes a span id, sorted, little-endian whatever the machine."""
    packed = array.array("Q", sorted(spans))
    if sys.byteorder == "big":
        packed.byteswap()
    return packed.tobytes()


def _unpack(blob: bytes) -> set[int]:
    packed = array.array("Q")
    packed.frombytes(blob)
    if sys.byteorder == "big":
        packed.byteswap()
    return set(packed)


def digest(text: str) -> str:
    """A digest that stands for a text in a key, since PostgreSQL limits the length of indexed texts."""
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


@functools.lru_cache(maxsize=8192)
def series_key(labels: Labels) -> tuple[str, str]:
    """Labels as digest and text: those of a series are asked for in each batch it is in."""
    text = json.dumps(labels)
    return digest(text), text


def series_row(series: StoredSeries) -> tuple[Any, ...]:
    """A series in the order of the columns of its table."""
    key, labels = series_key(series.labels)
    return (series.metric, key, agentos_of(series.metric, series.labels), labels, value_text(series), series.shown)


def agentos_of(metric: str, labels: Labels) -> str:
    """The AgentOS of a series; '' if it has none."""
    described = METRICS.get(metric)
    return "" if described is None or described.agentos is None else labels[described.agentos]


def day_row(agentos: str, key: DayKey) -> tuple[Any, ...]:
    """A sum of one day in the order of the columns of its table, but for the sum."""
    day, metric, labels = key
    text = series_key(labels)[1]
    return (agentos, digest(f"{day} {metric} {text}"), day, metric, text)


def value_text(series: StoredSeries) -> str:
    """Totals as text: integers of any size stay exact. Lists of them are JSON as Python prints them."""
    return f"[{[*series.counts]}, {series.total}]" if series.counts else str(series.value)


def read_series(row: sa.Row[Any]) -> StoredSeries:
    """A row of `series`. Raises ValueError if it does not fit the catalog."""
    labels = tuple(str(label) for label in json.loads(row.labels))
    metric = METRICS.get(row.metric)
    if metric is not None and len(labels) != len(metric.labels):
        raise ValueError(f"{row.metric}: labels")
    if metric is None or metric.kind is not Kind.HISTOGRAM:
        return StoredSeries(row.metric, labels, value=int(row.value), shown=bool(row.shown))
    counts, total = json.loads(row.value)
    if len(counts) != len(metric.buckets) + 1:
        raise ValueError(f"{row.metric}: shape")
    return StoredSeries(row.metric, labels, counts=tuple(map(int, counts)), total=int(total), shown=bool(row.shown))
