"""Details of runs from agno's table of runs: what the spans of a run do not tell."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec

from exporter.core.model import RUN_KINDS
from exporter.sources.database.sql import RUN_COLUMNS, missing
from exporter.sources.run_metrics import run_detail

if TYPE_CHECKING:
    from collections.abc import Sequence

    from exporter.core.model import Trace
    from exporter.counting.waiting import RunDetail
    from exporter.sources.database.connection import Connection

_AT_ONCE: Final = 500
_metrics: Final = msgspec.json.Decoder(dict)


async def read_details(connection: Connection, traces: Sequence[Trace], *, wait: float) -> dict[str, RunDetail]:
    """Details of the runs in these traces, by run id, as far as they are stored.

    agno has a table of runs since its third major version. `wait` is in seconds. Raises SourceError.
    """
    if missing(connection.sql.layout, connection.location.tables.runs_table, RUN_COLUMNS):
        return {}
    ids = sorted(
        {span.run_id for trace in traces for span in trace.spans if span.kind in RUN_KINDS and span.run_id is not None}
    )
    details: dict[str, RunDetail] = {}
    for start in range(0, len(ids), _AT_ONCE):
        some = ids[start : start + _AT_ONCE]
        for run_id, metrics in await connection.rows(connection.sql.run_metrics(len(some)), some, wait=wait):
            if isinstance(run_id, str) and (detail := _decoded(run_id, metrics)) is not None:
                details[run_id] = detail
    return details


def _decoded(run_id: str, metrics: object) -> RunDetail | None:
    """The detail; None for what are no metrics."""
    if not isinstance(metrics, (str, bytes)):
        return None
    try:
        return run_detail(run_id, _metrics.decode(metrics))
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return None
