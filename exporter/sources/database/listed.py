"""Rows of the span table as a poll lists them: time of insertion, id of the span, id of its trace."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from exporter.core.model import KnownTrace
from exporter.sources.api.http import OWN_TRACE_PREFIX
from exporter.sources.database.rows import moment_of
from exporter.sources.facts import clean_id, stand_in

if TYPE_CHECKING:
    from collections.abc import Sequence

    from exporter.sources.database.connection import Rows


@dataclass(slots=True)
class Pass:
    """One poll: its start by the monotonic clock and by the database's, and what it found.

    `touched` are traces with new spans. `due` are open traces that are to be read again.
    """

    began: float
    now: int
    newest: int = 0
    touched: set[str] = field(default_factory=set)
    due: Sequence[KnownTrace] = ()

    def note(self, page: Rows, ids: Sequence[str], ignored: Sequence[tuple[str, str]]) -> None:
        """Note a page of spans, and the traces in it with new spans, our own among them."""
        self.newest = max(self.newest, newest_of(page))
        self.touched.update(ids, (trace_id for trace_id, reason in ignored if reason == "own"))


def sorted_out(new: Rows) -> tuple[list[str], list[tuple[str, str]]]:
    """(traces to read, traces that are not read at all with the reason) of some rows of a page."""
    reasons = {trace_id: why_not_read(trace_id) for trace_id in dict.fromkeys(trace_id for _, _, trace_id in new)}
    ignored = [(_named(trace_id), reason) for trace_id, reason in reasons.items() if reason]
    return [trace_id for trace_id, reason in reasons.items() if not reason], ignored


def why_not_read(trace_id: object) -> str:
    """Why a trace is not read at all; '' if it is. Other programs may write ids that are no text."""
    if not isinstance(trace_id, str):
        return "malformed"
    return "own" if trace_id.startswith(OWN_TRACE_PREFIX) else ""


def _named(trace_id: object) -> str:
    return clean_id(trace_id) if isinstance(trace_id, str) else stand_in(repr(trace_id).encode())


def newest_of(page: Rows) -> int:
    """When the newest row of a page was written, in microseconds; 0 if no row has a valid time."""
    for row in reversed(page):
        try:
            return moment_of(row[0])
        except (ValueError, OverflowError, TypeError):
            continue
    return 0
