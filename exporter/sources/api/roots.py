"""The facts of a trace's roots where AgentOS overwrote them, in its answer, with those of the trace."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import structlog

from exporter.core.errors import BadAnswer
from exporter.sources.api import wire
from exporter.sources.api.http import UnknownRoute
from exporter.sources.api.queries import trace_path

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from exporter.core.model import Trace
    from exporter.sources.api.http import Answer

    Get = Callable[[str, dict[str, Any], str], Awaitable[Answer]]

log = structlog.get_logger(__name__)


async def correct_roots(page: wire.Page, get: Get, *, clean_ids: bool) -> None:
    """Ask for the roots whose facts are in doubt, and correct the page. Raises SourceError.

    Args:
        page: Traces as they were answered.
        get: Sends a request to the database: path, parameters, and the name that it is counted by.
        clean_ids: Whether ids on trace rows are the root's own, so that ids are in no doubt.

    """
    for place, trace in enumerate(page.traces):
        doubt = page.doubts.get(trace.id)
        if doubt is not None:
            page.traces[place] = await _corrected(trace, doubt, get, clean_ids=clean_ids)


async def _corrected(trace: Trace, doubt: wire.RootDoubt, get: Get, *, clean_ids: bool) -> Trace:
    asked = set(doubt.times) if clean_ids else {*doubt.times, *doubt.ids}
    for index in sorted(asked):
        span_id = f"{trace.spans[index].id:016x}"
        try:
            answer = await get(trace_path(trace.id), {"span_id": span_id}, "trace_span")
            times, ids = index in doubt.times, index in doubt.ids
            trace = wire.correct_root(trace, index, answer.body, times=times, ids=ids)
        except UnknownRoute:
            continue  # the trace was deleted: its facts are the best available
        except BadAnswer as error:
            log.warning("root_unknown", db=trace.db, reason=str(error))  # the other traces are read nevertheless
    return trace
