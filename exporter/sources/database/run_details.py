"""Data that the reading of spans leaves out: details of runs from agno's table of runs, and tags of spans."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec

from exporter.core.model import RUN_KINDS
from exporter.sources.database.sql import RUN_COLUMNS, missing
from exporter.sources.guardrails import blocked_by
from exporter.sources.run_metrics import run_detail

if TYPE_CHECKING:
    from collections.abc import Sequence

    from exporter.core.model import Trace
    from exporter.counting.waiting import RunDetail
    from exporter.sources.database.connection import Connection

_AT_ONCE: Final = 500
_MOST_TAGS: Final = 100


async def read_details(connection: Connection, traces: Sequence[Trace], *, wait: float) -> dict[str, RunDetail]:
    """Details of the runs in some traces. agno has a table of runs since its third major version.

    Args:
        connection: The connection.
        traces: The traces.
        wait: Seconds for each statement.

    Returns:
        The details that are stored, by run id.

    Raises:
        SourceError: The database does not answer.

    """
    if missing(connection.sql.layout, connection.location.tables.runs_table, RUN_COLUMNS):
        return {}
    ids = sorted(
        {span.run_id for trace in traces for span in trace.spans if span.kind in RUN_KINDS and span.run_id is not None}
    )
    details: dict[str, RunDetail] = {}
    for start in range(0, len(ids), _AT_ONCE):
        some = ids[start : start + _AT_ONCE]
        for run_id, *parts in await connection.rows(connection.sql.run_parts(len(some)), some, wait=wait):
            if isinstance(run_id, str) and (detail := _detail(run_id, *parts)) is not None:
                details[run_id] = detail
    return details


async def read_tags(connection: Connection, traces: Sequence[Trace], *, wait: float) -> dict[str, list[str]]:
    """Tags of the spans of these traces (OpenInference's `tag.tags`), by trace id. Raises SourceError."""
    ids = [trace.id for trace in traces]
    tags: dict[str, list[str]] = {}
    for start in range(0, len(ids), _AT_ONCE):
        some = ids[start : start + _AT_ONCE]
        for trace_id, value in await connection.rows(connection.sql.tags(len(some)), some, wait=wait):
            value_tags = _decoded(value)
            if isinstance(value_tags, list):
                tags.setdefault(trace_id, []).extend(tag for tag in value_tags[:_MOST_TAGS] if isinstance(tag, str))
    return tags


def _detail(run_id: str, metrics: object, metadata: object, events: object, content: object) -> RunDetail | None:
    guardrail = blocked_by(run_id, _json(content), _json(events))
    return run_detail(run_id, _decoded(metrics), _decoded(metadata), guardrail=guardrail)


def _json(value: object) -> bytes:
    """The JSON of a column, null if it has none."""
    if isinstance(value, str):
        return value.encode(errors="replace")
    return value if isinstance(value, bytes) else b"null"


def _decoded(value: object) -> object:
    """The value of a JSON text; None if it is no JSON."""
    if not isinstance(value, (str, bytes)):
        return None
    try:
        return msgspec.json.decode(value)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return None
