"""agno's tables beside traces, over all databases of one AgentOS.

A table is read from the position on, the oldest row first, by an index of agno on the time at which rows were written.
A turn reads a limited number of rows, and the next turn continues.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from exporter.core.model import MICROSECONDS
from exporter.sources.database.connection import STATEMENT_TIMEOUT, Connection, Rows
from exporter.sources.database.sql import missing
from exporter.sources.facts import moment
from exporter.sources.operations import NoSurface, Refused
from exporter.sources.surfaces.position import MARGIN, SKEW, Position

if TYPE_CHECKING:
    from exporter.core.model import Clock
    from exporter.sources.database.sql import Sql

WAIT: Final = 2 * STATEMENT_TIMEOUT
"""Seconds for a connection and a statement."""
SIZE: Final = 1000
"""Rows of one statement."""
TURN: Final = 10
"""Statements that go through one table in a turn."""
MOST: Final = 500
"""Rows that are asked for by their ids in one turn."""
_LEARN_AFTER: Final = 600.0
"""Seconds after which a table that was not there is looked for again: agno makes some when they are first needed."""

Statement = Callable[["Sql", str], str]
"""The SQL for one database, of its dialect and its name of the table."""


@dataclass(frozen=True, slots=True)
class Table:
    """A table, and the columns and rows that are read of it.

    Attributes:
        name: What its name is called in the configuration.
        key: The column with the id of a row.
        at: The column by which rows are ordered, in seconds since the epoch.
        columns: Further columns.
        json: A column of JSON and the keys of it whose values are read; they come last, as one JSON array.
        only: A condition on its rows, as SQL.
        index: The column whose index finds them, if it is not that of `at`.

    """

    name: str
    key: str
    at: str
    columns: tuple[str, ...]
    json: tuple[str, tuple[str, ...]] | None = None
    only: str = ""
    index: str = ""

    @property
    def names(self) -> tuple[str, ...]:
        """The columns that are read as they are: the id, the time, and the further ones."""
        return (self.key, self.at, *self.columns)

    @property
    def needed(self) -> tuple[str, ...]:
        """The columns without which it cannot be read."""
        return self.names if self.json is None else (*self.names, self.json[0])

    def select(self, sql: Sql) -> str:
        """The columns of a statement."""
        return ", ".join(self.names if self.json is None else (*self.names, sql.json_values(*self.json)))


class Databases:
    """The databases of one AgentOS, over connections of their own: traces never wait for these statements.

    All methods raise SourceError: NoSurface where no database has the table, Refused where one may not be read.
    """

    def __init__(self, connections: Sequence[Connection], clock: Clock) -> None:
        self.connections = connections
        self._clock = clock
        self._learned: dict[Connection, float] = {}

    async def aclose(self) -> None:
        """Close all connections for good."""
        for connection in self.connections:
            await connection.aclose()

    async def now(self) -> int:
        """The clock of the first database, in microseconds; ours if it has none."""
        await self.connections[0].open(WAIT)
        return await self._now(self.connections[0])

    async def since(self, table: Table, position: Position) -> tuple[Rows, Position]:
        """Rows that may be new, with the columns of the table, and how far it is read then."""
        rows: Rows = []
        reached: list[int] = []
        some = False
        for connection in await self._having(table.name, table.needed):
            new_rows, at = await self._since(connection, table, position.floor)
            some = some or bool(new_rows) or bool(await connection.rows(_any(connection, table), wait=WAIT))
            rows += new_rows
            reached.append(at)
        return rows, Position(max(position.read_to, min(reached)) if some else position.read_to, some=some)

    async def by_id(self, table: Table, ids: Collection[str]) -> Rows:
        """Rows with these ids, with the columns of the table."""

        def statement(sql: Sql, name: str) -> str:
            return f"SELECT {table.select(sql)} FROM {name} WHERE {table.key} IN ({sql.marks(len(ids))})"

        return await self.every(table.name, table.needed, statement, tuple(ids))

    async def every(
        self, table: str, columns: Sequence[str], statement: Statement, params: Sequence[Any] = (), *, index: str = ""
    ) -> Rows:
        """The rows of a statement, on each database that has the table, one database after the other.

        Args:
            table: Name of the table.
            columns: The columns that it must have.
            statement: Makes the statement for a database.
            params: Its parameters.
            index: MySQL, which may prefer to scan, is told to use the index on this column.

        """
        rows: Rows = []
        for connection in await self._having(table, columns):
            rows += await connection.rows(statement(connection.sql, _name(connection, table, index)), params, wait=WAIT)
        return rows

    async def _having(self, table: str, columns: Sequence[str]) -> list[Connection]:
        connections: list[Connection] = []
        for connection in self.connections:
            await connection.open(WAIT)
            name = getattr(connection.location.tables, table)
            if missing(connection.sql.layout, name, columns) and self._may_learn(connection):
                await connection.learn(WAIT)
            if name in connection.sql.denied:
                user = connection.location.user or "the user"
                whole = f"{connection.location.schema}.{name}"
                raise Refused(f"{connection.location}: {user} may not read {whole}; GRANT SELECT ON {whole} TO {user};")
            if not missing(connection.sql.layout, name, columns):
                connections.append(connection)
        if not connections:
            name = getattr(self.connections[0].location.tables, table)
            raise NoSurface(f"no database has a table {name} ({table}) with all columns that are read")
        return connections

    def _may_learn(self, connection: Connection) -> bool:
        now = self._clock.monotonic()
        due = now - self._learned.get(connection, float("-inf")) >= _LEARN_AFTER
        if due:
            self._learned[connection] = now
        return due

    async def _now(self, connection: Connection) -> int:
        database_now = await connection.now(wait=WAIT)
        return self._clock.now_us() if database_now is None else database_now

    async def _since(self, connection: Connection, table: Table, floor: int) -> tuple[Rows, int]:
        """The rows of one database from a moment on, and how far it is read then."""
        now = await self._now(connection)
        statement = _since(connection, table)
        rows: Rows = []
        at, key = floor // MICROSECONDS, ""
        for _ in range(TURN):
            page = await connection.rows(statement, (at, at, key, SIZE), wait=WAIT)
            rows += page
            if len(page) < SIZE:
                # Do not move to the database's own clock: another clock may date rows.
                return rows, max(now - SKEW, _newest(rows, now))
            key, at = page[-1][:2]
        # The next turn begins with the last row of this one.
        return rows, min((moment(at) or 0) + MARGIN, now)


def _newest(rows: Rows, now: int) -> int:
    """The date of the newest row that is not in the future; 0 if there is none."""
    return max((at for row in rows if (at := moment(row[1])) is not None and at <= now), default=0)


def _name(connection: Connection, table: str, index: str = "") -> str:
    return connection.sql.table(getattr(connection.location.tables, table), index)


def _since(connection: Connection, table: Table) -> str:
    """Rows in the order in which they were written. Parameters: the time of a row twice, its id, most."""
    mark, at, key = connection.sql.mark, table.at, table.key
    only = f"{table.only} AND " if table.only else ""
    return (
        f"SELECT {table.select(connection.sql)} FROM {_name(connection, table.name, table.index or at)} "
        f"WHERE {only}{at} >= {mark} AND ({at} > {mark} OR {key} > {mark}) ORDER BY {at}, {key} LIMIT {mark}"
    )


def _any(connection: Connection, table: Table) -> str:
    where = f" WHERE {table.only}" if table.only else ""
    return f"SELECT 1 FROM {_name(connection, table.name)}{where} LIMIT 1"
