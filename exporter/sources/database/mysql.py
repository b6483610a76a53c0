"""MySQL and MariaDB, through PyMySQL."""

from __future__ import annotations

import contextlib
import socket
from typing import TYPE_CHECKING, Any, Final

from exporter.core.errors import BadAnswer, ServerFailed, SourceError, SourceTimeout, Unauthorized, Unreachable
from exporter.sources.database.connection import CONNECT_TIMEOUT, GRANTS, STATEMENT_TIMEOUT, Rows, Threaded, compact
from exporter.sources.database.sql import Column, Layout

if TYPE_CHECKING:
    from collections.abc import Sequence

    from exporter.sources.database.rows import Row


class MysqlConnection(Threaded):
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
        """A user without any grant on a schema sees none of its tables. Raises SourceError unless none is there yet."""
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
            return compact(cursor.fetchall_unbuffered())

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
        text = f"{self.location}: {' '.join(str(argument) for argument in error.args)[:500]}"
        failure: type[SourceError] = BadAnswer
        if code in {1044, 1045, 1142, 1143, 1227, 1698}:
            failure = Unauthorized
            text += GRANTS
        elif code in {1969, 3024}:
            failure = SourceTimeout
        elif code in {1040, 1203, 1205, 1213, 1226, 1053, 1105}:
            failure = ServerFailed
        elif isinstance(error, (pymysql.err.OperationalError, pymysql.err.InterfaceError)) and (
            not code or code in {1077, 1079, 1080} or code >= _MYSQL_CLIENT
        ):
            failure = Unreachable
        return failure(text)


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
