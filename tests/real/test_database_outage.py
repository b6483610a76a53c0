"""The database that is read fails in each way it can: it is named, the database does not feel us, nothing is lost."""

import asyncio
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import psycopg
import pytest

from exporter.errors import SourceError
from exporter.sources import drivers
from exporter.sources.location import parse
from tests.harness import damage, seed, sqltruth, truth
from tests.harness.exporter import RunningExporter, reads, total
from tests.harness.mariadb import MariaDB
from tests.harness.postgres import Postgres
from tests.harness.tcp import Switch
from tests.harness.tools import or_skip

NAME = "it"
SMALL = (50, 80)
PASSWORD = "sesame-7f3a9c"
FAST = {"overlap": "2s"}


@pytest.fixture
def postgres() -> Iterator[Postgres]:
    with or_skip(Postgres) as server:
        yield server


@pytest.fixture
def mariadb() -> Iterator[MariaDB]:
    with or_skip(MariaDB) as server:
        yield server


def write(database: str, number: int, traces: int = 30) -> None:
    """Write finished traces, the last one of which ends now, all of them now."""
    at, spread = datetime.now(UTC), timedelta(seconds=5)
    seed.seed(database, traces, until=at, spread=spread, prompt_bytes=SMALL, number=number, errors=0.2, written=at)


def outcomes(samples: truth.Totals) -> dict[str, float]:
    return {
        dict(labels)["outcome"]: value
        for (name, labels), value in samples.items()
        if name == "agentos_exporter_polls_total" and value
    }


def wait_for(exporter: RunningExporter, outcome: str, *, more: int = 1) -> truth.Totals:
    """Wait until so many more polls ended like this, and return what is shown then."""
    name = "agentos_exporter_polls_total"
    wanted = exporter.total(name, outcome=outcome) + more
    try:
        truth.wait_until(lambda: exporter.total(name, outcome=outcome) >= wanted, deadline=60, pause=0.1)
    except TimeoutError:
        raise AssertionError(f"no poll ended with {outcome}: {outcomes(exporter.samples())}") from None
    return exporter.samples()


def fails(exporter: RunningExporter, outcome: str, *says: str, expected: truth.Truth | None = None) -> None:
    """Wait until polls end like this, alone; the log says why; what was counted stays."""
    known = set(outcomes(exporter.samples()))
    samples = wait_for(exporter, outcome, more=2)
    assert set(outcomes(samples)) <= known | {outcome}
    assert total(samples, "agentos_up") == 0
    if expected is not None:
        assert truth.difference(expected.totals, samples) == []
    errors = "\n".join(line for line in exporter.logs.splitlines() if "level=warn" in line or "level=error" in line)
    assert errors
    for text in says:
        assert text in errors, f"{text!r} is not in:\n{errors}"


def healthy(samples: truth.Totals, *, resets: int = 0) -> None:
    assert total(samples, "agentos_up") == 1
    assert total(samples, "agentos_exporter_source_resets_total") == resets
    assert total(samples, "agentos_exporter_ignored_traces_total") == 0
    assert total(samples, "agentos_exporter_hidden_spans_total") == 0
    assert total(samples, "agentos_exporter_open_traces") == 0


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


@pytest.mark.slow
@pytest.mark.postgres
def test_postgresql_stops_and_starts(tmp_path: Path, postgres: Postgres) -> None:
    outage(postgres, f"postgres:{postgres.url('agno')}", tmp_path)


@pytest.mark.slow
@pytest.mark.mariadb
def test_mariadb_stops_and_starts(tmp_path: Path, mariadb: MariaDB) -> None:
    outage(mariadb, f"mysql:{mariadb.url('agno')}", tmp_path)


@pytest.mark.slow
@pytest.mark.postgres
def test_failover_to_a_standby_that_had_not_got_everything(tmp_path: Path, postgres: Postgres) -> None:
    old = f"postgres:{postgres.url('agno')}"
    write(old, 1)
    with Postgres(standby_of=postgres) as standby, Switch(postgres.port) as switch:
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
            postgres.stop()
            wait_for(exporter, "unreachable")
            standby.promote()
            switch.lead_to(standby.port)
            write(new, 4)
            postgres.start()  # only to count what it has, nobody is led there
            expected = sqltruth.count([old, new], NAME)
            assert (before.traces, sqltruth.count(new, NAME).traces, expected.traces) == (90, 90, 120)
            samples = exporter.agree(expected)
            assert total(samples, "agentos_up") == 1
            assert set(outcomes(samples)) == {"ok", "unreachable"}
            assert switch.connections


# Tables


@pytest.mark.slow
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


@pytest.mark.slow
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


@pytest.mark.slow
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


@pytest.mark.slow
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


@pytest.mark.slow
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


@pytest.mark.slow
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


@pytest.mark.slow
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
        truth.wait_until(lambda: postgres.sql(left, "agno").strip() == "0", deadline=5)
        write(database, 2)
        healthy(exporter.agree(sqltruth.count(database, NAME), settle=3))


@pytest.mark.slow
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


class Activity:
    """Looks at all other sessions of a PostgreSQL server without a pause, in a thread of its own.

    Attributes:
        most: sessions of the role at a time.
        looks: how often it looked, `busy` how often the role ran something.
        idle_in_transaction: how often a session of the role held a transaction and did nothing.
        oldest: age of the oldest transaction of the role, in seconds.

    """

    def __init__(self, url: str, role: str) -> None:
        self.most = self.looks = self.busy = self.idle_in_transaction = 0
        self.oldest = 0.0
        self._url, self._role = url, role
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._look, name="activity")

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._done.set()
        self._thread.join()

    def _look(self) -> None:
        query = """
            SELECT count(*), count(*) FILTER (WHERE state = 'active'),
                   count(*) FILTER (WHERE state LIKE 'idle in transaction%%'),
                   coalesce(max(extract(epoch FROM clock_timestamp() - xact_start)), 0)
            FROM pg_stat_activity WHERE usename = %s AND backend_type = 'client backend'
        """
        with psycopg.connect(self._url, autocommit=True) as connection:
            while not self._done.wait(0.002):
                row: Any = connection.execute(query, (self._role,)).fetchone()
                self.looks += 1
                self.most = max(self.most, row[0])
                self.busy += row[1] > 0
                self.idle_in_transaction += row[2]
                self.oldest = max(self.oldest, float(row[3]))


@pytest.mark.slow
@pytest.mark.postgres
async def test_each_part_may_hold_what_is_no_object(postgres: Postgres) -> None:
    database = f"postgres:{postgres.url('agno')}"
    await asyncio.to_thread(write, database, 1, traces=3 * drivers.PostgresConnection.part)
    traces, spans = truth.read(database)
    for one in (traces[0], traces[drivers.PostgresConnection.part], traces[-1]):
        root = next(row.span_id for row in spans if row.trace_id == one and not row.parent)
        damage.change(database, f"UPDATE {{}}agno_spans SET attributes = '[]' WHERE span_id = '{root}'")
    connection = drivers.connection(parse(str(reads(database)["database"]), Path()), lambda: None)
    await connection.open(10)
    readings = [reading async for reading, _ in connection.spans(traces, "db", (), wait=60)]
    assert len(readings) == 3
    assert {trace for reading in readings for trace in reading.inserted} == set(traces)
    assert [len(reading.traces) for reading in readings] == [drivers.PostgresConnection.part] * 3
    await connection.aclose()


async def test_the_clock_of_a_database_is_asked_for_once_a_connection(postgres: Postgres) -> None:
    location = parse(str(reads(f"postgres:{postgres.url('agno')}")["database"]), Path())
    connection = drivers.connection(location, lambda: None)
    asked: list[str] = []
    connection.on_query = lambda sql, _: asked.append(sql)
    for connects in (1, 2):
        await connection.open(10)
        told = [await connection.now(wait=10) for _ in range(3)]
        assert told == sorted(told)
        assert abs(told[-1] / 1e6 - time.time()) < 5
        assert len(asked) == connects
        await connection.aclose()


def test_one_connection_and_short_transactions(tmp_path: Path, postgres: Postgres) -> None:
    url = postgres.url("agno")
    database = f"postgres:{url}"
    now = datetime.now(UTC)
    seed.seed(database, 4_000, until=now, spread=timedelta(minutes=50), prompt_bytes=(4_000, 8_000))
    postgres.sql("CREATE ROLE reader LOGIN; GRANT USAGE ON SCHEMA ai TO reader", "agno")
    postgres.sql("GRANT SELECT ON ALL TABLES IN SCHEMA ai TO reader", "agno")
    expected = sqltruth.count(database, NAME)
    reader = reads(database.replace("postgres@", "reader@"))
    with Activity(url, "reader") as seen, RunningExporter(tmp_path, {NAME: reader}, **FAST) as exporter:
        healthy(exporter.agree(expected, settle=3))
    assert seen.looks > 500
    assert seen.busy > 10
    assert seen.most == 1
    assert seen.idle_in_transaction == 0
    assert seen.oldest < 2.0
    # It goes when we go.
    left = "SELECT count(*) FROM pg_stat_activity WHERE usename = 'reader'"
    truth.wait_until(lambda: postgres.sql(left).strip() == "0", deadline=10)
    print(f"{seen.looks} looks, {seen.busy} while we read: oldest transaction {1000 * seen.oldest:.0f} ms")


@pytest.mark.slow
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


# Read-only


def refuses_writes(database: str, folder: Path) -> None:
    """Whatever is sent through the connection that reads: nothing of it is written."""
    write(database, 1)
    before = sqltruth.count(database, NAME).totals
    target = reads(database)
    location = parse(str(target["database"]), folder, target.get("schema"))
    prefix = {"sqlite": "", "postgres": "ai.", "mysql": "agno."}[database.partition(":")[0]]

    async def send(statement: str) -> None:
        reader = drivers.connection(location, lambda: None)
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
