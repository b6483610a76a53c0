"""How many sessions an AgentOS has, as its own statistics say."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from exporter.core.model import MICROSECONDS, Clock
from exporter.sources.api.queries import moment
from exporter.sources.protocol import LedgerView, SessionWindow

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from exporter.sources.api.client import Client

_WINDOWS: Final = {"1h": 3600, "24h": 86400}
"""Name of a window → its length in seconds"""
_PAGE: Final = 100
_PACE: Final = 500
"""Session stats may take one part in 500 of AgentOS's time."""


class SessionStats:
    """The sessions of one AgentOS.

    Attributes:
        total: All of them; None where that is not known.
        windows: Those with traces of late, and their traces.

    """

    def __init__(self, client: Client, clock: Clock) -> None:
        self._client, self._clock = client, clock
        self._allowed = float("-inf")
        self.total: int | None = None
        self.windows: tuple[SessionWindow, ...] = ()

    async def refresh(self, databases: Callable[[], Awaitable[Sequence[str | None]]], ledger: LedgerView) -> None:
        """Ask for the stats, as often as their cost allows: they are synchronous SQL in AgentOS's event loop.

        Args:
            databases: Finds the databases to ask; [None] for the one that has no name.
            ledger: Tells whether this AgentOS has traces.

        Raises:
            SourceError: AgentOS does not answer.
            ValidationError: Its answer is not that of an AgentOS.

        """
        if self._clock.monotonic() < self._allowed:
            return
        spent, total = 0.0, 0
        sums = {window: [0, 0] for window in _WINDOWS}
        now = self._clock.now_us()
        for db in await databases():
            answer = await self._client.get_trace_session_stats(limit=1, db_id=db)
            spent += answer.meta.search_time_ms or 0.0
            total += answer.meta.total_count or 0
            if not answer.meta.total_count:
                continue
            for window, seconds in _WINDOWS.items():
                since = moment(now - seconds * MICROSECONDS)
                spent += await self._sum_window(db, since, sums[window])
        self._allowed = self._clock.monotonic() + _PACE * spent / 1000
        if total or not await ledger.any_trace():
            self.total = total
            self.windows = tuple(SessionWindow(window, *counts) for window, counts in sums.items())
        else:
            # Traces but no sessions: AgentOS stores no session ids on them. Unknown is not zero.
            self.total, self.windows = None, ()

    async def _sum_window(self, db: str | None, since: str, counts: list[int]) -> float:
        spent, page = 0.0, 0
        # agno 2.3 has several rows for a session whose traces name different users, agents, teams or workflows.
        met: set[tuple[str | None, ...]] = set()
        sessions: set[str] = set()
        while True:
            page += 1
            answer = await self._client.get_trace_session_stats(limit=_PAGE, page=page, start_time=since, db_id=db)
            spent += answer.meta.search_time_ms or 0.0
            for stats in answer.data:
                row = (stats.session_id, stats.user_id, stats.agent_id, stats.team_id, stats.workflow_id)
                if row not in met:
                    met.add(row)
                    sessions.add(stats.session_id)
                    counts[1] += stats.total_traces
            if len(answer.data) < _PAGE:
                counts[0] += len(sessions)
                return spent
