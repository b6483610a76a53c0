"""Answers of AgentOS's traces API → `exporter.core.model`. Runs in a thread: no I/O, no clock.

Only needed fields are decoded; the decoder skips prompts and answers, which never become Python objects. Users of
AgentOS can put anything into a span, so rows are not trusted: a malformed row is set aside and named, and the other
rows of its page are read.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

import msgspec

from exporter.core.error_class import OTHER, error_class
from exporter.core.errors import BadAnswer
from exporter.core.model import NO_USAGE, RUN_KINDS, ListedTrace, Span, SpanKind, TokenUsage, Trace
from exporter.core.span_names import component_name, error_type, http_method, is_continuation, is_streamed, model_class
from exporter.core.times import micros
from exporter.pricing.providers import provider_of_class
from exporter.sources.facts import (
    clean_id,
    clean_name,
    identifier,
    not_believed,
    span_id,
    stand_in,
    tokens,
)

_MOST_SPANS: Final = 2**31
_KINDS: Final = {
    "AGENT": SpanKind.AGENT,
    "TEAM": SpanKind.TEAM,
    "WORKFLOW": SpanKind.WORKFLOW,
    "LLM": SpanKind.LLM,
    "TOOL": SpanKind.TOOL,
    "UNKNOWN": SpanKind.HTTP,
}
_STATUSES: Final = frozenset({"OK", "ERROR", "UNSET"})


class _Metadata(msgspec.Struct, gc=False):
    model: Any = None
    input_tokens: Any = None
    output_tokens: Any = None
    run_id: Any = None
    session_id: Any = None
    user_id: Any = None


class _Node(msgspec.Struct, gc=False):
    id: str
    name: str
    type: str
    start_time: datetime
    end_time: datetime
    status: str
    error: str | None = None
    spans: list[_Node] | None = None
    metadata: _Metadata | None = None


class _Row(msgspec.Struct, gc=False):
    trace_id: str
    start_time: datetime
    end_time: datetime
    created_at: datetime
    total_spans: int


class _Detail(_Row, gc=False):
    tree: list[_Node]
    error: str | None = None
    run_id: str | None = None
    session_id: str | None = None
    user_id: str | None = None


class _Meta(msgspec.Struct, gc=False):
    total_count: int
    search_time_ms: float = 0.0


class _Search(msgspec.Struct, gc=False):
    data: list[_Detail]
    meta: _Meta


class _List(msgspec.Struct, gc=False):
    data: list[_Row]
    meta: _Meta


class _RawPage(msgspec.Struct, gc=False):
    data: list[msgspec.Raw]
    meta: _Meta


class _Named(msgspec.Struct, gc=False):
    trace_id: str


_search = msgspec.json.Decoder(_Search)
_list = msgspec.json.Decoder(_List)
_raw_page = msgspec.json.Decoder(_RawPage)
_detail = msgspec.json.Decoder(_Detail)
_row = msgspec.json.Decoder(_Row)
_node = msgspec.json.Decoder(_Node)
_named = msgspec.json.Decoder(_Named)
_TOKEN: Final = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"|[\[\]{},]', re.DOTALL)
"""The tokens for splitting a page: strings, brackets, commas"""
_IN_DATA: Final = 2
_HTML: Final = 64 * 1024


@dataclass(slots=True)
class RootDoubt:
    """Roots (indices in the trace's spans) whose facts AgentOS may have overwritten with those of the trace.

    A root that is an AGENT, TEAM or WORKFLOW shows the trace's times. They are its own unless a descendant starts or
    ends at that very moment. Its ids are the trace's, and versions before 2.6.0 mix in those of members.
    """

    times: list[int] = field(default_factory=list)
    ids: list[int] = field(default_factory=list)


@dataclass(slots=True)
class Page:
    """One page of trees.

    `malformed` names rows that are not traces: their id, or a digest where they have none. `unreadable` has the ids of
    traces that AgentOS answers with an error.
    """

    traces: list[Trace]
    doubts: dict[str, RootDoubt]
    malformed: list[str]
    total_count: int
    search_ms: float
    unreadable: list[str] = field(default_factory=list)

    @property
    def ids(self) -> set[str]:
        """Ids of all rows, malformed ones by their stand-in."""
        return {trace.id for trace in self.traces} | {*self.malformed, *self.unreadable}


@dataclass(slots=True)
class Listing:
    """One page of rows without trees."""

    rows: list[ListedTrace]
    malformed: list[str]
    total_count: int
    search_ms: float


def search_page(body: bytes, db: str) -> Page:
    """Decode an answer of POST /traces/search. Raises BadAnswer if it is no such answer at all."""
    details, malformed, meta = _rows(body, _search, _detail)
    traces: list[Trace] = []
    doubts: dict[str, RootDoubt] = {}
    for detail, raw in details:
        try:
            trace, doubt = _trace(detail, db)
        except _Malformed:
            malformed.append(_stand_in(raw, detail.trace_id))
            continue
        traces.append(trace)
        if doubt.times or doubt.ids:
            doubts[trace.id] = doubt
    return Page(traces, doubts, malformed, meta.total_count, meta.search_time_ms)


def list_page(body: bytes) -> Listing:
    """Decode an answer of GET /traces. Raises BadAnswer if it is no such answer at all."""
    rows, malformed, meta = _rows(body, _list, _row)
    listed = [
        ListedTrace(
            clean_id(row.trace_id),
            row.total_spans,
            micros(row.start_time),
            micros(row.end_time),
            micros(row.created_at),
        )
        for row, _ in rows
        if _plausible(row)
    ]
    malformed += [_stand_in(raw, row.trace_id or None) for row, raw in rows if not _plausible(row)]
    return Listing(listed, malformed, meta.total_count, meta.search_time_ms)


def one_trace(body: bytes, db: str, asked: str) -> Page:
    """An answer of GET /traces/{id} as a page of one trace.

    Args:
        body: The answer.
        db: The database.
        asked: Id of the trace that was asked for.

    Raises:
        BadAnswer: The answer is not JSON.

    """
    try:
        trace, doubt = _trace(_detail.decode(body), db)
    except (msgspec.ValidationError, _Malformed, RecursionError):
        return Page([], {}, [asked], 1, 0.0)
    except msgspec.DecodeError as error:
        raise BadAnswer(_not_json(body)) from error
    return Page([trace], {trace.id: doubt} if doubt.times or doubt.ids else {}, [], 1, 0.0)


def correct_root(trace: Trace, index: int, body: bytes, *, times: bool, ids: bool) -> Trace:
    """Replace the facts of a root by those that GET /traces/{id}?span_id= answers.

    Args:
        trace: The trace.
        index: Place of the root in `trace.spans`.
        body: The answer.
        times: Whether start and end are replaced.
        ids: Whether ids of run, session and user are replaced.

    Raises:
        BadAnswer: The answer is not a span of AgentOS.

    """
    try:
        node = _node.decode(body)
    except (msgspec.DecodeError, RecursionError) as error:
        raise BadAnswer(f"a span of trace {trace.id[:32]} is not a span: {error}") from error
    old = trace.spans[index]
    metadata = node.metadata or _Metadata()
    new = msgspec.structs.replace(
        old,
        start=micros(node.start_time) if times else old.start,
        end=micros(node.end_time) if times else old.end,
        error_type=error_type(node.error) if node.status == "ERROR" else None,
        run_id=identifier(metadata.run_id) if ids else old.run_id,
        session_id=identifier(metadata.session_id) if ids else old.session_id,
        user_id=identifier(metadata.user_id) if ids else old.user_id,
    )
    return msgspec.structs.replace(trace, spans=(*trace.spans[:index], new, *trace.spans[index + 1 :]))


def _plausible(row: _Row) -> bool:
    return bool(row.trace_id) and 0 <= row.total_spans <= _MOST_SPANS


class _Malformed(Exception):
    """A row that decodes but is no trace."""


def _rows(
    body: bytes, whole: msgspec.json.Decoder[Any], single: msgspec.json.Decoder[Any]
) -> tuple[list[tuple[Any, bytes]], list[str], _Meta]:
    """(decoded rows with their bytes, stand-ins of malformed rows, meta).

    Rows are decoded one by one only if the page as a whole fails.
    """
    try:
        page = whole.decode(body)
    except (msgspec.DecodeError, RecursionError) as error:
        parts, meta = _apart(body, error)
    else:
        return [(row, b"") for row in page.data], [], page.meta
    rows: list[tuple[Any, bytes]] = []
    malformed: list[str] = []
    for data in parts:
        try:
            rows.append((single.decode(data), data))
        except (msgspec.DecodeError, RecursionError):
            malformed.append(_stand_in(data))
    return rows, malformed, meta


def _apart(body: bytes, error: Exception) -> tuple[list[bytes], _Meta]:
    """(bytes of each row, meta) of a page that `error` keeps from being decoded as a whole. Raises BadAnswer."""
    try:
        page = _raw_page.decode(body)
    except msgspec.ValidationError as wrong:
        raise BadAnswer(f"the answer is not a page of traces: {wrong}") from wrong
    except (msgspec.DecodeError, RecursionError):
        pass
    else:
        return [bytes(raw) for raw in page.data], page.meta
    # One row may be nested too deeply for the decoder, or not be JSON. The others of the page are kept.
    rows, envelope = _split(body)
    try:
        meta = _raw_page.decode(envelope).meta
    except msgspec.DecodeError:
        raise BadAnswer(_not_json(body)) from error
    return rows, meta


def _split(body: bytes) -> tuple[list[bytes], bytes]:
    """(bytes of each row in `data`, the page without them); nothing else of the JSON is looked at."""
    rows: list[bytes] = []
    depth, key, inside, start, opened, end = 0, b"", False, 0, 0, 0
    for token in _TOKEN.finditer(body):
        text = token.group()
        if text in b"]},":
            if inside and depth == _IN_DATA and text in b"],":
                rows.append(body[start : token.start()])
                start = token.end()
            if text in b"]}":
                depth -= 1
                if inside and depth < _IN_DATA:
                    inside, end = False, token.start()
        elif text in b"[{":
            depth += 1
            if depth == _IN_DATA and text == b"[" and key == b'"data"' and not end:
                inside, start, opened = True, token.end(), token.end()
        elif depth == 1:
            key = text
    return [row for row in rows if row.strip()], body[:opened] + body[end:] if end else b""


def _stand_in(raw: bytes, trace_id: str | None = None) -> str:
    """The id under which a malformed row is remembered: its trace id, else a digest of its bytes."""
    if trace_id is None:
        try:
            trace_id = _named.decode(raw).trace_id
        except (msgspec.DecodeError, RecursionError):
            return stand_in(raw)
    return clean_id(trace_id)


def _not_json(body: bytes) -> str:
    start = body[:200].lstrip().lower()
    if start.startswith((b"<!doctype", b"<html", b"<")):
        if b'type="password"' in body[:_HTML].lower():
            return (
                "the answer is a page to log in, not JSON: the exporter needs a way to AgentOS that asks for no log-in"
            )
        return "the answer is HTML, not JSON: does the URL lead to AgentOS itself, past any login page?"
    if not start:
        return "the answer is empty"
    return f"the answer is not valid JSON ({len(body)} bytes): cut off on its way?"


def _trace(detail: _Detail, db: str) -> tuple[Trace, RootDoubt]:
    if not _plausible(detail):
        raise _Malformed
    spans: list[Span] = []
    ids: set[int] = set()
    # Depth first without recursion: users decide how deep the tree is.
    stack = [(node, -1) for node in reversed(detail.tree)]
    while stack:
        node, parent = stack.pop()
        index = len(spans)
        span = _span(node, parent, detail)
        if node.status not in _STATUSES or span.id in ids:
            raise _Malformed
        ids.add(span.id)
        spans.append(span)
        if node.spans:
            stack.extend((child, index) for child in reversed(node.spans))
    trace = Trace(
        clean_id(detail.trace_id),
        db,
        micros(detail.start_time),
        micros(detail.end_time),
        micros(detail.created_at),
        detail.total_spans,
        tuple(spans),
    )
    return trace, _roots_in_doubt(trace)


def _roots_in_doubt(trace: Trace) -> RootDoubt:
    """Which roots may show facts that are not theirs."""
    doubt = RootDoubt()
    roots = [index for index, span in enumerate(trace.spans) if span.parent < 0]
    for place, index in enumerate(roots):
        root = trace.spans[index]
        if root.kind not in RUN_KINDS:
            continue
        doubt.ids.append(index)
        below = trace.spans[index + 1 : roots[place + 1] if place + 1 < len(roots) else None]
        # The span that made the trace start earlier or end later may be one that is still hidden.
        if len(roots) > 1 or trace.open or any(span.end >= root.end or span.start <= root.start for span in below):
            doubt.times.append(index)
    return doubt


def _span(node: _Node, parent: int, detail: _Detail) -> Span:
    kind = _KINDS.get(node.type, SpanKind.OTHER)
    metadata = node.metadata or _Metadata()
    failed = node.status == "ERROR"
    error = node.error
    run_id, session_id, user_id = (identifier(id_) for id_ in (metadata.run_id, metadata.session_id, metadata.user_id))
    if parent < 0 and kind in RUN_KINDS:
        # Such a root carries no error text and no ids of its own; the trace has them.
        error = error if error is not None else detail.error
        run_id, session_id, user_id = (
            run_id or identifier(detail.run_id),
            session_id or identifier(detail.session_id),
            user_id or identifier(detail.user_id),
        )
    name, model, provider, usage = clean_name(node.name), "", "", NO_USAGE
    called = model_class(name) if kind is SpanKind.LLM else ""
    strange: tuple[str, ...] = ()
    continued = streamed = False
    if kind is SpanKind.LLM:
        streamed = is_streamed(name)
        model = clean_name(metadata.model) if isinstance(metadata.model, str) else ""
        provider = provider_of_class(called, model)
        given_in, given_out = metadata.input_tokens, metadata.output_tokens
        usage = TokenUsage(prompt=tokens(given_in), completion=tokens(given_out))
        strange = not_believed((given_in, given_out), (usage.prompt, usage.completion))
    elif kind in RUN_KINDS:
        continued, name = is_continuation(name), component_name(name)
    elif kind is SpanKind.HTTP:
        name = http_method(name)
    return Span(
        span_id(node.id),
        parent,
        kind,
        name,
        micros(node.start_time),
        micros(node.end_time),
        error_type(error) if failed else None,
        provider,
        model,
        called,
        usage,
        run_id=run_id,
        session_id=session_id,
        user_id=user_id,
        not_believed=strange,
        continued=continued,
        streamed=streamed,
        error_class=error_class(error) if failed and kind is SpanKind.LLM else OTHER,
    )
