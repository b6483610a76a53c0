"""The interface of trace sources: what they yield, and what they may ask. The API and the database implement it."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

from exporter.core.model import FUTURE, KnownTrace, Trace
from exporter.counting.waiting import RunDetail


@dataclass(slots=True)
class Batch:
    """Traces and facts that are committed in one transaction.

    The consumer commits it before it asks for the next batch: when the generator resumes, the batch is durable.
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
    """the source lost its traces: they were deleted, or the database was replaced"""
    first: bool = False
    """part of the very first pass over this database: history, not news"""
    follows: bool = False
    """the source sees every span that is added: open traces are asked for at the horizon alone"""
    as_of: int = 0
    """the source's clock when it answered, in microseconds"""
    details: Mapping[str, RunDetail] = field(default_factory=dict)
    """details of runs in these traces, by run id, if the source has them at once"""
    tags: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """tags of the spans of these traces, by trace id, if the source reads them"""


class LedgerView(Protocol):
    """What a source may ask the ledger about one AgentOS. All are coroutines: the ledger is in a thread."""

    async def cursors(self) -> dict[str, dict[str, Any]]:
        """The last committed cursors of all databases that were ever read of this AgentOS."""

    async def known_traces(self, db: str, ids: Iterable[str]) -> dict[str, KnownTrace]:
        """The known ones of these traces in this database, by id."""

    async def open_due(self, db: str, now: int, limit: int) -> list[KnownTrace]:
        """Open traces that are to be asked for again by `now`, the most overdue first."""

    async def unsettled(self, db: str, limit: int, *, due: int, before: int = FUTURE) -> list[KnownTrace]:
        """Complete traces that are about to settle, the most overdue first.

        Args:
            db: The database.
            limit: Most traces.
            due: The time by which they settle unless they change, in microseconds.
            before: They ended before this time of the source's clock, in microseconds.

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
    """What an AgentOS tells about itself. None and empty if it does not tell."""

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

        Raises SourceError if the poll cannot go on; earlier batches stay committed.
        """

    async def describe(self, ledger: LedgerView) -> Description:
        """Names, version and session figures. Raises SourceError."""

    async def aclose(self) -> None:
        """Free connections."""


class PastSource(Protocol):
    """One AgentOS whose past is read once, from beginning to end."""

    @property
    def stats(self) -> PollStats:
        """Figures of the reading under way."""

    def past(self, since: int, until: int, reached: Mapping[str, int]) -> AsyncGenerator[Batch]:
        """Every trace that ended in a time, oldest first as far as that can be known.

        A trace may be handed over more than once. A batch with a cursor says that all traces before
        `cursor["reached"]` were handed over.

        Args:
            since: The first end, in microseconds.
            until: The end of the time, in microseconds.
            reached: By database, the last `reached` of a reading that continues.

        Raises:
            SourceError: Reading cannot go on; it may be called again.

        """

    async def aclose(self) -> None:
        """Free connections."""


@runtime_checkable
class DetailsOnRequest(Protocol):
    """A source that has to be asked for the details of runs, one at a time. Others hand them over with the traces."""

    async def run_detail(self, session_id: str, run_id: str, db: str, wait: float) -> Mapping[str, RunDetail] | None:
        """The detail of a run, and of the runs inside it.

        Args:
            session_id: The session.
            run_id: The run.
            db: The database, '' if AgentOS does not name it.
            wait: Seconds.

        Returns:
            The details, by run id; None if the run is not stored.

        Raises:
            SourceError: AgentOS does not answer.

        """

    def session_databases(self) -> Sequence[str]:
        """Databases that may have sessions; none if they are unknown."""
