"""What waits in a real AgentOS and how it ended: /metrics shows what stands in its tables, after `kill -9` as well."""

import json
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Collection
from pathlib import Path
from typing import Any

import httpx
import jwt
import pytest
import sqlalchemy as sa

from exporter.sources.operations import SCOPES
from tests.harness import truth, venvs
from tests.harness.agentos import RunningAgentOS
from tests.harness.exporter import RunningExporter, reads, total
from tests.harness.mariadb import MariaDB
from tests.harness.patience import HANG
from tests.harness.postgres import Postgres

NAME = "it"
FILL = Path(__file__).parents[1] / "harness/waitingside.py"
GAUGES = ("agentos_approvals_pending", "agentos_knowledge_contents", "agentos_queue_jobs", "agentos_schedule_enabled")
COUNTERS = (
    "agentos_approvals_resolved_total",
    "agentos_schedule_runs_total",
    "agentos_queue_jobs_finished_total",
    "agentos_eval_runs_total",
)
OF_QUEUE = ("agentos_queue_jobs", "agentos_queue_jobs_finished_total")
ALIKE = (
    *GAUGES,
    *COUNTERS,
    "agentos_approvals_oldest_pending_timestamp_seconds",
    "agentos_approval_wait_seconds_count",
    "agentos_approval_wait_seconds_sum",
    "agentos_schedule_next_run_timestamp_seconds",
    "agentos_schedule_last_run_timestamp_seconds",
    "agentos_eval_score_count",
    "agentos_eval_score_sum",
    "agentos_memories",
    "agentos_memory_users",
)
"""What API and database both tell."""
TABLES = "tables"
"""The same AgentOS, as its database has it."""
PAUSED = "agentos_runs_paused"

UP = "agentos_surface_up"
Counts = Counter[tuple[str, frozenset[tuple[str, str]]]]


def fill(python: str | Path, database: str, what: object, *options: str) -> None:
    """Fill AgentOS's tables, or go on with them, with its own classes; `what` and `options` are of `waitingside.py`."""
    command = [str(python), str(FILL), database, str(what), *options]
    subprocess.run(command, check=True, timeout=HANG, capture_output=True)


def submit(agentos: RunningAgentOS, *agents: str) -> None:
    """Let agents run in the background, which puts jobs into the queue, and wait until those have ended."""
    with httpx.Client(base_url=agentos.base_url, timeout=HANG, trust_env=False) as client:
        submitted = set()
        for agent in agents:
            form = {"message": "hello", "stream": "false", "background": "true"}
            submitted.add(client.post(f"/agents/{agent}/runs", data=form).raise_for_status().json()["run_id"])
        waiting = {"status": ["queued", "running"], "limit": 1000}

        def done() -> bool:
            return submitted.isdisjoint(job["id"] for job in client.get("/queue/jobs", params=waiting).json()["data"])

        truth.wait_until(done, deadline=HANG, pause=0.2)


def jobs(agentos: RunningAgentOS) -> list[dict[str, Any]]:
    """The queue of an AgentOS on SQLite, which its process alone has."""
    answer = httpx.get(f"{agentos.base_url}/queue/jobs", params={"limit": 1000}, trust_env=False)
    return [] if answer.is_error else list(answer.json()["data"])


def stored(url: str, queue: list[dict[str, Any]]) -> Counts:
    """What is to be shown, counted in AgentOS's own tables without the exporter's code."""
    counts: Counts = Counter()

    def add(metric: str, number: int = 1, **labels: str) -> None:
        counts[metric, frozenset({"agentos": NAME, **labels}.items())] += number

    engine = sa.create_engine(url)
    prefix = "agno" if engine.dialect.name == "sqlite" else "ai.agno"
    with engine.connect() as connection:

        def rows(columns: str, table: str, rest: str = "") -> Any:
            return connection.exec_driver_sql(f"SELECT {columns} FROM {prefix}_{table} {rest}")

        for kind, source, status in rows("approval_type, source_type, status", "approvals"):
            if status == "pending":
                add("agentos_approvals_pending", approval_type=kind, source_type=source)
            else:
                add("agentos_approvals_resolved_total", approval_type=kind, resolution=status)
        joined = f"JOIN {prefix}_schedules s ON s.id = schedule_id WHERE status != 'running'"
        for name, status in rows("s.name, status", "schedule_runs", joined):
            add("agentos_schedule_runs_total", schedule=name, status=status)
        for name, enabled in rows("name, enabled", "schedules"):
            add("agentos_schedule_enabled", int(enabled), schedule=name)
        for kind, name, component in rows("eval_type, name, evaluated_component_name", "eval_runs"):
            add("agentos_eval_runs_total", eval_type=kind.lower(), name=name, component=component)
        for (status,) in rows("status", "knowledge"):
            add("agentos_knowledge_contents", status=status)
        if engine.dialect.name == "postgresql":
            queue = [row._asdict() for row in rows("component_id, status, completed_at", "jobs")]
    engine.dispose()
    for job in queue:
        add("agentos_queue_jobs", status=job["status"])
        if job["completed_at"] is not None and job["status"] != "paused":
            add("agentos_queue_jobs_finished_total", component=job["component_id"], status=job["status"])
    return Counter({key: number for key, number in counts.items() if number})


def shown(exporter: RunningExporter) -> Counts:
    """What the exporter shows of it."""
    names = (*GAUGES, *COUNTERS)
    samples = exporter.samples().items()
    of_it = ("agentos", NAME)
    return Counter({key: int(value) for key, value in samples if key[0] in names and of_it in key[1] and value})


def agree(exporter: RunningExporter, url: str, agentos: RunningAgentOS, *, deleted: Counts | None = None) -> None:
    """Wait until both are the same, and see that more readings change nothing.

    `deleted` is what was counted of rows that are in no table any more.
    """
    expected = stored(url, jobs(agentos)) + (deleted or Counter())
    try:
        truth.wait_until(lambda: shown(exporter) == expected, deadline=HANG, pause=0.3)
    except TimeoutError:
        found = shown(exporter)
        different = {key: (expected[key], found[key]) for key in {*expected, *found} if expected[key] != found[key]}
        raise AssertionError(f"stored and shown differ: {different}") from None
    name, endpoint = "agentos_exporter_api_requests_total", "memories"  # of the surface that is read last
    asked = exporter.total(name, endpoint=endpoint)
    truth.wait_until(lambda: exporter.total(name, endpoint=endpoint) > asked, deadline=HANG, pause=0.3)
    assert shown(exporter) == expected


def exact(python: str | Path, tmp_path: Path, *, queue: bool) -> None:
    path = tmp_path / "agno.db"
    database, url = f"sqlite:{path}", f"sqlite:///{path}"
    with RunningAgentOS(python, database, operations=True) as agentos:
        fill(python, database, 0)
        if queue:
            submit(agentos, "plain", "failing-model", "plain", "confirming")
        settings = {"operations_interval": "5s"}
        with RunningExporter(tmp_path, {NAME: agentos.base_url}, **settings) as exporter:
            agree(exporter, url, agentos)
            exporter.kill()
            fill(python, database, 1)
            if queue:
                submit(agentos, "plain")
            exporter.start()
            agree(exporter, url, agentos)
            samples = exporter.samples()
            assert total(samples, "agentos_memories") == 6
            assert total(samples, "agentos_memory_users") == 2
            assert total(samples, "agentos_eval_score_count") == 6 * 30
            assert total(samples, "agentos_exporter_ignored_rows_total") == 0
            for surface in ("approvals", "schedules", "evals", "knowledge", "memory", *(["queue"] if queue else [])):
                assert total(samples, UP, surface=surface) == 1, surface
            assert "CONTENT" not in exporter.metrics() + exporter.logs


def test_the_newest_agno(tmp_path: Path) -> None:
    exact(sys.executable, tmp_path, queue=True)


@pytest.mark.postgres
def test_a_queue_in_postgresql_and_its_outage(tmp_path: Path, postgres: Postgres) -> None:
    """AgentOS swallows the errors of its queue: it answers that there is none."""
    plain = postgres.url("operations")
    database, url = f"postgres:{plain}", plain.replace("postgresql:", "postgresql+psycopg:", 1)
    with RunningAgentOS(sys.executable, database, operations=True) as agentos:
        fill(sys.executable, database, 0)
        submit(agentos, "plain", "failing-model", "confirming")
        with RunningExporter(tmp_path, {NAME: agentos.base_url}, operations_interval="5s") as exporter:
            agree(exporter, url, agentos)
            rename(url, "agno_jobs", "away")
            truth.wait_until(lambda: exporter.total(UP, surface="queue") == 0, deadline=HANG, pause=0.3)
            assert "agentos_queue_jobs{" not in exporter.metrics(), "unknown is not zero"
            assert exporter.total(UP, surface="approvals") == 1
            rename(url, "away", "agno_jobs")
            submit(agentos, "plain")
            agree(exporter, url, agentos)


def rename(url: str, table: str, to: str) -> None:
    """Rename a table of AgentOS."""
    engine = sa.create_engine(url)
    with engine.begin() as connection:
        connection.exec_driver_sql(f"ALTER TABLE ai.{table} RENAME TO {to}")
    engine.dispose()


@pytest.mark.compat
def test_an_older_agno_has_no_queue(tmp_path: Path) -> None:
    exact(venvs.python("agno26"), tmp_path, queue=False)


@pytest.mark.compat
def test_the_oldest_agno_has_few_surfaces(tmp_path: Path) -> None:
    with (
        RunningAgentOS(venvs.python("agno23"), f"sqlite:{tmp_path / 'agno.db'}") as agentos,
        RunningExporter(tmp_path, {NAME: agentos.base_url}, operations_interval="5s") as exporter,
    ):
        name = "agentos_exporter_api_requests_total"
        truth.wait_until(lambda: exporter.total(name, endpoint="user_memory_stats") > 0, deadline=HANG, pause=0.3)
        up = {dict(labels)["surface"] for (metric, labels) in exporter.samples() if metric == UP}
        assert up <= {"evals", "knowledge", "memory"}
        assert "level=warning" not in exporter.logs


def test_a_token_without_the_scopes_costs_traces_nothing(tmp_path: Path) -> None:
    key = "0123456789abcdef" * 2
    claims = {"sub": "exporter", "scopes": ["traces:read", "config:read"], "exp": int(time.time()) + 3600}
    token = tmp_path / "token"
    token.write_text(jwt.encode(claims, key, algorithm="HS256"))
    database = f"sqlite:{tmp_path / 'agno.db'}"
    with RunningAgentOS(sys.executable, database, operations=True, jwt_key=key) as agentos:
        reads = {"url": agentos.base_url, "token_file": str(token)}
        with RunningExporter(tmp_path, {NAME: reads}, operations_interval="5s") as exporter:
            wanted = {(UP, frozenset({("agentos", NAME), ("surface", surface)})) for surface in SCOPES}
            truth.wait_until(lambda: wanted <= exporter.samples().keys(), deadline=HANG, pause=0.3)
            assert exporter.total(UP) == 0
            exporter.wait_until_polled(6)
            assert exporter.total("agentos_up") == 1
            told = [line for line in exporter.logs.splitlines() if "msg=surface_off" in line]
    assert len(told) == len(SCOPES), "each is asked once"
    for line, scope in zip(told, SCOPES.values(), strict=True):
        assert f"the token needs the scope {scope}" in line


def told(exporter: RunningExporter, name: str, without: Collection[str] = ()) -> dict[Any, float]:
    """What the exporter shows of one instance, without its name."""
    found = {}
    for (metric, labels), value in exporter.samples().items():
        if ("agentos", name) in labels and metric in ALIKE and metric not in without:
            found[metric, labels - {("agentos", name)}] = value
    return found


def alike(exporter: RunningExporter, without: Collection[str] = ()) -> dict[Any, float]:
    """Wait until the database says what the API says, and return it."""
    try:
        truth.wait_until(
            lambda: told(exporter, NAME, without) == told(exporter, TABLES, without), deadline=HANG, pause=0.3
        )
    except TimeoutError:
        api, database = (told(exporter, name, without) for name in (NAME, TABLES))
        different = {key: (api.get(key), database.get(key)) for key in {*api, *database}}
        raise AssertionError({key: both for key, both in different.items() if both[0] != both[1]}) from None
    return told(exporter, TABLES, without)


def pause(agentos: RunningAgentOS, session: str) -> dict[str, Any]:
    """Let an agent run until it waits for a person."""
    form = {"message": "hello", "stream": "false", "session_id": session}
    answer = httpx.post(f"{agentos.base_url}/agents/confirming/runs", data=form, trust_env=False, timeout=HANG)
    run: dict[str, Any] = answer.raise_for_status().json()
    assert run["status"] == "PAUSED"
    return run


def confirm(agentos: RunningAgentOS, run: dict[str, Any]) -> None:
    """Let a person confirm what a run waits for."""
    tools = json.dumps([{**tool, "confirmed": True} for tool in run["tools"]])
    path = f"{agentos.base_url}/agents/confirming/runs/{run['run_id']}/continue"
    form = {"tools": tools, "session_id": run["session_id"], "stream": "false"}
    httpx.post(path, data=form, trust_env=False, timeout=HANG).raise_for_status()


def database_agrees(tmp_path: Path, database: str, url: str, without: Collection[str] = ()) -> None:
    """Read an AgentOS by API and by database at once, through kill -9, then by each in turn."""
    with RunningAgentOS(sys.executable, database, operations=True) as agentos:
        fill(sys.executable, database, 0)
        submit(agentos, "plain", "failing-model")
        waits, _ = pause(agentos, "one"), pause(agentos, "two")
        both = {NAME: agentos.base_url, TABLES: reads(database)}
        with RunningExporter(tmp_path, both, operations_interval="5s") as exporter:
            truth.wait_until(lambda: told(exporter, NAME) != {}, deadline=HANG, pause=0.3)
            agree(exporter, url, agentos)
            alike(exporter, without)
            labels = {"agentos": TABLES, "root_kind": "agent", "root": "Confirming"}
            truth.wait_until(lambda: exporter.total(PAUSED, **labels) == 2, deadline=HANG, pause=0.3)
            exporter.kill()
            fill(sys.executable, database, 1)
            submit(agentos, "plain")
            confirm(agentos, waits)
            exporter.start()
            agree(exporter, url, agentos)
            last = alike(exporter, without)
            truth.wait_until(lambda: exporter.total(PAUSED, **labels) == 1, deadline=HANG, pause=0.3)
            assert exporter.total(PAUSED, agentos=NAME) == 0, "the API does not tell"
            assert exporter.total("agentos_exporter_ignored_rows_total") == 0
            assert exporter.total("agentos_up", agentos=TABLES) == 1
            assert "CONTENT" not in exporter.metrics() + exporter.logs
        with RunningExporter(tmp_path, {NAME: reads(database)}, operations_interval="5s") as exporter:
            truth.wait_until(lambda: exporter.total(UP, surface="runs") == 1, deadline=HANG, pause=0.3)
            assert told(exporter, NAME, without) == last, "what the API counted counts no more"


@pytest.mark.postgres
def test_api_and_database_agree_on_postgresql(tmp_path: Path, postgres: Postgres) -> None:
    plain = postgres.url("both")
    url = plain.replace("postgresql:", "postgresql+psycopg:", 1)
    database_agrees(tmp_path, f"postgres:{plain}", url)


def test_api_and_database_agree_on_sqlite(tmp_path: Path) -> None:
    path = tmp_path / "agno.db"
    database_agrees(tmp_path, f"sqlite:{path}", f"sqlite:///{path}", without=OF_QUEUE)


@pytest.mark.mariadb
def test_api_and_database_agree_on_mariadb(tmp_path: Path, mariadb: MariaDB) -> None:
    """Neither approvals nor schedules are there. This AgentOS has no knowledge base, though contents are stored."""
    database = f"mysql:{mariadb.url('both')}"
    with RunningAgentOS(sys.executable, database) as agentos:
        fill(sys.executable, database, 0)
        pause(agentos, "one")
        both = {NAME: agentos.base_url, TABLES: reads(database)}
        with RunningExporter(tmp_path, both, operations_interval="5s") as exporter:
            truth.wait_until(lambda: exporter.total(UP, surface="runs") == 1, deadline=HANG, pause=0.3)
            truth.wait_until(lambda: exporter.total(UP, surface="memory") == 2, deadline=HANG, pause=0.3)
            shown = alike(exporter, without=("agentos_knowledge_contents",))
            assert exporter.total("agentos_knowledge_contents", agentos=TABLES, status="completed") == 2
            assert sum(value for (metric, _), value in shown.items() if metric == "agentos_eval_runs_total") == 4 * 30
            assert sum(value for (metric, _), value in shown.items() if metric == "agentos_eval_score_count") == 3 * 30
            assert exporter.total(PAUSED, agentos=TABLES, root="Confirming") == 1
            assert exporter.total("agentos_memories", agentos=TABLES) == 6


@pytest.mark.postgres
def test_a_role_that_may_not_read_a_table_is_told_the_grant(tmp_path: Path, postgres: Postgres) -> None:
    plain = postgres.url("granted")
    database, url = f"postgres:{plain}", plain.replace("postgresql:", "postgresql+psycopg:", 1)
    fill(sys.executable, database, 0)
    engine = sa.create_engine(url)
    with engine.begin() as connection:
        connection.exec_driver_sql("CREATE ROLE reader LOGIN")
        connection.exec_driver_sql("GRANT USAGE ON SCHEMA ai TO reader")
        connection.exec_driver_sql("GRANT SELECT ON ai.agno_eval_runs TO reader")
    engine.dispose()
    target = reads(database.replace("postgres@", "reader@"))
    with RunningExporter(tmp_path, {NAME: target}, operations_interval="5s") as exporter:
        truth.wait_until(lambda: exporter.total(UP, surface="evals") == 1, deadline=HANG, pause=0.3)
        key = (UP, frozenset({("agentos", NAME), ("surface", "approvals")}))
        truth.wait_until(lambda: exporter.samples().get(key) == 0, deadline=HANG, pause=0.3)
        logs = exporter.logs
    assert "GRANT SELECT ON ai.agno_approvals TO reader;" in logs
