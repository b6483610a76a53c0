"""The whole daemon and a whole AgentOS in this process, on one clock that the test drives: nothing is waited for.

The daemon is the real one with its production settings; only its scheduler is replaced, by one that runs the jobs when
the driven clock says so. AgentOS is agno's own application on SQLite, reached over ASGI instead of a socket::

    async with world.exporter() as exporter:
        await world.drive(runs=36)
        await exporter.exact()
        shown = await exporter.forward(600)

agno's tracing is global, so there is one AgentOS a process: `world` of tests/harness/worlds.py, emptied for each test.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import json
import sqlite3
import sys
import threading
import time
import types
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass, field
from email.utils import formatdate
from pathlib import Path
from typing import Any
from unittest import mock

import httpx
from sqlalchemy import event

from exporter import config
from exporter.core.model import Clock
from exporter.service import daemon, jobs
from exporter.sources.api.http import OWN_TRACE_PREFIX
from tests.harness import load, proxy, server, truth
from tests.harness.inprocess import Inside, Shown, own

SCRAPE_INTERVAL = 15.0
"""Seconds between two scrapes, as Prometheus is usually told."""
_TICK = 0.001
"""Seconds that the driven clock moves on each time somebody reads it: no two events have one time."""


class DrivenClock:
    """The wall clock and the monotonic clock of everything in this process. It starts at the real time."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.seconds = 0.0
        self._started = time.time()

    def reset(self) -> None:
        """Go back to the real time."""
        self.seconds, self._started = 0.0, time.time()

    def forward(self, seconds: float) -> None:
        """Move on."""
        with self._lock:
            self.seconds += seconds

    def monotonic(self) -> float:
        """Return the seconds since the start."""
        with self._lock:
            self.seconds += _TICK
            return self.seconds

    def now(self) -> float:
        """Return the seconds since the epoch."""
        return self._started + self.monotonic()


@dataclass
class _Job:
    work: Callable[[], Awaitable[None]]
    every: float
    due: float
    id: str


@dataclass
class DrivenScheduler:
    """Stands in for APScheduler's: runs jobs one after another, when `advance` comes to their time."""

    clock: DrivenClock
    jobs: list[_Job] = field(default_factory=list)

    def add_job(self, work: Any, trigger: Any, *, id: str, name: str, next_run_time: Any = None) -> None:  # noqa: A002
        """Take a job as AsyncIOScheduler does."""
        every = trigger.interval.total_seconds()
        self.jobs.append(_Job(work, every, self.clock.seconds + (0 if next_run_time else every), id))

    def remove_job(self, id: str) -> None:  # noqa: A002
        """Forget a job as AsyncIOScheduler does."""
        self.jobs = [job for job in self.jobs if job.id != id]

    def start(self) -> None:
        """Nothing to start."""

    def pause(self) -> None:
        """Nothing to pause."""

    def shutdown(self, *, wait: bool) -> None:
        """Nothing to end."""

    async def advance(self, seconds: float) -> None:
        """Move the clock on, and run what falls due on the way; a job that is late runs once."""
        end = self.clock.seconds + seconds
        while self.jobs and (job := min(self.jobs, key=lambda job: job.due)).due <= end:
            self.clock.forward(max(0.0, job.due - self.clock.seconds))
            await job.work()
            job.due = max(job.due + job.every, self.clock.seconds)
        self.clock.forward(max(0.0, end - self.clock.seconds))


class Way(httpx.AsyncBaseTransport):
    """How one client reaches the AgentOS: over ASGI, with the faults of `proxy` where a test asks for one.

    Attributes:
        requests: all that went this way, oldest first; `at` is the driven monotonic time.

    """

    def __init__(self, world: World) -> None:
        self.requests: list[proxy.Request] = []
        self._world = world
        self._inner = httpx.ASGITransport(app=world.app, raise_app_exceptions=False)
        self._faults: list[tuple[str, proxy.Fault]] = []

    def fail(self, fault: proxy.Fault, path: str = "/") -> None:
        """From now on answer requests below `path` with this fault; the latest that fits holds."""
        self._faults.insert(0, (path, fault))

    def mend(self) -> None:
        """Let everything through."""
        self._faults.clear()

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Answer as AgentOS does, or as the fault says."""
        target = request.url.raw_path.decode()
        asked = proxy.Request(
            request.method, target, dict(request.headers), await request.aread(), self._world.clock.monotonic()
        )
        self.requests.append(asked)
        fault = next((fault for path, fault in self._faults if asked.path.startswith(path)), proxy.works)
        reply = await fault(asked, lambda: self._forward(request))
        if reply is None:
            raise httpx.RemoteProtocolError("Server disconnected without sending a response.")
        headers = {**reply.headers, **({"Date": reply.date} if reply.date else {})}
        if reply.cut_at is None:
            return httpx.Response(reply.status, headers=headers, content=reply.body, request=request)
        cut = _Cut(reply.body[: int(len(reply.body) * reply.cut_at)])
        return httpx.Response(reply.status, headers=headers, stream=cut, request=request)

    async def _forward(self, request: httpx.Request) -> proxy.Reply:
        # A task of its own, as on a server: what AgentOS sets in its context is not for the caller.
        response = await asyncio.create_task(self._inner.handle_async_request(request))
        body = await response.aread()
        date = formatdate(self._world.clock.now(), usegmt=True)
        return proxy.Reply(response.status_code, body, dict(response.headers), date)


class _Cut(httpx.AsyncByteStream):
    """A body that breaks off."""

    def __init__(self, sent: bytes) -> None:
        self._sent = sent

    async def __aiter__(self) -> Any:
        yield self._sent
        raise httpx.RemoteProtocolError("peer closed connection without sending complete message body")


class World:
    """The AgentOS of this process, its database and the clock.

    Attributes:
        clock: of AgentOS and of all exporters.
        app: AgentOS's ASGI application.
        database: its SQLite database, as `truth.count` takes it.

    """

    def __init__(self, folder: Path) -> None:
        """Build the AgentOS. Its tables are made by `open`."""
        self.clock = DrivenClock()
        self.path = folder / "agno.db"
        self.database = f"sqlite:{self.path}"
        self._db = server.open_database(self.database, "harness-db")
        # The tests do not survive a power cut either: nobody waits for the disk.
        event.listen(self._db.db_engine, "connect", lambda raw, _: raw.execute("PRAGMA synchronous = OFF"))
        self.app = server.UnderWay(server.build(self._db).get_app())

    @contextlib.asynccontextmanager
    async def open(self) -> Any:
        """Start at the real time with empty tables, in the running event loop."""
        self.clock.reset()
        with _driven(self.clock):
            asyncio.get_running_loop().set_task_factory(self.app._begin)
            await server.create_tables(self._db)
            with self.sql() as connection:
                for table in ("agno_traces", "agno_spans", "agno_sessions"):
                    connection.execute(f"DELETE FROM {table}")
            yield self

    @contextlib.contextmanager
    def sql(self) -> Iterator[sqlite3.Connection]:
        """Open agno's tables behind AgentOS's back."""
        with contextlib.closing(sqlite3.connect(self.path, timeout=30, isolation_level=None)) as connection:
            yield connection

    def way(self) -> Way:
        """Return a new way to the AgentOS, without faults."""
        return Way(self)

    async def drive(self, **options: Any) -> load.Outcome:
        """Send runs as `load.drive` does, and let time pass until AgentOS has written all of them."""
        async with self.passing():
            outcome = await load.drive("http://agentos", leaving=False, transport=self.way(), **options)
            while any("/runs" in path for path in self.app._tasks.values()):  # noqa: ASYNC110 - agno's tasks, not ours
                await asyncio.sleep(0.002)
        return outcome

    async def begin(self, run: load.Run) -> None:
        """Send a run in the background, which goes on while time passes."""
        outcome = await load.drive("http://agentos", runs=1, kinds=[run], transport=self.way())
        assert outcome.codes == {202: 1}

    async def run(self, *runs: load.Run) -> None:
        """Send these runs, one each, and wait until AgentOS has written them."""
        await self.drive(runs=len(runs), kinds=runs, concurrency=1)

    @contextlib.asynccontextmanager
    async def passing(self) -> AsyncIterator[None]:
        """Let time pass while something else is awaited: scripted models take their time by the driven clock."""

        async def pass_time() -> None:
            while True:
                await asyncio.sleep(0.001)
                self.clock.forward(0.01)

        passing = asyncio.create_task(pass_time())
        try:
            yield
        finally:
            passing.cancel()

    def count(self, agentos: str = "it") -> truth.Truth:
        """Count what AgentOS has written."""
        return truth.count(self.database, agentos, own_prefix=OWN_TRACE_PREFIX)

    def exporter(self, folder: Path, agentos: Mapping[str, Mapping[str, Any]] | None = None, **settings: Any) -> Driven:
        """Return a daemon that reads this AgentOS, under the name `it` unless `agentos` says otherwise."""
        return Driven(self, folder, agentos or {"it": {}}, settings)


class Driven(Inside):
    """A daemon on the driven clock. What it shows is checked at each scrape: no counter ever falls.

    Attributes:
        ways: by name of the AgentOS, how it is reached.

    """

    def __init__(
        self, world: World, folder: Path, agentos: Mapping[str, Mapping[str, Any]], settings: Mapping[str, Any]
    ) -> None:
        """Describe the daemon: `agentos` gives further keys of each AgentOS by name, `settings` those of the file."""
        super().__init__()
        self.world = world
        self._folder = folder
        self._file = folder / "exporter.yml"
        self._agentos = agentos
        self._settings = settings
        self.ways = {name: world.way() for name in agentos}
        self.scrapes: list[Shown] = []
        self.configure()

    def configure(self, **settings: Any) -> None:
        """Write the configuration file, with further settings."""
        self._settings = {**self._settings, **settings}
        instances = [
            {"name": name, **({} if "database" in more else {"url": "http://agentos"}), **more}
            for name, more in self._agentos.items()
        ]
        whole = {"state": str(self._folder / "state.db"), "agentos": instances, **self._settings}
        self._file.write_text(json.dumps(whole))

    def _load(self) -> config.Config:
        return config.load({"config_file": str(self._file), "listen_address": "127.0.0.1:0"}, {})

    def _running(self) -> contextlib.AbstractAsyncContextManager[daemon.Daemon]:
        clock = self.world.clock
        return daemon.running(self._load(), Clock(clock.now, clock.monotonic), self._load)

    async def start(self) -> None:
        """Start the daemon; nothing is polled before the clock moves."""
        self._scheduler = DrivenScheduler(self.world.clock)
        with mock.patch.object(jobs, "AsyncIOScheduler", return_value=self._scheduler):
            await super().start()
        self.daemon.publishing.cancel()  # it waits for real seconds; `scrape` publishes
        for poller in self.daemon.pollers:
            if hasattr(poller.source, "api") and poller.name in self.ways:
                client = poller.source.api._client
                client._transport, client._mounts = self.ways[poller.name], {}

    async def restart(self) -> None:
        """Stop the daemon in order and start another on the same state."""
        await self.stop()
        await self.start()

    async def scrape(self) -> Shown:
        """Publish what there is, and scrape it."""
        await self.daemon.site.publisher.publish()
        shown = Shown(await self.get("/metrics"))
        if self.scrapes:
            fallen = shown.fallen_since(self.scrapes[-1])
            assert not fallen, fallen[:5]
        self.scrapes.append(shown)
        return shown

    async def forward(self, seconds: float) -> Shown:
        """Let time pass, with all that the daemon does meanwhile; return the last scrape.

        Scrapes are 15 s apart, or a minute where more than five are to pass: they take as long as polls.
        """
        left, pause = seconds, SCRAPE_INTERVAL if seconds <= 5 * 60 else 60.0
        while left > 0:
            await self._scheduler.advance(min(left, pause))
            left -= pause
            await self.scrape()
        return self.scrapes[-1]

    async def until(self, condition: Callable[[Shown], bool], *, within: float, what: str = "") -> Shown:
        """Let time pass, scrape by scrape, until a condition holds; fail if it does not within so many seconds."""
        left = within
        while left > 0:
            shown = await self.forward(SCRAPE_INTERVAL)
            if condition(shown):
                return shown
            left -= SCRAPE_INTERVAL
        raise AssertionError(f"not so within {within:.0f} s: {what}\n{self.own()}")

    async def exact(self, name: str = "it", *, within: float = 360.0) -> truth.Truth:
        """Let time pass until what is shown is what AgentOS has written, and see that it stays so for a minute."""
        counted = self.world.count(name)
        await self.agree(counted.totals, name, within=within)
        return counted

    async def agree(self, totals: truth.Totals, name: str = "it", *, within: float = 360.0) -> None:
        """Let time pass until this is shown of an AgentOS, and see that it stays so for a minute."""
        left = within
        while differences := truth.difference(totals, (await self.forward(SCRAPE_INTERVAL)).of(name)):
            left -= SCRAPE_INTERVAL
            assert left > 0, "\n".join([f"after {within:.0f} s:", *differences[:20], self.own()])
        differences = truth.difference(totals, (await self.forward(60)).of(name))
        assert not differences, "\n".join([*differences[:20], self.own()])

    def own(self) -> str:
        """Return what the exporter says of itself, for the message of a failure."""
        return own(self.scrapes[-1]) if self.scrapes else ""


@contextlib.contextmanager
def _driven(clock: DrivenClock) -> Iterator[None]:
    """Let OpenTelemetry, agno and the scripted models take their time from the driven clock."""
    import agno.tracing.schemas
    import opentelemetry.sdk.trace

    class Datetime(dt.datetime):
        @classmethod
        def now(cls, tz: dt.tzinfo | None = None) -> dt.datetime:  # type: ignore[override]
            return dt.datetime.fromtimestamp(clock.now(), tz)

    async def sleep(seconds: float) -> None:
        end = clock.seconds + seconds
        while clock.seconds < end:  # noqa: ASYNC110 - whoever drives the clock does not know who sleeps
            await asyncio.sleep(0.001)

    with (
        mock.patch.object(sys.modules["scripted"], "asyncio", types.SimpleNamespace(sleep=sleep)),
        mock.patch.object(opentelemetry.sdk.trace, "time_ns", side_effect=lambda: int(clock.now() * 1e9)),
        mock.patch.object(agno.tracing.schemas, "datetime", Datetime),
    ):
        yield
