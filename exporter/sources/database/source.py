"""One AgentOS from its databases: agno's tables instead of the HTTP API.

The tables have what the API hides: cached and reasoning tokens, the provider, reported costs, and spans without a
visible root. No request is sent to AgentOS.
"""

from __future__ import annotations

from contextlib import aclosing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from exporter.core.errors import SourceError, SourceTimeout
from exporter.core.model import MICROSECONDS, Clock
from exporter.core.times import stamp
from exporter.sources.database.connection import Connection
from exporter.sources.database.engines import connection
from exporter.sources.database.feed import OPEN_TRACES, UNSETTLED, Feed
from exporter.sources.database.pace import Pace
from exporter.sources.database.past import PastFeed
from exporter.sources.database.sql import COMPONENT_COLUMNS, SESSION_COLUMNS, TRACE_COLUMNS, missing
from exporter.sources.database.surfaces import DatabaseSurfaces
from exporter.sources.facts import clean_id, clean_name, spelled
from exporter.sources.handover import floors
from exporter.sources.protocol import Batch, Component, Description, PollStats, SessionWindow
from exporter.sources.turns import Turns

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Mapping, Sequence

    from exporter.sources.database.location import Location
    from exporter.sources.position import Settings
    from exporter.sources.protocol import LedgerView

_WINDOWS: Final = {"1h": 3600, "24h": 86400}
_WAIT: Final = 30.0


@dataclass(frozen=True, slots=True)
class DatabaseTarget:
    """One database to read; `read_password` is asked at each connect."""

    location: Location
    read_password: Callable[[], str | None]


class DatabaseSource:
    """Reads the databases of one AgentOS. See `exporter.sources.protocol.TraceSource`."""

    def __init__(
        self,
        name: str,
        targets: Sequence[DatabaseTarget],
        settings: Settings,
        clock: Clock,
        *,
        details: bool = False,
    ) -> None:
        """Read one AgentOS from its tables. Opens no connection yet.

        Args:
            name: Name of the instance.
            targets: Its databases.
            settings: How they are read.
            clock: The clocks.
            details: Whether metrics of runs are read, too.

        """
        self.name = name
        self._settings = settings
        self._clock = clock
        self._feeds = [
            Feed(
                connection(target.location, target.read_password),
                target.location.key,
                settings,
                clock,
                details=details,
            )
            for target in targets
        ]
        connections = [connection(target.location, target.read_password) for target in targets]
        self.surfaces = DatabaseSurfaces(connections, clock, lookback=settings.lookback)
        self._turns = Turns()
        self._strangers: tuple[str, ...] | None = None
        """keys of the ledger under which this AgentOS is no longer read"""
        self._pace = Pace(clock)
        self._figures: tuple[int | None, tuple[SessionWindow, ...]] = (None, ())
        self.stats = PollStats()

    @property
    def feeds(self) -> Sequence[Feed]:
        """One for each database."""
        return tuple(self._feeds)

    @property
    def catching_up(self) -> bool:
        """Whether a backlog is being read in any database."""
        return any(feed.catching_up for feed in self._feeds)

    @property
    def watermark(self) -> int | None:
        """The cutoff of the database that is furthest behind, plus the overlap; None before any trace was seen."""
        reached = [
            feed.position.cutoff + self._settings.overlap
            for feed in self._feeds
            if feed.position is not None and feed.position.seen
        ]
        return min(reached, default=None)

    @property
    def floors(self) -> dict[str, int]:
        """By database: traces created before (database's clock, microseconds) will not be read again."""
        return floors({feed.db: feed.position for feed in self._feeds}, self._strangers or ())

    async def aclose(self) -> None:
        """See TraceSource."""
        for feed in self._feeds:
            await feed.connection.aclose()
        await self.surfaces.aclose()

    async def read(self, ledger: LedgerView, *, deadline: float) -> AsyncGenerator[Batch]:
        """See TraceSource. A database that fails does not keep the others from being read; it raises at the end."""
        self.stats = PollStats()
        failure: SourceError | None = None
        late = False
        if self._strangers is None:
            self._strangers = tuple(sorted(set(await ledger.cursors()) - {feed.db for feed in self._feeds}))
        for feed in self._turns.order(self._feeds):
            feed.stats, feed.strangers = self.stats, self._strangers
            queries, seconds = feed.connection.queries, feed.connection.seconds
            try:
                async with aclosing(feed.poll(ledger, deadline=deadline)) as batches:
                    async for batch in batches:
                        yield batch
            except SourceError as error:
                failure = failure or error
                late = late or isinstance(error, SourceTimeout)
            finally:
                self.stats.requests += feed.connection.queries - queries
                self.stats.search_ms += 1000 * (feed.connection.seconds - seconds)
        if late or self.catching_up:
            self._turns.ran_out_of_time()
        if failure is not None:
            raise failure
        if not self.catching_up:
            for key in self._strangers:
                async with aclosing(self._ask_strangers(ledger, key)) as batches:
                    async for batch in batches:
                        yield batch

    async def past(self, since: int, until: int, reached: Mapping[str, int]) -> AsyncGenerator[Batch]:
        """See PastSource."""
        self.stats = PollStats()
        for live_feed in self._feeds:
            feed = PastFeed(live_feed.connection, live_feed.db, self._settings, self._clock)
            feed.stats = self.stats
            # A span of a trace that ended then may have been written a little before.
            begin = reached.get(feed.db, since - self._settings.overlap)
            if begin < until + self._settings.horizon:
                async with aclosing(feed.past(since, until, begin)) as batches:
                    async for batch in batches:
                        yield batch

    async def _ask_strangers(self, ledger: LedgerView, db: str) -> AsyncGenerator[Batch]:
        """Wait for traces that another source left open, for as long as it would have; settle complete ones."""
        now = self._clock.now_us()
        due = await ledger.open_due(db, now, OPEN_TRACES)
        due += await ledger.unsettled(db, UNSETTLED, due=now)
        for feed in self._feeds:
            if due and feed.connection.is_open:
                alone = len(self._feeds) == 1
                returned: set[str] = set()
                async with aclosing(feed.ask(due, db, now, alone=alone)) as batches:
                    async for batch in batches:
                        returned |= {trace.id for trace in batch.traces}
                        yield batch
                due = [trace for trace in due if trace.id not in returned]
        if due and len(self._feeds) > 1 and all(feed.connection.is_open for feed in self._feeds):
            yield Batch(db, missed=[trace.id for trace in due], as_of=now)

    # Names and sessions

    async def describe(self, ledger: LedgerView) -> Description:  # noqa: ARG002 - the tables tell
        """See TraceSource. The tables name neither the AgentOS nor its version."""
        components: list[Component] = []
        for feed in self._feeds:
            await feed.connection.open(_WAIT)
            components += await _components(feed.connection)
        await self._count_sessions()
        sessions, windows = self._figures
        return Description(components=tuple(components), sessions=sessions, windows=windows)

    async def _count_sessions(self) -> None:
        """Session figures, as often as their cost allows."""
        if self._pace.due:
            with self._pace.counting([feed.connection for feed in self._feeds]):
                self._figures = await self._sum_sessions()

    async def _sum_sessions(self) -> tuple[int | None, tuple[SessionWindow, ...]]:
        total, any_table = 0, False
        sums = {window: [0, 0, 0] for window in _WINDOWS}
        now = self._clock.now_us()
        for feed in self._feeds:
            sql, tables = feed.connection.sql, feed.connection.location.tables
            if not missing(sql.layout, tables.session_table, SESSION_COLUMNS):
                ((count,),) = await feed.connection.rows(sql.session_count(), wait=_WAIT)
                total, any_table = total + count, True
            if not missing(sql.layout, tables.traces_table, TRACE_COLUMNS):
                for window, seconds in _WINDOWS.items():
                    since = stamp(now - seconds * MICROSECONDS)
                    (row,) = await feed.connection.rows(sql.session_window(), (since,), wait=_WAIT)
                    sums[window] = [figure + count for figure, count in zip(sums[window], row, strict=True)]
        return total if any_table else None, _windows(sums)


def _windows(sums: dict[str, list[int]]) -> tuple[SessionWindow, ...]:
    """Absent where traces have no session ids (HTTP root spans): unknown is not zero."""
    if any(traces and not of_sessions for _, of_sessions, traces in sums.values()):
        return ()
    return tuple(SessionWindow(window, sessions, traces) for window, (sessions, traces, _) in sums.items())


async def _components(connected: Connection) -> list[Component]:
    if missing(connected.sql.layout, connected.location.tables.components_table, COMPONENT_COLUMNS):
        return []
    rows: list[tuple[Any, ...]] = await connected.rows(connected.sql.components(), wait=_WAIT)
    components = []
    for kind, component_id, name in rows:
        shown = clean_name(str(name or component_id))
        components.append(Component(clean_name(str(kind)), clean_id(str(component_id)), shown, spelled(shown)))
    return components
