"""Rows of agno's span table → `exporter.core.model`. Runs in a thread: no I/O, no clock.

Kinds, names and errors follow the rules of AgentOS's API for the same rows (`agno.os.routers.traces.schemas`), so both
sources give the same numbers. Only the attributes of `Attributes` become Python objects; the decoder skips prompts and
answers, or they never leave the database. A trace with a row that is no span is set aside and named, and the other
traces are read.
"""

from __future__ import annotations

import functools
import json
import operator
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import msgspec

from exporter.core.error_class import OTHER, error_class
from exporter.core.model import MICROSECONDS, NO_USAGE, RUN_KINDS, Span, SpanKind, TokenUsage, Trace
from exporter.core.span_names import (
    component_name,
    error_type,
    http_method,
    is_continuation,
    is_streamed,
    model_class,
    provider_label,
)
from exporter.core.times import micros
from exporter.pricing.providers import provider_of_class
from exporter.sources.facts import (
    clean_id,
    clean_name,
    cost,
    identifier,
    not_believed,
    span_id,
    tokens,
)

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

_HTTP, _LLM = SpanKind.HTTP, SpanKind.LLM
_KINDS: Final = {"LLM": _LLM, "TOOL": SpanKind.TOOL, "CHAIN": SpanKind.WORKFLOW}
"""`openinference.span.kind` → kind, as AgentOS derives it; AGENT also means teams"""
_STATUSES: Final = frozenset({"OK", "ERROR", "UNSET"})
_ZONE: Final = "+00:00"
_SECONDS_KEPT: Final = 10_000
_SHORT: Final = 256
"""Longest text, in characters, that is remembered."""
_NANOSECONDS: Final = 1_000
_SECONDS_MOST: Final = 10**11
"""A whole number below counts seconds, as agno reads it; nanoseconds otherwise."""


class Attributes(msgspec.Struct, array_like=True, gc=False):
    """The attributes of a span that are read at all; whatever a user put there, so of any type.

    In JSON they are an array, as SQLite extracts them.
    """

    kind: Any = msgspec.field(name="openinference.span.kind", default=None)
    agno_team: Any = msgspec.field(name="agno.team.id", default=None)
    team: Any = msgspec.field(name="team.id", default=None)
    run: Any = msgspec.field(name="agno.run.id", default=None)
    session: Any = msgspec.field(name="session.id", default=None)
    user: Any = msgspec.field(name="user.id", default=None)
    model: Any = msgspec.field(name="llm.model_name", default=None)
    provider: Any = msgspec.field(name="llm.provider", default=None)
    prompt: Any = msgspec.field(name="llm.token_count.prompt", default=None)
    completion: Any = msgspec.field(name="llm.token_count.completion", default=None)
    total: Any = msgspec.field(name="llm.token_count.total", default=None)
    cache_read: Any = msgspec.field(name="llm.token_count.prompt_details.cache_read", default=None)
    cache_write: Any = msgspec.field(name="llm.token_count.prompt_details.cache_write", default=None)
    reasoning: Any = msgspec.field(name="llm.token_count.completion_details.reasoning", default=None)
    cost: Any = msgspec.field(name="llm.cost.total", default=None)
    exception: Any = msgspec.field(name="exception.message", default=None)


ATTRIBUTES: Final = tuple(field.encode_name for field in msgspec.structs.fields(Attributes))
"""Names of the attributes that are read, in the order of the fields of `Attributes`"""
NUMBERS: Final = frozenset(name for name in ATTRIBUTES if name.startswith(("llm.token_count.", "llm.cost.")))
"""those that are numbers"""


class _Whole(Attributes, array_like=False, gc=False):
    """The same as agno stores them: an object, with others among them."""


class Row(msgspec.Struct, array_like=True, gc=False):
    """One row of the span table: times in the form of the table; `attributes` is None if it has none."""

    trace_id: str
    span_id: str
    parent_span_id: str | None
    name: str
    status_code: str
    status_message: str | None
    start_time: Any
    end_time: Any
    created_at: Any
    attributes: Attributes | None


_whole = msgspec.json.Decoder(_Whole)
_rows = msgspec.json.Decoder(list[Row])
_NO_ATTRIBUTES: Final = Attributes()
MALFORMED: Final = Attributes()
"""in place of attributes that cannot be read"""
_UNKNOWN: Final = "UNKNOWN"
"""AgentOS's word for a missing kind"""


@dataclass(slots=True)
class Reading:
    """Traces as their rows show them now.

    `inserted` has, by trace, the time at which each of its spans was written, by span id and in the form of the table;
    `malformed` are the ids of traces that cannot be read.
    """

    traces: list[Trace] = field(default_factory=list)
    inserted: dict[str, dict[str, Any]] = field(default_factory=dict)
    malformed: list[str] = field(default_factory=list)


def rows_of(gathered: bytes | str) -> list[Row]:
    """Rows that a database gathered into one JSON array. Raises msgspec.DecodeError if they are no rows."""
    return _rows.decode(gathered)


def attributes_of(raw: str | bytes | None) -> Attributes:
    """Decode whole attributes, skipping all others; MALFORMED if they are no JSON object."""
    if raw is None:
        return _NO_ATTRIBUTES
    try:
        return _whole.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return _leniently(raw)


def _leniently(raw: str | bytes) -> Attributes:
    """What Python's json wrote and msgspec refuses: NaN, lone surrogates."""
    try:
        attributes = json.loads(raw)
        if isinstance(attributes, str):  # encoded twice
            attributes = json.loads(attributes)
    except (ValueError, RecursionError):
        return MALFORMED
    if attributes is None:
        return _NO_ATTRIBUTES
    return Attributes(*map(attributes.get, ATTRIBUTES)) if isinstance(attributes, dict) else MALFORMED


def extracted(values: Sequence[Any]) -> Attributes:
    """Attributes that the database extracted, in the order of `ATTRIBUTES`; numbers are still JSON."""
    attributes = Attributes(*values)
    if attributes.kind == "LLM":
        attributes.prompt, attributes.completion, attributes.total = map(
            _number, (attributes.prompt, attributes.completion, attributes.total)
        )
        attributes.cache_read, attributes.cache_write = _number(attributes.cache_read), _number(attributes.cache_write)
        attributes.reasoning, attributes.cost = _number(attributes.reasoning), _number(attributes.cost)
    return attributes


def _number(value: str | None) -> object:
    if value is None:
        return None
    try:
        return int(value) if value.isdigit() else msgspec.json.decode(value)
    except (msgspec.DecodeError, ValueError):
        return None


_seconds: dict[str, int] = {}
"""text of a time up to its point → microseconds of that second"""


def moment_of(value: Any) -> int:  # noqa: ANN401 - whatever the column holds
    """Microseconds since the epoch of a stored time. Raises ValueError if it is no time."""
    if isinstance(value, str):
        if value[26:] == _ZONE:  # as agno writes it: a thousand times as often as anything else
            seconds = _seconds.get(value[:20])
            if seconds is not None and (fraction := value[20:26]).isdigit():
                return seconds + int(fraction)
            return _first_of(value)
        return micros(datetime.fromisoformat(value))
    if isinstance(value, datetime):
        return micros(value)
    if isinstance(value, int) and not isinstance(value, bool):
        return value * MICROSECONDS if abs(value) < _SECONDS_MOST else value // _NANOSECONDS
    raise ValueError("not a time")


def _first_of(value: str) -> int:
    """The first time that is met of a second: the others are known from then on."""
    moment = micros(datetime.fromisoformat(value))
    if value[19] == ".":
        if len(_seconds) >= _SECONDS_KEPT:
            _seconds.clear()
        _seconds[value[:20]] = moment // MICROSECONDS * MICROSECONDS
    return moment


def read(rows: Iterable[Row], db: str, *, given_up: Collection[str] = ()) -> Reading:
    """Make traces of the rows of their spans.

    Args:
        rows: All rows of the traces, in any order.
        db: The database.
        given_up: Ids of traces whose missing ancestors are no longer waited for: their orphans are shown, the topmost
            as if they were roots.

    """
    reading = Reading()
    by_trace: dict[str, list[Row]] = {}
    for row in rows:
        trace_rows = by_trace.get(row.trace_id)
        if trace_rows is None:
            by_trace[row.trace_id] = [row]
        else:
            trace_rows.append(row)
    for trace_id, trace_rows in by_trace.items():
        inserted = reading.inserted[trace_id] = {row.span_id: row.created_at for row in trace_rows}
        try:
            reading.traces.append(
                _trace(trace_id, db, trace_rows, moment_of(min(inserted.values())), trace_id in given_up)
            )
        except (ValueError, OverflowError, TypeError, AttributeError):  # the last two: a value that should be text
            reading.malformed.append(clean_id(trace_id))
    return reading


_Node = tuple[int, int, Row]
"""A row with its start and end in microseconds"""
_start = operator.itemgetter(0)


def _trace(trace_id: str, db: str, rows: list[Row], created: int, all_of_it: bool) -> Trace:  # noqa: FBT001 - private
    nodes: dict[str, _Node] = {row.span_id: (moment_of(row.start_time), moment_of(row.end_time), row) for row in rows}
    by_start = sorted(nodes.values(), key=_start)
    below: dict[str | None, list[_Node]] = {}
    for node in by_start:
        parent = node[2].parent_span_id or None
        if parent in below:
            below[parent].append(node)
        else:
            below[parent] = [node]
    spans: list[Span] = []
    shown: set[str] = set()
    _show(below.get(None, ()), below, spans, shown)
    connected = len(spans)
    if all_of_it and connected < len(rows):
        topmost = [node for node in by_start if (node[2].parent_span_id or None) not in nodes]
        _show(topmost, below, spans, shown)
        _show([node for node in by_start if node[2].span_id not in shown], below, spans, shown)  # their own ancestors
    return Trace(
        clean_id(trace_id),
        db,
        by_start[0][0],
        max([node[1] for node in by_start]),
        created,
        len(rows),
        tuple(spans),
        frozenset(range(connected, len(spans))) if len(spans) > connected else _NONE,
    )


def _show(roots: Sequence[_Node], below: dict[str | None, list[_Node]], spans: list[Span], shown: set[str]) -> None:
    """Append spans, depth first by start, parents before their children, each once; all are given by start."""
    stack = [(node, -1) for node in reversed(roots)]
    while stack:
        (start, end, row), parent = stack.pop()
        own_id = row.span_id
        if own_id in shown:
            continue
        shown.add(own_id)
        if own_id in below:
            index = len(spans)
            stack += [(child, index) for child in reversed(below[own_id])]
        spans.append(_span(row, parent, start, end))


_NONE: Final[frozenset[int]] = frozenset()


class _SpanFacts(NamedTuple):
    """What spans alike have in common. `called` is the name of a model's class; the last two as in `Span`."""

    kind: SpanKind
    name: str
    model: str = ""
    provider: str = ""
    called: str = ""
    continued: bool = False
    streamed: bool = False


_identifier = functools.lru_cache(4096)(identifier)


def _id(value: object) -> str | None:
    """`identifier` with a cache, since most spans of a trace have the same ids. Long ids are not cached."""
    if value is None:
        return None
    return _identifier(value) if _is_short(value) else identifier(value)


def _is_short(value: object) -> bool:
    """Whether a value may be cached: users can put any text there."""
    return value is None or (type(value) is str and len(value) <= _SHORT)


_ALL_BELIEVED: Final[tuple[str, ...]] = ()


def _usage(attributes: Attributes) -> tuple[TokenUsage, float | None, tuple[str, ...]]:
    """Tokens and cost that an LLM span reports, and the fields that are not believed."""
    counts = (
        attributes.prompt,
        attributes.completion,
        attributes.cache_read,
        attributes.cache_write,
        attributes.reasoning,
        attributes.total,
    )
    prompt, completion, read, write, reasoning, total = read_counts = tuple(map(tokens, counts))
    usage = TokenUsage(prompt, completion, read, write, reasoning, total, True)  # noqa: FBT003 - detailed
    reported = cost(attributes.cost)
    return usage, reported, not_believed((*counts, attributes.cost), (*read_counts, reported))


def _span(row: Row, parent: int, start: int, end: int) -> Span:
    attributes, status = row.attributes, row.status_code
    if attributes is None:
        attributes = _NO_ATTRIBUTES
    if attributes is MALFORMED or status not in _STATUSES:
        raise ValueError("not a span")
    session, user, kind = _id(attributes.session), _id(attributes.user), attributes.kind
    if kind is None or kind == _UNKNOWN:  # most rows of a server with HTTP roots: they count nowhere
        method = http_method(row.name)
        return Span(span_id(row.span_id), parent, _HTTP, method, start, end, session_id=session, user_id=user)
    key = (row.name, kind, attributes.model, attributes.provider, bool(attributes.agno_team or attributes.team))
    kind, name, model, provider, called, continued, streamed = (
        _what(*key) if all(map(_is_short, key[:4])) else _facts_of(*key)
    )
    usage, reported, strange = _usage(attributes) if kind is _LLM else (NO_USAGE, None, _ALL_BELIEVED)
    failed, why = None, OTHER
    if status == "ERROR":
        text = row.status_message or attributes.exception
        text = text if isinstance(text, str) else None
        failed = error_type(text)
        if kind is _LLM:
            why = error_class(text)
    return Span(
        span_id(row.span_id),
        parent,
        kind,
        name,
        start,
        end,
        failed,
        provider,
        model,
        called,
        usage,
        reported,
        _id(attributes.run),
        session,
        user,
        strange,
        continued,
        streamed,
        why,
    )


def _facts_of(name: str, kind: object, model: object, provider: object, team: bool) -> _SpanFacts:  # noqa: FBT001 - private
    """The kind and names of a span, from its own name and its attributes."""
    name = clean_name(name)
    if kind == "AGENT":
        kind = SpanKind.TEAM if team else SpanKind.AGENT
        return _SpanFacts(kind, component_name(name), continued=is_continuation(name))
    span_kind = _KINDS.get(kind, SpanKind.OTHER) if isinstance(kind, str) else SpanKind.OTHER
    if span_kind is _LLM:
        called, ref = model_class(name), clean_name(model) if isinstance(model, str) else ""
        return _SpanFacts(span_kind, name, ref, _provider(provider, called, ref), called, streamed=is_streamed(name))
    if span_kind in RUN_KINDS:
        return _SpanFacts(span_kind, component_name(name), continued=is_continuation(name))
    return _SpanFacts(span_kind, name)


_what = functools.lru_cache(4096, typed=True)(_facts_of)


def _provider(said: object, called: str, model: str) -> str:
    """The provider that the span names; that of its model class if it names none."""
    label = provider_label(said.strip()).strip() if isinstance(said, str) else ""
    return clean_name(label) if label else provider_of_class(called, model)
