"""The waiting side of an AgentOS in memory: its lists answer as was measured on agno 3.1.10, ties in random order.

`World` reads it with the real surfaces, job, ledger and totals, on a clock that the test moves.
"""

from __future__ import annotations

import contextlib
import json
import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from exporter.bookkeeping.operations import Ends
from exporter.bookkeeping.shared import Shared
from exporter.core.errors import ServerFailed, SourceError, Unauthorized
from exporter.core.model import MICROSECONDS, Clock
from exporter.ledger.store import Ledger
from exporter.metrics.series import Limits
from exporter.metrics.totals import Totals
from exporter.service.operations import Operations
from exporter.service.poller import Health
from exporter.sources.api.http import Answer, TooLarge, UnknownRoute
from exporter.sources.api.surfaces import ApiSurfaces
from exporter.sources.database.location import Engine, Location
from exporter.sources.database.sqlite import SqliteConnection
from exporter.sources.database.surfaces import DatabaseSurfaces
from exporter.sources.operations import OperationsSource
from tests.harness.dying import hurry
from tests.harness.stored import store

T0 = 1_790_000_000
NAME = "it"
LOOKBACK = 3600
JOB_ENDS = ("completed", "failed", "cancelled")

Row = dict[str, Any]


@dataclass
class Tables:
    """What AgentOS has, and how it fails.

    `codes` and `details` are what it answers to paths that begin so; `silent` is a database that fails.
    """

    approvals: dict[str, Row] = field(default_factory=dict)
    schedules: dict[str, Row] = field(default_factory=dict)
    runs: dict[str, Row] = field(default_factory=dict)
    jobs: dict[str, Row] = field(default_factory=dict)
    evals: dict[str, Row] = field(default_factory=dict)
    contents: list[Row] = field(default_factory=list)
    memories: dict[str, str] = field(default_factory=dict)
    codes: dict[str, int] = field(default_factory=dict)
    details: dict[str, str] = field(default_factory=dict)
    silent: bool = False
    fat: int = 0
    """bytes of content in each row"""

    def approve(self, number: str, status: str, created: float, resolved: float | None = None, **more: Any) -> None:
        """Ask for an approval, or resolve one."""
        self.approvals[number] = {
            "id": number,
            "status": status,
            "approval_type": "required",
            "source_type": "agent",
            "created_at": created,
            "resolved_at": resolved,
            **more,
        }

    def schedule(self, number: str, following: float, *, name: str = "", enabled: bool = True) -> None:
        """Make a schedule, or move it on."""
        self.schedules[number] = {"id": number, "name": name or number, "enabled": enabled, "next_run_at": following}

    def run(self, number: str, schedule: str, status: str, created: float) -> None:
        """Begin a run of a schedule, or end it."""
        self.runs[number] = {
            "id": number,
            "schedule_id": schedule,
            "status": status,
            "status_code": 200,
            "created_at": created,
            "triggered_at": created,
        }

    def job(self, number: str, status: str, created: float, completed: float | None = None, attempt: int = 1) -> None:
        """Accept a job, or end it."""
        self.jobs[number] = {
            "id": number,
            "component_id": "writer",
            "status": status,
            "attempt": attempt,
            "created_at": created,
            "completed_at": completed,
        }

    def evaluate(self, number: str, kind: str, created: str, **data: Any) -> None:
        """Run an evaluation."""
        self.evals[number] = {
            "id": number,
            "eval_type": kind,
            "name": f"test of {kind}",
            "evaluated_component_name": "Writer",
            "created_at": created,
            "eval_data": data,
        }


class FakeApi:
    """Answers as AgentOS; `requests` counts what was asked for, by endpoint."""

    base_url = "http://fake"

    def __init__(self, tables: Tables, now: Any) -> None:
        self.tables = tables
        self.requests: dict[str, int] = {}
        self._now = now
        self._random = random.Random(7)

    async def get(self, path: str, params: Mapping[str, Any], *, endpoint: str, most: int, **_: float) -> Answer:
        """See Api."""
        self.requests[endpoint] = self.requests.get(endpoint, 0) + 1
        part = path.split("/")[1]
        if code := self.tables.codes.get(part):
            raise _refused(code, f"{endpoint}: {code} {self.tables.details.get(part, '')}; a cure")
        answer = self._answer(path.strip("/").split("/"), params)
        for row in answer.get("data", ()):
            row["payload"] = "CONTENT" + "x" * self.tables.fat
        body = json.dumps(answer).encode()
        if len(body) > most:
            raise TooLarge("the answer is larger than it may be")
        return Answer(body, float(self._now()), 0.01)

    def _answer(self, parts: list[str], params: Mapping[str, Any]) -> Any:
        tables = self.tables
        match parts:
            case ["approvals"]:
                rows = [row for row in tables.approvals.values() if params.get("status") in {None, row["status"]}]
                return self._page(rows, "created_at", params, fails=True)
            case ["approvals", number]:
                return self._row(tables.approvals, number)
            case ["schedules"]:
                return self._page(list(tables.schedules.values()), "id", params)  # the one list with a tie-break
            case ["schedules", schedule, "runs"]:
                self._row(tables.schedules, schedule)
                rows = [row for row in tables.runs.values() if row["schedule_id"] == schedule]
                return self._page(rows, "created_at", params)
            case ["schedules", _, "runs", number]:
                return self._row(tables.runs, number)
            case ["queue", "stats"]:
                return self._stats()
            case ["queue", "jobs"]:
                rows = [row for row in tables.jobs.values() if row["status"] in params["status"]]
                return self._page(rows, "completed_at", params)
            case ["eval-runs"]:
                return self._page(list(tables.evals.values()), "created_at", params, fails=True)
            case ["knowledge", "content"]:
                return self._page(tables.contents, "id", params, fails=True)
            case ["memories"]:
                return self._page([{"id": memory} for memory in tables.memories], "id", params, fails=True)
            case ["user_memory_stats"]:
                return self._page(
                    [{"id": memory} for memory in set(tables.memories.values())], "id", params, fails=True
                )
        raise _refused(404, "404 Not Found")

    def _page(self, rows: list[Row], by: str, params: Mapping[str, Any], *, fails: bool = False) -> Any:
        if self.tables.silent and fails:
            raise _refused(500, "500 Internal server error (OperationalError)")
        rows = [] if self.tables.silent else list(rows)
        self._random.shuffle(rows)  # nothing breaks a tie
        rows.sort(key=lambda row: str(row.get(by)), reverse=True)
        limit, page = params["limit"], params.get("page", 1)
        shown = [dict(row) for row in rows[(page - 1) * limit : page * limit]]
        return {"data": shown, "meta": {"total_count": len(rows)}}

    def _row(self, rows: dict[str, Row], number: str) -> Row:
        if self.tables.silent or number not in rows:
            raise _refused(404, "404 not found")
        return dict(rows[number])

    def _stats(self) -> Any:
        counts: dict[str, int] = {}
        for row in [] if self.tables.silent else self.tables.jobs.values():
            counts[row["status"]] = counts.get(row["status"], 0) + 1
        queued = [row["created_at"] for row in self.tables.jobs.values() if row["status"] == "queued"]
        age = self._now() - min(queued) if queued and not self.tables.silent else None
        return {"counts": counts, "oldest_queued_age_seconds": age}


def _refused(code: int, text: str) -> SourceError:
    kinds = {401: Unauthorized, 403: Unauthorized, 404: UnknownRoute}
    error: SourceError
    error = UnknownRoute(text, code) if code == 404 else kinds.get(code, ServerFailed)(text)
    error.status = code
    return error


class FakePoller:
    """A poller whose last poll went well."""

    def __init__(self) -> None:
        self.health = Health(outcome="ok", last_success=1.0)

    @contextlib.contextmanager
    def awaiting(self) -> Iterator[None]:
        """See Poller."""
        yield


class Untimed(SqliteConnection):
    """A connection whose statements cost no time: how often tables are counted must not depend on the machine."""

    @property
    def seconds(self) -> float:
        """See Connection."""
        return 0.0

    @seconds.setter
    def seconds(self, _: float) -> None:
        pass


class World:
    """A process on a state file, whose job is done when the test says so. A second one goes on as after `kill -9`.

    With `database`, what AgentOS has lies in that file, and is read there.
    """

    def __init__(self, state: Path | None, tables: Tables, now: float = 0.0, *, database: Path | None = None) -> None:
        self.tables = tables
        self.now = now
        self.database = database
        self.places: dict[str, list[dict[str, str]]] = {}
        clock = Clock(lambda: T0 + self.now, lambda: self.now)
        self.ledger = Ledger(state)
        hurry(self.ledger)
        self.totals = Totals(Limits(), zero_hold=0)
        self.totals.restore(*self.ledger.load())
        self.shared = Shared(self.ledger, self.totals, clock)
        self.api = FakeApi(tables, clock.now)
        self.poller = FakePoller()
        self.statements: list[str] = []
        ends = Ends(NAME, self.shared)
        self.operations = Operations(self._surfaces(clock), ends, self.shared, self.poller)  # type: ignore[arg-type]

    def _surfaces(self, clock: Clock) -> OperationsSource:
        lookback = LOOKBACK * MICROSECONDS
        if self.database is None:
            places = self.places
            return ApiSurfaces(self.api, clock, lookback=lookback, places=lambda part: places.get(part, [{}]))  # type: ignore[arg-type]
        connection = Untimed(Location(Engine.SQLITE, str(self.database)), lambda: None)
        connection.on_query = lambda sql, _params: self.statements.append(sql)
        return DatabaseSurfaces([connection], clock, lookback=lookback)

    async def look(self, *, after: float = 60.0) -> None:
        """Let time go by, then do the job once."""
        self.now += after
        if self.database is not None:
            store(self.database, self.tables)
        await self.operations.look()

    def value(self, metric: str, *labels: str) -> float | None:
        """What a series says; times in seconds."""
        found = self.totals.value(metric, (NAME, *labels))
        return found / MICROSECONDS if found and metric.endswith("_seconds") else found

    def counters(self, metric: str) -> dict[tuple[str, ...], int]:
        """All series of a counter that are not 0, without the name of the AgentOS."""
        return {
            series.labels[1:]: series.value
            for series in self.totals.stored()
            if series.metric == metric and series.value
        }
