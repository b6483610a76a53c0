"""No statement of the database source reads a table from end to end: each is captured as it runs, and explained.

PostgreSQL explains by itself what it executed for our role (auto_explain, with the rows that it touched); MariaDB's own
log and, for SQLite, our connection tell the statements. The tables hold 80,000 spans, 20,000 sessions.
"""

import asyncio
import json
import re
import sqlite3
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from exporter import config
from exporter.sources.database import connection as connecting
from tests.harness import damage, seed, server, truth
from tests.harness.exporter import QUICK, RunningExporter, reads
from tests.harness.inprocess import Exporter
from tests.harness.mariadb import MariaDB
from tests.harness.postgres import Postgres

INSIDE = ("known", "page")
"""names of statements inside others"""
NAME = "it"
TRACES = 10_000
SPANS = 8 * TRACES
SESSIONS = 20_000
LOST = 3
SMALL = (50, 80)
HORIZON = "6s"
SETTINGS: dict[str, object] = {"initial_lookback": "20m", "overlap": "3s", "trace_horizon": HORIZON}


def fill(database: str) -> None:
    """Two weeks of finished traces, and sessions."""
    until = datetime.now(UTC) - timedelta(minutes=5)
    seed.seed(database, TRACES, until=until, spread=timedelta(days=14), prompt_bytes=SMALL)
    numbers = {
        "sqlite": "(WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {}) SELECT i FROM n) AS n",
        "postgres": "generate_series(1, {}) AS n(i)",
        "mysql": "(SELECT seq AS i FROM seq_1_to_{}) AS n",
    }[database.partition(":")[0]].format(SESSIONS)
    columns, values = "session_id, session_type, created_at", "concat('session-', i), 'agent', 1700000000 + i"
    if database.startswith("sqlite"):
        values = values.replace("concat('session-', i)", "'session-' || i")
    damage.change(database, f"INSERT INTO {{}}agno_sessions ({columns}) SELECT {values} FROM {numbers}")


def live(database: str, number: int) -> None:
    """A minute's new traces, and some whose root never comes."""
    now = datetime.now(UTC)
    how = {"until": now, "spread": timedelta(seconds=2), "prompt_bytes": SMALL, "written": now}
    seed.seed(database, 40, number=number, **how)
    seed.seed(database, LOST, number=number + 100, rootless=True, **how)


def work(database: str, exporter: RunningExporter) -> None:
    """All that the source does: the first read, polls with news and without, open traces, sessions, a restart."""
    exporter.wait_until_polled(3)
    assert exporter.total("agentos_runs_total") > 0
    orphans = "agentos_exporter_orphan_spans_total"
    for number in (1, 2):
        live(database, number)
        lost = 4 * LOST * number
        truth.wait_until(lambda lost=lost: exporter.total(orphans) >= lost, pause=0.5)
        exporter.restart()
    truth.wait_until(lambda: exporter.total("agentos_sessions") == SESSIONS, pause=0.5)
    assert set(exporter_outcomes(exporter)) == {"ok"}


def exporter_outcomes(exporter: RunningExporter) -> Counter[str]:
    polls = {key: value for key, value in exporter.samples().items() if key[0] == "agentos_exporter_polls_total"}
    return Counter({dict(labels)["outcome"]: int(value) for (_, labels), value in polls.items() if value})


# PostgreSQL


def nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for below in plan.get("Plans", ()):
        yield from nodes(below)


def table_of(plan: dict[str, Any]) -> str:
    """Name of the table that a node reads, '' if it reads none; a bitmap's index tells in its name."""
    return str(plan.get("Relation Name") or plan.get("Index Name") or "")


@pytest.mark.postgres
def test_postgresql_after_analyze(tmp_path: Path, postgres: Postgres) -> None:
    database = f"postgres:{postgres.url('agno')}"
    fill(database)
    postgres.sql("ANALYZE", "agno")
    postgres.sql("CREATE ROLE reader LOGIN; GRANT USAGE ON SCHEMA ai TO reader", "agno")
    postgres.sql("GRANT SELECT ON ALL TABLES IN SCHEMA ai TO reader", "agno")
    for setting in (
        "session_preload_libraries = 'auto_explain'",
        "auto_explain.log_min_duration = 0",
        "auto_explain.log_analyze = on",
        "auto_explain.log_format = json",
    ):
        postgres.sql(f"LOAD 'auto_explain'; ALTER ROLE reader SET {setting}", "agno")
    reader = reads(database.replace("postgres@", "reader@"))
    with RunningExporter(tmp_path, {NAME: reader}, **SETTINGS) as exporter:
        work(database, exporter)
    log = (postgres.directory / "log").read_text(encoding="utf-8")
    plans = [json.loads(text) for text in re.findall(r"plan:\n((?:\t.*\n)+)", log)]
    ours = [plan for plan in plans if "agno_" in plan["Query Text"] and "pg_class" not in plan["Query Text"]]
    assert len(ours) > 20
    read: Counter[str] = Counter()
    for plan in ours:
        for node in nodes(plan["Plan"]):
            if "agno_" not in table_of(node):
                continue
            kind = node["Node Type"]
            assert "Seq Scan" not in kind, plan["Query Text"]
            assert kind == "Bitmap Heap Scan" or "Index Cond" in node, plan["Query Text"]
            rows = node["Actual Rows"] * node["Actual Loops"] + node.get("Rows Removed by Filter", 0)
            read[plan["Query Text"]] = max(read[plan["Query Text"]], rows)
    report(read)


def report(read: Counter[str]) -> None:
    """No statement touches most of a table, except the one that counts sessions, by its index."""
    for statement, rows in sorted(read.items()):
        print(f"{rows:>8} rows at most: {' '.join(statement.split())[:160]}")
        if not re.search(r"count\(\*\) FROM \S*agno_sessions", statement):
            assert rows < SPANS // 20, statement
    assert any("agno_spans" in statement for statement in read)


# MariaDB


@pytest.mark.mariadb
def test_mariadb(tmp_path: Path, mariadb: MariaDB) -> None:
    database = f"mysql:{mariadb.url('agno')}"
    fill(database)
    mariadb.sql("CREATE USER reader")
    mariadb.sql("GRANT SELECT ON agno.* TO reader")
    mariadb.sql("SET GLOBAL log_output = 'TABLE'")
    mariadb.sql("SET GLOBAL general_log = 1")
    with RunningExporter(tmp_path, {NAME: reads(database.replace("root@", "reader@"))}, **SETTINGS) as exporter:
        work(database, exporter)
    mariadb.sql("SET GLOBAL general_log = 0")
    logged = mariadb.sql("SELECT user_host, argument FROM mysql.general_log WHERE command_type = 'Query'")
    texts = [(host, text if isinstance(text, str) else text.decode()) for host, text in logged]
    ours = {text for host, text in texts if host.startswith("reader[") and "FROM" in text and "agno_" in text}
    ours = {text for text in ours if "information_schema" not in text.lower()}
    assert len(ours) > 10
    read: Counter[str] = Counter()
    for statement in sorted(ours):
        (plan,) = json.loads(mariadb.sql(f"ANALYZE FORMAT=JSON {statement}", "agno")[0][0])["query_block"][
            "nested_loop"
        ]
        table = plan.get("table") or plan
        assert table["access_type"] in {"range", "ref", "eq_ref", "const"}, (statement[:300], table)
        shape = re.sub(r"'[^']*'(, '[^']*')*", "?", statement)
        read[shape] = max(read[shape], round(table.get("r_rows", 0) * table.get("r_loops", 1)))
    report(read)


# SQLite


def test_sqlite(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "agno.db"
    database = f"sqlite:{path}"
    fill(database)
    db = server.open_database(database, "plans")
    db._get_table(table_type="components", create_table_if_not_found=True)
    db.db_engine.dispose()
    said: dict[str, tuple[Any, ...]] = {}
    monkeypatch.setattr(connecting, "_no_query", lambda sql, params: said.setdefault(sql, tuple(params)))
    file = tmp_path / "agentos-exporter.yml"
    file.write_text(
        json.dumps({**QUICK, **SETTINGS, "state": "state.db", "agentos": [{"name": NAME, **reads(database)}]})
    )
    asyncio.run(within(config.load({"config_file": file}, {}), database))
    assert len(said) >= 5
    with closing(sqlite3.connect(path)) as connection:
        for statement, params in said.items():
            plan = [row[3] for row in connection.execute(f"EXPLAIN QUERY PLAN {statement}", params)]
            assert plan
            print(plan, statement[:160])
            for line in plan:
                # What the statements inside found is gathered: one page, and one row each.
                if line in {f"{what} {inside}" for what in ("CO-ROUTINE", "MATERIALIZE", "SCAN") for inside in INSIDE}:
                    continue
                assert not line.startswith("SCAN"), (plan, statement)
                # Sorting is of rows that were written in the same microsecond, or of a window's.
                assert line.startswith(("SEARCH", "LIST SUBQUERY", "USE TEMP B-TREE FOR")), line
                assert line != "USE TEMP B-TREE FOR ORDER BY", statement


async def within(settings: config.Config, database: str) -> None:
    """As `work`, with the daemon in this process."""
    short = {"poll_interval": 0.5, "overlap": 3, "trace_horizon": 6, "sessions_interval": 2, "initial_lookback": 1200}
    async with Exporter({NAME: settings.agentos[0]}, settings.state, **short) as exporter:
        await exporter.polls(3, NAME)
        await asyncio.to_thread(live, database, 1)
        await exporter.until(lambda shown: shown("agentos_exporter_orphan_spans_total") >= 4 * LOST, what="orphans")
        await exporter.until(lambda shown: shown("agentos_sessions") == SESSIONS, what="sessions")
        await exporter.polls(5, NAME)
        shown = await exporter.shown()
        polls = shown("agentos_exporter_polls_total")
        assert polls == shown("agentos_exporter_polls_total", outcome="ok")
