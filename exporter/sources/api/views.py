"""A trace and a session for people: plain data, made from agno's own models.

They have error texts and contents, so only the command line makes them. The daemon uses `core.model`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from exporter.core.model import RUN_KINDS, SpanKind
from exporter.core.span_names import component_name
from exporter.core.times import micros
from exporter.sources.facts import tokens

if TYPE_CHECKING:
    from collections.abc import Sequence

    from agno.os.routers.traces.schemas import TraceDetail, TraceNode

_TYPED: Final = frozenset(SpanKind) - {SpanKind.HTTP, SpanKind.OTHER}


@dataclass(frozen=True, slots=True)
class SpanView:
    """One visible span, as AgentOS shows it.

    `parent` is the index of the parent in `TraceView.spans` (-1 for a root); parents come before their children. Times
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
    """One trace with its visible spans; `row` has the ids of its row ('' for null), `row_status` its status."""

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
        """The outermost agent, team or workflow, which a user called. None while it is hidden, or if there is none."""
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


def view_of(detail: TraceDetail, db: str | None) -> TraceView:
    """A trace with its tree, as AgentOS answers it from the database `db`."""
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
