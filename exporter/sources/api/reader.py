"""What reading through AgentOS has in common, with search or with lists: the position, and whether to believe.

Three facts shape it. Rows are written late and out of order, so every poll looks back one overlap and skips what this
process has read. Traces grow after they look complete, so a sweep lists the recent past once per overlap. And AgentOS
answers a failing database with an empty 200, so an empty answer is believed only while traces known to exist
(sentinels) still answer.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final

import msgspec
import structlog

from exporter.core.errors import SilentEmpty, SourceTimeout
from exporter.core.model import MICROSECONDS, Clock, ListedTrace, Trace, TraceState
from exporter.sources import handover
from exporter.sources.api import wire
from exporter.sources.api.already_read import AlreadyRead
from exporter.sources.api.head import Head
from exporter.sources.api.http import OWN_TRACE_PREFIX, Answer, Api
from exporter.sources.api.page_size import PageSize
from exporter.sources.handover import is_misdated
from exporter.sources.position import Position, Settings
from exporter.sources.protocol import Batch, LedgerView, PollStats

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterable, Sequence

log = structlog.get_logger(__name__)

ASK_IDS: Final = 100
"""ids in one request for known traces"""
ASK_REQUESTS: Final = 5
"""requests for open traces in one poll"""
UNSETTLED: Final = 500
"""unsettled traces that one sweep reads by id"""
UNREADABLE: Final = 100
"""traces that AgentOS cannot serve: with more of them it is AgentOS that is ill"""
PASSES: Final = 6
"""times a pass is repeated if its pages did not show all counted traces"""
_SPARE: Final = 100
_LARGEST_LIST: Final = 5_000
"""Rows without trees that are read at once, with some to spare, if smaller pages contradict one another."""


@dataclass(slots=True)
class ApiPosition(Position):
    """All that ended before `cutoff` was read. `sweep`: until where the last sweep listed."""

    sweep: int = 0


class Reader(ABC):
    """Reads one database of one AgentOS."""

    def __init__(self, api: Api, db: str | None, settings: Settings, clock: Clock, stats: PollStats) -> None:
        """Read one database of an AgentOS.

        Args:
            api: Sends the requests.
            db: The database; None if AgentOS has one only and does not name it.
            settings: How it is read.
            clock: The clocks.
            stats: Takes the figures of the poll.

        """
        self.api = api
        self.db_id = db
        self.db = db or ""
        self.settings = settings
        self.clock = clock
        self.stats = stats
        self.position: ApiPosition | None = None
        self.catching_up = False
        self.page_size = PageSize(settings.stall_budget)
        self.deadline = 0.0
        self.already_read = AlreadyRead(self.db, settings, clock)
        self._alarm = False
        self._missing = 0
        self._probed = float("-inf")
        self._swept = float("-inf")
        self._believed: float | None = None
        self._warned_own = False
        self.clean_ids = False
        """whether ids on trace rows are the root's own (agno ≥ 2.6.0)"""
        self.inherited: tuple[str, ...] = ()
        """keys of the ledger under which this AgentOS was read from its databases"""

    # One poll

    async def poll(self, ledger: LedgerView, *, deadline: float) -> AsyncGenerator[Batch]:
        """Head, then open traces, then the sweep when it is due. Raises SourceError."""
        self.deadline = deadline
        await self._load(ledger)
        head = Head(request_at=self.clock.monotonic(), own_now=self.clock.now_us())
        async for batch in self.head(ledger, head):
            yield batch
        async for batch in self._judge(ledger, head):
            yield batch
        if head.complete:
            async for batch in self._advance(head):
                yield batch
        if self.catching_up:
            return
        # From here on nothing holds the cursor any more.
        async for batch in self._ask_open(ledger, head):
            yield batch
        if head.complete and self.clock.monotonic() - self._swept >= self.settings.overlap / MICROSECONDS:
            async for batch in self.sweep(ledger, head):
                yield batch

    @abstractmethod
    def head(self, ledger: LedgerView, head: Head) -> AsyncGenerator[Batch]:
        """Read what ended since the cutoff; fills `head`."""

    @abstractmethod
    def sweep(self, ledger: LedgerView, head: Head) -> AsyncGenerator[Batch]:
        """List the recent past again: find traces that were missed or grew, and settle those that did not."""

    @abstractmethod
    def fetch(self, ids: Sequence[str]) -> AsyncGenerator[wire.Page]:
        """Read these traces with their trees. AgentOS leaves out those that it does not have."""

    @abstractmethod
    async def quiet(self) -> bool:
        """Whether there is nothing for the head to read."""

    @abstractmethod
    async def alive(self, ids: Sequence[str]) -> bool:
        """Whether AgentOS still shows any of these traces."""

    async def _load(self, ledger: LedgerView) -> None:
        if self.position is not None:
            return
        cursors = await ledger.cursors()
        stored = cursors.get(self.db)
        if stored is not None:
            self.position = ApiPosition.load(stored)
        else:
            floor = self.clock.now_us() - self.settings.lookback
            self.position = ApiPosition(cutoff=floor, floor=floor)
        # Traces of its databases are counted, and some ids forgotten: the databases had all that the API shows.
        stood = handover.cutoffs(cursor for cursor in cursors.values() if cursor.get("source") == handover.DATABASE)
        if stood:
            start = min(stood) - self.settings.overlap
            self.position.cutoff = start if stored is None else max(self.position.cutoff, start)
            self.position.floor = min(self.position.floor, self.position.cutoff)

    @property
    def loaded_position(self) -> ApiPosition:
        """The position; only after it was loaded."""
        assert self.position is not None  # noqa: S101 - a mistake of ours, not of the outside
        return self.position

    @property
    def oldest(self) -> int:
        """Traces created before are forgotten by the ledger, and ignored if they come back (source's clock)."""
        return handover.forgotten([self.loaded_position.cutoff])

    def _cursor(self, **moved: object) -> dict[str, Any]:
        """The position as it will be once the cursor is committed; `_moved` updates it only after the commit."""
        return {**asdict(self.loaded_position), **moved}

    def _moved(self, **moved: object) -> None:
        for name, value in moved.items():
            setattr(self.loaded_position, name, value)

    async def _advance(self, head: Head) -> AsyncGenerator[Batch]:
        """Move the cutoff after a believed, complete pass."""
        position, overlap = self.loaded_position, self.settings.overlap
        date = head.date if head.date is not None else head.own_now
        cap = date + MICROSECONDS if head.date is not None else head.own_now
        position.newest = max(position.newest, head.newest)
        reached = min(position.newest, cap) - overlap
        believed = head.request_at
        if reached <= position.cutoff and position.seen and self._believed is not None:
            # Nothing newer: time itself moves on, but never past the server's clock.
            idle = max(0, int((head.request_at - self._believed) * MICROSECONDS))
            if not head.rows and date - overlap - position.cutoff > overlap // 2:
                # Far behind, one empty answer may be the last failure of an outage the sentinels outlived: ask again
                # before skipping what may stand right behind the cutoff, and skip no more than one overlap at a time.
                if not await self.quiet():
                    return
                if idle > overlap:
                    idle, believed = overlap, self._believed + overlap / MICROSECONDS
            reached = min(position.cutoff + idle, date - overlap)
        moved = {"cutoff": max(position.cutoff, reached), "first": False}
        yield Batch(self.db, cursor=self._cursor(**moved), as_of=date)
        self._moved(**moved)
        self._believed = believed

    # Belief

    async def _judge(self, ledger: LedgerView, head: Head) -> AsyncGenerator[Batch]:
        """Ask for the sentinels if that matters; yields the reset of a source that lost all. Raises SilentEmpty."""
        position = self.loaded_position
        now = self.clock.monotonic()
        due = now - self._probed >= self.settings.overlap / MICROSECONDS
        if not position.sentinels:
            if position.seen:
                position.sentinels = await self._choose(ledger)
            return
        if head.rows and not self._alarm and not due:
            return
        if await self.alive(position.sentinels):
            self._alarm, self._missing, self._probed = False, 0, now
            position.sentinels = await self._choose(ledger) or position.sentinels
            return
        self._alarm = True
        if not head.rows:
            raise SilentEmpty(
                "AgentOS answers with no traces, though it had some: its database fails (AgentOS hides that), "
                "its traces were deleted, or the token sees only its own runs (it needs agent_os:admin)"
            )
        self._missing += 1
        if self._missing >= 2:  # noqa: PLR2004 - one poll may have fallen into an outage
            moved = {"sentinels": self.already_read.newest(3)}
            log.warning("source_reset", db=self.db, reason="none of the traces known before is there any more")
            yield Batch(self.db, reset=True, cursor=self._cursor(**moved))
            self._moved(**moved)
            self._missing, self._alarm, self._probed = 0, False, now

    async def _choose(self, ledger: LedgerView) -> list[str]:
        """Three known traces of different age."""
        return await ledger.sentinels(self.db, self.loaded_position.sentinel_ages(self.settings.overlap))

    async def believe(self, ids: Sequence[str], *, unsure: bool = False) -> None:
        """Make sure by known traces that an empty answer hides no failure.

        If no trace is known, the answer is believed, unless it is `unsure`. Raises SilentEmpty.
        """
        witnesses = [*ids[: ASK_IDS - len(self.loaded_position.sentinels)], *self.loaded_position.sentinels]
        if (witnesses or unsure) and not (witnesses and await self.alive(witnesses)):
            self._alarm = True
            raise SilentEmpty(
                "AgentOS stopped showing traces in the middle of a poll: its database fails, and AgentOS hides that"
            )

    # What was read

    def mark(self, traces: Sequence[Trace], malformed: Iterable[str] = ()) -> None:
        """Remember traces that were read and committed."""
        self.already_read.add(traces, malformed)
        if traces:
            self.loaded_position.seen = True

    def sort(self, page: wire.Page, head: Head | None = None) -> tuple[list[Trace], list[tuple[str, str]]]:
        """(traces to count, ignored with reasons): leaves out what ended before the floor."""
        keep: list[Trace] = []
        ignored = [(trace_id, "malformed") for trace_id in page.malformed]
        ignored += [(trace_id, "unreadable") for trace_id in page.unreadable]
        for trace in page.traces:
            if trace.id.startswith(OWN_TRACE_PREFIX):
                continue
            if head is not None:
                head.newest = max(head.newest, trace.end)
            if trace.end >= self.loaded_position.floor:
                keep.append(trace)
            elif is_misdated(trace.end, trace.created):
                ignored.append((trace.id, "too_old"))
        self.stats.traces += len(keep)
        return keep, ignored

    # Known traces by id

    async def _ask_open(self, ledger: LedgerView, head: Head) -> AsyncGenerator[Batch]:
        due = await ledger.open_due(self.db, self.clock.now_us(), ASK_IDS * ASK_REQUESTS)
        ids = [trace.id for trace in due]
        self.stats.details["open"] = len(ids)
        async for batch in self.read_by_id(ids[: self.page_size.rows * ASK_REQUESTS], head):
            yield batch
        for db in self.inherited:
            async for batch in self._ask_inherited(ledger, db, head):
                yield batch

    async def _ask_inherited(self, ledger: LedgerView, db: str, head: Head) -> AsyncGenerator[Batch]:
        """Wait for traces that a database source left open, for as long as it would have; settle complete ones."""
        now = self.clock.now_us()
        due = await ledger.open_due(db, now, ASK_IDS)
        due += await ledger.unsettled(db, ASK_IDS, due=now)
        async for batch in self.read_by_id([trace.id for trace in due[: self.page_size.rows]], head):
            yield replace(batch, db=db, traces=[msgspec.structs.replace(trace, db=db) for trace in batch.traces])

    async def read_by_id(self, ids: Sequence[str], head: Head) -> AsyncGenerator[Batch]:
        """Read known or listed traces. Those that are not in a believed answer are missed."""
        if not ids:
            return
        unanswered = set(ids)
        async for page in self.fetch(ids):
            traces, ignored = self.sort(page)
            unanswered -= page.ids
            yield Batch(self.db, traces, ignored=ignored, first=self.loaded_position.first, as_of=head.as_of)
            self.mark(traces, page.malformed)
        if unanswered:
            await self.believe([trace_id for trace_id in ids if trace_id not in unanswered])
            yield Batch(self.db, missed=sorted(unanswered), as_of=head.as_of)

    async def examine(self, ledger: LedgerView, listed: Sequence[ListedTrace]) -> Verdict:
        """Compare a believed list with the ledger."""
        now, recorded_traces = self.clock.now_us(), await ledger.known_traces(self.db, [trace.id for trace in listed])
        verdict = Verdict()
        for trace in sorted(listed, key=lambda trace: trace.end):
            recorded = recorded_traces.get(trace.id)
            if self.already_read.still_unreadable(trace):
                continue
            if recorded is None and trace.created < self.oldest:
                verdict.too_old.append((trace.id, "too_old"))
            elif recorded is None:
                if trace.end >= self.loaded_position.floor:
                    verdict.fetch.append(trace)
            elif (recorded.total_spans, recorded.end) != (trace.total_spans, trace.end):
                verdict.fetch.append(trace)
            elif recorded.state is TraceState.COMPLETE and now >= recorded.next_ask:
                verdict.settled.append(trace.id)
        return verdict

    async def settle_listed(
        self, ledger: LedgerView, listed: Sequence[ListedTrace], head: Head, *, before: int
    ) -> AsyncGenerator[Batch]:
        """Act on a list that is believed: fetch new and changed traces, settle unchanged ones, ask for missing ones.

        Args:
            ledger: What is known of traces.
            listed: The list.
            head: What the poll has found so far.
            before: Traces settle if they ended before this time, in microseconds.

        """
        position, now = self.loaded_position, self.clock.now_us()
        verdict = await self.examine(ledger, listed)
        if verdict.settled or verdict.too_old:
            yield Batch(
                self.db, settled=verdict.settled, ignored=verdict.too_old, first=position.first, as_of=head.as_of
            )
        fetch = [trace.id for trace in verdict.fetch]
        names = {trace.id for trace in listed}
        waiting = await ledger.unsettled(self.db, UNSETTLED, due=now, before=before)
        fetch += [trace.id for trace in waiting if trace.id not in names]
        self.stats.details["swept"] = len(listed)
        async for batch in self.read_by_id(fetch, head):
            yield batch

    # Lists

    async def list_all(
        self, params: dict[str, Any], head: Head, *, most: int | None = None
    ) -> list[ListedTrace] | None:
        """All rows of a list.

        The order of equal start times is undefined, so pages may repeat rows and leave others out. So the second
        try asks for all rows as one page, which has no trees and no upper limit.

        Args:
            params: Filters of the list.
            head: Takes the server's clock.
            most: Most rows.

        Returns:
            The rows; None if there are more than `most`, or if two readings do not show all of them.

        """
        size, met = self.page_size.rows, False
        for _ in range(2):
            traces: dict[str, ListedTrace] = {}
            malformed: set[str] = set()
            page, wanted = 0, 1
            while len(traces) + len(malformed) < wanted:
                page += 1
                answer = await self.get("/traces", {**params, "page": page, "limit": size}, "traces_list")
                head.answered(answer)
                listing = await asyncio.to_thread(wire.list_page, answer.body)
                self.stats.search_ms += listing.search_ms
                if page == 1:
                    wanted = listing.total_count
                    if most is not None and wanted > most:
                        return None
                traces.update((row.id, row) for row in listing.rows)
                malformed.update(listing.malformed)
                if not listing.rows and not listing.malformed:
                    break
            if len(traces) + len(malformed) >= wanted and (traces or malformed or not met):
                return list(traces.values())
            size, met = min(max(size, wanted + _SPARE), _LARGEST_LIST), True
        return None

    def own_among(self, listed: Sequence[ListedTrace], since: int, until: int) -> tuple[list[ListedTrace], int]:
        """Separate the traces of our own requests.

        Args:
            listed: A list of traces.
            since: Our own are counted if they ended after this time, in microseconds.
            until: They are counted if they ended at or before this time.

        Returns:
            The other traces, and how many of our own ended in (since, until].

        """
        others = [trace for trace in listed if not trace.id.startswith(OWN_TRACE_PREFIX)]
        own = sum(1 for trace in listed if trace.id.startswith(OWN_TRACE_PREFIX) and since < trace.end <= until)
        if own and not self._warned_own:
            self._warned_own = True
            log.warning(
                "own_requests_traced",
                db=self.db,
                reason="AgentOS stores our requests as traces though they ask not to be sampled "
                "(OTEL_TRACES_SAMPLER=always_on?); they are left out of reading; "
                "set OTEL_TRACES_SAMPLER=parentbased_always_on on AgentOS",
            )
        return others, own

    # Requests

    @property
    def left(self) -> float:
        """Seconds until the deadline of the poll. Raises SourceTimeout when there are none."""
        remaining = self.deadline - self.clock.monotonic()
        if remaining <= 0:
            raise SourceTimeout("the poll took longer than poll_deadline; what was read so far is counted")
        return remaining

    def _params(self, params: dict[str, Any]) -> dict[str, Any]:
        return params if self.db_id is None else {**params, "db_id": self.db_id}

    async def get(self, path: str, params: dict[str, Any], endpoint: str) -> Answer:
        """Send a GET about this database.

        Args:
            path: The path below the address of AgentOS.
            params: Query parameters, without the database.
            endpoint: The value of the label `endpoint`.

        Raises:
            SourceError: AgentOS does not answer.

        """
        return self._counted(await self.api.get(path, self._params(params), endpoint=endpoint, timeout=self.left))

    async def post(self, path: str, body: object, endpoint: str) -> Answer:
        """Send a POST about this database.

        Args:
            path: The path below the address of AgentOS.
            body: What is sent as JSON.
            endpoint: The value of the label `endpoint`.

        Raises:
            SourceError: AgentOS does not answer.

        """
        return self._counted(await self.api.post(path, self._params({}), body, endpoint=endpoint, timeout=self.left))

    def _counted(self, answer: Answer) -> Answer:
        self.stats.requests += 1
        self.stats.bytes += len(answer.body)
        return answer


@dataclass(slots=True)
class Verdict:
    """The consequences of a list: new or changed traces, oldest end first; ids that will not change; too old ones."""

    fetch: list[ListedTrace] = field(default_factory=list)
    settled: list[str] = field(default_factory=list)
    too_old: list[tuple[str, str]] = field(default_factory=list)
