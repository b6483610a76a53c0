"""Following one database: spans in the order in which they were written, each trace that they touch read as a whole.

agno writes a span row once and never changes it, and stamps it with the time of its insertion (`created_at`, indexed).
So what is new is what was inserted since the cutoff, and that lies one overlap back, for clocks that differ and
transactions that commit late. Of that overlap only ids are read again, and those only where a row came late: spans
that this process has itself read and seen committed are passed over. After a crash they are read once more, and the
ledger knows them.
"""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

import structlog

from exporter.errors import BadAnswer
from exporter.model import FUTURE, MICROSECONDS, Batch, Clock, Known, LedgerView, PollStats, TraceState
from exporter.sources import handover
from exporter.sources.committed import Committed, Stretch
from exporter.sources.facts import clean_id, stand_in
from exporter.sources.handover import DAY, is_misdated
from exporter.sources.http import OWN_TRACE_PREFIX
from exporter.sources.reading import HOUR, Settings
from exporter.sources.rows import Reading, moment_of
from exporter.sources.tables import SPAN_COLUMNS, missing

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Mapping, Sequence

    from exporter.sources.drivers import Connection, Rows

log = structlog.get_logger(__name__)

PAGE: Final = 5_000
"""Ids that are asked for at once: some 100 bytes each."""
CHUNK: Final = 250
"""Traces that are read, and committed, together."""
OPEN_TRACES: Final = 500
UNSETTLED: Final = 500
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_LATEST: Final = int((datetime(9999, 1, 1, tzinfo=UTC) - _EPOCH).total_seconds()) * MICROSECONDS


def stamp(micros: int) -> str:
    """A time as agno writes it: UTC, `+00:00`, six digits."""
    micros = max(0, min(micros, _LATEST))
    return (_EPOCH + timedelta(microseconds=micros)).isoformat(timespec="microseconds")


@dataclass(slots=True)
class Position:
    """Where reading stands; committed as the cursor.

    `cutoff`: all that was written before was read. `floor`: no trace that ended before counts at all. `forgotten`: what
    was created before, another source may have counted. `newest`: the latest insertion seen. `sentinels`: traces known
    to exist at `witnessed`. `seen`: whether there ever was a trace.
    """

    cutoff: int
    floor: int
    forgotten: int = 0
    newest: int = 0
    sentinels: list[str] = field(default_factory=list)
    witnessed: int = 0
    first: bool = True
    seen: bool = False
    source: str = handover.DATABASE

    @classmethod
    def load(cls, data: Mapping[str, Any]) -> Position:
        """From a committed cursor; keys of other versions are left out."""
        known = cls.__dataclass_fields__
        return cls(**{key: value for key, value in data.items() if key in known})


@dataclass(slots=True)
class _Pass:
    """One poll: when it began by the monotonic clock and by the database's, and what it met.

    `listed`: `touched` are all traces with new spans. `due` are open traces whose time to be read again has come.
    """

    began: float
    now: int
    newest: int = 0
    touched: set[str] = field(default_factory=set)
    listed: bool = False
    due: Sequence[Known] = ()


@dataclass(slots=True)
class _Piece:
    """What is handed over together, and committed unless there is `more` to be committed with it.

    `coming` are traces of the pieces to come; `ignored` are traces that are not read at all, with the reason, and
    `passed_over` their spans; `position` is (cutoff, newest) after a page.
    """

    reading: Reading
    more: bool = False
    coming: Sequence[str] = ()
    ignored: Sequence[tuple[str, str]] = ()
    passed_over: dict[Any, Any] = field(default_factory=dict)
    position: tuple[int, int] | None = None
    ended: bool = False


async def _ahead(pages: AsyncGenerator[_Piece]) -> AsyncGenerator[_Piece]:
    """The same pieces, each read while the one before is handed over: the database works while the ledger commits."""
    ready: asyncio.Queue[_Piece | None] = asyncio.Queue(1)

    async def read() -> None:
        try:
            async with aclosing(pages) as pieces:
                async for piece in pieces:
                    await ready.put(piece)
        except asyncio.CancelledError:  # nobody takes anything any more
            raise
        except BaseException:
            await ready.put(None)
            raise
        await ready.put(None)

    reading = asyncio.create_task(read())
    try:
        while (piece := await ready.get()) is not None:
            yield piece
        await reading
    finally:
        reading.cancel()
        await asyncio.gather(reading, return_exceptions=True)


class Feed:
    """Reads one database. `db` is its key in the ledger."""

    def __init__(self, connection: Connection, db: str, settings: Settings, clock: Clock) -> None:
        self.connection = connection
        self.db = db
        self.settings = settings
        self.clock = clock
        self.stats = PollStats()
        self.position: Position | None = None
        self.catching_up = False
        self.strangers: tuple[str, ...] = ()
        """keys under which another source read this AgentOS, or another database that is read no more"""
        self._deadline = 0.0
        self._committed = Committed()
        self._moved = 0
        """the cutoff that was last committed"""
        self._anchor: tuple[int, float] | None = None
        self._said_no_tables = False
        self._missing = 0
        self._probed = float("-inf")
        self._alarm = False

    # One poll

    async def poll(self, ledger: LedgerView, *, deadline: float) -> AsyncGenerator[Batch]:
        """What was written since the last poll, then what is still waited for. Raises SourceError."""
        self._deadline = deadline
        await self._load(ledger)
        await self.connection.open(self._left)
        if not await self._tables_are_there():
            return
        began, own_now = self.clock.monotonic(), self.clock.now_us()
        now = await self.connection.now(wait=self._left)
        this = _Pass(began, own_now if now is None else now)
        async with aclosing(self._news(ledger, this)) as batches:
            async for batch in batches:
                yield batch
        async with aclosing(self._judge(ledger, this)) as batches:
            async for batch in batches:
                yield batch
        if self.catching_up:
            return
        due = [one for one in this.due if one.id not in this.touched]
        self.stats.details["open"] = self.stats.details.get("open", 0) + len(due)
        async with aclosing(self.ask(due, self.db, this.now)) as batches:
            async for batch in batches:
                yield batch

    @property
    def _left(self) -> float:
        return self._deadline - self.clock.monotonic()

    @property
    def here(self) -> Position:
        """The position; only after it was loaded."""
        assert self.position is not None  # noqa: S101 - a mistake of ours, not of the outside
        return self.position

    @property
    def oldest(self) -> int:
        """Traces created before are forgotten by the ledger, and ignored if they come back (database's clock)."""
        return handover.forgotten([self.here.cutoff])

    async def _load(self, ledger: LedgerView) -> None:
        if self.position is not None:
            return
        cursors, now = await ledger.cursors(), self.clock.now_us()
        stood = handover.cutoffs(cursors[key] for key in self.strangers if key in cursors)
        lookback, overlap = now - self.settings.lookback, self.settings.overlap
        stored = cursors.get(self.db)
        if stored is None:
            start = handover.begin(stood, lookback, overlap)
            self.position = Position(cutoff=start, floor=start)
        else:
            self.position = Position.load(stored)
            self.position.cutoff = handover.begin(stood, lookback, overlap, own=self.position.cutoff)
        self.position.forgotten = max(self.position.forgotten, handover.forgotten(stood))

    async def _tables_are_there(self) -> bool:
        """Whether there is a span table; agno makes it with the first run. Raises BadAnswer where it is gone or odd."""
        spans = self.connection.location.tables.spans_table
        if missing(self.connection.sql.layout, spans, SPAN_COLUMNS):
            await self.connection.learn(self._left)
        lacking = missing(self.connection.sql.layout, spans, SPAN_COLUMNS)
        where = self.connection.location
        if len(lacking) == len(SPAN_COLUMNS):
            if self.here.seen:
                raise BadAnswer(f"{where}: table {spans} was there and is gone")
            if not self._said_no_tables:
                self._said_no_tables = True
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
        self._said_no_tables = False
        return True

    # News

    async def _news(self, ledger: LedgerView, this: _Pass) -> AsyncGenerator[Batch]:
        """Hand over what was written since the last poll, piece by piece; and what has settled, once that is listed."""
        settled = False
        parts: list[_Piece] = []
        async with aclosing(_ahead(self._pages(this))) as pieces:
            async for piece in pieces:
                batch = await self._batch(ledger, piece, this)
                if this.listed and not settled:
                    settled, batch.settled = True, await self._settled(ledger, this)
                moved = self._moved_to(piece)
                due = batch.traces or batch.ignored or batch.settled or batch.coming or parts
                if moved is not None and (due or self._is_worth_it(moved)):
                    batch.cursor = asdict(moved)
                if due or batch.cursor is not None:
                    yield batch
                # Only what is committed is so for us.
                if moved is not None:
                    self.position = moved
                    if batch.cursor is not None:
                        self._moved = moved.cutoff
                parts.append(piece)
                if not piece.more:
                    self._remember(parts)
                    parts = []

    def _remember(self, parts: Sequence[_Piece]) -> None:
        """Take note of what is committed."""
        inserted: dict[str, Any] = {}
        for piece in parts:
            for some in (*piece.reading.inserted.values(), piece.passed_over):
                inserted.update(some)
        self._committed.add(inserted)
        if any(piece.position is not None for piece in parts):
            self._committed.forget(stamp(self.here.cutoff - 2 * MICROSECONDS))

    async def _pages(self, this: _Pass) -> AsyncGenerator[_Piece]:
        """Read page by page, and the traces of each page some at a time."""
        since, began, took = stamp(self.here.cutoff), self.clock.monotonic(), 0.0
        page = await self._beyond(since)
        if page is None:
            page = await self._page(since, None)
        passed: set[str] = set()
        while True:
            ids, final = self._unread(page, passed)
            ended = len(page) < PAGE
            this.newest = max(this.newest, _newest(page))
            self.catching_up = not ended and this.now - this.newest > 2 * self.settings.overlap
            this.touched.update(ids, (trace_id for trace_id, reason in final.ignored if reason == "own"))
            this.listed = ended
            if ids:  # what has settled can be counted while they are read
                yield _Piece(Reading(), more=True, coming=ids[:CHUNK])
            async with aclosing(self._read(ids)) as readings:
                async for reading, more, last in readings:
                    passed.update(*reading.inserted.values())
                    if last:
                        final.reading = reading
                    else:
                        yield _Piece(reading, more)
            passed.update(final.passed_over)
            final.ended, final.position = ended, self._advance(this) if ended else self._advance_to(this)
            yield final
            if ended:
                return
            now = self.clock.monotonic()
            took, began = max(took, now - began), now
            if self._left < 0.1 + 2 * took:
                self.catching_up = True
                return
            page = await self._page(since, self._last(page))

    def _unread(self, page: Rows, passed: set[str]) -> tuple[list[str], _Piece]:
        """The traces of a page that have spans which were not read yet; and a piece with those that are not to be."""
        knows = self._committed.knows
        new = [row for row in page if row[1] not in passed and not knows(row[0], row[1])]
        reasons = {trace_id: _reason(trace_id) for trace_id in dict.fromkeys(trace_id for _, _, trace_id in new)}
        final = _Piece(Reading())
        if any(reasons.values()):
            final.ignored = [(_named(trace_id), reason) for trace_id, reason in reasons.items() if reason]
            final.passed_over = {span_id: created for created, span_id, trace_id in new if reasons[trace_id]}
        return [trace_id for trace_id, reason in reasons.items() if not reason], final

    async def _read(self, ids: Sequence[str]) -> AsyncGenerator[tuple[Reading, bool, bool]]:
        """Read these traces: (reading, whether more is to be committed with it, whether it is the last).

        Few are read in parts, to count one while the database reads the next; of many the next ones are read meanwhile.
        """
        for start in range(0, len(ids), CHUNK):
            some = ids[start : start + CHUNK]
            part = None if len(ids) <= CHUNK else CHUNK
            async with aclosing(self.connection.spans(some, self.db, (), wait=self._left, part=part)) as readings:
                async for reading, more in readings:
                    yield reading, more, not more and start + CHUNK >= len(ids)

    async def _beyond(self, since: str) -> Rows | None:
        """What comes after the newest span that was committed; None where others than those were written before."""
        newest = self._committed.newest
        if newest is None or newest[0] < since:
            return None
        self.stats.pages += 1
        try:
            rows, total, page = await self.connection.beyond(since, newest, PAGE, wait=self._left)
        except BadAnswer:  # a time that is none
            return None
        return page if Stretch(rows, total) == self._committed.since(since) else None

    def _last(self, page: Rows) -> tuple[Any, ...]:
        """The row after which one can read on: SQLite has bytes after all text, whatever they stand for."""
        for row in reversed(page):
            if not isinstance(row[0], bytes) and not isinstance(row[1], bytes):
                return row
        raise BadAnswer(f"{self.connection.location}: {len(page)} rows of spans whose ids or times are no text")

    async def _page(self, since: str, after: tuple[Any, ...] | None) -> Rows:
        self.stats.pages += 1
        return await self.connection.inserted(since, after, PAGE, wait=self._left)

    async def _batch(self, ledger: LedgerView, piece: _Piece, this: _Pass) -> Batch:
        here, reading = self.here, piece.reading
        traces = [trace for trace in reading.traces if trace.end >= here.floor]
        ignored = [(trace_id, "malformed") for trace_id in reading.malformed]
        ignored += piece.ignored
        early = [trace for trace in reading.traces if trace.end < here.floor]
        ignored += [(trace.id, "too_old") for trace in early if is_misdated(trace.end, trace.created)]
        floor = max(self.oldest, here.forgotten)
        old = [trace.id for trace in traces if trace.created < floor]
        if old:
            known = await ledger.known(self.db, old)
            gone = {trace_id for trace_id in old if trace_id not in known}
            traces = [trace for trace in traces if trace.id not in gone]
            ignored += [(trace_id, "too_old") for trace_id in sorted(gone)]
        here.seen = here.seen or bool(traces)
        self.stats.traces += len(traces)
        return Batch(
            self.db,
            traces,
            ignored=ignored,
            first=here.first,
            as_of=this.now,
            follows=True,
            more=piece.more,
            coming=piece.coming,
        )

    def _moved_to(self, piece: _Piece) -> Position | None:
        """Where reading stands once the piece is committed; None where that is as before."""
        if piece.position is None:
            return None
        cutoff, newest = piece.position
        return replace(self.here, cutoff=cutoff, newest=newest, first=self.here.first and not piece.ended)

    def _is_worth_it(self, moved: Position) -> bool:
        """Whether a position is worth a commit of its own."""
        return moved.first is not self.here.first or abs(moved.cutoff - self._moved) >= self.settings.overlap // 4

    def _advance(self, this: _Pass) -> tuple[int, int]:
        """(cutoff, newest) after all that is there was read.

        The clock that counts is AgentOS's, of which the newest row tells; while nothing new comes, ours goes on from
        there. It is never believed beyond the database's own: a row from the future would hide what comes before it.
        """
        here, cap = self.here, this.now + MICROSECONDS
        newest = min(max(here.newest, this.newest), cap)
        if not newest:
            return here.cutoff, newest
        if newest > here.newest or self._anchor is None:
            self._anchor = (newest, this.began)
        base, since = self._anchor
        reached = base + round((this.began - since) * MICROSECONDS)
        return max(here.cutoff, min(reached, cap) - self.settings.overlap), newest

    def _advance_to(self, this: _Pass) -> tuple[int, int]:
        """(cutoff, newest) after all up to the newest row of this pass was read."""
        reached = min(this.newest, this.now + MICROSECONDS)
        return max(self.here.cutoff, reached - self.settings.overlap), max(self.here.newest, reached)

    # What is known, and waited for

    async def _settled(self, ledger: LedgerView, this: _Pass) -> list[str]:
        """Complete traces that settle, as no span was added to them; and notes which open ones are to be read."""
        now = self.clock.now_us()
        complete = await ledger.unsettled(self.db, UNSETTLED, due=now)
        this.due = await ledger.open_due(self.db, now, OPEN_TRACES)
        return [one.id for one in complete if one.id not in this.touched]

    async def ask(self, due: Sequence[Known], db: str, as_of: int, *, alone: bool = True) -> AsyncGenerator[Batch]:
        """Read known traces again: to give up on what never came, and for spans that were committed far too late.

        `db` is the key under which the ledger has them; not `alone`, those that are not here may be elsewhere.
        """
        now, horizon = self.clock.now_us(), self.settings.horizon
        given_up = {one.id for one in due if one.state is TraceState.OPEN and now - one.changed >= horizon}
        for start in range(0, len(due), CHUNK):
            some = [one.id for one in due[start : start + CHUNK]]
            async with aclosing(self.connection.spans(some, db, given_up, wait=self._left, part=CHUNK)) as readings:
                async for reading, _ in readings:  # one
                    ignored = [(trace_id, "malformed") for trace_id in reading.malformed]
                    lost = sorted(set(some) - {clean_id(trace_id) for trace_id in reading.inserted}) if alone else []
                    yield Batch(db, reading.traces, missed=lost, ignored=ignored, as_of=as_of, follows=True)

    async def _judge(self, ledger: LedgerView, this: _Pass) -> AsyncGenerator[Batch]:
        """Where rows arrive but none of the traces known before is there any more, the database was replaced.

        What is gone after a day may have been deleted because of its age: that is no sign of anything.
        """
        here, now = self.here, self.clock.monotonic()
        if here.sentinels and this.now - here.witnessed > DAY:
            here.sentinels = []
        if not here.sentinels:
            if here.seen:
                await self._choose(ledger)
            return
        due = now - self._probed >= self.settings.overlap / MICROSECONDS
        if not this.touched or not (due or self._alarm):
            return
        sql = self.connection.sql.alive(len(here.sentinels))
        if await self.connection.rows(sql, here.sentinels, wait=self._left):
            self._alarm, self._missing, self._probed = False, 0, now
            await self._choose(ledger)
            return
        self._alarm = True
        self._missing += 1
        if self._missing >= 2:  # noqa: PLR2004 - as with the API: one poll may meet a restore half done
            log.warning("source_reset", db=self.db, reason="none of the traces known before is there any more")
            moved = replace(here, sentinels=sorted(this.touched)[-3:], witnessed=here.newest)
            yield Batch(self.db, reset=True, cursor=asdict(moved))
            self.position = moved
            self._alarm, self._missing, self._probed = False, 0, now

    async def _choose(self, ledger: LedgerView) -> None:
        """Take known traces of different age as witnesses."""
        here = self.here
        newest = min(here.newest, here.cutoff + self.settings.overlap)
        here.sentinels = await ledger.sentinels(self.db, [FUTURE, newest - HOUR, newest - 12 * HOUR])
        here.witnessed = newest


def _reason(trace_id: object) -> str:
    """Why a trace is not read at all; '' where it is. Nobody asked a table of other hands to have ids that are text."""
    if not isinstance(trace_id, str):
        return "malformed"
    return "own" if trace_id.startswith(OWN_TRACE_PREFIX) else ""


def _named(trace_id: object) -> str:
    return clean_id(trace_id) if isinstance(trace_id, str) else stand_in(repr(trace_id).encode())


def _newest(page: Rows) -> int:
    """When the newest row of a page was written, in microseconds; of those that tell a time at all, 0 if none does."""
    for row in reversed(page):
        try:
            return moment_of(row[0])
        except (ValueError, OverflowError, TypeError):
            continue
    return 0
