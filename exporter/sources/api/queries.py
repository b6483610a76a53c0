"""The form of queries for traces, and the meaning of their errors."""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING
from urllib.parse import quote

from exporter.core.times import stamp
from exporter.sources.api.http import NoFilter

if TYPE_CHECKING:
    from exporter.core.errors import SourceError


def moment(micros: int) -> str:
    """A time as AgentOS's filters need it: UTC, `+00:00`, six digits that are never all zero (agno would drop them)."""
    return stamp(micros).replace(".000000+", ".000001+")


def trace_path(trace_id: str) -> str:
    """Path of one trace; its id comes from outside."""
    return "/traces/" + quote(trace_id, safe="")


def may_be_one_row(error: SourceError) -> bool:
    """Whether the error may be due to one trace that AgentOS cannot serve, while it could serve all others.

    AgentOS then answers 500 for the whole page; or 400 with pydantic's message about a node of the tree.
    """
    if isinstance(error, NoFilter):
        return False
    return error.status == HTTPStatus.INTERNAL_SERVER_ERROR or (
        error.status == HTTPStatus.BAD_REQUEST and "TraceNode" in str(error)
    )
