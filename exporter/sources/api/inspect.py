"""One AgentOS for people: traces with error texts and, on demand, contents; session figures; names.

For the command line only. Requests go through agno's `AgentOSClient` over our own transport, one at a time, and come
back as plain `views`, so that no package above this one imports agno. The daemon does not use this module.
"""

from __future__ import annotations

from collections.abc import Awaitable
from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final, TypeVar
from urllib.parse import quote

from agno.os.routers.traces.schemas import TraceDetail, TraceSummary
from pydantic import ValidationError

from exporter.core.errors import BadAnswer, ServerFailed, SourceError, Unauthorized
from exporter.core.times import micros
from exporter.sources.api.http import OWN_TRACE_PREFIX, NoFilter, UnknownRoute
from exporter.sources.api.queries import may_be_one_row, moment
from exporter.sources.api.views import SessionView, TraceView, view_of
from exporter.sources.facts import spelled

if TYPE_CHECKING:
    from exporter.sources.api.source import AgentOSSource

T = TypeVar("T")

_FAILURES: Final = 3
"""Rows that fail one after another, before any other was read: then it is not a row's fault."""


@dataclass(frozen=True, slots=True)
class Traces:
    """One page of traces, newest start first. `rows` is how many AgentOS sent, our own requests' among them."""

    traces: list[TraceView]
    rows: int
    total: int


@dataclass(frozen=True, slots=True)
class Query:
    """Which traces AgentOS itself is asked for. Times in microseconds; ids are those of the trace row."""

    since: int | None = None
    until: int | None = None
    ids: tuple[tuple[str, str], ...] = ()


class Inspector:
    """Looks into one AgentOS. All calls raise SourceError."""

    def __init__(self, source: AgentOSSource, *, timeout: float) -> None:
        """`timeout` applies to one request, in seconds."""
        self._client = source.client
        self._client.wait = timeout
        self._cannot_search: set[str | None] = set()
        self._names: dict[str, dict[str, str]] = {"agent": {}, "team": {}, "workflow": {}}
        self._agent_ids: dict[str, str] = {}
        self.unreadable = 0
        """how often a trace was passed over: AgentOS answers it with an error, or it made no sense"""

    @property
    def lists(self) -> bool:
        """Whether a database turned out to have no search: its traces are listed and fetched one by one."""
        return bool(self._cannot_search)

    async def databases(self) -> list[str | None]:
        """Ids of the databases that have traces; [None] if /config is not allowed. Learns the components' names."""
        try:
            config = await _checked(self._client.aget_config(), "/config")
        except Unauthorized as error:
            if "403" not in str(error):
                raise
            return [None]
        for kind, members in (("agent", config.agents), ("team", config.teams), ("workflow", config.workflows)):
            for member in members:
                spelling = spelled(member.name or "") or kind.capitalize()
                for name in (member.id, member.name, spelling):
                    if name:
                        self._names[kind][name] = spelling
                    if name and kind == "agent" and member.id:
                        self._agent_ids[name] = member.id
        databases = config.traces.dbs if config.traces is not None else None
        return [db.db_id for db in databases or ()] or [None]

    def span_name(self, kind: str, name: str) -> str:
        """How spans spell the agent, team or workflow of this id or name."""
        return self._names[kind].get(name) or spelled(name)

    def agent_id(self, name: str) -> str:
        """Id of the agent of this id or name."""
        return self._agent_ids.get(name, name)

    async def traces(self, db: str | None, query: Query, *, page: int, size: int) -> Traces:
        """One page of traces with their trees.

        Args:
            db: The database; None if AgentOS does not name it.
            query: The filters.
            page: Number of the page, from 1.
            size: Most traces.

        """
        searched = await self._searched(db, _conditions(query), page, size)
        return await self._list(db, query, page, size) if searched is None else searched

    async def with_prefix(self, db: str | None, prefix: str) -> list[str]:
        """Ids of traces that start so, 10 at most; where AgentOS cannot search, among the newest 500."""
        searched = await self._searched(db, {"op": "STARTSWITH", "key": "trace_id", "value": prefix}, 1, 10)
        if searched is not None:
            return [trace.id for trace in searched.traces]
        listed = await _checked(self._client.get_traces(page=1, limit=500, db_id=db), "/traces")
        return [row.trace_id for row in listed.data if row.trace_id.startswith(prefix)][:10]

    async def trace(self, db: str | None, trace_id: str) -> TraceView | None:
        """One trace; None where AgentOS answers 404, which it also does when its database is down."""
        try:
            detail = await _checked(self._client.get_trace(quote(trace_id, safe=""), db_id=db), "/traces/{id}")
        except UnknownRoute as error:
            if error.status == HTTPStatus.METHOD_NOT_ALLOWED:
                raise
            return None
        except SourceError as error:
            if not may_be_one_row(error):
                raise
            failure = ServerFailed(f"{error}; AgentOS cannot serve this trace, but others may be well")
            failure.status = error.status
            raise failure from error
        if not isinstance(detail, TraceDetail):
            raise BadAnswer("/traces/{id}: the answer is a span, not a trace")
        return view_of(detail, db)

    async def sessions(
        self, db: str | None, *, user: str | None, agent: str | None, page: int, size: int
    ) -> tuple[list[SessionView], int]:
        """One page of AgentOS's own session statistics.

        Args:
            db: The database; None if AgentOS does not name it.
            user: Only sessions of this user.
            agent: Only sessions with this agent.
            page: Number of the page, from 1.
            size: Most sessions.

        Returns:
            The sessions, and how many there are on all pages.

        """
        answer = await _checked(
            self._client.get_trace_session_stats(user_id=user, agent_id=agent, page=page, limit=size, db_id=db),
            "/trace_session_stats",
        )
        views = [
            SessionView(
                row.session_id,
                db or "",
                row.user_id or "",
                tuple(name for name in (row.workflow_id, row.team_id, row.agent_id) if name),
                row.total_traces,
                micros(row.first_trace_at),
                micros(row.last_trace_at),
            )
            for row in answer.data
        ]
        return views, answer.meta.total_count or 0

    async def _searched(self, db: str | None, condition: dict[str, Any], page: int, size: int) -> Traces | None:
        """A page of a search; None where this AgentOS cannot search, which is remembered."""
        if db in self._cannot_search:
            return None
        try:
            return await self._search(db, condition, page, size)
        except NoFilter:
            pass
        except UnknownRoute as error:
            if error.status != HTTPStatus.METHOD_NOT_ALLOWED:
                raise
        self._cannot_search.add(db)
        return None

    async def _search(self, db: str | None, condition: dict[str, Any], page: int, size: int) -> Traces:
        try:
            answer = await _checked(
                self._client.search_traces(condition, page=page, limit=size, db_id=db), "/traces/search"
            )
        except SourceError as error:
            if size == 1 or not _may_be_one(error):
                raise
            return await self._search_singly(db, condition, page, size)
        details = [detail for detail in answer.data if isinstance(detail, TraceDetail)]
        return Traces([view_of(detail, db) for detail in details], len(answer.data), answer.meta.total_count or 0)

    async def _search_singly(self, db: str | None, condition: dict[str, Any], page: int, size: int) -> Traces:
        """The same page row by row: one that AgentOS cannot serve, or that makes no sense, costs all of them."""
        gathered = Traces([], 0, 0)
        failure: SourceError | None = None
        for number in range((page - 1) * size + 1, page * size + 1):
            try:
                single = await self._search(db, condition, number, 1)
            except SourceError as error:
                if not _may_be_one(error):
                    raise
                failure = error
                self.unreadable += 1
                if not gathered.total and gathered.rows + 1 >= _FAILURES:
                    break  # rather all of them
                gathered = Traces(gathered.traces, gathered.rows + 1, gathered.total)
                continue
            gathered = Traces([*gathered.traces, *single.traces], gathered.rows + single.rows, single.total)
            if not single.rows:
                break
        if failure is not None and not gathered.total:
            raise failure
        return gathered

    async def _list(self, db: str | None, query: Query, page: int, size: int) -> Traces:
        start, ids = moment(query.since) if query.since is not None else None, dict(query.ids)
        answer = await _checked(
            self._client.get_traces(
                run_id=ids.get("run_id"),
                session_id=ids.get("session_id"),
                user_id=ids.get("user_id"),
                start_time=start,
                page=page,
                limit=size,
                db_id=db,
            ),
            "/traces",
        )
        rows = [row for row in answer.data if _wanted(row, query)]
        trees = [await self._tree(db, row.trace_id) for row in rows]
        return Traces([tree for tree in trees if tree is not None], len(answer.data), answer.meta.total_count or 0)

    async def _tree(self, db: str | None, trace_id: str) -> TraceView | None:
        try:
            return await self.trace(db, trace_id)
        except SourceError as error:
            if not may_be_one_row(error):
                raise
            self.unreadable += 1
            return None


def _may_be_one(error: SourceError) -> bool:
    return may_be_one_row(error) or (isinstance(error, BadAnswer) and not isinstance(error, UnknownRoute))


async def _checked(call: Awaitable[T], route: str) -> T:
    try:
        return await call
    except ValidationError as error:
        raise BadAnswer(f"{route}: the answer is not that of an AgentOS; is this its URL?") from error


def _conditions(query: Query) -> dict[str, Any]:
    own_traces = {"op": "STARTSWITH", "key": "trace_id", "value": OWN_TRACE_PREFIX}
    conditions: list[dict[str, Any]] = [{"op": "NOT", "condition": own_traces}]
    if query.since is not None:
        conditions.append({"op": "GTE", "key": "start_time", "value": moment(query.since)})
    if query.until is not None:
        conditions.append({"op": "LTE", "key": "start_time", "value": moment(query.until)})
    conditions.extend({"op": "EQ", "key": key, "value": value} for key, value in query.ids)
    return {"op": "AND", "conditions": conditions}


def _wanted(row: TraceSummary, query: Query) -> bool:
    """Apply the filters that this route does not have, before a tree is fetched for the trace."""
    late = query.until is not None and micros(row.start_time) > query.until
    return not late and not row.trace_id.startswith(OWN_TRACE_PREFIX)
