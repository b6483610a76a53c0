"""One AgentOS over its HTTP API: its databases, its names, its session figures.

Bulk reads go through our own client (`http`, `wire`). /config, session stats and the command line go through agno's own
`AgentOSClient`, whose requests are sent in the same way: authorised, unsampled, limited and counted.
"""

from __future__ import annotations

from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING, Final, TypeVar

import msgspec
import structlog
from pydantic import ValidationError

from exporter.core.errors import BadAnswer, NoDetails, NoPast, SourceError, SourceTimeout, Unauthorized, Unreachable
from exporter.core.model import Clock
from exporter.core.span_names import provider_label
from exporter.sources.api.client import REQUEST_TIMEOUT, Client
from exporter.sources.api.daily import DailyMetrics, read_daily
from exporter.sources.api.http import Api, NoFilter, UnknownRoute, not_counted
from exporter.sources.api.listing import ListReader
from exporter.sources.api.past import PastReader
from exporter.sources.api.reader import Reader
from exporter.sources.api.runs import fetch_run
from exporter.sources.api.search import SearchReader
from exporter.sources.api.session_stats import SessionStats
from exporter.sources.api.surfaces import ApiSurfaces
from exporter.sources.facts import spelled
from exporter.sources.handover import DATABASE, floors
from exporter.sources.position import Settings
from exporter.sources.protocol import Component, Description, PollStats
from exporter.sources.turns import Turns

if TYPE_CHECKING:
    import ssl
    from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
    from datetime import date

    from agno.os.schema import ConfigResponse

    from exporter.counting.waiting import RunDetail
    from exporter.sources.protocol import Batch, LedgerView

log = structlog.get_logger(__name__)

AnyReader = TypeVar("AnyReader", bound=Reader)

_CLEAN_IDS_SINCE: Final = (2, 6, 0)
"""agno version from which on the ids of a trace row are the root's own"""


@dataclass(frozen=True, slots=True)
class Target:
    """Which AgentOS to read, and how it is reached. `db_ids` None: all that /config lists."""

    name: str
    url: str
    read_token: Callable[[], str | None]
    db_ids: tuple[str, ...] | None = None
    tls: ssl.SSLContext | None = None
    server_name: str | None = None
    proxy: str | None = None


class AgentOSSource:
    """Reads one AgentOS. See `exporter.sources.protocol.TraceSource`."""

    def __init__(
        self,
        target: Target,
        settings: Settings,
        clock: Clock,
        *,
        on_answer: Callable[[str, str, int], None] = not_counted,
    ) -> None:
        """Read one AgentOS over its HTTP API. Opens no connection yet.

        Args:
            target: What is configured of it.
            settings: How it is read.
            clock: The clocks.
            on_answer: Called once for each request with the endpoint, the status code or '', and the bytes of the body.

        """
        self.target = target
        self._settings = settings
        self._clock = clock
        self.api = Api(
            target.url,
            read_token=target.read_token,
            tls=target.tls,
            server_name=target.server_name,
            proxy=target.proxy,
            monotonic=clock.monotonic,
            on_answer=on_answer,
        )
        self._client = Client(self.api)
        self.surfaces = ApiSurfaces(self.api, clock, lookback=settings.lookback, places=self._places)
        self._config: ConfigResponse | None = None
        self._config_forbidden = False
        self._version = ""
        self._tells_version = True
        self._readers: dict[str, Reader] = {}
        self._inherited: tuple[str, ...] | None = None
        self._turns = Turns()
        self._sessions = SessionStats(self._client, clock)
        self.stats = PollStats()

    @property
    def client(self) -> Client:
        """The client of agno for this AgentOS, for the command line."""
        return self._client

    @property
    def readers(self) -> Sequence[Reader]:
        """One for each database that was read."""
        return tuple(self._readers.values())

    @property
    def catching_up(self) -> bool:
        """Whether a backlog is being read in any database."""
        return any(reader.catching_up for reader in self._readers.values())

    @property
    def watermark(self) -> int | None:
        """The cutoff of the database that is furthest behind, plus the overlap; None before any trace was seen."""
        reached = [
            reader.position.cutoff + self._settings.overlap
            for reader in self._readers.values()
            if reader.position is not None and reader.position.seen
        ]
        return min(reached, default=None)

    @property
    def floors(self) -> dict[str, int]:
        """By database: traces created before (source's clock, microseconds) will not be read again."""
        inherited = {db for reader in self._readers.values() for db in reader.inherited}
        return floors({db: reader.position for db, reader in self._readers.items()}, inherited)

    async def aclose(self) -> None:
        """See TraceSource."""
        await self.api.aclose()

    # Traces

    async def read(self, ledger: LedgerView, *, deadline: float) -> AsyncGenerator[Batch]:
        """See TraceSource. A database that fails does not keep the others from being read; it raises at the end."""
        self.stats = PollStats()
        failure: SourceError | None = None
        if self._inherited is None:
            cursors = await ledger.cursors()
            self._inherited = tuple(sorted(db for db, cursor in cursors.items() if cursor.get("source") == DATABASE))
        for db in self._turns.order(await self._databases(deadline)):
            try:
                async for batch in self._read_database(db, ledger, deadline):
                    yield batch
            except SourceTimeout:
                self._turns.ran_out_of_time()
                raise
            except (Unreachable, Unauthorized):
                raise
            except SourceError as error:
                failure = failure or error
        if failure is not None:
            raise failure

    async def _read_database(self, db: str | None, ledger: LedgerView, deadline: float) -> AsyncGenerator[Batch]:
        reader = self._readers.get(db or "") or self._use(SearchReader, db)
        reader.stats = self.stats
        reader.inherited = (self._inherited or ()) if reader is self.readers[0] else ()
        try:
            async for batch in reader.poll(ledger, deadline=deadline):
                yield batch
        except (NoFilter, UnknownRoute) as error:
            cannot_search = isinstance(error, NoFilter) or error.status == HTTPStatus.METHOD_NOT_ALLOWED
            if isinstance(reader, ListReader) or not cannot_search:
                raise self._explain(error) from error
        except BadAnswer as error:
            if db is None and "db_id" in str(error):
                raise BadAnswer(f"{error}; /config may not be read: name the databases in db_ids") from error
            raise
        else:
            return
        log.info(
            "list_mode", agentos=self.target.name, db=db or "", reason="its traces cannot be searched, only listed"
        )
        reader = self._use(ListReader, db)
        reader.stats = self.stats
        async for batch in reader.poll(ledger, deadline=deadline):
            yield batch

    async def past(self, since: int, until: int, reached: Mapping[str, int]) -> AsyncGenerator[Batch]:
        """See PastSource."""
        self.stats = PollStats()
        for db in await self._databases(self._clock.monotonic() + REQUEST_TIMEOUT):
            reader = self._readers.get(db or "")
            if not isinstance(reader, PastReader):
                reader = self._use(PastReader, db)
            reader.stats = self.stats
            begin = reached.get(reader.db, since)
            if begin < until:
                try:
                    async for batch in reader.past(begin, until):
                        yield batch
                except (NoFilter, UnknownRoute) as error:
                    raise NoPast(f"{error}; the past of such an AgentOS is read with `database` alone") from error

    def _use(self, kind: type[AnyReader], db: str | None) -> AnyReader:
        reader = kind(self.api, db, self._settings, self._clock, self.stats)
        if self._version and isinstance(reader, SearchReader):
            reader.clean_ids = _version(self._version) >= _CLEAN_IDS_SINCE
        self._readers[db or ""] = reader
        return reader

    async def _databases(self, deadline: float) -> list[str | None]:
        """The databases to read; [None] where AgentOS has one and /config may not be read. Raises SourceError."""
        if self.target.db_ids is not None:
            if not self._version:
                await self._learn_version(self._wait(deadline))
            return list(self.target.db_ids)
        if self._config is None and not self._config_forbidden:
            self._client.wait = self._wait(deadline)
            await self._learn_version(self._wait(deadline))
            await self._read_config()
        if self._config is None:
            return [None]
        databases = self._config.traces.dbs if self._config.traces is not None else None
        return [db.db_id for db in databases or ()] or [None]

    def _wait(self, deadline: float) -> float:
        return max(0.1, min(REQUEST_TIMEOUT, deadline - self._clock.monotonic()))

    async def _read_config(self) -> None:
        try:
            self._config = await self._client.aget_config()
            self._config_forbidden = False
        except Unauthorized as error:
            if "403" not in str(error):
                raise
            if not self._config_forbidden:
                log.warning("config_forbidden", agentos=self.target.name, reason=str(error))
            self._config_forbidden = True
        except ValidationError as error:
            raise BadAnswer("/config: the answer is not that of an AgentOS; is this its URL?") from error

    async def _learn_version(self, wait: float) -> None:
        """Read the version of agno from /info, if there is such a route and it tells."""
        if not self._tells_version:
            return
        try:
            answer = await self.api.get("/info", {}, endpoint="info", timeout=wait)
            info = msgspec.json.decode(answer.body, type=_Info)
        except (BadAnswer, Unauthorized, msgspec.DecodeError) as error:
            self._tells_version = not isinstance(error, UnknownRoute)
            return
        self._version = info.agno_version[:64]
        clean = _version(self._version) >= _CLEAN_IDS_SINCE
        for reader in self._readers.values():
            if isinstance(reader, SearchReader):
                reader.clean_ids = clean

    def _explain(self, error: SourceError) -> SourceError:
        """Name the likely mistake if AgentOS answers 404 to traces."""
        if isinstance(error, UnknownRoute):
            return BadAnswer(
                f"{error} (agno before 2.3.5 has no traces; an unknown database in db_ids answers 404 too)"
            )
        return error

    # Details of runs

    def session_databases(self) -> Sequence[str]:
        """Databases that may have sessions; none if they are unknown."""
        if self.target.db_ids is not None:
            return self.target.db_ids
        config = self._config
        parts = (config.session, config.traces) if config is not None else ()
        return list(dict.fromkeys(db.db_id for part in parts if part is not None for db in part.dbs or ()))

    async def run_detail(self, session_id: str, run_id: str, db: str, wait: float) -> Mapping[str, RunDetail] | None:
        """Details of a run and of the runs inside it, by run id; None where it is not stored.

        `wait` is in seconds. Raises SourceError.
        """
        try:
            return await fetch_run(self.api, session_id, run_id, db, wait=wait)
        except UnknownRoute as error:
            # FastAPI says so of a route that it does not have, or that a slash in an id leads past; agno names what it
            # did not find.
            no_route = "404 Not Found;" in str(error) and "/" not in session_id + run_id
            if no_route or error.status == HTTPStatus.METHOD_NOT_ALLOWED:
                raise NoDetails(str(error)) from error
            return None

    # Daily metrics

    async def daily_metrics(self, first: date, last: date) -> Sequence[DailyMetrics]:
        """AgentOS's own figures of these days; a day on which no session began is left out. Raises SourceError."""
        self._client.wait = REQUEST_TIMEOUT
        await self._read_config()
        try:
            return await read_daily(self.api, self._places("metrics"), first, last)
        except Unauthorized as error:
            raise Unauthorized(f"{error}; for the daily metrics it needs the scope metrics:read") from error

    # Approvals, schedules and the like

    def _places(self, part: str) -> list[dict[str, str]]:
        """The databases or bases of a part of AgentOS, as parameters of requests.

        One empty place if it need not be named; no place if AgentOS says that it has none.
        """
        config = self._config
        if part == "queue":
            # Asking for a queue that does not exist would put an error into AgentOS's log.
            return [] if config is not None and config.queue is not None and not config.queue.durable else [{}]
        section = None if config is None else getattr(config, part, None)
        bases = [base.id for base in getattr(section, "knowledge_instances", None) or ()]
        if len(bases) > 1:
            return [{"knowledge_id": base} for base in bases]
        databases = list(dict.fromkeys(db.db_id for db in section.dbs or ())) if section is not None else []
        if section is not None and section.dbs == []:
            return []
        if config is None and self.target.db_ids is not None:
            databases = list(self.target.db_ids)
        return [{"db_id": db} for db in databases] if len(databases) > 1 else [{}]

    # Names and sessions

    async def describe(self, ledger: LedgerView) -> Description:
        """See TraceSource."""
        self._client.wait = REQUEST_TIMEOUT
        await self._learn_version(REQUEST_TIMEOUT)
        await self._read_config()
        try:
            await self._sessions.refresh(self._described_databases, ledger)
        except ValidationError as error:
            raise BadAnswer("/trace_session_stats: the answer is not that of an AgentOS") from error
        config = self._config
        sessions, windows = self._sessions.total, self._sessions.windows
        if config is None:
            return Description(version=self._version, sessions=sessions, windows=windows)
        return Description(config.os_id or "", self._version, tuple(_components(config)), sessions, windows)

    async def _described_databases(self) -> list[str | None]:
        return await self._databases(self._clock.monotonic() + REQUEST_TIMEOUT)


class _Info(msgspec.Struct):
    agno_version: str = ""


def _version(text: str) -> tuple[int, ...]:
    """Leading numbers of a version (`3.1.10` → (3, 1, 10)), () if there are none."""
    numbers = []
    for number in text.split(".")[:3]:
        if not number.isdigit():
            break
        numbers.append(int(number))
    return tuple(numbers)


def _components(config: ConfigResponse) -> list[Component]:
    components = []
    for kind, members in (("agent", config.agents), ("team", config.teams), ("workflow", config.workflows)):
        for member in members:
            name = member.name or member.id or ""
            model = getattr(member, "model", None)
            components.append(
                Component(
                    kind,
                    member.id or "",
                    name,
                    spelled(name) or kind.capitalize(),
                    (model.id or "") if model is not None else "",
                    provider_label(model.provider or "") if model is not None else "",
                )
            )
    return components
