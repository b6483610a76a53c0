"""The waiting side of an AgentOS in tables: what `Tables` has, written into an SQLite file with agno's own schema.

The queue's table is that of PostgreSQL, since agno has none for SQLite. Its types do not matter to SQLite.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agno.db.postgres.schemas import JOBS_TABLE_SCHEMA
from agno.db.sqlite import SqliteDb

if TYPE_CHECKING:
    from tests.harness.surfaces import Tables

Row = Mapping[str, Any]
_INDEXED = ("status", "created_at")


def create(path: Path) -> None:
    """Make agno's tables."""
    db = SqliteDb(db_file=str(path))
    db._create_all_tables()
    db.close()
    with sqlite3.connect(path) as connection:
        columns = [name for name, said in JOBS_TABLE_SCHEMA.items() if isinstance(said, dict)]
        connection.execute(f"CREATE TABLE agno_jobs ({', '.join(columns)}, PRIMARY KEY (id))")
        for column in _INDEXED:
            connection.execute(f"CREATE INDEX jobs_{column} ON agno_jobs ({column})")
    connection.close()


def store(path: Path, tables: Tables) -> None:
    """Let the file hold what the tables have, and nothing else."""
    connection = sqlite3.connect(path)
    contents = [{"id": str(number), **row} for number, row in enumerate(tables.contents)]
    for name, rows in {
        "approvals": tables.approvals.values(),
        "schedules": tables.schedules.values(),
        "schedule_runs": tables.runs.values(),
        "jobs": tables.jobs.values(),
        "eval_runs": [_evaluation(row) for row in tables.evals.values()],
        "knowledge": contents,
        "memories": [{"memory_id": id_, "user_id": user} for id_, user in tables.memories.items()],
    }.items():
        connection.execute(f"DELETE FROM agno_{name}")
        for row in rows:
            _insert(connection, f"agno_{name}", row)
    connection.commit()
    connection.close()


def _evaluation(row: Row) -> Row:
    stored = {"run_id": row["id"], "created_at": datetime.fromisoformat(row["created_at"]).timestamp()}
    return {**row, **stored, "eval_data": json.dumps({**row["eval_data"], "results": ["CONTENT"]})}


def _insert(connection: sqlite3.Connection, table: str, row: Row) -> None:
    """Insert a row; what it does not say of columns that must not be null is content."""
    columns = connection.execute("SELECT name, [notnull] FROM pragma_table_info(?)", (table,)).fetchall()
    filled = {name: row.get(name, "CONTENT" if needed else None) for name, needed in columns}
    marks = ", ".join("?" * len(filled))
    connection.execute(
        f"INSERT INTO {table} ({', '.join(filled)}) VALUES ({marks})",
        tuple(filled.values()),
    )
