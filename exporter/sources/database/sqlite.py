"""SQLite files, through Python's own driver."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

from exporter.core.errors import BadAnswer, ServerFailed, SourceError, SourceTimeout, Unreachable
from exporter.sources.database.connection import Rows, Threaded, compact, decoded
from exporter.sources.database.sql import Column, Layout

if TYPE_CHECKING:
    from collections.abc import Sequence

    from exporter.sources.database.rows import Row

_BUSY: Final = 2.0
"""Seconds that SQLite waits for a writer that keeps readers out (only without WAL)"""


def _text(raw: bytes) -> str | bytes:
    """Text of a column. Bytes that are not UTF-8 stay bytes: their trace is malformed, and the poll goes on."""
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return raw


class SqliteConnection(Threaded):
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
            status = Path(self.location.database).stat()
        except OSError:
            return None
        return status.st_dev, status.st_ino

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
        rows = None if gathered is None else decoded(gathered)
        if rows is None:
            whole = self._connection.execute(self.sql.spans(len(traces), gathered=False), tuple(traces))
            rows = compact(whole)
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
        lowered = text.lower()
        if "unable to open" in lowered or "readonly" in lowered:
            return Unreachable(
                f"{where}: {text}; this user needs to read the file and those beside it that end in -wal and -shm"
            )
        if "locked" in lowered or "busy" in lowered or "i/o error" in lowered:
            return ServerFailed(f"{where}: {text}")
        if "interrupted" in lowered:
            return SourceTimeout(f"{where}: {text}")
        return BadAnswer(f"{where}: {text}")
