"""The SQL that reads agno's tables, for each engine, and the columns that the tables must have.

Every statement finds its rows by an index that agno creates: `created_at`, `trace_id` or a primary key. No statement
counts a table, and each has a limit of rows.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from exporter.sources.database.location import Engine, Location
from exporter.sources.database.rows import ATTRIBUTES, NUMBERS
from exporter.sources.guardrails import FAILED, LONGEST_CONTENT

if TYPE_CHECKING:
    from collections.abc import Sequence

SPAN_COLUMNS: Final = (
    *("trace_id", "span_id", "parent_span_id", "name", "status_code", "status_message"),
    *("start_time", "end_time", "created_at", "attributes"),
)
"""Columns without which spans cannot be read; agno has had them all since it writes traces (2.3.5)."""
TRACE_COLUMNS: Final = ("session_id", "created_at")
SESSION_COLUMNS: Final = ("created_at",)
RUN_COLUMNS: Final = ("run_id", "run_data")
COMPONENT_COLUMNS: Final = ("component_id", "component_type", "name", "deleted_at")
MESSAGE: Final = 200
"""Characters of an error text that leave the database: enough for the longest class name that becomes a label"""
VALUE: Final = 1024
"""Characters of a value in a column of JSON: as many as any name may have"""
COMPONENTS: Final = 1_000


@dataclass(frozen=True, slots=True)
class Column:
    """A column, and the name of an index that begins with it, '' if there is none."""

    type: str
    index: str = ""


Layout = dict[str, dict[str, Column]]
"""table → column → its type and index; a missing table is left out"""


@dataclass(slots=True)
class Sql:
    """The statements for one database with known columns."""

    location: Location
    layout: Layout = field(default_factory=dict)
    careful: bool = False
    """whether attributes may be no JSON object, which costs a second look at each (PostgreSQL)"""
    denied: frozenset[str] = frozenset()
    """existing tables that may not be read, as far as the database tells (PostgreSQL)"""

    @property
    def mark(self) -> str:
        """How the driver spells a parameter."""
        return "?" if self.location.engine is Engine.SQLITE else "%s"

    def table(self, name: str, index: str = "") -> str:
        """The table, quoted, in its schema; MySQL is told which index to use, since it may prefer to scan."""
        quote = "`" if self.location.engine is Engine.MYSQL else '"'
        full = f"{quote}{name}{quote}"
        if self.location.schema:
            full = f"{quote}{self.location.schema}{quote}.{full}"
        if index and self.location.engine is Engine.MYSQL:
            column = self.layout.get(name, {}).get(index)
            if column is not None and column.index:
                full += f" FORCE INDEX (`{column.index}`)"
        return full

    def inserted(self, *, after: bool) -> str:
        """Spans in the order in which they were written: (created_at, span_id, trace_id).

        Parameters: since, most; or, `after` a row: its created_at twice, its span_id, most.
        """
        table = self.table(self.location.tables.spans_table, "created_at")
        mark = self.mark
        further = ""
        if after and self.location.engine is Engine.MYSQL:  # it compares rows without its indexes
            further = f" AND (created_at > {mark} OR span_id > {mark})"
        elif after:
            further = f" AND (created_at, span_id) > ({mark}, {mark})"
        return (
            f"SELECT created_at, span_id, trace_id FROM {table} WHERE created_at >= {mark}{further} "
            f"ORDER BY created_at, span_id LIMIT {mark}"
        )

    def spans(self, traces: int, *, gathered: bool = True) -> str:
        """All spans of so many traces: the columns of `Row`, then whole attributes or those of `ATTRIBUTES`.

        With `gathered`, PostgreSQL and SQLite return them as one JSON array of `Row`.
        """
        table = self.table(self.location.tables.spans_table, "trace_id")
        engine = self.location.engine
        head = (
            "s.trace_id, s.span_id, s.parent_span_id, s.name, s.status_code, "
            f"substr(s.status_message, 1, {MESSAGE}), s.start_time, s.end_time, s.created_at"
        )
        if engine is Engine.POSTGRESQL:
            columns = f"{head}, {_names('a')}"
            if gathered:
                columns = f"json_agg(json_build_array({head}, json_build_array({_names('a')})))::text"
            return (
                f"SELECT {columns} FROM {table} s LEFT JOIN LATERAL {self._record()} ON true "
                f"WHERE s.trace_id = ANY({self.mark})"
            )
        if engine is Engine.MYSQL:
            table, _, index = table.partition(" ")
            whole = "CAST(s.attributes AS BINARY)"
            return f"SELECT {head}, {whole} FROM {table} s {index} WHERE s.trace_id IN ({self.marks(traces)})"
        some = f"FROM {table} s WHERE s.trace_id IN ({self.marks(traces)})"
        if gathered:
            # All rows as one: SQLite's driver takes the interpreter's lock anew for each row that it hands over.
            return f"SELECT CAST(json_group_array(json_array({head}, {_EXTRACT})) AS BLOB) {some}"
        return f"SELECT {head}, CAST(s.attributes AS BLOB) {some}"

    def marks(self, count: int) -> str:
        """A list of parameter marks."""
        return ", ".join([self.mark] * count)

    def json_text(self, column: str, key: str) -> str:
        """The text under a key of a JSON column, cut short; NULL if there is none."""
        engine = self.location.engine
        if engine is Engine.POSTGRESQL:
            value = f"{column}->>'{key}'"
        elif engine is Engine.MYSQL:
            value = f"JSON_VALUE({column}, '$.{key}')"
        else:
            value = f"CASE WHEN json_valid({column}) THEN json_extract({column}, '$.{key}') END"
        return f"substr({value}, 1, {VALUE})"

    def json_values(self, column: str, keys: Sequence[str]) -> str:
        """The values under keys of a column of JSON, as an array in JSON; cut short, and so no JSON, if it is long."""
        engine = self.location.engine
        if engine is Engine.POSTGRESQL:
            values = ", ".join(f"{column}->'{key}'" for key in keys)
            value = f"json_build_array({values})::text"
        elif engine is Engine.MYSQL:
            values = ", ".join(f"JSON_EXTRACT({column}, '$.{key}')" for key in keys)
            value = f"CAST(JSON_ARRAY({values}) AS CHAR)"
        else:
            paths = ", ".join(f"'$.{key}'" for key in keys)
            value = f"CASE WHEN json_valid({column}) THEN json_extract({column}, {paths}) END"
        return f"substr({value}, 1, {VALUE})"

    def _record(self) -> str:
        """What PostgreSQL makes of the attributes, in one pass over each."""
        column = self.layout.get(self.location.tables.spans_table, {}).get("attributes")
        prefix = "json" if column is not None and column.type == "json" else "jsonb"
        whole = "s.attributes"
        if self.careful:
            whole = f"CASE WHEN {prefix}_typeof(s.attributes) = 'object' THEN s.attributes ELSE '{{}}'::{prefix} END"
        columns = ", ".join(f'"{name}" {prefix if name in NUMBERS else "text"}' for name in ATTRIBUTES)
        return f"{prefix}_to_record({whole}) AS a({columns})"

    def run_parts(self, runs: int) -> str:
        """Parts of so many runs, as JSON, by run id; NULL if a run has none. Nothing else of a run is read.

        The parts are metrics, metadata, and for a failed run its events and its content if that is short.
        """
        table = self.table(self.location.tables.runs_table)
        valid, part, status = {
            Engine.SQLITE: (
                "json_valid(run_data)",
                "json_quote(json_extract(run_data, '$.{0}'))",
                "json_extract(run_data, '$.status')",
            ),
            Engine.POSTGRESQL: ("TRUE", "(run_data -> '{0}')::text", "run_data ->> 'status'"),
            Engine.MYSQL: (
                "JSON_VALID(run_data)",
                "JSON_EXTRACT(run_data, '$.{0}')",
                "JSON_UNQUOTE(JSON_EXTRACT(run_data, '$.status'))",
            ),
        }[self.location.engine]
        metrics, metadata, events, content = (
            part.format(name) for name in ("metrics", "metadata", "events", "content")
        )
        # The parts of a CASE are looked at in turn: what is no JSON is never read as such.
        failed_only = f"CASE WHEN {valid} THEN CASE WHEN {status} = '{FAILED}' THEN {{0}} END END"
        short = f"CASE WHEN length({content}) <= {LONGEST_CONTENT} THEN {content} END"
        parts = [f"CASE WHEN {valid} THEN {column} END" for column in (metrics, metadata)]
        parts += [failed_only.format(events), failed_only.format(short)]
        return f"SELECT run_id, {', '.join(parts)} FROM {table} WHERE run_id IN ({self.marks(runs)})"

    def tags(self, traces: int) -> str:
        """Tags of the spans of so many traces: (trace_id, JSON)."""
        table = self.table(self.location.tables.spans_table, "trace_id")
        tags = {
            Engine.SQLITE: "CASE WHEN json_valid(attributes) THEN json_extract(attributes, '$.\"tag.tags\"') END",
            Engine.POSTGRESQL: "(attributes -> 'tag.tags')::text",
            Engine.MYSQL: "CASE WHEN JSON_VALID(attributes) THEN JSON_EXTRACT(attributes, '$.\"tag.tags\"') END",
        }[self.location.engine]
        return (
            f"SELECT DISTINCT trace_id, {tags} FROM {table} WHERE trace_id IN ({self.marks(traces)}) "
            f"AND {tags} IS NOT NULL"
        )

    def alive(self, traces: int) -> str:
        """One of so many traces that are known to exist."""
        table = self.table(self.location.tables.spans_table, "trace_id")
        return f"SELECT trace_id FROM {table} WHERE trace_id IN ({self.marks(traces)}) LIMIT 1"

    def session_count(self) -> str:
        """All sessions, by an index on when they were created."""
        table = self.table(self.location.tables.session_table, "created_at")
        return f"SELECT count(*) FROM {table} WHERE created_at >= 0"

    def session_window(self) -> str:
        """(sessions, traces of sessions, traces) created since a moment."""
        table = self.table(self.location.tables.traces_table, "created_at")
        return (
            f"SELECT count(DISTINCT session_id), count(session_id), count(*) FROM {table} "
            f"WHERE created_at >= {self.mark}"
        )

    def components(self) -> str:
        """Agents, teams and workflows that are stored."""
        table = self.table(self.location.tables.components_table)
        return (
            f"SELECT component_type, component_id, name FROM {table} WHERE component_id > '' AND deleted_at IS NULL "
            f"ORDER BY component_id LIMIT {COMPONENTS}"
        )


_PATHS: Final = ", ".join(f"'$.\"{name}\"'" for name in ATTRIBUTES)
_EXTRACT: Final = (
    "CASE WHEN s.attributes IS NULL OR (s.attributes >= '{' AND s.attributes < '|') "
    f"THEN json_extract(s.attributes, {_PATHS}) ELSE json_extract('no object', '$') END"
)
"""One pass over the attributes in SQLite; the statement fails if they are no JSON object."""


def _names(alias: str) -> str:
    return ", ".join(f'{alias}."{name}"' for name in ATTRIBUTES)


def missing(layout: Layout, table: str, columns: Sequence[str]) -> list[str]:
    """The columns that a table lacks.

    Args:
        layout: The columns of each table.
        table: Name of the table.
        columns: The columns that it should have.

    Returns:
        All of `columns` if there is no such table.

    """
    present = layout.get(table, {})
    return [name for name in columns if name not in present]
