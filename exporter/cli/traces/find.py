"""Traces of several databases, latest first, and those among them that fit."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from exporter.sources.api.inspect import Inspector, Query
    from exporter.sources.api.views import TraceView

_PAGE: Final = 25
"""Trees in one request: AgentOS answers no other request while it collects them."""
FACTS: Final = ("run_id", "session_id", "user_id")
"""Fields that spans have, and rows of traces may lack."""


async def newest(inspector: Inspector, databases: Sequence[str | None], query: Query) -> AsyncGenerator[TraceView]:
    """The traces of all databases, latest start first, each once."""

    async def feed(db: str | None) -> AsyncGenerator[TraceView]:
        met, page = set[str](), 0
        while True:
            page += 1
            got = await inspector.traces(db, query, page=page, size=_PAGE)
            for trace in got.traces:
                if trace.id not in met:
                    met.add(trace.id)
                    yield trace
            if got.rows < _PAGE:
                return

    feeds = [feed(db) for db in databases]
    heads = [await anext(each, None) for each in feeds]
    while any(head is not None for head in heads):
        _, place = max((head.start, -place) for place, head in enumerate(heads) if head is not None)
        head = heads[-place]
        assert head is not None  # noqa: S101
        yield head
        heads[-place] = await anext(feeds[-place], None)


@dataclass(slots=True)
class Scan:
    """Traces found among those read."""

    traces: list[TraceView] = field(default_factory=list)
    read: int = 0
    requests: int = 0
    """HTTP requests that ran nothing, left out"""
    oldest: int = 0
    capped: bool = False


async def scan_through(
    traces: AsyncGenerator[TraceView],
    fits: Callable[[TraceView], bool],
    *,
    enough: int | None,
    most: int,
    requests: bool,
) -> Scan:
    """Read traces until enough of them fit, or there are no more.

    Args:
        traces: The traces to read; closed at the end.
        fits: Whether a trace is wanted.
        enough: How many traces that fit are enough; None for all.
        most: How many traces are read at most, whether they fit or not.
        requests: Whether requests that ran nothing are wanted.

    """
    scan = Scan()
    async with aclosing(traces):
        async for trace in traces:
            if scan.read == most:
                scan.capped = True
                break
            scan.read += 1
            scan.oldest = trace.start
            if trace.only_requests and not requests:
                scan.requests += 1
            elif fits(trace):
                scan.traces.append(trace)
                if len(scan.traces) == enough:
                    break
    return scan


async def rows_lack_ids(inspector: Inspector, databases: Sequence[str | None], query: Query) -> bool:
    """Whether spans of recent traces name ids that their rows do not: then AgentOS cannot be asked for them."""
    for db in databases:
        page = await inspector.traces(db, query, page=1, size=_PAGE)
        for trace in page.traces:
            if any(getattr(span, fact) and not trace.row[fact] for span in trace.spans for fact in FACTS):
                return True
    return False
