"""Connections to the databases of AgentOS: one for each database, read-only, with a time limit for every statement.

No transaction outlives a statement, nothing is locked, and nothing is written: PostgreSQL and MySQL are told so, and
SQLite opens the file read-only. A statement whose result is no longer wanted is cancelled in the database, too.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields
from typing import TYPE_CHECKING, Any, Final, TypeVar

import msgspec

from exporter.core.errors import ServerFailed, SourceError, SourceTimeout, Unreachable
from exporter.core.model import MICROSECONDS
from exporter.sources.database.location import Location
from exporter.sources.database.rows import Row, attributes_of, rows_of
from exporter.sources.database.sql import Layout, Sql

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Iterable


STATEMENT_TIMEOUT: Final = 10.0
"""Seconds that the database may work on one statement."""
CONNECT_TIMEOUT: Final = 10.0
_CLOCK_KEPT: Final = 60.0
"""Seconds for which our clock counts on from the last answer of the database's clock."""

GRANTS: Final = "; see the GRANTs that the documentation of databases lists"
"""The end of a message about a missing right."""

T = TypeVar("T")
Rows = list[tuple[Any, ...]]


def _no_query(_sql: str, _params: Sequence[Any]) -> None:
    """Do nothing: the default of `on_query`."""


def _demand_time(wait: float) -> None:
    """Raise SourceTimeout where no time is left."""
    if wait <= 0:
        raise SourceTimeout("the poll took longer than poll_deadline; what was read so far is counted")


def decoded(gathered: bytes | str) -> list[Row] | None:
    """The rows that a database put into one JSON array; None where that is not what agno writes."""
    try:
        return rows_of(gathered)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


def compact(rows: Iterable[tuple[Any, ...]]) -> list[Row]:
    """Rows with whole attributes, taken one by one: prompts must not pile up."""
    return [Row(*(*row[:9], attributes_of(row[9]))) for row in rows]


class Connection(ABC):
    """One connection, opened when it is needed. All methods raise SourceError."""

    def __init__(self, location: Location, read_password: Callable[[], str | None]) -> None:
        """`read_password` is called at each connect; it may raise ConfigError."""
        self.location = location
        self.sql = Sql(location)
        self.on_query: Callable[[str, Sequence[Any]], None] = _no_query
        """called with each statement and its parameters, for tests"""
        self.queries = 0
        self.seconds = 0.0
        """spent on statements"""
        self._read_password = read_password
        self._lock = asyncio.Lock()
        self._told: tuple[int, float] | None = None
        """the last answer of the database's clock, and its time by the monotonic clock"""

    @property
    @abstractmethod
    def is_open(self) -> bool:
        """Whether there is a connection, as far as known."""

    async def open(self, wait: float) -> None:
        """Connect, unless there is a connection, and learn the columns of the tables. `wait` is in seconds."""
        _demand_time(wait)
        async with self._turn(wait):
            if self._stale():
                await self._close()
            if not self.is_open:
                await self._open(min(wait, CONNECT_TIMEOUT))

    async def _open(self, wait: float) -> None:
        try:
            password = await asyncio.to_thread(self._read_password)
            self._told = None
            async with asyncio.timeout(wait):
                await self._connect(password)
                await self._learn()
        except TimeoutError:
            await self._close()
            raise Unreachable(f"{self.location}: no connection within {wait:.3g} s") from None
        except BaseException:
            await self._close()
            raise

    def _stale(self) -> bool:
        """Whether the file of the connection was replaced by another."""
        return False

    async def learn(self, wait: float) -> None:
        """Learn the columns of the tables again."""
        async with self._turn(wait):
            await self._learn()

    async def _learn(self) -> None:
        self.sql.layout = await self._layout(table_names(self.location))

    @contextlib.asynccontextmanager
    async def _turn(self, wait: float) -> AsyncIterator[None]:
        """The connection for oneself: polls and the look at sessions share it. Raises SourceTimeout."""
        try:
            async with asyncio.timeout(max(wait, 0)):
                await self._lock.acquire()
        except TimeoutError:
            raise SourceTimeout(f"{self.location}: the connection was busy for {max(wait, 0):.3g} s") from None
        try:
            yield
        finally:
            self._lock.release()

    async def rows(self, sql: str, params: Sequence[Any] = (), *, wait: float) -> Rows:
        """All rows of a small answer.

        Args:
            sql: The statement.
            params: Its parameters.
            wait: Seconds.

        Raises:
            SourceError: The database does not answer.

        """
        return await self._timed(sql, params, wait, lambda: self._rows(sql, params))

    async def inserted(self, since: str, after: Sequence[Any] | None, most: int, *, wait: float) -> Rows:
        """Spans in the order in which they were inserted.

        Args:
            since: The first `created_at`, as it is stored.
            after: The `created_at` and span id of the last span that is known; None to start at `since`.
            most: Most spans.
            wait: Seconds.

        Returns:
            Rows of created_at, span_id and trace_id, as they were written.

        """
        params = (since, most) if after is None else (after[0], after[0], after[1], most)
        return await self.rows(self.sql.inserted(after=after is not None), params, wait=wait)

    async def spans(self, traces: Sequence[str], *, wait: float) -> list[Row]:
        """All spans of these traces, in any order."""
        sql = self.sql.spans(len(traces))
        return await self._timed(sql, traces, wait, lambda: self._spans(sql, traces))

    async def _timed(self, sql: str, params: Sequence[Any], wait: float, work: Callable[[], Awaitable[T]]) -> T:
        _demand_time(wait)
        async with self._turn(wait):
            if not self.is_open:
                raise Unreachable(f"{self.location}: the connection was closed meanwhile")
            return await self._bounded(sql, params, min(wait, STATEMENT_TIMEOUT), work)

    async def _bounded(self, sql: str, params: Sequence[Any], wait: float, work: Callable[[], Awaitable[T]]) -> T:
        self._note(sql, params)
        began = time.monotonic()
        try:
            async with asyncio.timeout(wait):
                return await work()
        except TimeoutError:
            await self._break()
            raise SourceTimeout(
                f"{self.location}: a statement took longer than {wait:.3g} s and was broken off"
            ) from None
        except asyncio.CancelledError:
            await asyncio.shield(self._break())
            raise
        except Exception as error:
            failure = self._explain(error)
            if failure is None:
                raise
            if isinstance(failure, (Unreachable, ServerFailed)):
                await self._close()
            if failure is error:
                raise
            raise failure from error
        finally:
            self.seconds += time.monotonic() - began

    async def now(self, *, wait: float) -> int | None:
        """The database's clock in microseconds; None if it is the clock of this machine.

        It is asked for once a minute, and again after each connect: another server may answer now.
        """
        if self._told is None or time.monotonic() - self._told[1] > _CLOCK_KEPT:
            ((value,),) = await self.rows(self._clock, wait=wait)
            self._told = int(value), time.monotonic()
        database_now, then = self._told
        return database_now + round((time.monotonic() - then) * MICROSECONDS)

    _clock = ""

    def _note(self, sql: str, params: Sequence[Any]) -> None:
        """A statement begins."""
        self.on_query(sql, params)
        self.queries += 1

    @abstractmethod
    async def _connect(self, password: str | None) -> None: ...

    @abstractmethod
    async def _layout(self, tables: Sequence[str]) -> Layout: ...

    @abstractmethod
    async def _rows(self, sql: str, params: Sequence[Any]) -> Rows: ...

    @abstractmethod
    async def _spans(self, sql: str, traces: Sequence[str]) -> list[Row]: ...

    @abstractmethod
    async def _break(self) -> None:
        """Break off the statement under way; the connection is of no further use."""

    @abstractmethod
    def _explain(self, error: Exception) -> SourceError | None:
        """What an error of the driver means; None for an error that is not the driver's."""

    @abstractmethod
    async def _close(self) -> None: ...

    async def aclose(self) -> None:
        """Close the connection for good, if there is one."""
        async with self._lock:
            await self._close()


def table_names(location: Location) -> list[str]:
    """The names of all tables that are read."""
    return [getattr(location.tables, field.name) for field in fields(location.tables)]


class Threaded(Connection):
    """A connection with a blocking driver, which runs in its own thread."""

    def __init__(self, location: Location, read_password: Callable[[], str | None]) -> None:
        super().__init__(location, read_password)
        self._threads = ThreadPoolExecutor(1, thread_name_prefix="database")
        self._connection: Any = None

    @property
    def is_open(self) -> bool:
        """See Connection."""
        return self._connection is not None

    async def _run(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._threads, work)

    async def _connect(self, password: str | None) -> None:
        try:
            self._connection = await self._run(lambda: self._opened(password))
        except Exception as error:
            raise self._explain(error) or error from error

    async def _rows(self, sql: str, params: Sequence[Any]) -> Rows:
        return await self._run(lambda: self._fetched(sql, params))

    async def _spans(self, sql: str, traces: Sequence[str]) -> list[Row]:
        return await self._run(lambda: self._spans_of(sql, traces))

    @abstractmethod
    def _opened(self, password: str | None) -> object:
        """A new connection; blocks."""

    @abstractmethod
    def _fetched(self, sql: str, params: Sequence[Any]) -> Rows: ...

    @abstractmethod
    def _spans_of(self, sql: str, traces: Sequence[str]) -> list[Row]: ...

    async def _close(self) -> None:
        gone, self._connection = self._connection, None
        if gone is not None:

            def close() -> None:
                with contextlib.suppress(Exception):
                    gone.close()

            await self._run(close)

    async def aclose(self) -> None:
        """See Connection."""
        await super().aclose()
        self._threads.shutdown(wait=False)
