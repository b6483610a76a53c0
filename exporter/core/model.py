"""What a source reads: traces of spans, without prompts; and the protocol that every source follows.

All times are integers: microseconds since the Unix epoch, the resolution in which AgentOS stores them. Sums of
integers do not depend on the order of the addends, which is what makes totals reproducible.

What there is one of for each span is a `msgspec.Struct`: made many times as fast as a frozen dataclass, and out of
sight of the garbage collector, as it can be in no cycle.
"""

from __future__ import annotations

import enum
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Protocol

import msgspec

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Iterable, Mapping, Sequence
    from decimal import Decimal

MICROSECONDS: Final = 1_000_000
"""Storage units in a second."""
FUTURE: Final = 2**62
"""A time that never comes."""


class SpanKind(enum.StrEnum):
    """Type of a span as AgentOS's tree names it; `HTTP` is what it calls UNKNOWN (requests, SDK internals)."""

    AGENT = "agent"
    TEAM = "team"
    WORKFLOW = "workflow"
    LLM = "llm"
    TOOL = "tool"
    OTHER = "other"
    HTTP = "http"


RUN_KINDS: Final = frozenset({SpanKind.AGENT, SpanKind.TEAM, SpanKind.WORKFLOW})
"""Kinds that can be the entry point which a user called."""


class TokenUsage(msgspec.Struct, frozen=True, gc=False):
    """Token counts as the span reports them; None where the source does not say (unknown is not zero).

    `detailed`: the source knows cache detail, so what it leaves out is 0.
    """

    prompt: int | None = None
    completion: int | None = None
    cache_read: int | None = None
    cache_write: int | None = None
    reasoning: int | None = None
    total: int | None = None
    detailed: bool = False

    @property
    def known(self) -> bool:
        """Whether the span reports any token count at all."""
        return self.prompt is not None or self.completion is not None


NO_USAGE: Final = TokenUsage()


class Span(msgspec.Struct, frozen=True, gc=False):
    """One visible span.

    `parent` is the index of the parent in `Trace.spans` (-1 for a root); parents stand before their children. `name`
    has lost its method suffix (`Nesting_Agent.arun` → `Nesting_Agent`); that of `HTTP` is the method of the request, ''
    without one. `error_type` is None unless the status is ERROR. `model_class` is the `name` of agno's model class,
    `reported_cost` what the span itself says it cost, in USD. `not_believed` names the fields that hold what is no
    plausible number, and count as not reported. `continued`: the span goes on with a run that had paused.
    """

    id: int
    parent: int
    kind: SpanKind
    name: str
    start: int
    end: int
    error_type: str | None = None
    provider: str = ""
    model: str = ""
    model_class: str = ""
    usage: TokenUsage = NO_USAGE
    reported_cost: Decimal | float | None = None
    run_id: str | None = None
    session_id: str | None = None
    user_id: str | None = None
    not_believed: tuple[str, ...] = ()
    continued: bool = False

    @property
    def duration(self) -> int:
        """Microseconds, never negative."""
        return max(0, self.end - self.start)


class Trace(msgspec.Struct, frozen=True, gc=False):
    """One reading of one trace: the spans that are visible now.

    `total_spans` is what the source says the trace has; `nodes` how many of them this reading shows. `start`, `end` and
    `created` are those of the trace row. `db` is the database of the AgentOS that holds it. `orphans` are the indices
    of spans that are shown although not all of their ancestors ever came: what is missing is waited for no longer.
    """

    id: str
    db: str
    start: int
    end: int
    created: int
    total_spans: int
    spans: tuple[Span, ...]
    orphans: frozenset[int] = frozenset()

    @property
    def nodes(self) -> int:
        """Number of visible spans."""
        return len(self.spans)

    @property
    def open(self) -> bool:
        """Whether spans are still hidden (protocol: total_spans = 0, or fewer nodes than total_spans)."""
        return self.total_spans == 0 or self.nodes < self.total_spans


@dataclass(frozen=True, slots=True)
class Seen:
    """What a listing without trees says of a trace."""

    id: str
    total_spans: int
    start: int
    end: int
    created: int


class TraceState(enum.IntEnum):
    """Where a trace stands in the ledger."""

    OPEN = 0
    COMPLETE = 1
    SETTLED = 2
    EXPIRED = 3
    IGNORED = 4


@dataclass(slots=True)
class Known:
    """What the ledger knows of a trace in one database (times in microseconds of our own clock unless said otherwise).

    `end` and `created` are the source's. `changed` is when the present (total_spans, nodes, end) was first read,
    `next_ask` when an open trace is asked for again or a complete one settles, `asks` how often it was asked for,
    `misses` how often in a row it was not returned.
    """

    id: str
    db: str
    state: TraceState
    total_spans: int
    nodes: int
    created: int
    end: int
    changed: int
    next_ask: int = 0
    asks: int = 0
    misses: int = 0


@dataclass(slots=True)
class Batch:
    """What a source hands over to be committed in one transaction.

    The consumer commits it before it asks for the next one: when the generator resumes, the batch is durable.
    """

    db: str
    traces: Sequence[Trace] = ()
    settled: Sequence[str] = ()
    """ids of complete traces that were listed unchanged and will not change any more"""
    missed: Sequence[str] = ()
    """ids that were asked for in a believed answer and not returned"""
    ignored: Sequence[tuple[str, str]] = ()
    """(trace id or a digest of the malformed row, reason)"""
    own: int = 0
    """traces of our own requests that were passed over"""
    cursor: Mapping[str, Any] | None = None
    """the source's new position in this database, opaque to everyone else; None leaves it"""
    reset: bool = False
    """the source lost what it had: deleted or replaced"""
    first: bool = False
    """part of the very first pass over this database: history, not news"""
    follows: bool = False
    """the source sees every span that is added: open traces are asked for at the horizon alone"""
    as_of: int = 0
    """the source's clock when it answered, in microseconds"""


class LedgerView(Protocol):
    """What a source may ask the ledger about one AgentOS. All calls are coroutines: the ledger lives in a thread."""

    async def cursors(self) -> dict[str, dict[str, Any]]:
        """The last committed cursors of all databases that were ever read of this AgentOS."""

    async def known(self, db: str, ids: Iterable[str]) -> dict[str, Known]:
        """What is known of these traces in this database."""

    async def open_due(self, db: str, now: int, limit: int) -> list[Known]:
        """Open traces whose time to be asked for again has come, the most overdue first."""

    async def unsettled(self, db: str, limit: int, *, due: int, before: int = FUTURE) -> list[Known]:
        """Complete traces that are to settle by `due` if they do not change, the most overdue first.

        Of those whose end (source's clock) lies before `before`.
        """

    async def sentinels(self, db: str, ages: Sequence[int]) -> list[str]:
        """Ids of known traces: for each of `ages` (source's clock) the newest that ended before it."""

    async def any_trace(self) -> bool:
        """Whether any trace of this AgentOS was ever read."""


@dataclass(frozen=True, slots=True)
class Component:
    """An agent, team or workflow that the AgentOS lists, with its name as spans spell it (`span_name`)."""

    kind: str
    id: str
    name: str
    span_name: str
    model: str = ""
    provider: str = ""


@dataclass(frozen=True, slots=True)
class SessionWindow:
    """Sessions active in a window and their traces, as the session stats report them."""

    window: str
    sessions: int
    traces: int


@dataclass(frozen=True, slots=True)
class Description:
    """What an AgentOS says of itself. None and empty where it does not say."""

    os_id: str = ""
    version: str = ""
    components: tuple[Component, ...] = ()
    sessions: int | None = None
    windows: tuple[SessionWindow, ...] = ()


@dataclass(slots=True)
class PollStats:
    """What one poll did, for its log line and for tests."""

    requests: int = 0
    bytes: int = 0
    search_ms: float = 0.0
    traces: int = 0
    details: dict[str, int] = field(default_factory=dict)


class TraceSource(Protocol):
    """One AgentOS, however it is read."""

    @property
    def stats(self) -> PollStats:
        """Figures of the poll under way or the last one."""

    @property
    def catching_up(self) -> bool:
        """Whether a backlog is being read."""

    @property
    def watermark(self) -> int | None:
        """Microseconds: everything that ended before, less the overlap, was read. None before anything was."""

    @property
    def floors(self) -> Mapping[str, int]:
        """By database: traces created before (source's clock, microseconds) will not be read again."""

    def read(self, ledger: LedgerView, *, deadline: float) -> AsyncGenerator[Batch]:
        """One poll: batches to be committed one by one; `deadline` is a monotonic time in seconds.

        Raises SourceError when the poll cannot go on; what was yielded before stays committed.
        """

    async def describe(self, ledger: LedgerView) -> Description:
        """Names, version and session figures. Raises SourceError."""

    async def aclose(self) -> None:
        """Free connections."""


@dataclass(frozen=True, slots=True)
class Clock:
    """Time as a parameter: `now` in seconds since the epoch, `monotonic` in seconds since anything."""

    now: Callable[[], float]
    monotonic: Callable[[], float]

    def now_us(self) -> int:
        """Wall clock in microseconds."""
        return int(self.now() * MICROSECONDS)


_METHOD = re.compile(r"\._?a?(?:continue_run|run|execute)(?:_stream)?$")
_CONTINUE = re.compile(r"\._?a?continue_run(?:_stream)?$")
_MODEL_METHOD = re.compile(r"\.a?(?:invoke|response)(?:_stream)?$")
_METHODS = frozenset({"CONNECT", "DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT", "TRACE"})
_LONGEST_METHOD: Final = 1 + max(map(len, _METHODS))
_ERROR_TYPE = re.compile(r"^\w+(?:\.\w+)*(?:Error|Exception|Timeout|Interrupt|Exit|Warning)(?=:|$)")
_ERROR_TYPE_LENGTH: Final = 64
_ERROR_TEXT: Final = 4096


def component_name(span_name: str) -> str:
    """Name of the agent, team, workflow or step whose span is so named (`Nesting_Agent_v1.2.arun` → …`_v1.2`)."""
    return _METHOD.sub("", span_name)


def is_continuation(span_name: str) -> bool:
    """Whether the span is of a run that had paused, for a person's confirmation say (`Agent.acontinue_run`)."""
    return _CONTINUE.search(span_name) is not None


def http_method(span_name: str) -> str:
    """Method of the HTTP request whose span is so named (`POST /agents/{agent_id}/runs` → `POST`), '' if there is none.

    The name of such a span is `{method} {route}`, as OpenTelemetry's semantic conventions say.
    """
    method, _, _ = span_name[:_LONGEST_METHOD].partition(" ")
    return method if method in _METHODS else ""


def model_class(span_name: str) -> str:
    """Model name in an LLM span's name (`OpenAIChat.ainvoke` → `OpenAIChat`), '' if it has none."""
    found = _MODEL_METHOD.search(span_name)
    return span_name[: found.start()] if found else ""


def error_type(text: str | None) -> str:
    """Exception type at the start of an error text, else `other`.

    Tool errors carry bare messages (`alice: not found`) which must not leak into a label.
    """
    found = _ERROR_TYPE.match(text[:_ERROR_TEXT]) if text else None
    kind = found.group() if found else ""
    return kind if 0 < len(kind) <= _ERROR_TYPE_LENGTH else "other"


def provider_label(provider: str) -> str:
    """Provider as a label: agno's string without a trailing " Chat" or " Responses", lowercased."""
    return provider.removesuffix(" Chat").removesuffix(" Responses").lower()
