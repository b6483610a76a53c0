"""Connections to the databases of AgentOS: one a database, read-only, every statement bounded in time.

No transaction outlives a statement, nothing is locked, and nothing is written: PostgreSQL and MySQL are told so, SQLite
opens the file read-only. A statement that is not wanted any more is broken off in the database, too.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import sqlite3
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar
from urllib.parse import quote

import msgspec

from exporter.errors import BadAnswer, ServerFailed, SourceError, SourceTimeout, Unauthorized, Unreachable
from exporter.model import MICROSECONDS
from exporter.sources.database.location import Engine, Location
from exporter.sources.database.rows import Row, attributes_of, extracted, rows_of
from exporter.sources.database.sql import Column, Layout, Sql

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Iterable

    import psycopg

STATEMENT_TIMEOUT: Final = 10.0
"""Seconds that the database may work on one statement."""
CONNECT_TIMEOUT: Final = 10.0
_BUSY: Final = 2.0
"""Seconds that SQLite waits for a writer that keeps readers out (only without WAL)"""
_CLOCK_KEPT: Final = 60.0
"""Seconds for which ours goes on from what a database's clock told."""

T = TypeVar("T")
Rows = list[tuple[Any, ...]]


def _no_query(_sql: str, _params: Sequence[Any]) -> None:
    """Nobody wants to know."""


def _demand_time(wait: float) -> None:
    """Raise SourceTimeout where no time is left."""
    if wait <= 0:
        raise SourceTimeout("the poll took longer than poll_deadline; what was read so far is counted")


def _decoded(gathered: bytes | str) -> list[Row] | None:
    """The rows that a database put into one JSON array; None where that is not what agno writes."""
    try:
        return rows_of(gathered)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


def _compact(rows: Iterable[tuple[Any, ...]]) -> list[Row]:
    """Rows with whole attributes, taken one by one: prompts must not pile up."""
    return [Row(*(*row[:9], attributes_of(row[9]))) for row in rows]


def _text(raw: bytes) -> str | bytes:
    """Text of a column; what is no UTF-8 stays as it is: then its trace is malformed, and not every poll a failure."""
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return raw


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
        """the database's clock, and when it was told, by the monotonic one"""

    @property
    @abstractmethod
    def is_open(self) -> bool:
        """Whether there is a connection, as far as is known."""

    async def open(self, wait: float) -> None:
        """Connect, unless there is a connection; learn what the tables look like. `wait` is in seconds."""
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
        """Whether the connection leads to what is not there any more."""
        return False

    async def learn(self, wait: float) -> None:
        """Look the tables up anew."""
        async with self._turn(wait):
            await self._learn()

    async def _learn(self) -> None:
        self.sql.layout = await self._layout(vars_of(self.location))

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
        """All rows of a small answer."""
        return await self._timed(sql, params, wait, lambda: self._rows(sql, params))

    async def inserted(self, since: str, after: Sequence[Any] | None, most: int, *, wait: float) -> Rows:
        """Up to so many spans, `after` one or since a moment: (created_at, span_id, trace_id) as they were written."""
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
        """The database's clock in microseconds; None where it has that of whoever asks.

        It is asked for once a minute, and again after each connect: another server may answer now.
        """
        if self._told is None or time.monotonic() - self._told[1] > _CLOCK_KEPT:
            ((value,),) = await self.rows(self._clock, wait=wait)
            self._told = int(value), time.monotonic()
        told, then = self._told
        return told + round((time.monotonic() - then) * MICROSECONDS)

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
        """What an error of the driver means; None for what is none of its errors."""

    @abstractmethod
    async def _close(self) -> None: ...

    async def aclose(self) -> None:
        """Close the connection for good, if there is one."""
        async with self._lock:
            await self._close()


def vars_of(location: Location) -> list[str]:
    """The names of all tables that are read."""
    tables = location.tables
    return [tables.spans_table, tables.traces_table, tables.session_table, tables.components_table]


def connection(location: Location, read_password: Callable[[], str | None]) -> Connection:
    """The connection for an engine."""
    kinds: dict[Engine, type[Connection]] = {
        Engine.SQLITE: SqliteConnection,
        Engine.POSTGRESQL: PostgresConnection,
        Engine.MYSQL: MysqlConnection,
    }
    return kinds[location.engine](location, read_password)


class _Threaded(Connection):
    """A driver that blocks: in a thread of its own."""

    def __init__(self, location: Location, read_password: Callable[[], str | None]) -> None:
        super().__init__(location, read_password)
        self._threads = ThreadPoolExecutor(1, thread_name_prefix="database")
        self._connection: Any = None

    @property
    def is_open(self) -> bool:
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


class SqliteConnection(_Threaded):
    """An SQLite file, opened read-only: readers never keep a writer waiting where AgentOS uses WAL, as agno does."""

    def _opened(self, password: str | None) -> sqlite3.Connection:  # noqa: ARG002 - a file has none
        path = Path(self.location.database)
        if not path.exists():
            raise Unreachable(f"{self.location}: there is no such file; AgentOS makes it with its first run")
        uri = f"file:{quote(str(path.absolute()))}?mode=ro"
        connection = sqlite3.connect(
            uri, uri=True, timeout=_BUSY, check_same_thread=False, isolation_level=None, cached_statements=64
        )
        connection.execute("PRAGMA query_only = ON")
        connection.text_factory = _text
        return connection

    async def now(self, *, wait: float) -> int | None:  # noqa: ARG002 - asks nobody
        """See Connection."""
        return None

    def _stale(self) -> bool:
        # A file that was replaced is another database.
        return self._connection is not None and self._identity() != self._opened_file

    _opened_file: tuple[int, int] | None = None

    def _identity(self) -> tuple[int, int] | None:
        try:
            found = Path(self.location.database).stat()
        except OSError:
            return None
        return found.st_dev, found.st_ino

    async def _connect(self, password: str | None) -> None:
        self._opened_file = self._identity()
        await super()._connect(password)

    async def _layout(self, tables: Sequence[str]) -> Layout:
        def work() -> Layout:
            layout: Layout = {}
            for table in tables:
                indexes = {}
                for (name,) in self._connection.execute("SELECT name FROM pragma_index_list(?)", (table,)).fetchall():
                    first = self._connection.execute(
                        "SELECT name FROM pragma_index_info(?) WHERE seqno = 0", (name,)
                    ).fetchone()
                    indexes[first[0]] = name
                columns = self._connection.execute("SELECT name, type FROM pragma_table_info(?)", (table,)).fetchall()
                if columns:
                    layout[table] = {name: Column(kind.lower(), indexes.get(name, "")) for name, kind in columns}
            return layout

        try:
            return await self._run(work)
        except sqlite3.Error as error:
            raise self._explain(error) or error from error

    def _fetched(self, sql: str, params: Sequence[Any]) -> Rows:
        return self._connection.execute(sql, tuple(params)).fetchall()  # type: ignore[no-any-return]

    def _spans_of(self, sql: str, traces: Sequence[str]) -> list[Row]:
        try:
            ((gathered,),) = self._fetched(sql, traces)
        except sqlite3.OperationalError as error:  # attributes that are no JSON
            if "json" not in str(error).lower():
                raise
            gathered = None
        rows = None if gathered is None else _decoded(gathered)
        if rows is None:
            whole = self._connection.execute(self.sql.spans(len(traces), gathered=False), tuple(traces))
            rows = _compact(whole)
        return rows

    async def _break(self) -> None:
        if self._connection is not None:
            self._connection.interrupt()
        await self._close()

    def _explain(self, error: Exception) -> SourceError | None:
        if isinstance(error, SourceError):
            return error
        if not isinstance(error, sqlite3.Error):
            return None
        text, where = str(error), str(self.location)
        said = text.lower()
        if "unable to open" in said or "readonly" in said:
            return Unreachable(
                f"{where}: {text}; this user needs to read the file and those beside it that end in -wal and -shm"
            )
        if "locked" in said or "busy" in said or "i/o error" in said:
            return ServerFailed(f"{where}: {text}")
        if "interrupted" in said:
            return SourceTimeout(f"{where}: {text}")
        return BadAnswer(f"{where}: {text}")


class PostgresConnection(Connection):
    """PostgreSQL through psycopg. Settings hold for one short transaction each, so that a pooler may stand between."""

    _clock = "SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint"

    def __init__(self, location: Location, read_password: Callable[[], str | None]) -> None:
        super().__init__(location, read_password)
        self._connection: psycopg.AsyncConnection[tuple[Any, ...]] | None = None

    @property
    def is_open(self) -> bool:
        """See Connection."""
        return self._connection is not None and not self._connection.closed

    async def _connect(self, password: str | None) -> None:
        import psycopg  # noqa: PLC0415 - an extra
        from psycopg.types.string import TextLoader  # noqa: PLC0415

        where = self.location
        options: dict[str, Any] = dict(where.options)
        options.setdefault("application_name", "agentos-exporter")
        options.setdefault("connect_timeout", round(CONNECT_TIMEOUT))
        if any(port is not None for _, port in where.hosts):
            options["port"] = ",".join("" if port is None else str(port) for _, port in where.hosts)
        if where.user:
            options["user"] = where.user
        if password is not None:
            options["password"] = password
        try:
            # A pooler may give each transaction another connection: nothing is prepared.
            made = await psycopg.AsyncConnection.connect(
                host=",".join(host for host, _ in where.hosts),
                dbname=where.database,
                autocommit=True,
                prepare_threshold=None,
                **options,
            )
        except psycopg.Error as error:
            raise self._refused(error) from error
        for kind in ("json", "jsonb"):  # msgspec reads numbers, of LLM spans alone
            made.adapters.register_loader(kind, TextLoader)
        self._connection = made

    def _refused(self, error: Exception) -> SourceError:
        """Why there is no connection; libpq tells in words alone."""
        text = " ".join(str(error).split())[:500]
        said = text.lower()
        if any(
            word in said
            for word in ("authentication", "no password supplied", "pg_hba.conf", "permission denied", "not permitted")
        ) or ('role "' in said and "does not exist" in said):
            return Unauthorized(f"{self.location}: {text}")
        if 'database "' in said and "does not exist" in said:
            return BadAnswer(f"{self.location}: {text}")
        if any(
            word in said for word in ("starting up", "shutting down", "too many", "recovery", "remaining connection")
        ):
            return ServerFailed(f"{self.location}: {text}")
        return Unreachable(f"{self.location}: {text}")

    async def _layout(self, tables: Sequence[str]) -> Layout:
        rows = await self._rows(_PG_LAYOUT, (self.location.schema, list(tables)))
        layout: Layout = {}
        denied: list[str] = []
        for table, column, kind, index, readable in rows:
            layout.setdefault(table, {})[column] = Column(kind, index or "")
            if not readable and table not in denied:
                denied.append(table)
        schema, user = self.location.schema, self.location.user or "the user"
        spans = self.location.tables.spans_table
        if spans in denied:
            raise Unauthorized(
                f"{self.location}: {user} may not read {schema}.{spans}; "
                f"GRANT USAGE ON SCHEMA {schema} TO {user}; GRANT SELECT ON {schema}.{spans} TO {user};"
            )
        for table in denied:
            del layout[table]
        if not layout:
            others = await self._rows(_PG_ELSEWHERE, (spans, schema))
            if others:
                raise BadAnswer(
                    f"{self.location}: schema {schema} has no table {spans}; it is in {others[0][0]}: name it as schema"
                )
        return layout

    async def _rows(self, sql: str, params: Sequence[Any]) -> Rows:
        import psycopg  # noqa: PLC0415 - an extra

        connection = self._connection
        assert connection is not None  # noqa: S101 - a mistake of ours
        try:
            # One message, and one answer: the transaction never waits for us.
            async with psycopg.AsyncClientCursor(connection) as cursor:
                await cursor.execute(f"{_PG_BEGIN}; {sql}; COMMIT", params or None)
                for _ in range(_PG_BEFORE):
                    cursor.nextset()
                return await cursor.fetchall()
        except Exception as error:
            if not connection.closed and not connection.broken:
                with contextlib.suppress(Exception):
                    await connection.rollback()
            raise self._explain(error) or error from error

    async def _spans(self, sql: str, traces: Sequence[str]) -> list[Row]:
        ((gathered,),) = await self._rows_of(traces, sql, gathered=True)
        if gathered is None:
            return []
        rows = await asyncio.to_thread(_decoded, gathered)
        if rows is None:
            single = await self._rows_of(traces, self.sql.spans(len(traces), gathered=False), gathered=False)
            rows = [Row(*(*row[:9], extracted(row[9:]))) for row in single]
        return rows

    async def _rows_of(self, traces: Sequence[str], sql: str, *, gathered: bool) -> Rows:
        import psycopg  # noqa: PLC0415 - an extra

        try:
            return await self._rows(sql, (list(traces),))
        except BadAnswer as error:
            # Attributes of a single span that are no object fail the whole statement.
            if not isinstance(error.__cause__, psycopg.DataError):
                raise
            self.sql.careful = True
            carefully = self.sql.spans(len(traces), gathered=gathered)
            if carefully == sql:
                raise
            return await self._rows(carefully, (list(traces),))

    async def _break(self) -> None:
        gone, self._connection = self._connection, None
        if gone is not None:
            with contextlib.suppress(Exception):
                await gone.cancel_safe(timeout=1.0)
            with contextlib.suppress(Exception):
                await gone.close()

    async def _close(self) -> None:
        gone, self._connection = self._connection, None
        if gone is not None:
            with contextlib.suppress(Exception):
                await gone.close()

    def _explain(self, error: Exception) -> SourceError | None:
        import psycopg  # noqa: PLC0415 - an extra

        if isinstance(error, SourceError):
            return error
        if not isinstance(error, psycopg.Error):
            return None
        text = f"{self.location}: {' '.join(str(error).split())[:500]}"
        state = error.sqlstate or ""
        failure: type[SourceError] = BadAnswer
        if state == "57014":
            failure = SourceTimeout
        elif state in {"42501", "28000", "28P01"}:
            failure = Unauthorized
            text += _GRANTS
        elif state[:2] in {"53", "40", "55", "58", "XX"} or state in {"57P03", "25006"}:
            failure = ServerFailed
        elif not state or state[:2] in {"08", "57"}:
            failure = Unreachable
        return failure(text)


_PG_SETTINGS: Final = {"statement_timeout": round(STATEMENT_TIMEOUT * 1000), "enable_seqscan": "off", "jit": "off"}
_PG_BEGIN: Final = "BEGIN READ ONLY; SELECT " + ", ".join(
    f"set_config('{name}', '{value}', true)" for name, value in _PG_SETTINGS.items()
)
"""Planning without statistics (agno's tables may be minutes old) must not end in a scan; compiling takes longer than
any of these statements."""
_PG_BEFORE: Final = _PG_BEGIN.count("; ") + 1
"""results that come before that of the statement"""
_PG_LAYOUT: Final = """
SELECT c.relname, a.attname, format_type(a.atttypid, NULL),
  (SELECT min(i.relname) FROM pg_index x JOIN pg_class i ON i.oid = x.indexrelid
   WHERE x.indrelid = c.oid AND x.indisvalid AND x.indpred IS NULL AND x.indkey[0] = a.attnum),
  has_schema_privilege(n.oid, 'USAGE') AND has_table_privilege(c.oid, 'SELECT')
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace JOIN pg_attribute a ON a.attrelid = c.oid
WHERE n.nspname = %s AND c.relname = ANY(%s) AND a.attnum > 0 AND NOT a.attisdropped
  AND c.relkind IN ('r', 'p', 'v', 'm')
"""
_PG_ELSEWHERE: Final = """
SELECT n.nspname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relname = %s AND n.nspname <> %s AND c.relkind IN ('r', 'p') ORDER BY 1 LIMIT 1
"""


class MysqlConnection(_Threaded):
    """MySQL and MariaDB through PyMySQL."""

    _clock = "SELECT CAST(UNIX_TIMESTAMP(NOW(6)) * 1000000 AS SIGNED)"

    def _opened(self, password: str | None) -> object:
        import pymysql  # noqa: PLC0415 - an extra

        where = self.location
        options: dict[str, Any] = {name: value for name, value in where.options if name != "charset"}
        options["connect_timeout"] = int(options.get("connect_timeout", CONNECT_TIMEOUT))
        for name in ("ssl_verify_cert", "ssl_verify_identity"):
            if name in options:
                options[name] = options[name].lower() in {"true", "1", "yes"}
        last: Exception | None = None
        for host, port in where.hosts:
            try:
                connection = pymysql.connect(
                    host=host,
                    port=port or 3306,
                    user=where.user or None,
                    password=password or "",
                    database=where.database or None,
                    charset="utf8mb4",
                    autocommit=True,
                    read_timeout=STATEMENT_TIMEOUT + 5,
                    program_name="agentos-exporter",
                    **options,
                )
            except pymysql.err.OperationalError as error:
                last = error
                continue
            with connection.cursor() as cursor:
                cursor.execute("SET SESSION TRANSACTION READ ONLY")
                cursor.execute("SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED")
                if "mariadb" in str(connection.get_server_info()).lower():
                    cursor.execute(f"SET SESSION max_statement_time = {STATEMENT_TIMEOUT}")
                else:
                    cursor.execute(f"SET SESSION max_execution_time = {round(STATEMENT_TIMEOUT * 1000)}")
            return connection
        assert last is not None  # noqa: S101 - there is at least one host
        raise last

    async def _layout(self, tables: Sequence[str]) -> Layout:
        spans, schema = self.location.tables.spans_table, self.location.schema
        try:
            rows = await self._rows(_MYSQL_LAYOUT.format(marks=self.sql.marks(len(tables))), [schema, *tables])
            layout: Layout = {}
            for table, column, kind, index in rows:
                layout.setdefault(table, {})[column] = Column(kind, index or "")
            if spans not in layout:
                await self._why_not(spans, schema)
        except SourceError:
            raise
        except Exception as error:
            raise self._explain(error) or error from error
        return layout

    async def _why_not(self, spans: str, schema: str) -> None:
        """Who may read nothing of a schema sees none of its tables. Raises SourceError unless none is there yet."""
        import pymysql  # noqa: PLC0415 - an extra

        try:
            await self._rows(f"SELECT 1 FROM {self.sql.table(spans)} LIMIT 0", [])
        except pymysql.err.MySQLError as error:
            if error.args[0] not in _MYSQL_ABSENT:
                user = self.location.user or "the user"
                failure = self._explain(error)
                if isinstance(failure, Unauthorized):
                    raise Unauthorized(
                        f"{self.location}: {user} may not read {schema}.{spans}; "
                        f"GRANT SELECT ON `{schema}`.`{spans}` TO {user};"
                    ) from error
                raise
        others = await self._rows(_MYSQL_ELSEWHERE, [spans, schema])
        if others:
            raise BadAnswer(
                f"{self.location}: schema {schema} has no table {spans}; there is one in {others[0][0]}: "
                "name it as schema"
            )

    def _fetched(self, sql: str, params: Sequence[Any]) -> Rows:
        with self._connection.cursor() as cursor:
            cursor.execute(sql, tuple(params))
            return list(cursor.fetchall())

    def _spans_of(self, sql: str, traces: Sequence[str]) -> list[Row]:
        import pymysql.cursors  # noqa: PLC0415 - an extra

        with self._connection.cursor(pymysql.cursors.SSCursor) as cursor:
            cursor.execute(sql, tuple(traces))
            return _compact(cursor.fetchall_unbuffered())

    async def _break(self) -> None:
        gone, self._connection = self._connection, None
        if gone is not None:
            # Its thread waits for the socket; the server notices, or ends the statement by its own limit.
            with contextlib.suppress(Exception):
                gone._sock.shutdown(socket.SHUT_RDWR)  # noqa: SLF001 - close() would wait for its turn

    def _explain(self, error: Exception) -> SourceError | None:
        import pymysql  # noqa: PLC0415 - an extra

        if isinstance(error, SourceError):
            return error
        if not isinstance(error, pymysql.err.MySQLError):
            return None
        code = error.args[0] if error.args and isinstance(error.args[0], int) else 0
        text = f"{self.location}: {' '.join(str(part) for part in error.args)[:500]}"
        failure: type[SourceError] = BadAnswer
        if code in {1044, 1045, 1142, 1143, 1227, 1698}:
            failure = Unauthorized
            text += _GRANTS
        elif code in {1969, 3024}:
            failure = SourceTimeout
        elif code in {1040, 1203, 1205, 1213, 1226, 1053, 1105}:
            failure = ServerFailed
        elif isinstance(error, (pymysql.err.OperationalError, pymysql.err.InterfaceError)) and (
            not code or code in {1077, 1079, 1080} or code >= _MYSQL_CLIENT
        ):
            failure = Unreachable
        return failure(text)


_GRANTS: Final = "; see the GRANTs that the documentation of databases lists"
_MYSQL_CLIENT: Final = 2000
"""Numbers from here on are errors of the client: no connection, or none any more."""
_MYSQL_LAYOUT: Final = """
SELECT c.table_name, c.column_name, c.data_type,
  (SELECT min(s.index_name) FROM information_schema.statistics s WHERE s.table_schema = c.table_schema
   AND s.table_name = c.table_name AND s.column_name = c.column_name AND s.seq_in_index = 1)
FROM information_schema.columns c WHERE c.table_schema = %s AND c.table_name IN ({marks})
"""
_MYSQL_ABSENT: Final = frozenset({1049, 1146})
"""unknown database, unknown table"""
_MYSQL_ELSEWHERE: Final = """
SELECT table_schema FROM information_schema.tables WHERE table_name = %s AND table_schema <> %s ORDER BY 1 LIMIT 1
"""
