"""A database goes away, is locked, closed to us or replaced: each is named, and nothing is lost or doubled."""

import asyncio
import sqlite3
import time
from contextlib import closing
from datetime import timedelta
from pathlib import Path

import psycopg
import pytest

from exporter.sources.database import engines, rows
from exporter.sources.database.location import parse
from tests.harness import damage, seed, sqltruth, truth
from tests.harness.exporter import RunningExporter, reads, total
from tests.harness.mariadb import MariaDB
from tests.harness.outages import FAST, NAME, fails, healthy, outcomes, wait_for, write
from tests.harness.postgres import Postgres
from tests.harness.tcp import Switch

PASSWORD = "sesame-7f3a9c"


# The server goes away


def outage(server: Postgres | MariaDB, database: str, folder: Path) -> None:
    write(database, 1)
    expected = sqltruth.count(database, NAME)
    with RunningExporter(folder, {NAME: reads(database)}, **FAST) as exporter:
        exporter.agree(expected, settle=1)
        server.stop()
        fails(exporter, "unreachable", f"127.0.0.1:{server.port}", expected=expected)
        exporter.kill()
        exporter.start()  # without its database
        assert truth.difference(expected.totals, exporter.samples()) == []
        fails(exporter, "unreachable", expected=expected)
        server.start()
        write(database, 2)
        healthy(exporter.agree(sqltruth.count(database, NAME), settle=3))
        assert "Traceback" not in exporter.logs


@pytest.mark.postgres
def test_postgresql_stops_and_starts(tmp_path: Path, own_postgres: Postgres) -> None:
    outage(own_postgres, f"postgres:{own_postgres.url('agno')}", tmp_path)


@pytest.mark.mariadb
def test_mariadb_stops_and_starts(tmp_path: Path, own_mariadb: MariaDB) -> None:
    outage(own_mariadb, f"mysql:{own_mariadb.url('agno')}", tmp_path)


@pytest.mark.postgres
def test_failover_to_a_standby_that_had_not_got_everything(tmp_path: Path, own_postgres: Postgres) -> None:
    old = f"postgres:{own_postgres.url('agno')}"
    write(old, 1)
    with Postgres(standby_of=own_postgres) as standby, Switch(own_postgres.port) as switch:
        new = f"postgres:{standby.url('agno')}"
        target = reads(f"postgres:postgresql://postgres@127.0.0.1:{switch.port}/agno")
        with RunningExporter(tmp_path, {NAME: target}, **FAST) as exporter:
            write(old, 2)
            exporter.agree(sqltruth.count(old, NAME), settle=1)
            truth.wait_until(lambda: sqltruth.count(new, NAME).traces == 60)
            standby.disconnect()
            write(old, 3)  # is counted, and then lost
            before = sqltruth.count(old, NAME)
            exporter.agree(before, settle=1)
            own_postgres.stop()
            wait_for(exporter, "unreachable")
            standby.promote()
            switch.lead_to(standby.port)
            write(new, 4)
            own_postgres.start()  # only to count what it has, nobody is led there
            expected = sqltruth.count([old, new], NAME)
            assert (before.traces, sqltruth.count(new, NAME).traces, expected.traces) == (90, 90, 120)
            samples = exporter.agree(expected)
            assert total(samples, "agentos_up") == 1
            assert set(outcomes(samples)) == {"ok", "unreachable"}
            assert switch.connections


# Tables


def test_a_table_is_gone_for_a_while(tmp_path: Path) -> None:
    database = f"sqlite:{tmp_path / 'agno.db'}"
    write(database, 1)
    expected = sqltruth.count(database, NAME)
    with (
        closing(sqlite3.connect(tmp_path / "agno.db", timeout=30, isolation_level=None)) as connection,
        RunningExporter(tmp_path, {NAME: reads(database)}, **FAST) as exporter,
    ):
        exporter.agree(expected, settle=1)
        connection.execute("ALTER TABLE agno_spans RENAME TO hidden")
        fails(exporter, "bad_answer", "agno_spans", expected=expected)
        connection.execute("ALTER TABLE hidden RENAME TO agno_spans")
        write(database, 2)
        healthy(exporter.agree(sqltruth.count(database, NAME), settle=3))


def test_tables_and_file_that_are_made_later(tmp_path: Path) -> None:
    database = f"sqlite:{tmp_path / 'agno.db'}"
    with RunningExporter(tmp_path, {NAME: reads(database)}, **FAST) as exporter:
        # No file yet: AgentOS was never started, or the path is wrong.
        samples = wait_for(exporter, "unreachable")
        assert total(samples, "agentos_up") == 0
        assert "agno.db" in exporter.logs
        assert not (tmp_path / "agno.db").exists()
        sqlite3.connect(tmp_path / "agno.db").execute("CREATE TABLE other (x)").connection.close()
        samples = wait_for(exporter, "ok")
        assert total(samples, "agentos_up") == 1
        assert "no_tables" in exporter.logs
        write(database, 1)
        healthy(exporter.agree(sqltruth.count(database, NAME), settle=3))


def test_a_file_that_is_replaced(tmp_path: Path) -> None:
    path, kept = tmp_path / "agno.db", tmp_path / "kept.db"
    database = f"sqlite:{path}"
    write(database, 1)
    with RunningExporter(tmp_path, {NAME: reads(database)}, **FAST) as exporter:
        exporter.agree(sqltruth.count(database, NAME), settle=2)
        for file in tmp_path.glob("agno.db*"):
            file.rename(tmp_path / file.name.replace("agno", "kept"))
        write(database, 2)
        exporter.agree(sqltruth.count([database, f"sqlite:{kept}"], NAME))
        assert exporter.total("agentos_up") == 1


@pytest.mark.postgres
def test_a_schema_of_another_name(tmp_path: Path, postgres: Postgres) -> None:
    database = f"postgres:{postgres.url('agno')}"
    write(database, 1)
    postgres.sql('ALTER SCHEMA ai RENAME TO "Our Agents"', "agno")
    expected = sqltruth.count(database, NAME)
    with RunningExporter(tmp_path, {NAME: reads(database)}, **FAST) as exporter:
        fails(exporter, "bad_answer", "schema ai has no table agno_spans", "Our Agents")
    with RunningExporter(tmp_path, {NAME: reads(database, schema="Our Agents")}, **FAST) as exporter:
        healthy(exporter.agree(expected, settle=3))


# Rights


@pytest.mark.postgres
def test_a_role_without_rights(tmp_path: Path, postgres: Postgres) -> None:
    database = f"postgres:{postgres.url('agno')}"
    write(database, 1)
    postgres.sql("CREATE ROLE reader LOGIN", "agno")
    expected = sqltruth.count(database, NAME)
    reader = reads(database.replace("postgres@", "reader@"))
    with RunningExporter(tmp_path, {NAME: reader}, **FAST) as exporter:
        fails(exporter, "unauthorized", "GRANT")
        postgres.sql("GRANT USAGE ON SCHEMA ai TO reader", "agno")
        fails(exporter, "unauthorized", "agno_spans", "GRANT SELECT")
        # No more than the documentation asks for.
        postgres.sql("GRANT SELECT ON ai.agno_spans TO reader", "agno")
        exporter.agree(expected, settle=1)
        postgres.sql("REVOKE SELECT ON ai.agno_spans FROM reader", "agno")
        fails(exporter, "unauthorized", "agno_spans", expected=expected)
        write(database, 2)
        postgres.sql("GRANT SELECT ON ALL TABLES IN SCHEMA ai TO reader", "agno")
        healthy(exporter.agree(sqltruth.count(database, NAME), settle=3))
        assert "Traceback" not in exporter.logs


@pytest.mark.mariadb
def test_a_wrong_password_and_missing_rights(tmp_path: Path, mariadb: MariaDB) -> None:
    database = f"mysql:{mariadb.url('agno')}"
    write(database, 1)
    mariadb.sql(f"CREATE USER reader IDENTIFIED BY '{PASSWORD}'")
    expected = sqltruth.count(database, NAME)
    file = tmp_path / "password"
    file.write_text("not it")
    reader = reads(database.replace("root@", "reader@"), password_file=str(file))
    with RunningExporter(tmp_path, {NAME: reader}, **FAST) as exporter:
        fails(exporter, "unauthorized", "reader")
        file.write_text(f"{PASSWORD}\n")
        fails(exporter, "unauthorized", "GRANT")
        mariadb.sql("GRANT SELECT ON agno.* TO reader")
        healthy(exporter.agree(expected, settle=3))
        for text in (exporter.logs, exporter.metrics()):
            assert PASSWORD not in text
            assert "not it" not in text


# Locks, and a database that does not notice us


@pytest.mark.postgres
def test_a_locked_table_costs_a_statement_timeout_and_blocks_nobody(tmp_path: Path, postgres: Postgres) -> None:
    url = postgres.url("agno")
    database = f"postgres:{url}"
    write(database, 1)
    expected = sqltruth.count(database, NAME)
    with RunningExporter(tmp_path, {NAME: reads(database)}, poll_deadline="3s", **FAST) as exporter:
        exporter.agree(expected, settle=1)
        with psycopg.connect(url) as lock:
            lock.execute("LOCK TABLE ai.agno_spans IN ACCESS EXCLUSIVE MODE")
            fails(exporter, "timeout", expected=expected)
        # A reader that waits for a lock holds up all who come after it: none of ours may be left.
        left = "SELECT count(*) FROM pg_locks WHERE NOT granted"
        truth.wait_until(lambda: postgres.sql(left, "agno").strip() == "0")
        write(database, 2)
        healthy(exporter.agree(sqltruth.count(database, NAME), settle=3))


def test_a_locked_file(tmp_path: Path) -> None:
    """Only without WAL, which agno sets and a file system may not know, do writers keep readers out."""
    database = f"sqlite:{tmp_path / 'agno.db'}"
    write(database, 1)
    expected = sqltruth.count(database, NAME)
    with closing(sqlite3.connect(tmp_path / "agno.db", timeout=30, isolation_level=None)) as connection:
        assert connection.execute("PRAGMA journal_mode = DELETE").fetchall() == [("delete",)]
    with (
        closing(sqlite3.connect(tmp_path / "agno.db", timeout=30, isolation_level=None)) as connection,
        RunningExporter(tmp_path, {NAME: reads(database)}, poll_deadline="3s", **FAST) as exporter,
    ):
        exporter.agree(expected, settle=1)
        connection.execute("BEGIN EXCLUSIVE")
        fails(exporter, "server_error", "locked", expected=expected)
        connection.execute("COMMIT")
        write(database, 2)
        healthy(exporter.agree(sqltruth.count(database, NAME), settle=3))


@pytest.mark.postgres
async def test_attributes_that_are_no_object_cost_no_other_trace(postgres: Postgres) -> None:
    database = f"postgres:{postgres.url('agno')}"
    await asyncio.to_thread(write, database, 1, traces=100)
    traces, spans = truth.read(database)
    for one in (traces[0], traces[50], traces[-1]):
        root = next(row.span_id for row in spans if row.trace_id == one and not row.parent)
        damage.change(database, f"UPDATE {{}}agno_spans SET attributes = '[]' WHERE span_id = '{root}'")
    connection = engines.connection(parse(str(reads(database)["database"]), Path()), lambda: None)
    await connection.open(10)
    read = rows.read(await connection.spans(traces, wait=60), "db")
    assert (set(read.inserted), len(read.traces), read.malformed) == (set(traces), 100, [])
    await connection.aclose()


def test_a_writer_of_sqlite_never_waits_for_us(tmp_path: Path) -> None:
    """While 12,000 spans are read, agno's writer commits without one busy moment: no read lock is held for long."""
    path = tmp_path / "agno.db"
    database = f"sqlite:{path}"
    seed.seed(database, 1_500, spread=timedelta(minutes=30), prompt_bytes=(4_000, 8_000))
    slowest = 0.0
    with closing(sqlite3.connect(path, timeout=5, isolation_level=None)) as connection:
        connection.execute("CREATE TABLE probe (x)")
        with RunningExporter(tmp_path, {NAME: reads(database)}, **FAST) as exporter:
            commits = 0
            while commits < 100 or exporter.total("agentos_runs_total") < 1_500:
                began = time.monotonic()
                connection.execute("INSERT INTO probe VALUES (1)")
                slowest, commits = max(slowest, time.monotonic() - began), commits + 1
            healthy(exporter.agree(sqltruth.count(database, NAME), settle=3))
    assert slowest < 1.0
    print(f"{commits} commits, the slowest took {1000 * slowest:.0f} ms")
