"""One AgentOS as a person looks at it: traces with error texts and, on demand, contents; session figures; names.

For the command line only. Requests go through agno's `AgentOSClient` over our own transport, one at a time, and come
back as plain dataclasses, so that nothing above this package knows agno. What the daemon counts never passes here.
"""

from __future__ import annotations

from collections.abc import Awaitable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, TypeVar
from urllib.parse import quote

from agno.os.routers.traces.schemas import TraceDetail, TraceSummary
from pydantic import ValidationError

from exporter.core.errors import BadAnswer, ServerFailed, SourceError, Unauthorized
from exporter.core.model import RUN_KINDS, SpanKind, component_name
from exporter.core.times import micros
from exporter.sources.api.http import OWN_TRACE_PREFIX, NoFilter, UnknownRoute
from exporter.sources.api.reader import may_be_one_row, moment
from exporter.sources.facts import spelled, tokens

if TYPE_CHECKING:
    from collections.abc import Sequence

    from agno.os.routers.traces.schemas import TraceNode

    from exporter.sources.api.source import AgentOSSource

T = TypeVar("T")

_TYPED: Final = frozenset(SpanKind) - {SpanKind.HTTP, SpanKind.OTHER}
_NOT_ALLOWED: Final = 405
_FAILURES: Final = 3
"""Rows that fail one after another, before any other was read: then it is not a row's fault."""


@dataclass(frozen=True, slots=True)
class SpanView:
    """One visible span, as AgentOS shows it.

    `parent` is the index of the parent in `TraceView.spans` (-1 for a root); parents stand before their children. Times
    are microseconds since the epoch. `nested` marks a vendor's second view of the LLM call above, with the same tokens.
    """

    id: str
    parent: int
    depth: int
    kind: SpanKind
    name: str
    start: int
    end: int
    status: str
    error: str = ""
    model: str = ""
    input_tokens: int | None = None
    output_tokens: int | None = None
    run_id: str = ""
    session_id: str = ""
    user_id: str = ""
    nested: bool = False
    input: str = ""
    output: str = ""
    arguments: str = ""

    @property
    def duration(self) -> int:
        """Microseconds, never negative."""
        return max(0, self.end - self.start)


@dataclass(frozen=True, slots=True)
class TraceView:
    """One trace with the spans visible now; `row` holds the ids of its row ('' where null), `row_status` its status."""

    id: str
    db: str
    start: int
    end: int
    total_spans: int
    row_status: str
    row: dict[str, str]
    spans: tuple[SpanView, ...]

    @property
    def duration(self) -> int:
        """Microseconds, never negative."""
        return max(0, self.end - self.start)

    @property
    def hidden(self) -> int:
        """Spans that AgentOS counts and does not show: a span is hidden until all above it are written."""
        return max(0, self.total_spans - len(self.spans))

    @property
    def root(self) -> SpanView | None:
        """The outermost agent, team or workflow: what a user called. None while hidden, or where there is none."""
        return next((span for span in self.spans if span.kind in RUN_KINDS), None)

    @property
    def only_requests(self) -> bool:
        """Whether this is an HTTP request to AgentOS that ran nothing. Never true while spans are hidden."""
        return bool(self.spans) and not self.hidden and all(span.kind is SpanKind.HTTP for span in self.spans)

    @property
    def failed(self) -> int:
        """Visible spans with status ERROR."""
        return sum(span.status == "ERROR" for span in self.spans)

    @property
    def status(self) -> str:
        """ERROR when any span failed, else the root's, else the row's (which knows nothing of failed spans)."""
        if self.failed:
            return "ERROR"
        return self.root.status if self.root is not None else self.row_status

    @property
    def llm_calls(self) -> tuple[SpanView, ...]:
        """The model calls, each once."""
        return tuple(span for span in self.spans if span.kind is SpanKind.LLM and not span.nested)

    def first(self, fact: str) -> str:
        """`run_id` of the root, `session_id` or `user_id` of the outermost span with one; else the row's, else ''."""
        if fact == "run_id":  # a workflow's span has none: that of a member would mislead
            return (self.root.run_id if self.root is not None else "") or self.row.get(fact, "")
        return next((value for span in self.spans if (value := getattr(span, fact))), "") or self.row.get(fact, "")

    def every(self, fact: str) -> list[str]:
        """All values of `run_id`, `session_id` or `user_id` in this trace, the outermost first."""
        values = [self.row.get(fact, ""), *(getattr(span, fact) for span in self.spans)]
        return list(dict.fromkeys(value for value in values if value))


@dataclass(frozen=True, slots=True)
class SessionView:
    """One session as AgentOS's own statistics have it; times in microseconds."""

    id: str
    db: str
    user_id: str
    components: tuple[str, ...]
    traces: int
    first: int
    last: int


@dataclass(frozen=True, slots=True)
class Traces:
    """One page of traces, newest start first. `rows` is how many AgentOS sent, our own requests' among them."""

    found: list[TraceView]
    rows: int
    total: int


@dataclass(frozen=True, slots=True)
class Query:
    """Which traces AgentOS itself is asked for. Times in microseconds; ids are those of the trace row."""

    since: int | None = None
    until: int | None = None
    ids: tuple[tuple[str, str], ...] = ()


class Inspector:
    """Looks into one AgentOS. All calls raise SourceError."""

    def __init__(self, source: AgentOSSource, *, timeout: float) -> None:
        """`timeout` holds for one request, in seconds."""
        self._client = source.client
        self._client.wait = timeout  # type: ignore[attr-defined] # of our transport below agno's client
        self._cannot_search: set[str | None] = set()
        self._names: dict[str, dict[str, str]] = {"agent": {}, "team": {}, "workflow": {}}
        self._agent_ids: dict[str, str] = {}
        self.unreadable = 0
        """how often a trace was passed over: AgentOS answers it with an error, or it made no sense"""

    @property
    def lists(self) -> bool:
        """Whether a database turned out to have no search: its traces are listed and fetched one by one."""
        return bool(self._cannot_search)

    async def databases(self) -> list[str | None]:
        """Ids of the databases that hold traces; [None] where /config is not allowed. Learns the components' names."""
        try:
            config = await _checked(self._client.aget_config(), "/config")
        except Unauthorized as error:
            if "403" not in str(error):
                raise
            return [None]
        for kind, members in (("agent", config.agents), ("team", config.teams), ("workflow", config.workflows)):
            for member in members:
                spelling = spelled(member.name or "") or kind.capitalize()
                for one in (member.id, member.name, spelling):
                    if one:
                        self._names[kind][one] = spelling
                    if one and kind == "agent" and member.id:
                        self._agent_ids[one] = member.id
        found = config.traces.dbs if config.traces is not None else None
        return [db.db_id for db in found or ()] or [None]

    def span_name(self, kind: str, name: str) -> str:
        """How spans spell the agent, team or workflow of this id or name."""
        return self._names[kind].get(name) or spelled(name)

    def agent_id(self, name: str) -> str:
        """Id of the agent of this id or name."""
        return self._agent_ids.get(name, name)

    async def traces(self, db: str | None, query: Query, *, page: int, size: int) -> Traces:
        """One page of traces with their trees."""
        searched = await self._searched(db, _conditions(query), page, size)
        return await self._list(db, query, page, size) if searched is None else searched

    async def with_prefix(self, db: str | None, prefix: str) -> list[str]:
        """Ids of traces that start so, 10 at most; where AgentOS cannot search, among the newest 500."""
        searched = await self._searched(db, {"op": "STARTSWITH", "key": "trace_id", "value": prefix}, 1, 10)
        if searched is not None:
            return [trace.id for trace in searched.found]
        listed = await _checked(self._client.get_traces(page=1, limit=500, db_id=db), "/traces")
        return [row.trace_id for row in listed.data if row.trace_id.startswith(prefix)][:10]

    async def trace(self, db: str | None, trace_id: str) -> TraceView | None:
        """One trace; None where AgentOS answers 404, which it also does when its database is down."""
        try:
            detail = await _checked(self._client.get_trace(quote(trace_id, safe=""), db_id=db), "/traces/{id}")
        except UnknownRoute as error:
            if error.status == _NOT_ALLOWED:
                raise
            return None
        except SourceError as error:
            if not may_be_one_row(error):
                raise
            failure = ServerFailed(f"{error}; AgentOS cannot serve this trace, but others may be well")
            failure.status = error.status
            raise failure from error
        if not isinstance(detail, TraceDetail):
            raise BadAnswer("/traces/{id}: the answer is a span, not a trace")
        return _view(detail, db)

    async def sessions(
        self, db: str | None, *, user: str | None, agent: str | None, page: int, size: int
    ) -> tuple[list[SessionView], int]:
        """(one page of AgentOS's own session statistics, how many there are)."""
        answer = await _checked(
            self._client.get_trace_session_stats(user_id=user, agent_id=agent, page=page, limit=size, db_id=db),
            "/trace_session_stats",
        )
        found = [
            SessionView(
                one.session_id,
                db or "",
                one.user_id or "",
                tuple(name for name in (one.workflow_id, one.team_id, one.agent_id) if name),
                one.total_traces,
                micros(one.first_trace_at),
                micros(one.last_trace_at),
            )
            for one in answer.data
        ]
        return found, answer.meta.total_count or 0

    async def _searched(self, db: str | None, condition: dict[str, Any], page: int, size: int) -> Traces | None:
        """A page of a search; None where this AgentOS cannot search, which is remembered."""
        if db in self._cannot_search:
            return None
        try:
            return await self._search(db, condition, page, size)
        except NoFilter:
            pass
        except UnknownRoute as error:
            if error.status != _NOT_ALLOWED:
                raise
        self._cannot_search.add(db)
        return None

    async def _search(self, db: str | None, condition: dict[str, Any], page: int, size: int) -> Traces:
        try:
            answer = await _checked(
                self._client.search_traces(condition, page=page, limit=size, db_id=db), "/traces/search"
            )
        except SourceError as error:
            if size == 1 or not _may_be_one(error):
                raise
            return await self._search_singly(db, condition, page, size)
        details = [detail for detail in answer.data if isinstance(detail, TraceDetail)]
        return Traces([_view(detail, db) for detail in details], len(answer.data), answer.meta.total_count or 0)

    async def _search_singly(self, db: str | None, condition: dict[str, Any], page: int, size: int) -> Traces:
        """The same page row by row: one that AgentOS cannot serve, or that makes no sense, costs all of them."""
        whole = Traces([], 0, 0)
        failure: SourceError | None = None
        for number in range((page - 1) * size + 1, page * size + 1):
            try:
                single = await self._search(db, condition, number, 1)
            except SourceError as error:
                if not _may_be_one(error):
                    raise
                failure = error
                self.unreadable += 1
                if not whole.total and whole.rows + 1 >= _FAILURES:
                    break  # rather all of them
                whole = Traces(whole.found, whole.rows + 1, whole.total)
                continue
            whole = Traces([*whole.found, *single.found], whole.rows + single.rows, single.total)
            if not single.rows:
                break
        if failure is not None and not whole.total:
            raise failure
        return whole

    async def _list(self, db: str | None, query: Query, page: int, size: int) -> Traces:
        start, ids = moment(query.since) if query.since is not None else None, dict(query.ids)
        answer = await _checked(
            self._client.get_traces(
                run_id=ids.get("run_id"),
                session_id=ids.get("session_id"),
                user_id=ids.get("user_id"),
                start_time=start,
                page=page,
                limit=size,
                db_id=db,
            ),
            "/traces",
        )
        rows = [row for row in answer.data if _wanted(row, query)]
        trees = [await self._tree(db, row.trace_id) for row in rows]
        return Traces([tree for tree in trees if tree is not None], len(answer.data), answer.meta.total_count or 0)

    async def _tree(self, db: str | None, trace_id: str) -> TraceView | None:
        try:
            return await self.trace(db, trace_id)
        except SourceError as error:
            if not may_be_one_row(error):
                raise
            self.unreadable += 1
            return None


def _may_be_one(error: SourceError) -> bool:
    return may_be_one_row(error) or (isinstance(error, BadAnswer) and not isinstance(error, UnknownRoute))


async def _checked(call: Awaitable[T], route: str) -> T:
    try:
        return await call
    except ValidationError as error:
        raise BadAnswer(f"{route}: the answer is not that of an AgentOS; is this its URL?") from error


def _conditions(query: Query) -> dict[str, Any]:
    own = {"op": "STARTSWITH", "key": "trace_id", "value": OWN_TRACE_PREFIX}
    conditions: list[dict[str, Any]] = [{"op": "NOT", "condition": own}]
    if query.since is not None:
        conditions.append({"op": "GTE", "key": "start_time", "value": moment(query.since)})
    if query.until is not None:
        conditions.append({"op": "LTE", "key": "start_time", "value": moment(query.until)})
    conditions.extend({"op": "EQ", "key": key, "value": value} for key, value in query.ids)
    return {"op": "AND", "conditions": conditions}


def _wanted(row: TraceSummary, query: Query) -> bool:
    """What this route cannot filter, before a tree is fetched for it."""
    late = query.until is not None and micros(row.start_time) > query.until
    return not late and not row.trace_id.startswith(OWN_TRACE_PREFIX)


def _view(detail: TraceDetail, db: str | None) -> TraceView:
    ids = ("run_id", "session_id", "user_id", "agent_id", "team_id", "workflow_id")
    return TraceView(
        detail.trace_id,
        db or "",
        micros(detail.start_time),
        micros(detail.end_time),
        detail.total_spans,
        detail.status,
        {key: getattr(detail, key) or "" for key in ids},
        _spans(detail.tree, detail),
    )


def _spans(tree: Sequence[TraceNode], detail: TraceDetail) -> tuple[SpanView, ...]:
    spans: list[SpanView] = []
    typed: list[int] = []
    """of each span: itself if it is typed, else the nearest typed one above"""
    stack = [(node, -1) for node in reversed(tree)]
    while stack:
        node, parent = stack.pop()
        index = len(spans)
        above = typed[parent] if parent >= 0 else -1
        kind = _kind(node.type)
        nested = kind is SpanKind.LLM and above >= 0 and spans[above].kind is SpanKind.LLM
        depth = spans[parent].depth + 1 if parent >= 0 else 0
        spans.append(_span(node, parent, depth, kind, detail, nested=nested))
        typed.append(index if kind in _TYPED else above)
        stack.extend((child, index) for child in reversed(node.spans or ()))
    return tuple(spans)


def _span(node: TraceNode, parent: int, depth: int, kind: SpanKind, detail: TraceDetail, *, nested: bool) -> SpanView:
    metadata = node.metadata or {}
    error = node.error or ""
    if parent < 0 and not error and node.status == "ERROR":
        error = detail.error or ""  # such a root has no error text of its own: the trace has it
    content = (node.input, node.output)
    if parent < 0 and kind in RUN_KINDS:
        content = (node.input or detail.input, node.output or detail.output)
    return SpanView(
        node.id,
        parent,
        depth,
        kind,
        component_name(node.name) if kind in RUN_KINDS else node.name,
        micros(node.start_time),
        micros(node.end_time),
        node.status,
        error,
        _text(metadata.get("model")) if kind is SpanKind.LLM else "",
        tokens(metadata.get("input_tokens")) if kind is SpanKind.LLM else None,
        tokens(metadata.get("output_tokens")) if kind is SpanKind.LLM else None,
        _text(metadata.get("run_id")),
        _text(metadata.get("session_id")),
        _text(metadata.get("user_id")),
        nested,
        content[0] or "",
        content[1] or "",
        _text(metadata.get("parameters")),
    )


def _kind(text: str) -> SpanKind:
    if text == "UNKNOWN":
        return SpanKind.HTTP
    try:
        return SpanKind(text.lower())
    except ValueError:
        return SpanKind.OTHER


def _text(value: object) -> str:
    return "" if value is None else str(value)
