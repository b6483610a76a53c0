"""What is read of an AgentOS's tables beside its traces: long tables, odd rows, changes of the source, paused runs.

What holds for either source is in test_surfaces.py, whose tests read the same AgentOS in both ways.
"""

import json
import random
import re
import shutil
import sqlite3
from datetime import UTC, datetime
from pathlib import Path

import pytest

from exporter.core.model import MICROSECONDS, Clock
from exporter.service.operations import OFF_FOR
from exporter.sources.database.location import Engine, Location
from exporter.sources.database.pace import Pace
from exporter.sources.database.sqlite import SqliteConnection
from exporter.sources.database.surfaces import DatabaseSurfaces
from exporter.sources.database.surfaces import tables as stored_tables
from exporter.sources.database.surfaces.holdings import Knowledge, Memory
from tests.harness import stored
from tests.harness.surfaces import LOOKBACK, T0, Tables, World

RESOLVED = "agentos_approvals_resolved_total"
RUNS = "agentos_schedule_runs_total"
JOBS = "agentos_queue_jobs_finished_total"
EVALS = "agentos_eval_runs_total"
COUNTERS = (RESOLVED, RUNS, JOBS, EVALS)
PAUSED = "agentos_runs_paused"
UP = "agentos_surface_up"
CONTENT = ("payload", "tool_args", "context", "requirements", "error", "input", "output", "memory", "description")


@pytest.fixture
def tables() -> Tables:
    return Tables()


@pytest.fixture
def database(empty, tmp_path) -> Path:
    return Path(shutil.copy(empty, tmp_path / "agno.db"))


@pytest.fixture
def world(tables, database) -> World:
    return World(None, tables, database=database)


def execute(path: Path, statement: str, *params: object) -> None:
    """Change the database behind AgentOS's back."""
    with sqlite3.connect(path) as connection:
        connection.execute(statement, params)
    connection.close()


def fill(tables: Tables, turn: int, at: float, chance: random.Random) -> None:
    """Something of each kind happens: some ends at once, some waits, and what waited may end."""
    for row in [*tables.approvals.values(), *tables.runs.values()]:
        if row["status"] in {"pending", "running"} and chance.random() < 0.5:
            row["status"] = "approved" if row["status"] == "pending" else "failed"
            row["resolved_at"] = at
    tables.schedule("s", at + 3600, name="nightly")
    for number in range(chance.choice([0, 1, 12])):
        name, then = f"{turn}-{number}", int(at - chance.randint(0, 100))
        tables.approve(name, chance.choice(["pending", "rejected"]), then)
        tables.run(name, "s", chance.choice(["running", "success"]), then)
        tables.job(name, chance.choice(["queued", "completed"]), then, then)
        tables.evaluate(name, "accuracy", datetime.fromtimestamp(then, UTC).isoformat(), avg_score=5)


def ended(tables: Tables) -> dict[str, int]:
    """How many rows are to be counted."""
    return {
        RESOLVED: sum(row["status"] != "pending" for row in tables.approvals.values()),
        RUNS: sum(row["status"] != "running" for row in tables.runs.values()),
        JOBS: sum(row["status"] == "completed" for row in tables.jobs.values()),
        EVALS: len(tables.evals),
    }


def counted(world: World) -> dict[str, int]:
    return {metric: sum(world.counters(metric).values()) for metric in COUNTERS}


# --- The position -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(8))
async def test_nothing_counts_twice_if_an_agentos_changes_between_api_and_database(database, tables, tmp_path, seed):
    chance, now = random.Random(seed), 0.0
    for turn in range(8):
        where = database if chance.random() < 0.5 else None
        world = World(tmp_path / "state.db", tables, now, database=where)
        fill(tables, turn, T0 + now, chance)
        await world.look(after=chance.choice([5, 60, 1200]))
        now = world.now
        world.ledger.close()
    for where in (database, None):
        world = World(tmp_path / "state.db", tables, now, database=where)
        for _ in range(2):
            await world.look()
        assert counted(world) == ended(tables), where
        now = world.now
        world.ledger.close()


async def test_both_sources_show_the_same(database, tables):
    chance = random.Random(3)
    worlds = [World(None, tables, database=where) for where in (None, database)]
    for turn in range(6):
        fill(tables, turn, T0 + 60 * turn, chance)
        tables.contents = [{"status": "failed"}] * turn
        tables.memories = {str(number): f"u{number % 3}" for number in range(turn)}
        for world in worlds:
            await world.look()
    for _ in range(5):  # the API asks for runs of schedules in turn
        for world in worlds:
            await world.look()
    shown = [
        {
            (series.metric, series.labels): (series.value, series.counts, series.total)
            for series in world.totals.stored()
            if not series.metric.startswith("agentos_exporter")
        }
        for world in worlds
    ]
    assert shown[0] == shown[1]
    assert counted(worlds[0]) == ended(tables)
    for metric, labels in {
        "agentos_approvals_pending": ("required", "agent"),
        "agentos_approvals_oldest_pending_timestamp_seconds": ("required", "agent"),
        "agentos_schedule_enabled": ("nightly",),
        "agentos_schedule_next_run_timestamp_seconds": ("nightly",),
        "agentos_schedule_last_run_timestamp_seconds": ("nightly",),
        "agentos_queue_jobs": ("queued",),
        "agentos_queue_oldest_job_timestamp_seconds": (),
        "agentos_knowledge_contents": ("failed",),
        "agentos_memories": (),
        "agentos_memory_users": (),
    }.items():
        values = [world.value(metric, *labels) for world in worlds]
        assert values[0] is not None, metric
        assert values[0] == values[1], metric


async def test_a_backlog_is_read_over_several_turns(world, tables, monkeypatch):
    monkeypatch.setattr(stored_tables, "SIZE", 10)
    monkeypatch.setattr(stored_tables, "TURN", 3)
    for number in range(100):
        tables.job(f"j{number:03}", "completed", T0 - 3000 + number // 15, T0 - 3000 + number // 15)
    await world.look()
    assert sum(world.counters(JOBS).values()) == 30
    for number in range(7):
        tables.job(f"later{number}", "completed", T0 + 70, T0 + 70)
    for _ in range(10):
        await world.look()
    assert sum(world.counters(JOBS).values()) == 107


# --- What leaves the database -----------------------------------------------------------------------------------------


async def test_an_idle_turn_is_few_statements_that_scan_nothing_and_ask_for_no_content(world, tables, database):
    chance = random.Random(1)
    for turn in range(3):
        fill(tables, turn, T0, chance)
    await world.look()
    await world.look()
    world.statements.clear()
    await world.look()
    assert len(world.statements) == 10
    connection = sqlite3.connect(database)
    for statement in world.statements:
        selected = statement[: statement.index(" FROM ")]
        assert not [column for column in CONTENT if re.search(rf"\b{column}\b", selected)], statement
        plan = [row[3] for row in connection.execute(f"EXPLAIN QUERY PLAN {statement}", [0] * statement.count("?"))]
        whole = [step for step in plan if step.startswith("SCAN") and "INDEX" not in step]
        assert whole == (["SCAN agno_knowledge"] if "agno_knowledge" in statement else []), statement
    connection.close()


async def test_of_what_an_evaluation_found_the_scores_alone_leave_the_database(world, tables, database):
    tables.evaluate("long", "accuracy", "2026-09-21T13:30:00+00:00", avg_score="9" * 5000)
    tables.evaluate("true", "accuracy", "2026-09-21T13:30:00+00:00", avg_score=True)
    tables.evaluate("scored", "accuracy", "2026-09-21T13:30:00+00:00", avg_score=7.5)
    world.now += 60
    stored.store(database, tables)
    execute(database, "UPDATE agno_eval_runs SET eval_data = 'no JSON' WHERE run_id = 'true'")
    world.database = None  # the file stays as it is
    await world.operations.look()
    assert sum(world.counters(EVALS).values()) == 3
    scores = [series for series in world.totals.stored() if series.metric == "agentos_eval_score"]
    assert [(sum(score.counts), score.total) for score in scores] == [(1, 7_500)]


async def test_odd_rows(world, tables, database):
    odd = [True, -5, 0, 10**18, 1e300, "2026-13-45", "soon", b"\xff"]
    for number, value in enumerate(odd):
        tables.approve(f"odd{number}", "approved", T0, value)
        tables.approve(f"undated{number}", "approved", value)
        tables.job(f"odd{number}", "completed", T0, value)
        tables.evaluate(f"odd{number}", "accuracy", "2026-09-21T13:30:00+00:00", avg_score=5)
        tables.evals[f"odd{number}"]["name"] = value
    tables.approve("unknown", "escalated", T0, approval_type="vote", source_type=b"\xff")
    for _ in range(2):
        await world.look()
    assert world.counters(RESOLVED) == {("required", "approved"): len(odd), ("other", "other"): 1}
    assert world.counters(JOBS) == {}
    assert sum(world.counters(EVALS).values()) == len(odd)
    assert {world.value(UP, surface) for surface in ("approvals", "queue", "evals")} == {1}


# --- Tables that are not there ----------------------------------------------------------------------------------------


async def test_a_table_that_is_not_there_is_no_surface_until_it_is_made(world, database):
    execute(database, "ALTER TABLE agno_approvals RENAME TO away")
    stored_nothing, world.database = world.database, None
    await world.look()
    assert world.value(UP, "approvals") is None
    assert world.value(UP, "schedules") == 1
    execute(database, "ALTER TABLE away RENAME TO agno_approvals")
    world.database = stored_nothing
    await world.look(after=OFF_FOR)
    assert world.value(UP, "approvals") == 1


async def test_a_table_that_is_gone_is_unknown_and_concerns_no_other(world, tables, database):
    tables.job("j", "queued", T0)
    await world.look()
    execute(database, "ALTER TABLE agno_jobs RENAME TO away")
    stored_jobs, world.database = world.database, None
    await world.look()
    assert world.value(UP, "queue") == 0
    assert world.value("agentos_queue_jobs", "queued") is None, "unknown is not zero"
    assert world.value(UP, "approvals") == 1
    execute(database, "ALTER TABLE away RENAME TO agno_jobs")
    world.database = stored_jobs
    await world.look()
    assert world.value("agentos_queue_jobs", "queued") == 1


# --- Paused runs ------------------------------------------------------------------------------------------------------


def run(path: Path, run_id: str, kind: str, status: str, *, parent: str | None = None, **data: object) -> None:
    """Write a run, as agno does."""
    execute(path, "DELETE FROM agno_runs WHERE run_id = ?", run_id)
    execute(
        path,
        f"INSERT INTO agno_runs (run_id, session_id, run_type, {kind}_id, parent_run_id, status, run_data, created_at) "
        "VALUES (?, 's', ?, ?, ?, ?, ?, ?)",
        *(run_id, kind, str(data), parent, status, json.dumps({"content": "CONTENT", **data}), T0),
    )


async def test_paused_runs_are_shown_by_their_root_and_as_0_once_they_went_on(world, database):
    await world.look()
    assert world.totals.value(PAUSED, ("it", "agent", "My_Agent")) is None
    run(database, "1", "agent", "PAUSED", agent_name="My Agent")
    run(database, "2", "agent", "PAUSED", agent_name="My Agent")
    run(database, "3", "team", "PAUSED", team_name="My-Team")
    run(database, "4", "agent", "PAUSED", parent="3", agent_name="Member")
    run(database, "5", "agent", "PAUSED", other=1)
    run(database, "6", "workflow", "COMPLETED", workflow_name="Done")
    execute(database, "UPDATE agno_runs SET run_data = 'no JSON' WHERE run_id = '5'")
    await world.look()

    def shown() -> dict[tuple[str, str], float | None]:
        roots = [("agent", "My_Agent"), ("team", "My_Team"), ("agent", "Agent"), ("agent", "Member")]
        return {labels: world.value(PAUSED, *labels) for labels in [*roots, ("workflow", "Done")]}

    expected = {("agent", "My_Agent"): 2, ("team", "My_Team"): 1, ("agent", "Agent"): 1}
    assert shown() == {**expected, ("agent", "Member"): None, ("workflow", "Done"): None}
    run(database, "3", "team", "COMPLETED", team_name="My-Team")
    await world.look()
    assert shown()["team", "My_Team"] == 0


async def test_runs_of_too_many_are_unknown(world, database, monkeypatch):
    monkeypatch.setattr("exporter.sources.database.surfaces.paused._MOST", 3)
    for number in range(4):
        run(database, str(number), "agent", "PAUSED", agent_name=f"a{number}")
    await world.look()
    assert world.value(UP, "runs") == 0
    assert world.value(PAUSED, "agent", "a1") is None


# --- Several databases ------------------------------------------------------------------------------------------------


async def test_several_databases_are_added_up_and_the_one_that_is_furthest_behind_decides(empty, tmp_path, monkeypatch):
    monkeypatch.setattr(stored_tables, "SIZE", 10)
    monkeypatch.setattr(stored_tables, "TURN", 1)
    connections = []
    for number, rows in enumerate((25, 4, 0)):
        path = Path(shutil.copy(empty, tmp_path / f"{number}.db"))
        tables = Tables(memories={"m": f"u{number}"})
        for row in range(rows):
            tables.evaluate(f"{number}-{row}", "accuracy", datetime.fromtimestamp(T0 - 3000 + row, UTC).isoformat())
        tables.approve(f"{number}", "pending", T0 - number)
        stored.store(path, tables)
        connections.append(SqliteConnection(Location(Engine.SQLITE, str(path)), lambda: None))
    execute(tmp_path / "2.db", "DROP TABLE agno_eval_runs")
    surfaces = DatabaseSurfaces(connections, Clock(lambda: T0 + 60, lambda: 0.0), lookback=LOOKBACK * MICROSECONDS)
    approvals = await surfaces.read("approvals", None)
    assert approvals.gauges["agentos_approvals_pending"]["required", "agent"] == 3
    memories = await surfaces.read("memory", None)
    assert memories.gauges == {"agentos_memories": {(): 3}, "agentos_memory_users": {(): 3}}
    found: set[str] = set()
    position = None
    for _ in range(5):
        reading = await surfaces.read("evals", position)
        position = reading.position
        found |= {one.id for one in reading.ended}
    assert len(found) == 29
    await surfaces.aclose()


# --- What counts cost ----------------------------------------------------------------------------


class Slow:
    """Databases of which each statement takes 2 seconds."""

    def __init__(self) -> None:
        self.connections = [self]
        self.seconds = 0.0
        self.asked = 0

    async def every(self, table: str, *_: object) -> list[tuple[object, int]]:
        self.seconds += 2.0
        self.asked += 1
        return [("failed", 3)] if table == "knowledge_table" else [(3, 1)]


@pytest.mark.parametrize(("kind", "metric"), [(Knowledge, "agentos_knowledge_contents"), (Memory, "agentos_memories")])
async def test_what_is_counted_whole_is_counted_seldom(kind, metric):
    now, databases = [0.0], Slow()
    surface = kind(databases, Clock(lambda: now[0], lambda: now[0]))
    assert metric in (await surface.read()).gauges
    now[0] = 999.0
    assert (await surface.read()).gauges == {}, "what was shown stays"
    now[0] = 1000.0
    assert metric in (await surface.read()).gauges
    assert databases.asked == 2


def test_a_count_waits_until_its_cost_allows_for_the_next():
    class Connection:
        seconds = 0.0

        def fail(self) -> None:
            self.seconds += 2.0
            raise OSError("broken")

    one, now = Connection(), [0.0]
    pace = Pace(Clock(lambda: now[0], lambda: now[0]))
    with pytest.raises(OSError, match="broken"), pace.counting([one]):
        one.fail()
    now[0] = 999.0
    assert not pace.due
    now[0] = 1000.0
    assert pace.due
