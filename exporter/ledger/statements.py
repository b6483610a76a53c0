"""The statements of the ledger. Each is made once: SQLAlchemy needs longer to compile one than SQLite to run it.

They are written once for all engines; what an upsert is called differs.
"""

from __future__ import annotations

from itertools import chain
from os.path import commonprefix
from typing import TYPE_CHECKING, Any, Final

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from exporter.core.model import KnownTrace, TraceState
from exporter.ledger import tables

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

CHUNK: Final = 500
"""ids in one IN clause: well below SQLite's limit of variables"""
_VALUES: Final = 900
"""values in one INSERT: the same limit"""

AGENTOS: Final[sa.BindParameter[str]] = sa.bindparam("agentos")
MOST: Final = sa.bindparam("most", type_=sa.Integer)
KNOWN: Final = sa.select(*(tables.traces.c[name] for name in KnownTrace.__match_args__)).where(
    tables.traces.c.agentos == AGENTOS, tables.traces.c.db == sa.bindparam("db")
)
"""The columns of `KnownTrace`, in its order."""
NAMED: Final = KNOWN.where(tables.traces.c.id.in_(sa.bindparam("ids", expanding=True)))
OPEN_DUE: Final = (
    KNOWN.where(tables.traces.c.state == TraceState.OPEN, tables.traces.c.next_ask <= sa.bindparam("now"))
    .order_by(tables.traces.c.next_ask)
    .limit(MOST)
)
UNSETTLED: Final = (
    KNOWN.where(
        tables.traces.c.state == TraceState.COMPLETE,
        tables.traces.c.end < sa.bindparam("before"),
        tables.traces.c.next_ask <= sa.bindparam("due"),
    )
    .order_by(tables.traces.c.next_ask)
    .limit(MOST)
)


def _newest() -> sa.Select[Any]:
    """The newest trace, not ignored, that ended before `age`: of each state, as the index has them by their end."""
    ended = sa.select(tables.traces.c.id, tables.traces.c.end).where(
        tables.traces.c.agentos == AGENTOS,
        tables.traces.c.db == sa.bindparam("db"),
        tables.traces.c.misses == 0,
        tables.traces.c.end <= sa.bindparam("age"),
        tables.traces.c.id.not_in(sa.bindparam("chosen", expanding=True)),
    )
    by_state = (
        ended.where(tables.traces.c.state == state).order_by(tables.traces.c.end.desc()).limit(1).subquery()
        for state in TraceState
        if state is not TraceState.IGNORED
    )
    newest = sa.union_all(*(sa.select(query) for query in by_state)).subquery()
    return sa.select(newest.c.id).order_by(newest.c.end.desc()).limit(1)


NEWEST: Final = _newest()
PARTS: Final = sa.select(
    tables.sessions.c.digest,
    tables.sessions.c.first,
    tables.sessions.c.last,
    tables.sessions.c.runs,
    tables.sessions.c.cost,
).where(tables.sessions.c.agentos == AGENTOS)
"""The columns of `records.parts_of`, in its order."""
RESOLVED: Final = sa.delete(tables.waiting).where(
    tables.waiting.c.agentos == AGENTOS,
    tables.waiting.c.trace == sa.bindparam("id"),
    tables.waiting.c.span == sa.bindparam("span"),
)


def _upsert(
    engine: str,
    table: sa.Table,
    rows: sa.Select[Any] | None = None,
    *,
    keep: tuple[str, ...] = (),
    newest: tuple[str, ...] = (),
) -> sa.Insert:
    """Insert rows, or the rows of a query.

    On conflict: leave the columns `keep`, take the maximum of `newest`, and overwrite the others.
    """
    insert, greatest = (postgresql.insert, sa.func.greatest) if engine == "postgresql" else (sqlite.insert, sa.func.max)
    statement = insert(table) if rows is None else insert(table).from_select([*table.c.keys()], rows)
    keys = [column.name for column in table.primary_key]
    change = {
        name: greatest(column, statement.excluded[name]) if name in newest else statement.excluded[name]
        for name, column in table.c.items()
        if name not in {*keys, *keep}
    }
    if not change:
        return statement.on_conflict_do_nothing(index_elements=keys)
    return statement.on_conflict_do_update(index_elements=keys, set_=change)


class _Find:
    """Finds the rows of one AgentOS that have one of many values in a column; as the driver returns them.

    Core would write a new statement for each number of values, and look at each value of each row. Numbers are few
    here, the last value standing in for those that lack, so that a connection has the statements ready.
    """

    def __init__(self, query: sa.Select[Any], column: sa.Column[Any]) -> None:
        """`query` chooses columns of the rows of `AGENTOS`."""
        self._statement = query.where(column.in_(sa.bindparam("values", expanding=True)))
        self._texts: dict[tuple[str, int], str] = {}

    def __call__(self, connection: sa.Connection, agentos: str, values: Sequence[Any]) -> Iterator[Sequence[Any]]:
        for start in range(0, len(values), CHUNK):
            some = list(values[start : start + CHUNK])
            size = 1 << (len(some) - 1).bit_length()
            text = self._text(connection.dialect, size)
            params = (agentos, *some, *some[-1:] * (size - len(some)))
            yield from connection.exec_driver_sql(text, params).all()

    def _text(self, dialect: sa.Dialect, size: int) -> str:
        key = dialect.name, size
        if key not in self._texts:
            statement = self._statement.params(agentos="", values=[None] * size)
            compiled = statement.compile(dialect=dialect, compile_kwargs={"render_postcompile": True})
            self._texts[key] = str(compiled)
        return self._texts[key]


class _Write:
    """Writes whole rows of a table: tuples in the order of its columns, with values in the form of the drivers.

    SQLAlchemy Core would inspect each value of each row, which takes longer than writing it; so Core only compiles the
    statements. Each statement takes many rows: a driver releases the interpreter's lock at each call of the database,
    and may wait 5 ms to get it back. There are few sizes of statements, so that a connection has them all prepared.
    """

    def __init__(self, table: sa.Table, *, keep: tuple[str, ...] = (), newest: tuple[str, ...] = ()) -> None:
        """See `_upsert` for what happens to rows that are there."""
        self._table = table
        self._keep, self._newest = keep, newest
        self._columns = [column.name for column in table.c]
        self._most = _VALUES // len(self._columns)
        self._texts: dict[str, tuple[str, str, str]] = {}
        self._columns_text = ""

    def __call__(self, connection: sa.Connection, rows: Sequence[tuple[Any, ...]]) -> None:
        if not rows:
            return
        if connection.dialect.name == "postgresql":
            # Its driver parses a statement with many values again; here each value is a whole column.
            connection.exec_driver_sql(self._of_columns(connection.dialect), tuple(map(list, zip(*rows, strict=True))))
            return
        head, further, tail = self._text(connection.dialect)
        start = 0
        while remaining := len(rows) - start:
            size = min(self._most, 1 << remaining.bit_length() - 1)
            values = tuple(chain.from_iterable(rows[start : start + size]))
            connection.exec_driver_sql(f"{head}{further * (size - 1)}{tail}", values)
            start += size

    def _of_columns(self, dialect: sa.Dialect) -> str:
        """The statement for PostgreSQL, with one list of values for each column."""
        if not self._columns_text:
            columns = self._table.c
            lists = (sa.cast(sa.bindparam(column.name), postgresql.ARRAY(column.type)) for column in columns)
            rows = sa.func.unnest(*lists).table_valued(*(column.name for column in columns)).render_derived()
            query = sa.select(rows)
            statement = _upsert(dialect.name, self._table, query, keep=self._keep, newest=self._newest)
            self._columns_text = str(statement.compile(dialect=dialect))
        return self._columns_text

    def _text(self, dialect: sa.Dialect) -> tuple[str, str, str]:
        """The statement up to its first row, what each further row adds (placeholders are all alike), and the rest."""
        if dialect.name not in self._texts:
            row = dict.fromkeys(self._columns)
            statement = _upsert(dialect.name, self._table, keep=self._keep, newest=self._newest)
            one, two = (str(statement.values([row] * count).compile(dialect=dialect)) for count in (1, 2))
            head = commonprefix([one, two])  # noqa: RUF071 - of any texts, not of paths
            tail = one.removeprefix(head)
            self._texts[dialect.name] = head, two.removeprefix(head).removesuffix(tail), tail
        return self._texts[dialect.name]


find_records: Final = _Find(sa.select(tables.traces).where(tables.traces.c.agentos == AGENTOS), tables.traces.c.id)
find_parts: Final = _Find(PARTS, tables.sessions.c.digest)
find_ended: Final = _Find(
    sa.select(tables.ended.c.surface, tables.ended.c.id).where(tables.ended.c.agentos == AGENTOS), tables.ended.c.id
)
find_days: Final = _Find(
    sa.select(tables.daily.c.digest, tables.daily.c.value).where(tables.daily.c.agentos == AGENTOS),
    tables.daily.c.digest,
)

add_meta: Final = _Write(tables.meta, keep=("value",))
write_meta: Final = _Write(tables.meta)
write_traces: Final = _Write(tables.traces)
# `shown` is set at birth and raised by `expose` alone: a total that was exposed never becomes hidden again.
write_series: Final = _Write(tables.series, keep=("shown",))
write_layouts: Final = _Write(tables.layouts)
write_admissions: Final = _Write(tables.admissions)
write_activity: Final = _Write(tables.activity, newest=("seen",))
write_sessions: Final = _Write(tables.sessions)
write_spending: Final = _Write(tables.spending)
write_days: Final = _Write(tables.daily)
write_allowances: Final = _Write(tables.allowances)
write_budgets: Final = _Write(tables.budgets)
write_cursors: Final = _Write(tables.cursors)
write_waiting: Final = _Write(tables.waiting)
write_surfaces: Final = _Write(tables.surfaces)
write_ended: Final = _Write(tables.ended)
