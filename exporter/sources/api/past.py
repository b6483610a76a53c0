"""The past of a database over the API: all traces that ended in a period, in closed windows, oldest first.

Windows, pages and checks are those of a backlog (`search`). There is no cutoff that moves with the clock, no sweep and
no waiting: spans of the past that are hidden by now will not appear.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from exporter.core.errors import BadAnswer, SilentEmpty
from exporter.sources.api.head import Head
from exporter.sources.api.reader import ASK_IDS, ApiPosition
from exporter.sources.api.search import SearchReader
from exporter.sources.protocol import Batch

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

WAIT: Final = 60.0
"""Most seconds for one window."""


class PastReader(SearchReader):
    """Reads the past of one database that can be searched."""

    async def past(self, since: int, until: int) -> AsyncGenerator[Batch]:
        """Hand over all that ended in [since, until). Raises SourceError."""
        self.position = ApiPosition(cutoff=since, floor=since, seen=True)
        self.deadline = self.clock.monotonic() + WAIT
        await self._check_statuses()
        lo, remaining = since, await self._remaining(since, until)
        while lo < until:
            self.deadline = self.clock.monotonic() + WAIT
            head = Head(request_at=self.clock.monotonic(), own_now=self.clock.now_us())
            hi = until
            if remaining > self._most:
                hi = min(until, await self._window(lo, remaining, head))
            async for batch in self._range(lo, hi, head):
                batch.traces = [trace for trace in batch.traces if trace.end < until]
                yield batch
            if not head.complete:
                raise BadAnswer("traces_search: pages did not show all that AgentOS counted; it is read again")
            if remaining and not head.rows:
                await self._check_emptiness()
                if hi == until:
                    raise BadAnswer("traces_search: AgentOS counts traces that it does not show")
            yield Batch(self.db, cursor={"reached": hi}, as_of=head.as_of)
            lo, remaining = hi, remaining - head.rows
            if lo < until and remaining <= self._most:
                remaining = await self._remaining(lo, until)

    async def _remaining(self, lo: int, until: int) -> int:
        """How many traces ended in [lo, until).

        An answer of 0 is believed only if it is repeated after known traces were shown. Raises SilentEmpty.
        """
        count = await self._count(lo, until, None)
        if count:
            return count
        if witnesses := self.already_read.recent(0, None, ASK_IDS):
            await self.believe(witnesses)
        elif not await self._count(self.loaded_position.cutoff, None, None):
            raise SilentEmpty(
                "AgentOS shows no trace since then: there are none, its database fails (AgentOS hides that), "
                "or the token sees only its own runs (it needs agent_os:admin)"
            )
        return await self._count(lo, until, None)
