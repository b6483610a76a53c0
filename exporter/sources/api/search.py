"""Reading a database with POST /traces/search: whole trees, page by page, filtered by AgentOS.

All conditions are always sent, since the API does not name its engine: SQLite finds rows by the status, PostgreSQL by
created_at with end_time. There is never an OR: it defeats every index.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final

import structlog

from exporter.core.errors import SourceError, SourceTimeout
from exporter.core.model import MICROSECONDS, ListedTrace
from exporter.sources.api import wire
from exporter.sources.api.head import Head
from exporter.sources.api.http import OWN_TRACE_PREFIX, TooLarge
from exporter.sources.api.queries import may_be_one_row, moment
from exporter.sources.api.reader import ASK_IDS, PASSES, UNREADABLE, Reader
from exporter.sources.api.roots import correct_roots
from exporter.sources.position import DAY, HOUR
from exporter.sources.protocol import Batch

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Sequence

    from exporter.sources.protocol import LedgerView

log = structlog.get_logger(__name__)

STATUSES: Final = ("OK", "ERROR", "UNSET")
WINDOW: Final = 500
"""Most traces that are read before the cursor moves on."""
_EXCLUDED: Final = 5_000
"""Most ids that a request excludes: they cost 10 ms of search and 180 kB of upload."""
_BEYOND_THE_END: Final = 1_000_000
"""A page so far off that a search returns its count and no tree."""
_PROBES: Final = 60
_FIRST_STEP: Final = 60 * MICROSECONDS
_FARTHEST: Final = 400 * DAY
_LISTED: Final = 5_000
"""Most traces that are listed to find the one that AgentOS cannot serve."""
_FEWEST: Final = 10
"""Traces in a window, at the least, however slowly they come"""
_UNUSUAL_EVERY: Final = 3600.0


class SearchReader(Reader):
    """Reads one database that can be searched."""

    _step = _FIRST_STEP
    _window_took = 0.0
    _most = WINDOW
    _read_until = 0
    _timed_out = False
    _any_status = False
    _looked_for_unusual = float("-inf")

    # Head

    async def head(self, ledger: LedgerView, head: Head) -> AsyncGenerator[Batch]:  # noqa: ARG002 - lists need it
        """See Reader."""
        async for batch in self._read_unusual(head):
            yield batch
        async for batch in self._news(head):
            yield batch

    async def _news(self, head: Head) -> AsyncGenerator[Batch]:
        """Read what ended since the cutoff. A backlog is read in closed windows first, each committing the cursor."""
        lo, first, remaining = self.loaded_position.cutoff, head.rows, None
        if self.catching_up or self._timed_out or self._believed is None:
            # After a start or a timeout, and in a backlog, count first, so that no trees are fetched in vain.
            remaining = await self._count(lo, None, head)
            self.catching_up, self._timed_out = remaining > self._most, False
        too_many = True
        while too_many:
            if remaining is not None and remaining > self._most:
                async for batch in self._backlog(lo, remaining, head):
                    yield batch
                if not head.complete or self._time_is_short():
                    head.complete = False
                    return
                lo = max(lo, self._read_until)
            before = head.rows
            async for batch in self._range(lo, None, head):
                yield batch
            if too_many := head.too_many:
                remaining = await self._count(lo, None, head)
        if head.rows == before > first:
            await self._check_emptiness()
        if head.complete:
            self.catching_up = False

    async def _backlog(self, lo: int, remaining: int, head: Head) -> AsyncGenerator[Batch]:
        """Read `remaining` traces that end at or after `lo` in closed windows, oldest first, as time allows.

        Sets `head.complete` if few enough are left for a single pass, and `_read_until` to its beginning.
        """
        self.catching_up, self._read_until = True, lo
        self._believed = None  # the time of a backlog is not a quiet time
        windows = 0
        while remaining > self._most:
            head.complete = False
            # The first window is always tried: a poll that never starts one would never end.
            if windows and self._time_is_short():
                return
            hi = await self._window(lo, remaining, head)
            before = head.rows
            async for batch in self._range(lo, hi, head):
                yield batch
            if not head.complete:
                return
            windows += 1
            if head.rows == before:
                # Traces were counted here. Even if AgentOS answers again by now, going on would lose them.
                head.complete = False
                await self._check_emptiness()
                return
            lo = self._read_until = hi
            cutoff = max(self.loaded_position.cutoff, min(hi, head.as_of - self.settings.overlap))
            yield Batch(self.db, cursor=self._cursor(cutoff=cutoff), as_of=head.as_of)
            self._moved(cutoff=cutoff)
            remaining -= head.rows - before
            if remaining <= self._most:
                remaining = await self._count(lo, None, head)

    async def _check_emptiness(self) -> None:
        """A part of a backlog came back empty: go on only if AgentOS still shows known traces.

        Raises SilentEmpty.
        """
        await self.believe(self.already_read.recent(0, None, ASK_IDS), unsure=True)

    def _time_is_short(self) -> bool:
        return self.deadline - self.clock.monotonic() < 2 * self._window_took + 0.1

    async def _window(self, lo: int, remaining: int, head: Head) -> int:
        """The end of a closed window from `lo` with at most `_most` traces, and not needlessly few."""
        most, step = self._most, self._step
        fits, held, too_far = 0, 0, None
        for _ in range(_PROBES):
            count = await self._count(lo, lo + step, head)
            if count > most:
                too_far = step
                step = int(step * max(0.02, 0.8 * most / count))
            else:
                fits, held = step, count
                if count >= min(most // 5, remaining // 2) or step == _FARTHEST:
                    break
                step = min(step * (2 if count else 8), _FARTHEST)
            if too_far is not None:
                if too_far - fits <= 1:
                    break
                if not fits < step < too_far:
                    step = (fits + too_far) // 2
        # If no step fits, too many traces end at one moment.
        step = fits if held or too_far is None else too_far
        self._step = max(step, MICROSECONDS // 10)
        return lo + step

    async def _range(self, lo: int, hi: int | None, head: Head) -> AsyncGenerator[Batch]:
        """As `_pass`; where AgentOS cannot serve one of the traces, all others are read nevertheless."""
        try:
            async for batch in self._pass(lo, hi, head):
                yield batch
        except SourceError as error:
            if not may_be_one_row(error):
                raise
            async for batch in self._read_singly(lo, hi, head, error):
                yield batch
            # Search for the others without the traces that cannot be served.
            async for batch in self._pass(lo, hi, head):
                yield batch

    async def _pass(self, lo: int, hi: int | None, head: Head) -> AsyncGenerator[Batch]:
        """Read all traces that end in [lo, hi). Sets `head.complete`, or `head.too_many` and yields nothing.

        The order of equal start times is undefined, and rows may vanish during a pass. So a pass is complete when it
        has met as many distinct traces as its first page counted; otherwise it goes on with those that it has not met.
        """
        started = self.clock.monotonic()
        head.complete = head.too_many = False
        met: list[str] = []
        emptied = False
        for attempt in range(PASSES):
            conditions = self._conditions(lo, hi)
            size, number, distinct, wanted = self.page_size.rows, 0, set[str](), 1
            while len(distinct) < wanted:
                number += 1
                page = await self._head_page(conditions, number, size, head)
                if page is None:  # too large: read on with smaller pages
                    break
                if number == 1:
                    wanted = page.total_count
                    if hi is None and wanted > self._most and attempt == 0:
                        head.too_many = True
                        return
                    if attempt and not wanted and not emptied:
                        # There were more before. Believe 0 only if it is repeated after known traces were shown.
                        await self.believe(met, unsure=True)
                        emptied, wanted = True, 1
                        break
                    emptied = emptied and not wanted
                if not page.ids:
                    break
                distinct |= page.ids
                met += [trace.id for trace in page.traces]
                traces, ignored = self.sort(page, head)
                head.rows += len(page.ids)
                yield Batch(self.db, traces, ignored=ignored, first=self.loaded_position.first, as_of=head.as_of)
                self.mark(traces, page.malformed)
            if len(distinct) >= wanted:
                head.complete = True
                self._window_took = self.clock.monotonic() - started
                if 4 * self._window_took < self.deadline - self.clock.monotonic():
                    self._most = min(WINDOW, 2 * self._most)
                return
        log.warning(
            "pass_incomplete", db=self.db, reason="pages did not show all that AgentOS counted; read again next time"
        )

    async def _read_singly(self, lo: int, hi: int | None, head: Head, error: SourceError) -> AsyncGenerator[Batch]:
        """Read the traces that end in [lo, hi) one by one, or nearly so, after a search for them failed with `error`.

        Their ids come from the list, which has no trees. Raises `error` if no single trace is to blame.
        """
        blamed = False
        # A search also finds traces that began a day before; nearly always one of the newest is to blame.
        for back in (2 * self.settings.overlap, self.settings.horizon, DAY):
            until = {} if hi is None else {"end_time": moment(hi)}
            listed = await self.list_all({"start_time": moment(lo - back), **until}, head, most=_LISTED)
            ended = [trace for trace in listed or () if trace.end >= lo and not trace.id.startswith(OWN_TRACE_PREFIX)]
            new = {trace.id: trace.end for trace in ended if self.already_read.is_new(trace)}
            head.rows += len(new)
            async for page in self.fetch(list(new)):
                traces, ignored = self.sort(page, head)
                yield Batch(self.db, traces, ignored=ignored, first=self.loaded_position.first, as_of=head.as_of)
                self.mark(traces, page.malformed)
                for trace_id in page.unreadable:
                    self.already_read.leave_out(trace_id, new[trace_id])
                    blamed = True
            if blamed:
                return
        raise error

    async def _head_page(self, conditions: dict[str, Any], number: int, size: int, head: Head) -> wire.Page | None:
        """As `_search`, with smaller windows after a timeout.

        The cursor must move before the process forgets what it has read.
        """
        try:
            return await self._search(conditions, number, size, head)
        except SourceTimeout:
            self._most = max(_FEWEST, self._most // 2)
            self._timed_out = True
            self.page_size.shrink()
            raise

    def _conditions(self, lo: int, hi: int | None) -> dict[str, Any]:
        conditions: list[dict[str, Any]] = [
            {"op": "GTE", "key": "end_time", "value": moment(lo)},
            {"op": "GTE", "key": "created_at", "value": moment(lo - DAY)},
        ]
        if hi is not None:
            conditions.append({"op": "LT", "key": "end_time", "value": moment(hi)})
        if not self._any_status:
            conditions.append({"op": "IN", "key": "status", "values": list(STATUSES)})
        conditions.append(_not({"op": "STARTSWITH", "key": "trace_id", "value": OWN_TRACE_PREFIX}))
        read = self.already_read.recent(lo, hi, _EXCLUDED)
        unless_grown = self.already_read.left_out() | self.already_read.unfinished(read)
        if excluded := [trace_id for trace_id in read if trace_id not in unless_grown]:
            conditions.append(_not({"op": "IN", "key": "trace_id", "values": excluded}))
        for trace_id, end in unless_grown.items():
            unchanged = {"op": "LTE", "key": "end_time", "value": moment(end)}
            this = {"op": "IN", "key": "trace_id", "values": [trace_id]}
            conditions.append(_not({"op": "AND", "conditions": [this, unchanged]}))
        return {"op": "AND", "conditions": conditions}

    async def _search(self, conditions: dict[str, Any], number: int, size: int, head: Head | None) -> wire.Page | None:
        """One page of trees; None if it is too large and pages got smaller. Raises SourceError."""
        body = {"filter": conditions, "group_by": "run", "page": number, "limit": size}
        try:
            answer = await self.post("/traces/search", body, "traces_search")
        except TooLarge:
            if self.page_size.shrink():
                return None
            raise
        if head is not None:
            head.answered(answer)
        page = await asyncio.to_thread(wire.search_page, answer.body, self.db)
        self.stats.search_ms += page.search_ms
        self.page_size.learn(answer.elapsed, page.search_ms, len(page.ids))
        await correct_roots(page, self.get, clean_ids=self.clean_ids)
        return page

    async def _count(self, lo: int, hi: int | None, head: Head | None) -> int:
        return await self._probe(self._conditions(lo, hi), head)

    async def _probe(self, conditions: dict[str, Any], head: Head | None = None) -> int:
        """How many traces match: a page beyond the end has the count and no tree."""
        body = {"filter": conditions, "group_by": "run", "page": _BEYOND_THE_END, "limit": 1}
        answer = await self.post("/traces/search", body, "traces_count")
        if head is not None:
            head.answered(answer)
        page = await asyncio.to_thread(wire.search_page, answer.body, self.db)
        self.stats.search_ms += page.search_ms
        return page.total_count

    async def _read_unusual(self, head: Head) -> AsyncGenerator[Batch]:
        """Once an hour, look for traces that the filters of a poll would never find."""
        if self.clock.monotonic() - self._looked_for_unusual < _UNUSUAL_EVERY:
            return
        await self._check_statuses()
        try:
            async for batch in self._misdated(head):
                yield batch
        except SourceError as error:
            if not may_be_one_row(error):
                raise
        self._looked_for_unusual = self.clock.monotonic()

    async def _check_statuses(self) -> None:
        """Look for traces with another status than the three of OpenTelemetry."""
        if self._any_status:
            return
        conditions = [
            {"op": "GTE", "key": "end_time", "value": moment(self.loaded_position.cutoff)},
            {"op": "GTE", "key": "created_at", "value": moment(self.loaded_position.cutoff - DAY)},
            _not({"op": "IN", "key": "status", "values": list(STATUSES)}),
        ]
        if await self._probe({"op": "AND", "conditions": conditions}):
            self._any_status = True
            log.warning(
                "unknown_status",
                db=self.db,
                reason="traces have a status other than OK, ERROR, UNSET; the filter is dropped",
            )

    async def _misdated(self, head: Head) -> AsyncGenerator[Batch]:
        """Read traces that were written lately and ended, as their spans have it, over a day before."""
        position = self.loaded_position
        conditions = [
            {"op": "GTE", "key": "created_at", "value": moment(max(position.floor, position.cutoff - 2 * HOUR))},
            {"op": "LT", "key": "end_time", "value": moment(position.cutoff - DAY)},
            _not({"op": "STARTSWITH", "key": "trace_id", "value": OWN_TRACE_PREFIX}),
        ]
        every = {"op": "AND", "conditions": conditions}
        remaining, number, size = await self._probe(every, head), 1, self.page_size.rows
        while remaining > 0:
            page = await self._search(every, number, size, None)
            if page is None or not page.ids:
                return
            traces, ignored = self.sort(page)
            yield Batch(self.db, traces, ignored=ignored, as_of=head.as_of)
            remaining, number = remaining - len(page.ids), number + 1

    # Sweep

    async def sweep(self, ledger: LedgerView, head: Head) -> AsyncGenerator[Batch]:
        """See Reader: three lists by status, for SQLite to use its index; an hour-wide window would stall AgentOS."""
        position, overlap = self.loaded_position, self.settings.overlap
        until = position.cutoff - overlap // 2
        since = max(position.sweep - overlap, until - 3 * overlap)
        listed = await self._listed(since, until, head)
        if listed is not None and not listed and position.sentinels:
            # Empty because of a failure? It may have ended before the sentinels were asked: list again after them.
            listed = await self._listed(since, until, head) if await self.alive(position.sentinels) else None
        if listed is None:
            return
        others, own = self.own_among(listed, position.sweep or since, until)
        async for batch in self.settle_listed(ledger, others, head, before=until):
            yield batch
        swept = max(position.sweep, until)
        yield Batch(self.db, own=own, cursor=self._cursor(sweep=swept), as_of=head.as_of)
        self._moved(sweep=swept)
        self._swept = self.clock.monotonic()

    async def _listed(self, since: int, until: int, head: Head) -> list[ListedTrace] | None:
        listed: list[ListedTrace] = []
        for status in [None] if self._any_status else STATUSES:
            params: dict[str, Any] = {"start_time": moment(since), "end_time": moment(until)}
            if status is not None:
                params["status"] = status
            rows = await self.list_all(params, head)
            if rows is None:
                return None
            listed += rows
        return listed

    # Known traces

    async def fetch(self, ids: Sequence[str]) -> AsyncGenerator[wire.Page]:
        """See Reader. A request of its own: an OR with other conditions would defeat every index."""
        wanted = [list(ids[start : start + ASK_IDS]) for start in range(0, len(ids), ASK_IDS)]
        wanted.reverse()
        while wanted:
            chunk = wanted.pop()
            if len(chunk) > self.page_size.rows:
                wanted += _halves(chunk)
                continue
            try:
                page = await self._search({"op": "IN", "key": "trace_id", "values": chunk}, 1, len(chunk), None)
            except SourceError as error:
                # One trace may be the reason; an AgentOS that is down would not count them either.
                if (
                    not may_be_one_row(error)
                    or len(self.already_read.left_out()) >= UNREADABLE
                    or not await self.alive(chunk)
                ):
                    raise
                if len(chunk) > 1:
                    wanted += _halves(chunk)
                    continue
                self.already_read.leave_out(chunk[0], self.loaded_position.newest)
                page = wire.Page([], {}, [], 0, 0.0, unreadable=chunk)
            if page is None:  # too large: pages are smaller now
                wanted.append(chunk)
            else:
                yield page

    async def quiet(self) -> bool:
        """See Reader."""
        return not await self._count(self.loaded_position.cutoff, None, None)

    async def alive(self, ids: Sequence[str]) -> bool:
        """See Reader: a count, without trees."""
        return await self._probe({"op": "IN", "key": "trace_id", "values": list(ids[:ASK_IDS])}) > 0


def _halves(ids: list[str]) -> list[list[str]]:
    """Both halves, the first one last, as a stack has it."""
    middle = len(ids) // 2
    return [ids[middle:], ids[:middle]]


def _not(condition: dict[str, Any]) -> dict[str, Any]:
    return {"op": "NOT", "condition": condition}
