"""PostgreSQL, through psycopg."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any, Final

from exporter.core.errors import BadAnswer, ServerFailed, SourceError, SourceTimeout, Unauthorized, Unreachable
from exporter.sources.database.connection import CONNECT_TIMEOUT, GRANTS, STATEMENT_TIMEOUT, Connection, Rows, decoded
from exporter.sources.database.rows import Row, extracted
from exporter.sources.database.sql import Column, Layout

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import psycopg

    from exporter.sources.database.location import Location


def connect_options(where: Location, password: str | None) -> dict[str, Any]:
    """What psycopg is to connect with. Nothing is prepared: a pooler may change servers between transactions."""
    options: dict[str, Any] = dict(where.options)
    options.setdefault("application_name", "agentos-exporter")
    options.setdefault("connect_timeout", round(CONNECT_TIMEOUT))
    if any(port is not None for _, port in where.hosts):
        options["port"] = ",".join("" if port is None else str(port) for _, port in where.hosts)
    if where.user:
        options["user"] = where.user
    if password is not None:
        options["password"] = password
    hosts = ",".join(host for host, _ in where.hosts)
    return options | {"host": hosts, "dbname": where.database, "prepare_threshold": None}


class PostgresConnection(Connection):
    """PostgreSQL through psycopg. Settings apply to one short transaction each, so a pooler may be in between."""

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

        try:
            options = connect_options(self.location, password)
            made = await psycopg.AsyncConnection.connect(autocommit=True, **options)
        except psycopg.Error as error:
            raise self._refused(error) from error
        for kind in ("json", "jsonb"):  # msgspec reads numbers, of LLM spans alone
            made.adapters.register_loader(kind, TextLoader)
        self._connection = made

    def _refused(self, error: Exception) -> SourceError:
        """Why the connection failed; libpq tells this only in words."""
        text = " ".join(str(error).split())[:500]
        lowered = text.lower()
        if any(
            word in lowered
            for word in ("authentication", "no password supplied", "pg_hba.conf", "permission denied", "not permitted")
        ) or ('role "' in lowered and "does not exist" in lowered):
            return Unauthorized(f"{self.location}: {text}")
        if 'database "' in lowered and "does not exist" in lowered:
            return BadAnswer(f"{self.location}: {text}")
        if any(
            word in lowered for word in ("starting up", "shutting down", "too many", "recovery", "remaining connection")
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
        self.sql.denied = frozenset(denied)
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
        rows = await asyncio.to_thread(decoded, gathered)
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
            text += GRANTS
        elif state[:2] in {"53", "40", "55", "58", "XX"} or state in {"57P03", "25006"}:
            failure = ServerFailed
        elif not state or state[:2] in {"08", "57"}:
            failure = Unreachable
        return failure(text)


_PG_SETTINGS: Final = {"statement_timeout": round(STATEMENT_TIMEOUT * 1000), "enable_seqscan": "off", "jit": "off"}
_PG_BEGIN: Final = "BEGIN READ ONLY; SELECT " + ", ".join(
    f"set_config('{name}', '{value}', true)" for name, value in _PG_SETTINGS.items()
)
"""Without statistics (agno's tables may be minutes old) PostgreSQL must not plan a scan; JIT compilation takes longer
than any of these statements.
"""
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
