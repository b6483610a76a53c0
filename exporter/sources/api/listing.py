"""Reading a database that cannot be searched: list, then one request for each trace that is new or has changed.

Servers before agno 2.5.6 have no search; Json and in-memory databases, and most others than SQLite and PostgreSQL,
cannot filter. The list filters by the trace's start, so it looks back further than the head of a search.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from exporter.core.errors import SourceError, SourceTimeout
from exporter.core.model import MICROSECONDS, ListedTrace
from exporter.sources.api import wire
from exporter.sources.api.head import Head
from exporter.sources.api.http import UnknownRoute
from exporter.sources.api.queries import may_be_one_row, moment, trace_path
from exporter.sources.api.reader import UNSETTLED, Reader
from exporter.sources.api.roots import correct_roots
from exporter.sources.protocol import Batch, LedgerView

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Sequence

_BATCH = 20
"""traces read before they are committed"""
_BACKLOG = 500


class ListReader(Reader):
    """Reads one database by lists and details."""

    _looked_back = float("-inf")

    async def head(self, ledger: LedgerView, head: Head) -> AsyncGenerator[Batch]:
        """See Reader. Once per overlap, and at first, it looks back for the whole horizon: long runs start early."""
        position, overlap = self.loaded_position, self.settings.overlap
        wide = self.clock.monotonic() - self._looked_back >= overlap / MICROSECONDS
        self.already_read.recent(0, None, 1)  # forgets what was read long ago
        back = self.settings.horizon if wide else 2 * overlap
        listed = await self._list(position.cutoff - back, head)
        if listed is None:
            return
        head.rows = len(listed)
        others, own = self.own_among(listed, position.sweep or position.cutoff, head.as_of)
        async for batch in self._read_new(ledger, others, head):
            yield batch
        swept = max(position.sweep, head.as_of)
        if own:
            yield Batch(self.db, own=own, cursor=self._cursor(sweep=swept), as_of=head.as_of)
        self._moved(sweep=swept)
        head.complete = not self.catching_up
        if wide and head.complete:  # a narrower list would miss traces that are not read yet
            self._looked_back = self.clock.monotonic()

    async def _list(self, since: int, head: Head) -> list[ListedTrace] | None:
        listed = await self.list_all({"start_time": moment(since)}, head)
        if listed:
            head.newest = max(trace.end for trace in listed)
        return listed

    async def _read_new(self, ledger: LedgerView, listed: Sequence[ListedTrace], head: Head) -> AsyncGenerator[Batch]:
        verdict = await self.examine(ledger, listed)
        if verdict.settled or verdict.too_old:
            yield Batch(
                self.db,
                settled=verdict.settled,
                ignored=verdict.too_old,
                first=self.loaded_position.first,
                as_of=head.as_of,
            )
        # A trace that was read but is unknown to the ledger was malformed: do not read it again at once.
        recorded = await ledger.known_traces(self.db, [trace.id for trace in verdict.fetch])
        new = [trace for trace in verdict.fetch if trace.id in recorded or trace.id not in self.already_read]
        self.catching_up = len(new) > _BACKLOG
        for start in range(0, len(new), _BATCH):
            chunk = new[start : start + _BATCH]
            if self.catching_up and self.left < 1:
                return
            async for batch in self.read_by_id([trace.id for trace in chunk], head):
                yield batch
            if self.catching_up:
                cutoff = max(self.loaded_position.cutoff, min(chunk[0].end, head.as_of) - self.settings.overlap)
                yield Batch(self.db, cursor=self._cursor(cutoff=cutoff), as_of=head.as_of)
                self._moved(cutoff=cutoff)
        self.catching_up = False

    async def sweep(self, ledger: LedgerView, head: Head) -> AsyncGenerator[Batch]:
        """See Reader: traces that are complete and no longer listed are asked for by id, to settle them."""
        before = self.loaded_position.cutoff - self.settings.overlap // 2
        due = self.clock.now_us() - self.settings.overlap
        waiting = await ledger.unsettled(self.db, UNSETTLED, due=due, before=before)
        async for batch in self.read_by_id([trace.id for trace in waiting], head):
            yield batch
        self._swept = self.clock.monotonic()

    async def fetch(self, ids: Sequence[str]) -> AsyncGenerator[wire.Page]:
        """See Reader. 404 also means that AgentOS's database is down: the caller decides whether to believe it."""
        for start in range(0, len(ids), _BATCH):
            gathered = wire.Page([], {}, [], 0, 0.0)
            for trace_id in ids[start : start + _BATCH]:
                try:
                    answer = await self.get(trace_path(trace_id), {}, "trace_detail")
                except UnknownRoute:
                    continue
                except SourceTimeout:
                    # Hand over what was read before failing: the next poll continues there.
                    yield gathered
                    raise
                except SourceError as error:
                    if not may_be_one_row(error) or await self.quiet():
                        raise
                    self.already_read.leave_out(trace_id, self.loaded_position.newest)
                    gathered.unreadable.append(trace_id)
                    continue
                page = await asyncio.to_thread(wire.one_trace, answer.body, self.db, trace_id)
                await correct_roots(page, self.get, clean_ids=self.clean_ids)
                gathered.traces += page.traces
                gathered.malformed += page.malformed
            yield gathered

    async def quiet(self) -> bool:
        """See Reader."""
        since = moment(self.loaded_position.cutoff - 2 * self.settings.overlap)
        answer = await self.get("/traces", {"start_time": since, "page": 1, "limit": 1}, "traces_list")
        return not (await asyncio.to_thread(wire.list_page, answer.body)).total_count

    async def alive(self, ids: Sequence[str]) -> bool:
        """See Reader."""
        for trace_id in ids[:3]:
            try:
                await self.get(trace_path(trace_id), {}, "trace_detail")
            except UnknownRoute:
                continue
            return True
        return False
