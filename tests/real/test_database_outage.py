"""The database that is read fails in each way it can: it is named, the database does not feel us, nothing is lost."""

import asyncio
import sqlite3
import time
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest

from exporter.core.errors import SourceError
from exporter.sources.database import engines
from exporter.sources.database.location import parse
from tests.harness import damage, seed, sqltruth, truth
from tests.harness.exporter import RunningExporter, reads
from tests.harness.mariadb import MariaDB
from tests.harness.outages import FAST, NAME, fails, healthy, write
from tests.harness.postgres import Postgres
from tests.harness.repeating import Repeating

# Tables


@pytest.mark.slow
def test_rows_that_are_deleted_stay_counted(tmp_path: Path) -> None:
    database, kept = f"sqlite:{tmp_path / 'agno.db'}", tmp_path / "kept.db"
    write(database, 1)
    with RunningExporter(tmp_path, {NAME: reads(database)}, **FAST) as exporter:
        expected = sqltruth.count(database, NAME)
        exporter.agree(expected, settle=1)
        with closing(sqlite3.connect(tmp_path / "agno.db")) as connection, closing(sqlite3.connect(kept)) as copy:
            connection.backup(copy)
        damage.change(database, "DELETE FROM agno_spans", "DELETE FROM agno_traces")
        exporter.wait_until_polled(3)
        assert truth.difference(expected.totals, exporter.samples()) == []
        write(database, 2)
        exporter.agree(sqltruth.count([database, f"sqlite:{kept}"], NAME))


@pytest.mark.parametrize("missing", ["tables", "columns"])
def test_tables_and_columns_that_are_not_needed(tmp_path: Path, missing: str) -> None:
    """Older releases of agno have fewer of them."""
    database = f"sqlite:{tmp_path / 'agno.db'}"
    write(database, 1)
    expected = sqltruth.count(database, NAME)
    columns = ("run_id", "session_id", "user_id", "agent_id", "team_id", "workflow_id")
    statements = {
        "tables": ["DROP TABLE agno_traces", "DROP TABLE agno_sessions"],
        "columns": [
            *(f"DROP INDEX idx_agno_traces_{column}" for column in columns),
            *(f"ALTER TABLE agno_traces DROP COLUMN {column}" for column in columns),
        ],
    }
    damage.change(database, *statements[missing])
    with RunningExporter(tmp_path, {NAME: reads(database)}, **FAST) as exporter:
        healthy(exporter.agree(expected, settle=3))
        assert "Traceback" not in exporter.logs


def test_a_column_that_is_needed(tmp_path: Path) -> None:
    database = f"sqlite:{tmp_path / 'agno.db'}"
    write(database, 1)
    expected = sqltruth.count(database, NAME)
    damage.change(database, "ALTER TABLE agno_spans RENAME COLUMN attributes TO features")
    with RunningExporter(tmp_path, {NAME: reads(database)}, **FAST) as exporter:
        fails(exporter, "bad_answer", "attributes")
        damage.change(database, "ALTER TABLE agno_spans RENAME COLUMN features TO attributes")
        healthy(exporter.agree(expected, settle=3))


# Locks, and a database that does not notice us


class Activity(Repeating):
    """Looks at all other sessions of a PostgreSQL server without a pause, in a thread of its own.

    Attributes:
        most: sessions of the role at a time.
        looks: how often it looked, `busy` how often the role ran something.
        idle_in_transaction: how often a session of the role held a transaction and did nothing.
        oldest: age of the oldest transaction of the role, in seconds.

    """

    def __init__(self, url: str, role: str) -> None:
        super().__init__(pause=0.002)
        self.most = self.looks = self.busy = self.idle_in_transaction = 0
        self.oldest = 0.0
        self._url, self._role = url, role

    def _run(self) -> None:
        query = """
            SELECT count(*), count(*) FILTER (WHERE state = 'active'),
                   count(*) FILTER (WHERE state LIKE 'idle in transaction%%'),
                   coalesce(max(extract(epoch FROM clock_timestamp() - xact_start)), 0)
            FROM pg_stat_activity WHERE usename = %s AND backend_type = 'client backend'
        """
        with psycopg.connect(self._url, autocommit=True) as connection:
            while self.again():
                row: Any = connection.execute(query, (self._role,)).fetchone()
                self.looks += 1
                self.most = max(self.most, row[0])
                self.busy += row[1] > 0
                self.idle_in_transaction += row[2]
                self.oldest = max(self.oldest, float(row[3]))


async def test_the_clock_of_a_database_is_asked_for_once_a_connection(postgres: Postgres) -> None:
    location = parse(str(reads(f"postgres:{postgres.url('agno')}")["database"]), Path())
    connection = engines.connection(location, lambda: None)
    asked: list[str] = []
    connection.on_query = lambda sql, _: asked.append(sql)
    for connects in (1, 2):
        await connection.open(10)
        told = [await connection.now(wait=10) for _ in range(3)]
        assert told == sorted(told)
        assert abs(told[-1] / 1e6 - time.time()) < 5
        assert len(asked) == connects
        await connection.aclose()


def test_few_connections_and_short_transactions(tmp_path: Path, postgres: Postgres) -> None:
    url = postgres.url("agno")
    database = f"postgres:{url}"
    now = datetime.now(UTC)
    seed.seed(database, 4_000, until=now, spread=timedelta(minutes=50), prompt_bytes=(4_000, 8_000))
    postgres.sql("CREATE ROLE reader LOGIN; GRANT USAGE ON SCHEMA ai TO reader", "agno")
    postgres.sql("GRANT SELECT ON ALL TABLES IN SCHEMA ai TO reader", "agno")
    expected = sqltruth.count(database, NAME)
    reader = reads(database.replace("postgres@", "reader@"))
    with (
        Activity(url, "reader") as seen,
        RunningExporter(tmp_path, {NAME: reader}, operations_interval="5s", **FAST) as exporter,
    ):
        healthy(exporter.agree(expected, settle=3))
    assert seen.looks > 500
    assert seen.busy > 10
    assert seen.most <= 2  # one for traces, and one for what is beside them
    assert seen.idle_in_transaction == 0
    assert seen.oldest < 2.0
    # It goes when we go.
    left = "SELECT count(*) FROM pg_stat_activity WHERE usename = 'reader'"
    truth.wait_until(lambda: postgres.sql(left).strip() == "0")
    print(f"{seen.looks} looks, {seen.busy} while we read: oldest transaction {1000 * seen.oldest:.0f} ms")


# Read-only


def refuses_writes(database: str, folder: Path) -> None:
    """Whatever is sent through the connection that reads: nothing of it is written."""
    write(database, 1)
    before = sqltruth.count(database, NAME).totals
    target = reads(database)
    location = parse(str(target["database"]), folder, target.get("schema"))
    prefix = {"sqlite": "", "postgres": "ai.", "mysql": "agno."}[database.partition(":")[0]]

    async def send(statement: str) -> None:
        reader = engines.connection(location, lambda: None)
        try:
            await reader.open(10)
            await reader.rows(statement, wait=10)
        finally:
            await reader.aclose()

    for statement in (
        f"DELETE FROM {prefix}agno_spans",
        f"UPDATE {prefix}agno_spans SET name = 'x'",
        f"INSERT INTO {prefix}agno_traces (trace_id) VALUES ('x')",
    ):
        with pytest.raises(SourceError, match=r"(?i)read.?only"):
            asyncio.run(send(statement))
    assert sqltruth.count(database, NAME).totals == before


def test_sqlite_is_read_only(tmp_path: Path) -> None:
    refuses_writes(f"sqlite:{tmp_path / 'agno.db'}", tmp_path)


@pytest.mark.postgres
def test_postgresql_is_read_only_even_for_a_superuser(tmp_path: Path, postgres: Postgres) -> None:
    refuses_writes(f"postgres:{postgres.url('agno')}", tmp_path)


@pytest.mark.mariadb
def test_mariadb_is_read_only_even_for_root(tmp_path: Path, mariadb: MariaDB) -> None:
    refuses_writes(f"mysql:{mariadb.url('agno')}", tmp_path)
