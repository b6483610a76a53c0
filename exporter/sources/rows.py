"""Rows of agno's span table → `exporter.model`. Runs in a thread: no I/O, no clock.

What AgentOS's API makes of the same rows (`agno.os.routers.traces.schemas`) decides kinds, names and errors, so that
both sources give the same numbers. Of the attributes only those of `Attributes` ever become Python objects; prompts and
answers are skipped by the decoder, or never leave the database. A trace that holds what is no span is set aside and
named, and costs the others nothing.
"""

from __future__ import annotations

import functools
import json
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

import msgspec

from exporter.model import (
    MICROSECONDS,
    NO_USAGE,
    RUN_KINDS,
    Span,
    SpanKind,
    TokenUsage,
    Trace,
    component_name,
    error_type,
    model_class,
    provider_label,
)
from exporter.pricing.providers import provider_of_class
from exporter.sources.facts import LABEL_LENGTH, clean, clean_id, identifier, micros, span_id, tokens

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

_KINDS: Final = {"LLM": SpanKind.LLM, "TOOL": SpanKind.TOOL, "CHAIN": SpanKind.WORKFLOW}
"""`openinference.span.kind` → kind, as AgentOS derives it; AGENT stands for teams, too"""
_STATUSES: Final = frozenset({"OK", "ERROR", "UNSET"})
_ZONE: Final = "+00:00"
_SECONDS_KEPT: Final = 10_000
_NANOSECONDS: Final = 1_000
_SECONDS_MOST: Final = 10**11
"""A whole number below counts seconds, as agno reads it; nanoseconds otherwise."""


class Attributes(msgspec.Struct, gc=False):
    """The attributes of a span that are read at all; whatever a user put there, so of any type."""

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


ATTRIBUTES: Final = tuple(one.encode_name for one in msgspec.structs.fields(Attributes))
"""Names of the attributes that are read, in the order of the fields of `Attributes`"""
NUMBERS: Final = frozenset(name for name in ATTRIBUTES if name.startswith(("llm.token_count.", "llm.cost.")))
"""those that are numbers"""
_attributes = msgspec.json.Decoder(Attributes)
_NO_ATTRIBUTES: Final = Attributes()


Row = tuple[str, str, str | None, str, str, str | None, Any, Any, Any, Attributes | None]
"""One row of the span table: ids of trace, span and parent, name, status, error text, start, end and insertion as the
table has them, and the attributes, None where they cannot be read"""
_NO_KIND: Final = frozenset({None, "UNKNOWN"})


@dataclass(slots=True)
class Reading:
    """Traces as their rows show them now.

    `inserted` holds, by trace, when each of its spans was written, by span id and as the table has it; `malformed` are
    the ids of traces that cannot be read.
    """

    traces: list[Trace] = field(default_factory=list)
    inserted: dict[str, dict[str, Any]] = field(default_factory=dict)
    malformed: list[str] = field(default_factory=list)


def attributes_of(raw: str | bytes | None) -> Attributes | None:
    """Decode whole attributes, skipping all others; None if they are no JSON object."""
    if raw is None:
        return _NO_ATTRIBUTES
    try:
        return _attributes.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return _leniently(raw)


def _leniently(raw: str | bytes) -> Attributes | None:
    """What Python's json wrote and msgspec refuses: NaN, lone surrogates."""
    try:
        found = json.loads(raw)
        if isinstance(found, str):  # encoded twice
            found = json.loads(found)
    except (ValueError, RecursionError):
        return None
    if found is None:
        return _NO_ATTRIBUTES
    return Attributes(*map(found.get, ATTRIBUTES)) if isinstance(found, dict) else None


def extracted(values: Sequence[Any]) -> Attributes:
    """Attributes that the database extracted, in the order of `ATTRIBUTES`; numbers are still JSON."""
    found = Attributes(*values)
    if found.kind == "LLM":
        found.prompt, found.completion, found.total = map(_number, (found.prompt, found.completion, found.total))
        found.cache_read, found.cache_write = _number(found.cache_read), _number(found.cache_write)
        found.reasoning, found.cost = _number(found.reasoning), _number(found.cost)
    return found


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
    """Microseconds since the epoch of a stored time. Raises ValueError for what is none."""
    if isinstance(value, str):
        if value[26:] == _ZONE:  # as agno writes it: a thousand times as often as anything else
            known = _seconds.get(value[:20])
            if known is not None and (rest := value[20:26]).isdigit():
                return known + int(rest)
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
    """Traces from all rows of theirs, in any order.

    Of the traces in `given_up`, spans whose ancestors never came are shown too, the topmost as if they were roots.
    """
    reading = Reading()
    by_trace: dict[str, list[Row]] = {}
    for row in rows:
        known = by_trace.get(row[0])
        if known is None:
            by_trace[row[0]] = [row]
        else:
            known.append(row)
    for trace_id, own in by_trace.items():
        inserted = reading.inserted[trace_id] = {row[1]: row[8] for row in own}
        try:
            reading.traces.append(_trace(trace_id, db, own, moment_of(min(inserted.values())), trace_id in given_up))
        except (ValueError, OverflowError, TypeError):
            reading.malformed.append(clean_id(trace_id))
    return reading


def _trace(trace_id: str, db: str, rows: list[Row], created: int, all_of_it: bool) -> Trace:  # noqa: FBT001 - private
    times: dict[str, tuple[int, int]] = {}
    below: dict[str | None, list[Row]] = {}
    for row in rows:
        times[row[1]] = moment_of(row[6]), moment_of(row[7])
        parent = row[2] or None
        known = below.get(parent)
        if known is None:
            below[parent] = [row]
        else:
            known.append(row)

    def latest_first(some: list[Row]) -> list[Row]:
        return sorted(some, key=lambda row: times[row[1]][0])[::-1] if len(some) > 1 else some

    spans: list[Span] = []
    shown: set[str] = set()

    def show(roots: list[Row]) -> None:
        """Append spans, depth first by start, parents before their children, each once."""
        stack = [(row, -1) for row in latest_first(roots)]
        while stack:
            row, parent = stack.pop()
            if row[1] in shown:
                continue
            shown.add(row[1])
            children = below.get(row[1])
            if children is not None:
                index = len(spans)
                stack.extend((child, index) for child in latest_first(children))
            spans.append(_span(row, parent, times[row[1]]))

    show(below.get(None, []))
    connected = len(spans)
    if all_of_it and connected < len(rows):
        show([row for parent, children in below.items() if parent and parent not in times for row in children])
        show([row for row in rows if row[1] not in shown])  # what is left are its own ancestors
    return Trace(
        clean_id(trace_id),
        db,
        min(start for start, _ in times.values()),
        max(end for _, end in times.values()),
        created,
        len(rows),
        tuple(spans),
        frozenset(range(connected, len(spans))) if len(spans) > connected else _NONE,
    )


_NONE: Final[frozenset[int]] = frozenset()
_component_name = functools.lru_cache(4096)(component_name)
_model_class = functools.lru_cache(4096)(model_class)


def _span(row: Row, parent: int, times: tuple[int, int]) -> Span:
    _, own_id, _, said, status, message, _, _, _, found = row
    if found is None or status not in _STATUSES:
        raise ValueError("not a span")
    start, end = times
    session = None if found.session is None else identifier(found.session)
    user = None if found.user is None else identifier(found.user)
    if found.kind in _NO_KIND:  # most rows of a server with HTTP roots: they count nowhere
        return Span(span_id(own_id), parent, SpanKind.HTTP, "", start, end, session_id=session, user_id=user)
    kind = _kind(found)
    name, model, provider, called = clean(said, LABEL_LENGTH), "", "", ""
    usage, cost = NO_USAGE, None
    if kind is SpanKind.LLM:
        called = _model_class(name)
        model = clean(found.model, LABEL_LENGTH) if isinstance(found.model, str) else ""
        provider = _provider(found.provider, called, model)
        usage = TokenUsage(
            tokens(found.prompt),
            tokens(found.completion),
            tokens(found.cache_read),
            tokens(found.cache_write),
            tokens(found.reasoning),
            tokens(found.total),
            detailed=True,
        )
        cost = found.cost if isinstance(found.cost, (int, float)) and not isinstance(found.cost, bool) else None
    elif kind in RUN_KINDS:
        name = _component_name(name)
    failed = None
    if status == "ERROR":
        text = message or found.exception
        failed = error_type(text if isinstance(text, str) else None)
    return Span(
        span_id(own_id),
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
        cost,
        None if found.run is None else identifier(found.run),
        session,
        user,
    )


def _kind(found: Attributes) -> SpanKind:
    if found.kind == "AGENT":
        return SpanKind.TEAM if found.agno_team or found.team else SpanKind.AGENT
    return _KINDS.get(found.kind, SpanKind.OTHER) if isinstance(found.kind, str) else SpanKind.OTHER


def _provider(said: object, called: str, model: str) -> str:
    """The provider that the span names; by its model class where it names none."""
    label = provider_label(said.strip()).strip() if isinstance(said, str) else ""
    return clean(label, LABEL_LENGTH) if label else provider_of_class(called, model)
