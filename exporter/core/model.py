"""Traces and spans as sources read them, without prompts.

All times are integers: microseconds since the Unix epoch, the resolution in which AgentOS stores them. Sums of
integers do not depend on the order of the addends, so totals are reproducible.

Classes of which each span has an instance are `msgspec.Struct`s: they are created many times as fast as a frozen
dataclass, and the garbage collector does not track them, since they cannot be in a cycle.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import msgspec

from exporter.core.error_class import OTHER

if TYPE_CHECKING:
    from collections.abc import Callable
    from decimal import Decimal

MICROSECONDS: Final = 1_000_000
"""Storage units in a second."""
FUTURE: Final = 2**62
"""A time that never comes."""


class SpanKind(enum.StrEnum):
    """Type of a span as AgentOS's tree names it; AgentOS's UNKNOWN (requests, SDK internals) becomes `HTTP`."""

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
    """Token counts as the span reports them; None where it does not report one (unknown is not zero).

    `detailed`: the source has cache detail, so a missing count is 0.
    """

    prompt: int | None = None
    completion: int | None = None
    cache_read: int | None = None
    cache_write: int | None = None
    reasoning: int | None = None
    total: int | None = None
    detailed: bool = False

    @property
    def reported(self) -> bool:
        """Whether the span reports any token count at all."""
        return self.prompt is not None or self.completion is not None


NO_USAGE: Final = TokenUsage()


class Span(msgspec.Struct, frozen=True, gc=False):
    """One visible span.

    Attributes:
        id: Digest of the span id.
        parent: Index of the parent in `Trace.spans`, -1 for a root. Parents come before their children.
        kind: Its kind.
        name: Its name without the method suffix (`Nesting_Agent.arun` → `Nesting_Agent`). For `HTTP` the method of the
            request, '' without one.
        start: When it began, in microseconds.
        end: When it ended, in microseconds.
        error_type: Type of the exception; None unless the status is ERROR.
        error_class: Why an LLM call failed.
        provider: The provider of an LLM call, as a label.
        model: Its model.
        model_class: `name` of agno's model class.
        usage: Its tokens.
        reported_cost: The cost that the span itself reports, in USD.
        not_believed: Fields whose numbers are not plausible, and count as not reported.
        continued: Whether the span continues a run that had paused.
        streamed: Whether the answer of an LLM call came in parts.

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
    streamed: bool = False
    error_class: str = OTHER

    @property
    def duration(self) -> int:
        """Microseconds, never negative."""
        return max(0, self.end - self.start)


class Trace(msgspec.Struct, frozen=True, gc=False):
    """One reading of one trace: the spans that are visible now.

    Attributes:
        id: Id of the trace.
        db: The database of the AgentOS that has it.
        start: Start in the trace row, in microseconds.
        end: End in the trace row.
        created: When the row was created.
        total_spans: How many spans the trace has, as the source says.
        spans: The visible ones.
        orphans: Indices of spans that are shown although some of their ancestors never came; those are no longer waited
            for.

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
class ListedTrace:
    """A trace in a list without span trees."""

    id: str
    total_spans: int
    start: int
    end: int
    created: int


class TraceState(enum.IntEnum):
    """The state of a trace in the ledger."""

    OPEN = 0
    COMPLETE = 1
    SETTLED = 2
    EXPIRED = 3
    IGNORED = 4


@dataclass(slots=True)
class KnownTrace:
    """A trace of one database as the ledger knows it. Times are microseconds of our own clock unless said otherwise.

    Attributes:
        id: Id of the trace.
        db: The database.
        state: Its state.
        total_spans: Number of spans at the last reading, as the source said.
        nodes: How many of them were visible.
        created: When its row was created (source's clock).
        end: When it ended (source's clock).
        changed: When the present `total_spans`, `nodes` and `end` were first read.
        next_ask: When an open trace is asked for again, or a complete one settles.
        asks: How often it was asked for.
        misses: How often in a row it was not returned.

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


@dataclass(frozen=True, slots=True)
class Clock:
    """Time as a parameter: `now` in seconds since the epoch, `monotonic` in seconds since anything."""

    now: Callable[[], float]
    monotonic: Callable[[], float]

    def now_us(self) -> int:
        """Wall clock in microseconds."""
        return int(self.now() * MICROSECONDS)
