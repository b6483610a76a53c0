"""AgentOS's HTTP API as far as traces are read through it, answered from the story: `exporter.sources.api.http.Api`.

It answers as the protocol was measured: a trace is there once its first span is written and grows with the others, its
tree hides what has no visible parent, pages are sorted by start.
"""

from __future__ import annotations

import functools
import json
import operator
from collections import Counter
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from exporter.sources.api.http import Answer, UnknownRoute
from tests.harness import story
from tests.harness.story import Row, stamp, us

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@functools.cache
def _parsed(text: str) -> int:
    return (datetime.fromisoformat(text) - _EPOCH) // timedelta(microseconds=1)


class Shown:
    """A trace as it shows with these of its spans."""

    def __init__(self, trace: str, rows: list[Row]) -> None:
        self.id = trace
        self.rows = rows
        self.start, self.end = min(row.start for row in rows), max(row.end for row in rows)
        self.created = min(row.written for row in rows)
        self.status = "ERROR" if any(row.error and row.parent is None for row in rows) else "OK"
        ids = {row.id for row in rows}
        self.visible = [row for row in rows if row.parent is None or row.parent in ids]  # none is deeper

        self.body = {tree: json.dumps(self._said(tree=tree)).encode() for tree in (False, True)}
        """what AgentOS says of it"""

    def _said(self, *, tree: bool) -> dict[str, Any]:
        times = {"start_time": stamp(self.start), "end_time": stamp(self.end), "created_at": stamp(self.created)}
        said: dict[str, Any] = {"trace_id": self.id, **times, "total_spans": len(self.rows), "status": self.status}
        if tree:
            said["session_id"] = self.rows[0].session
            said["tree"] = [self.node(row) for row in self.visible if row.parent is None]
        return said

    def node(self, row: Row) -> dict[str, Any]:
        """Return a span of it with those below."""
        metadata: dict[str, Any] = {"session_id": row.session}
        if row.kind == "LLM":
            metadata |= {"model": "gpt-5.4-mini", "input_tokens": row.tokens[0], "output_tokens": row.tokens[1]}
        return {
            "id": row.id,
            "name": row.name,
            "type": row.kind,
            "start_time": stamp(row.start),
            "end_time": stamp(row.end),
            "status": "OK" if row.error is None else "ERROR",
            "error": row.error,
            "metadata": metadata,
            "spans": [self.node(below) for below in self.visible if below.parent == row.id],
        }


@functools.cache
def _as_of(db: str, trace: str, spans: int) -> Shown:
    rows = [row for row in story.rows() if (row.db, row.trace) == (db, trace)]
    return Shown(trace, rows[:spans])


@functools.cache
def shown(db: str, now: float) -> list[Shown]:
    """Return the traces of a database at a time of the story, the newest start first."""
    spans = Counter(row.trace for row in story.rows() if row.db == db and row.written <= now)
    return sorted((_as_of(db, *span) for span in spans.items()), key=lambda one: -one.start)


class Api:
    """Stands in for the client of one AgentOS; `now` tells the time of the story."""

    base_url = "http://agentos.test"

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now

    async def aclose(self) -> None:
        """Nothing is open."""

    async def post(
        self,
        path: str,
        params: Mapping[str, Any],
        body: Any,
        *,
        endpoint: str,
        timeout: float,  # noqa: ASYNC109 - as Api has it
    ) -> Answer:
        """Answer a search."""
        assert path == "/traces/search", path
        condition = body["filter"]
        found = [one for one in shown(params["db_id"], self._now()) if _holds(condition, one)]
        return self._page(found, body["page"], body["limit"], tree=True)

    async def get(
        self,
        path: str,
        params: Mapping[str, Any],
        *,
        endpoint: str,
        timeout: float,  # noqa: ASYNC109 - as Api has it
    ) -> Answer:
        """Answer a list, one span of a trace, or what AgentOS says of itself."""
        if path == "/info":
            return self._answer(b'{"agno_version": "3.1.10"}')
        traces = shown(params["db_id"], self._now())
        if path == "/traces":
            since, until = _parsed(params["start_time"]), _parsed(params["end_time"])
            found = [trace for trace in traces if us(trace.start) >= since and us(trace.end) <= until]
            found = [one for one in found if one.status == params.get("status", one.status)]
            return self._page(found, params["page"], params["limit"], tree=False)
        for trace in traces:
            for row in trace.visible:
                if path == f"/traces/{trace.id}" and row.id == params["span_id"]:
                    return self._answer(json.dumps(trace.node(row)).encode())
        raise UnknownRoute(path, 404)

    def _page(self, found: list[Shown], page: int, limit: int, *, tree: bool) -> Answer:
        some = b",".join(one.body[tree] for one in found[(page - 1) * limit : page * limit])
        return self._answer(b'{"data":[%b],"meta":{"total_count":%d,"search_time_ms":1.0}}' % (some, len(found)))

    def _answer(self, body: bytes) -> Answer:
        return Answer(body, float(int(story.T0 + self._now())), 0.001)


def _holds(condition: Mapping[str, Any], one: Shown) -> bool:
    op = condition["op"]
    if op == "AND":
        return all(_holds(each, one) for each in condition["conditions"])
    if op == "NOT":
        return not _holds(condition["condition"], one)
    key = condition["key"]
    value = {"end_time": us(one.end), "created_at": us(one.created), "status": one.status, "trace_id": one.id}[key]
    if op == "IN":
        return value in condition["values"]
    if op == "STARTSWITH":
        return str(value).startswith(condition["value"])
    compare = {"GTE": operator.ge, "LT": operator.lt, "LTE": operator.le}[op]
    return bool(compare(value, _parsed(condition["value"])))
