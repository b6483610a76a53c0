"""Following one database: spans in the order in which they were written, each trace that they touch read as a whole.

agno writes a span row once and never changes it, and stamps it with the time of its insertion (`created_at`, indexed).
So what is new is what was inserted since the cutoff. The cutoff lies one overlap back, for clocks that differ and
transactions that commit late. The ids of that overlap are listed again by each poll, and spans that this process has
read and seen committed are passed over. After a crash they are read once more, and the ledger knows them.
"""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, Final

import structlog

from exporter.core.errors import BadAnswer, SourceTimeout
from exporter.core.model import MICROSECONDS, Clock, KnownTrace, TraceState
from exporter.core.times import stamp
from exporter.sources import handover
from exporter.sources.database import rows as span_rows
from exporter.sources.database.listed import Pass, sorted_out, why_not_read
from exporter.sources.database.rows import Reading, moment_of
from exporter.sources.database.run_details import read_details, read_tags
from exporter.sources.database.sql import SPAN_COLUMNS, missing
from exporter.sources.facts import clean_id
from exporter.sources.handover import is_misdated
from exporter.sources.position import DAY, Position, Settings
from exporter.sources.protocol import Batch, LedgerView, PollStats

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Collection, Sequence

    from exporter.sources.database.connection import Connection, Rows

log = structlog.get_logger(__name__)

PAGE: Final = 5_000
"""Ids that are read at once: some 100 bytes each."""
CHUNK: Final = 250
"""Traces that are read, and committed, together."""
OPEN_TRACES: Final = 500
UNSETTLED: Final = 500


@dataclass(slots=True)
class FeedPosition(Position):
    """All that was written before `cutoff` was read.

    `forgotten`: what was created before, another source may have counted. `witnessed`: when the sentinels were chosen.
    `source` tells a cursor of this kind from the API's.
    """

    forgotten: int = 0
    witnessed: int = 0
    source: str = handover.DATABASE


class Feed:
    """Reads one database. `db` is its key in the ledger."""

    gives_up = False
    """whether spans with missing ancestors are shown at once"""

    def __init__(
        self, connection: Connection, db: str, settings: Settings, clock: Clock, *, details: bool = False
    ) -> None:
        """Follow one database.

        Args:
            connection: Its connection.
            db: Its key in the ledger.
            settings: How it is read.
            clock: The clocks.
            details: Whether metrics of runs are read, too.

        """
        self.connection = connection
        self._details = details or settings.metadata
        self.db = db
        self.settings = settings
        self.clock = clock
        self.stats = PollStats()
        self.position: FeedPosition | None = None
        self.catching_up = False
        self.strangers: tuple[str, ...] = ()
        """keys under which another source, or a former database, read this AgentOS"""
        self._deadline = 0.0
        self._read: dict[Any, Any] = {}
        """spans that were read and committed, by id with their time of insertion; none from before the cutoff"""
        self._chunk = CHUNK
        """traces of one statement; fewer after a statement that took too long"""
        self._moved = 0
        """the cutoff that was last committed"""
        self._anchor: tuple[int, float] | None = None
        self._logged_no_tables = False
        self._missing = 0
        self._probed = float("-inf")
        self._alarm = False

    # One poll

    async def poll(self, ledger: LedgerView, *, deadline: float) -> AsyncGenerator[Batch]:
        """Hand over what was written since the last poll, then traces that are still open. Raises SourceError."""
        self._deadline = deadline
        await self._load(ledger)
        await self.connection.open(self._left)
        if not await self._tables_are_there():
            return
        began, own_now = self.clock.monotonic(), self.clock.now_us()
        now = await self.connection.now(wait=self._left)
        current = Pass(began, own_now if now is None else now)
        async with aclosing(self._news(ledger, current)) as batches:
            async for batch in batches:
                yield batch
        async with aclosing(self._judge(ledger, current)) as batches:
            async for batch in batches:
                yield batch
        if self.catching_up:
            return
        due = [trace for trace in current.due if trace.id not in current.touched]
        self.stats.details["open"] = self.stats.details.get("open", 0) + len(due)
        async with aclosing(self.ask(due, self.db, current.now)) as batches:
            async for batch in batches:
                yield batch

    @property
    def _left(self) -> float:
        return self._deadline - self.clock.monotonic()

    @property
    def loaded_position(self) -> FeedPosition:
        """The position; only after it was loaded."""
        assert self.position is not None  # noqa: S101 - a mistake of ours, not of the outside
        return self.position

    @property
    def oldest(self) -> int:
        """Traces created before are forgotten by the ledger, and ignored if they come back (database's clock)."""
        return handover.forgotten([self.loaded_position.cutoff])

    async def _load(self, ledger: LedgerView) -> None:
        if self.position is not None:
            return
        cursors, now = await ledger.cursors(), self.clock.now_us()
        stood = handover.cutoffs(cursors[key] for key in self.strangers if key in cursors)
        lookback, overlap = now - self.settings.lookback, self.settings.overlap
        stored = cursors.get(self.db)
        if stored is None:
            start = handover.begin(stood, lookback, overlap)
            self.position = FeedPosition(cutoff=start, floor=start)
        else:
            self.position = FeedPosition.load(stored)
            self.position.cutoff = handover.begin(stood, lookback, overlap, own=self.position.cutoff)
        self.position.forgotten = max(self.position.forgotten, handover.forgotten(stood))

    async def _tables_are_there(self) -> bool:
        """Whether there is a span table; agno creates it with the first run. Raises BadAnswer if it is gone or odd."""
        spans = self.connection.location.tables.spans_table
        if missing(self.connection.sql.layout, spans, SPAN_COLUMNS):
            await self.connection.learn(self._left)
        lacking = missing(self.connection.sql.layout, spans, SPAN_COLUMNS)
        where = self.connection.location
        if len(lacking) == len(SPAN_COLUMNS):
            if self.loaded_position.seen:
                raise BadAnswer(f"{where}: table {spans} was there and is gone")
            if not self._logged_no_tables:
                self._logged_no_tables = True
                schema = f" in schema {where.schema}" if where.schema else ""
                log.warning(
                    "no_tables",
                    db=self.db,
                    reason=f"there is no table {spans}{schema} yet; agno makes it when the first run is traced",
                )
            return False
        if lacking:
            raise BadAnswer(
                f"{where}: table {spans} has no column {', '.join(lacking)}: not agno's table, or of a version this "
                "exporter does not know"
            )
        self._logged_no_tables = False
        return True

    # News

    async def _news(self, ledger: LedgerView, current: Pass) -> AsyncGenerator[Batch]:
        """Hand over the spans that were written since the last poll: page by page, and some traces of a page at a time.

        The last batch of a page moves the cutoff. The last of all settles traces to which no span was added.
        """
        since, after = stamp(self.loaded_position.cutoff), None
        while True:
            began = self.clock.monotonic()
            page = await self.connection.inserted(since, after, PAGE, wait=self._left)
            ended = len(page) < PAGE
            new = [row for row in page if row[1] not in self._read]
            ids, ignored = sorted_out(new)
            current.note(page, ids, ignored)
            self.catching_up = not ended and current.now - current.newest > 2 * self.settings.overlap
            async with aclosing(self._readings(ids)) as readings:
                async for reading, last in readings:
                    batch = await self._batch(ledger, reading, current, ignored if last else ())
                    if not last:
                        yield batch
                        self._remember(reading)
                        continue
                    if ended:
                        batch.settled = await self._settled(ledger, current)
                    moved = self._moved_to(current, ended=ended)
                    if batch.traces or batch.ignored or batch.settled or self._is_worth_it(moved):
                        batch.cursor = asdict(moved)
                        yield batch
                        self._moved = moved.cutoff
                    self.position = moved
                    self._remember(reading)
            # A span that was listed and not read, as by a replica that lags, is listed again.
            self._read.update((span_id, created) for created, span_id, trace_id in new if why_not_read(trace_id))
            self._forget()
            if ended:
                return
            if self._left < 0.1 + 2 * (self.clock.monotonic() - began):
                self.catching_up = True
                return
            after = self._last(page)

    async def _readings(self, ids: Sequence[str]) -> AsyncGenerator[tuple[Reading, bool]]:
        """Read these traces, some at a time: (reading, whether it is the last). The next is read ahead, one at most."""
        unread = list(ids)

        def begin() -> asyncio.Task[Reading]:
            some, unread[:] = unread[: self._chunk], unread[self._chunk :]
            return asyncio.create_task(self._spans(some, some if self.gives_up else ()))

        coming = begin()
        try:
            while unread:
                reading = await coming
                coming = begin()
                yield reading, False
            yield await coming, True
        finally:
            coming.cancel()
            await asyncio.gather(coming, return_exceptions=True)

    async def _spans(self, ids: Sequence[str], given_up: Collection[str] = (), db: str | None = None) -> Reading:
        """Read these traces whole; `db` is the key under which they are counted, if not that of this database."""
        if not ids:
            return Reading()
        try:
            spans = await self.connection.spans(ids, wait=self._left)
        except SourceTimeout:
            self._chunk = max(1, self._chunk // 4)
            raise
        self._chunk = min(CHUNK, 2 * self._chunk)
        return await asyncio.to_thread(span_rows.read, spans, self.db if db is None else db, given_up=given_up)

    def _remember(self, reading: Reading) -> None:
        """Remember committed spans."""
        for spans in reading.inserted.values():
            self._read.update(spans)

    def _forget(self) -> None:
        """Forget the spans before the cutoff, which are not listed again. Spans without a valid time are kept."""
        since = stamp(self.loaded_position.cutoff)

        def may_come_again(created: object) -> bool:
            if isinstance(created, str):
                return created >= since
            try:
                return moment_of(created) >= self.loaded_position.cutoff
            except (ValueError, OverflowError):
                return True

        self._read = {span_id: created for span_id, created in self._read.items() if may_come_again(created)}

    def _last(self, page: Rows) -> tuple[Any, ...]:
        """The row after which reading can continue: SQLite sorts bytes after all text."""
        for row in reversed(page):
            if not isinstance(row[0], bytes) and not isinstance(row[1], bytes):
                return row
        raise BadAnswer(f"{self.connection.location}: {len(page)} rows of spans whose ids or times are no text")

    async def _batch(
        self, ledger: LedgerView, reading: Reading, current: Pass, ignored: Sequence[tuple[str, str]] = ()
    ) -> Batch:
        """The traces that were read, without those too old to count; `ignored` are those that were not read at all."""
        position = self.loaded_position
        traces = [trace for trace in reading.traces if trace.end >= position.floor]
        ignored = [*ignored, *((trace_id, "malformed") for trace_id in reading.malformed)]
        early = [trace for trace in reading.traces if trace.end < position.floor]
        ignored += [(trace.id, "too_old") for trace in early if is_misdated(trace.end, trace.created)]
        floor = max(self.oldest, position.forgotten)
        old = [trace.id for trace in traces if trace.created < floor]
        if old:
            recorded = await ledger.known_traces(self.db, old)
            gone = {trace_id for trace_id in old if trace_id not in recorded}
            traces = [trace for trace in traces if trace.id not in gone]
            ignored += [(trace_id, "too_old") for trace_id in sorted(gone)]
        position.seen = position.seen or bool(traces)
        self.stats.traces += len(traces)
        details = await read_details(self.connection, traces, wait=self._left) if self._details else {}
        tags = await read_tags(self.connection, traces, wait=self._left) if self.settings.tags else {}
        return Batch(
            self.db,
            traces,
            ignored=ignored,
            first=position.first,
            as_of=current.now,
            follows=True,
            details=details,
            tags=tags,
        )

    def _moved_to(self, current: Pass, *, ended: bool) -> FeedPosition:
        """The position once the page is committed; `ended` if it is the last page."""
        cutoff, newest = self._advance(current) if ended else self._advance_to(current)
        return replace(
            self.loaded_position, cutoff=cutoff, newest=newest, first=self.loaded_position.first and not ended
        )

    def _is_worth_it(self, moved: Position) -> bool:
        """Whether a position is worth a commit of its own."""
        return (
            moved.first is not self.loaded_position.first
            or abs(moved.cutoff - self._moved) >= self.settings.overlap // 4
        )

    def _advance(self, current: Pass) -> tuple[int, int]:
        """(cutoff, newest) after all rows were read.

        AgentOS's clock decides, which the newest row tells; while no row comes, our clock counts on from there. The
        result never passes the database's own clock: a row from the future would hide earlier ones.
        """
        position, cap = self.loaded_position, current.now + MICROSECONDS
        newest = min(max(position.newest, current.newest), cap)
        if not newest:
            return position.cutoff, newest
        if newest > position.newest or self._anchor is None:
            self._anchor = (newest, current.began)
        base, since = self._anchor
        reached = base + round((current.began - since) * MICROSECONDS)
        return max(position.cutoff, min(reached, cap) - self.settings.overlap), newest

    def _advance_to(self, current: Pass) -> tuple[int, int]:
        """(cutoff, newest) after all up to the newest row of this pass was read."""
        reached = min(current.newest, current.now + MICROSECONDS)
        return max(self.loaded_position.cutoff, reached - self.settings.overlap), max(
            self.loaded_position.newest, reached
        )

    # What is known, and waited for

    async def _settled(self, ledger: LedgerView, current: Pass) -> list[str]:
        """Complete traces that settle, as no span was added to them; and notes which open ones are to be read."""
        now = self.clock.now_us()
        complete = await ledger.unsettled(self.db, UNSETTLED, due=now)
        current.due = await ledger.open_due(self.db, now, OPEN_TRACES)
        return [trace.id for trace in complete if trace.id not in current.touched]

    async def ask(self, due: Sequence[KnownTrace], db: str, as_of: int, *, alone: bool = True) -> AsyncGenerator[Batch]:
        """Read known traces again: to give up on what never came, and for spans that were committed far too late.

        Args:
            due: The traces.
            db: The key under which the ledger has them.
            as_of: The database's clock, in microseconds.
            alone: Whether traces that are not here are nowhere else either.

        """
        now, horizon = self.clock.now_us(), self.settings.horizon
        given_up = {trace.id for trace in due if trace.state is TraceState.OPEN and now - trace.changed >= horizon}
        ids = [trace.id for trace in due]
        while ids:
            some, ids = ids[: self._chunk], ids[self._chunk :]
            reading = await self._spans(some, given_up, db)
            ignored = [(trace_id, "malformed") for trace_id in reading.malformed]
            lost = sorted(set(some) - {clean_id(trace_id) for trace_id in reading.inserted}) if alone else []
            yield Batch(db, reading.traces, missed=lost, ignored=ignored, as_of=as_of, follows=True)

    async def _judge(self, ledger: LedgerView, current: Pass) -> AsyncGenerator[Batch]:
        """Hand over a reset if rows arrive but none of the known traces exists any more: the database was replaced.

        Traces that are gone after a day may have been deleted because of their age, and prove nothing.
        """
        position, now = self.loaded_position, self.clock.monotonic()
        if position.sentinels and current.now - position.witnessed > DAY:
            position.sentinels = []
        if not position.sentinels:
            if position.seen:
                await self._choose(ledger)
            return
        due = now - self._probed >= self.settings.overlap / MICROSECONDS
        if not current.touched or not (due or self._alarm):
            return
        sql = self.connection.sql.alive(len(position.sentinels))
        if await self.connection.rows(sql, position.sentinels, wait=self._left):
            self._alarm, self._missing, self._probed = False, 0, now
            await self._choose(ledger)
            return
        self._alarm = True
        self._missing += 1
        if self._missing >= 2:  # noqa: PLR2004 - as with the API: one poll may meet a restore half done
            log.warning("source_reset", db=self.db, reason="none of the traces known before is there any more")
            moved = replace(position, sentinels=sorted(current.touched)[-3:], witnessed=position.newest)
            yield Batch(self.db, reset=True, cursor=asdict(moved))
            self.position = moved
            self._alarm, self._missing, self._probed = False, 0, now

    async def _choose(self, ledger: LedgerView) -> None:
        """Choose known traces of different ages as sentinels."""
        position = self.loaded_position
        position.sentinels = await ledger.sentinels(self.db, position.sentinel_ages(self.settings.overlap))
        position.witnessed = min(position.newest, position.cutoff + self.settings.overlap)
