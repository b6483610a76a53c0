"""Upgrades of state files of earlier versions; nothing in them is lost."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

import sqlalchemy as sa

from exporter.ledger import statements, tables
from exporter.ledger.records import agentos_of, digest, read_series
from exporter.metrics.catalog import DAILY, METRICS, Life

if TYPE_CHECKING:
    from collections.abc import Container, Iterable

    from exporter.metrics.catalog import Metric


def upgrade(connection: sa.Connection, have: Container[str], version: int) -> None:
    """Bring the file of an earlier schema to the present one. Nothing in it is lost.

    Args:
        connection: An open transaction.
        have: Names of the tables of the file.
        version: Its schema version.

    """
    # Before schema 3, calls that wait were known by their span alone.
    by_span = version < 3 and tables.waiting.name in have  # noqa: PLR2004
    if by_span:
        for index in ("waiting_since", "waiting_trace"):
            connection.exec_driver_sql(f"DROP INDEX IF EXISTS {index}")
        connection.exec_driver_sql("ALTER TABLE waiting RENAME TO old")
    # Before schema 5, these had texts of any length for keys; before schema 6, a series did not name its AgentOS.
    anew = [table for table, since in ((tables.admissions, 5), (tables.series, 6)) if version < since]
    for table in anew:
        connection.exec_driver_sql(f"ALTER TABLE {table.name} RENAME TO old_{table.name}")
    tables.schema.create_all(connection)
    if by_span:
        columns = [column.name for column in tables.waiting.c]
        moved = sa.select(sa.table("old", *map(sa.column, columns)))
        connection.execute(sa.insert(tables.waiting).from_select(columns, moved))
        connection.exec_driver_sql("DROP TABLE old")
    _write_anew(connection, anew)
    if version < 4:  # noqa: PLR2004
        _name_fields(connection)
    if version < 8:  # noqa: PLR2004
        _date_runs(connection)
        statements.write_meta(connection, [(tables.DAILY_SINCE, "")])


def _write_anew(connection: sa.Connection, anew: Iterable[sa.Table]) -> None:
    """Write the rows of tables that had other columns."""
    for table in anew:
        if table is tables.series:
            rows = connection.exec_driver_sql("SELECT metric, labels, value, shown FROM old_series").all()
            statements.write_series(connection, [_series_row(*row) for row in rows])
        else:
            rows = connection.exec_driver_sql("SELECT label, value FROM old_admissions").all()
            statements.write_admissions(connection, [(label, digest(value), value) for label, value in rows])
        connection.exec_driver_sql(f"DROP TABLE old_{table.name}")


def _series_row(metric: str, labels: str, value: str, shown: bool) -> tuple[Any, ...]:  # noqa: FBT001 - of a row
    """See `records.series_row`; a row that fits no catalog is dropped later on."""
    named = tuple(json.loads(labels))
    fits = metric in METRICS and len(named) == len(METRICS[metric].labels)
    return (metric, digest(labels), agentos_of(metric, named) if fits else "", labels, value, shown)


_RUN_FIELDS_3: Final = ("root_kind", "root", "llm_calls", "priced", "cost", "waiting", "settled")
_CALL_FIELDS_3: Final = (
    *("span", "trace", "db", "run_id", "session_id", "outer_run_id", "root", "session", "user_id", "root_name"),
    *("agent_name", "provider", "model", "model_class", "prompt", "completion", "start", "end", "since", "first"),
)


def _name_fields(connection: sa.Connection) -> None:
    """Name the fields of runs and of calls that wait; before schema 4 they were lists of values, in this order."""
    keys = (tables.traces.c.agentos, tables.traces.c.id, tables.traces.c.db)
    for *key, runs in connection.execute(
        sa.select(*keys, tables.traces.c.runs).where(tables.traces.c.runs != "[]")
    ).all():
        named = {span: dict(zip(_RUN_FIELDS_3, values, strict=True)) for span, *values in json.loads(runs)}
        _set(connection, tables.traces.c.runs, zip(keys, key, strict=True), json.dumps(named))
    _set(connection, tables.traces.c.runs, [(tables.traces.c.runs, "[]")], "{}")
    keys = (tables.waiting.c.agentos, tables.waiting.c.trace, tables.waiting.c.span)
    for *key, data in connection.execute(sa.select(*keys, tables.waiting.c.data)).all():
        named = dict(zip(_CALL_FIELDS_3, json.loads(data), strict=True))
        _set(connection, tables.waiting.c.data, zip(keys, key, strict=True), json.dumps(named))


def _date_runs(connection: sa.Connection) -> None:
    """Date the runs that are not settled by the end of their trace: before schema 8 nothing says when they began."""
    traces = tables.traces.c
    keys = (traces.agentos, traces.id, traces.db)
    rows = connection.execute(sa.select(*keys, traces.end, traces.runs).where(traces.runs != "{}")).all()
    for *key, end, runs in rows:
        dated = {span: run | {"start": end} for span, run in json.loads(runs).items()}
        _set(connection, traces.runs, zip(keys, key, strict=True), json.dumps(dated))


def _set(
    connection: sa.Connection, column: sa.Column[Any], where: Iterable[tuple[sa.Column[Any], Any]], value: str
) -> None:
    """Set a column in the rows that have these values in other columns."""
    rows = sa.and_(*(other == wanted for other, wanted in where))
    connection.execute(sa.update(column.table).where(rows).values({column: value}))


def take_up_layouts(connection: sa.Connection) -> list[str]:
    """Drop series whose metric has other labels, buckets or another unit in the catalog; return those metrics."""
    before = {row.metric: json.loads(row.layout) for row in connection.execute(sa.select(tables.layouts))}
    now = _layouts()
    changed = sorted(
        name
        for name, layout in now.items()
        if (before[name] != layout if name in before else not _are_readable(connection, name))
    )
    for name in changed:
        connection.execute(sa.delete(tables.series).where(tables.series.c.metric == name))
        if name in DAILY:
            connection.execute(sa.delete(tables.daily).where(tables.daily.c.metric == name))
            statements.write_meta(connection, [(tables.DAILY_SINCE, "")])
    new = [(name, json.dumps(layout)) for name, layout in now.items() if before.get(name) != layout]
    statements.write_layouts(connection, new)
    return changed


def _are_readable(connection: sa.Connection, metric: str) -> bool:
    """Whether the series of a metric fit the catalog; before schema 4 no layout says so."""
    try:
        for row in connection.execute(sa.select(tables.series).where(tables.series.c.metric == metric)):
            read_series(row)
    except (ValueError, TypeError):
        return False
    return True


def layouts_text() -> str:
    """All that the series of this version mean, as a text that is another one for another version."""
    return json.dumps(_layouts(), sort_keys=True)


def _layouts() -> dict[str, dict[str, Any]]:
    return {name: _layout(metric) for name, metric in METRICS.items() if metric.life is Life.DURABLE}


def _layout(metric: Metric) -> dict[str, Any]:
    return {"labels": [*metric.labels], "buckets": [*metric.buckets], "unit": metric.unit}
