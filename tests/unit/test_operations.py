"""The slow job of one AgentOS: surfaces that are refused, that fail and come back, restarts, and what gets old."""

import random
from collections import Counter

import pytest
from structlog.testing import capture_logs

from exporter.core.errors import StateError
from exporter.service.operations import OFF_FOR
from tests.harness.surfaces import NAME, T0, Tables, World

UP = "agentos_surface_up"
RESOLVED = "agentos_approvals_resolved_total"
RUNS = "agentos_schedule_runs_total"
LOST = "agentos_exporter_ignored_rows_total"
SURFACES = ("approvals", "schedules", "queue", "evals", "knowledge", "memory")
PARTS = ("approvals", "schedules", "queue", "eval-runs", "knowledge", "user_memory_stats")


@pytest.fixture
def tables() -> Tables:
    tables = Tables()
    tables.approve("a", "pending", T0)
    tables.approve("b", "approved", T0)
    tables.schedule("s", T0 + 3600)
    tables.job("j", "queued", T0)
    tables.contents = [{"id": 1, "status": "failed"}]
    return tables


@pytest.fixture
def world(tables) -> World:
    return World(None, tables)


@pytest.mark.parametrize(("surface", "part"), list(zip(SURFACES, PARTS, strict=True)))
@pytest.mark.parametrize(
    ("code", "detail", "up"),
    [
        (401, "Token has expired", 0),
        (403, "Insufficient permissions", 0),
        (404, "Not Found", None),
        (503, "not available: pass a `db` to AgentOS to enable this feature.", None),
        (503, "Durable job queue is not enabled on this replica", 0),
    ],
)
async def test_a_surface_that_is_refused_is_off_for_a_while_and_concerns_no_other(
    world, tables, surface, part, code, detail, up
):
    tables.codes[part], tables.details[part] = code, detail
    await world.look()
    asked = dict(world.api.requests)
    await world.look()
    tables.codes.clear()
    await world.look()
    for one in SURFACES:
        assert world.value(UP, one) == (up if one == surface else 1)
    # It was not asked for again meanwhile.
    endpoint = {"eval-runs": "eval_runs", "queue": "queue_stats", "knowledge": "knowledge_content"}.get(part, part)
    assert world.api.requests[endpoint] == asked[endpoint]
    await world.look(after=OFF_FOR)
    assert world.value(UP, surface) == 1


async def test_what_a_surface_said_vanishes_when_it_fails(world, tables):
    await world.look()
    assert world.value("agentos_approvals_pending", "required", "agent") == 1
    tables.codes["approvals"] = 500
    await world.look()
    assert world.value("agentos_approvals_pending", "required", "agent") is None
    assert world.value(UP, "approvals") == 0
    assert world.value("agentos_queue_jobs", "queued") == 1
    assert world.counters(RESOLVED) == {("required", "approved"): 1}
    tables.codes.clear()
    await world.look()
    assert world.value("agentos_approvals_pending", "required", "agent") == 1


async def test_the_scope_that_is_missing_is_logged_once(world, tables):
    tables.codes["approvals"], tables.details["approvals"] = 403, "Insufficient permissions"
    tables.codes["queue"] = 403
    with capture_logs() as logs:
        for _ in range(5):
            await world.look(after=OFF_FOR + 1)
    told = [entry["error"] for entry in logs if entry["event"] == "surface_off"]
    assert told == [
        "approvals: 403 Insufficient permissions; the token needs the scope approvals:read",
        "queue_stats: 403 ; the token needs the scope agent_os:admin",
    ]


async def test_what_is_old_vanishes_while_agentos_does_not_answer(world):
    await world.look()
    world.poller.health.outcome = "unreachable"
    world.api.requests.clear()
    await world.look(after=200)
    world.operations.refresh()
    assert world.value("agentos_queue_jobs", "queued") == 1
    await world.look(after=200)
    world.operations.refresh()
    assert not world.api.requests, "the poller alone asks an AgentOS that is down"
    assert world.value("agentos_queue_jobs", "queued") is None
    assert [world.value(UP, surface) for surface in SURFACES] == [0] * len(SURFACES)


async def test_nothing_is_asked_before_traces_were_read(world):
    world.poller.health.last_success = None
    await world.look()
    assert world.api.requests == {}


async def test_a_restart_counts_nothing_again_and_forgets_nothing(tmp_path, tables):
    path = tmp_path / "state.db"
    now = 0.0
    for turn in range(6):
        world = World(path, tables, now)
        await world.look()
        await world.look()
        assert world.counters(RESOLVED) == {("required", "approved"): 1 + turn}
        tables.approve("a", "approved", T0, T0)
        tables.approve(f"turn{turn}", "pending", T0 + world.now)
        now = world.now + 3 * 86_400 * (turn == 3)
        if turn:
            tables.approve(f"turn{turn - 1}", "approved", T0 + now, T0 + now)
        world.ledger.close()


async def test_a_commit_that_fails_is_made_up_for(world, tables, monkeypatch):
    def fails(_changes):
        raise StateError("the disk is full")

    with monkeypatch.context() as patch:
        patch.setattr(world.ledger, "commit", fails)
        await world.look()
        assert world.counters(RESOLVED) == {}
        assert world.value(UP, "approvals") == 0
    await world.look()
    assert world.counters(RESOLVED) == {("required", "approved"): 1}


async def test_a_surprise_in_one_surface_stops_no_other(world, monkeypatch):
    def surprise(*_arguments, **_named):
        raise ZeroDivisionError

    monkeypatch.setattr(world.operations._ends, "position", surprise)
    await world.look()
    assert [world.value(UP, surface) for surface in SURFACES] == [0] * len(SURFACES)


async def test_ids_are_forgotten_a_day_behind_the_position(world, tables):
    await world.look()
    assert world.ledger.ended(NAME, "approvals", ["b"]) == {"b"}
    tables.approve("c", "approved", T0 + 2 * 86_400)
    await world.look(after=2 * 86_400)
    await world.look()
    assert world.ledger.ended(NAME, "approvals", ["b", "c"]) == {"c"}
    assert world.counters(RESOLVED) == {("required", "approved"): 2}


async def test_jobs_that_agentos_deleted_during_a_long_downtime_are_said_to_be_unknown(world, tables):
    with capture_logs() as logs:
        await world.look()
        await world.look(after=23 * 3600)
        await world.look(after=30 * 3600)
        await world.look()
    assert [(entry["surface"], entry["hours"]) for entry in logs if entry["event"] == "rows_unknown"] == [("queue", 30)]


async def test_a_part_without_a_database_is_absent(world):
    world.places["knowledge"] = []
    await world.look()
    assert world.value(UP, "knowledge") is None
    assert world.value(UP, "memory") == 1


async def test_each_database_of_evaluations_has_a_position_of_its_own(world, tables):
    tables.evaluate("e", "accuracy", "2026-09-21T14:00:00Z", avg_score=5)
    world.places["evals"] = [{"db_id": "one"}, {"db_id": "two"}]
    await world.look()
    await world.look()
    position = world.ledger.position(NAME, "evals")
    assert position is not None
    assert set(position["databases"]) == {"one", "two"}
    assert sum(world.counters("agentos_eval_runs_total").values()) == 1


@pytest.mark.parametrize("seed", range(8))
async def test_whatever_happens_each_row_that_ends_counts_once(tmp_path, seed):
    """Rows are written and end, AgentOS fails in all its ways, and the exporter is killed, or away for days."""
    chance, tables, now = random.Random(seed), Tables(), 0.0
    tables.schedule("s", T0, name="nightly")
    world = World(tmp_path / "state.db", tables)
    await world.look(after=0)
    approvals: list[str] = []
    runs: list[str] = []
    ended = Counter[str]()
    for number in range(60):
        at = int(T0 + world.now)
        tables.approve(f"a{number}", "pending", at)
        tables.run(f"r{number}", "s", "running", at)
        approvals.append(f"a{number}")
        runs.append(f"r{number}")
        for _ in range(chance.randint(0, 2)):
            if approvals:
                one = approvals.pop(chance.randrange(len(approvals)))
                created = tables.approvals[one]["created_at"]
                tables.approve(one, chance.choice(["approved", "rejected"]), created, at)
                ended["approvals"] += 1
            if runs:
                one = runs.pop(chance.randrange(len(runs)))
                tables.run(one, "s", chance.choice(["success", "failed"]), tables.runs[one]["created_at"])
                ended["runs"] += 1
        tables.silent = chance.random() < 0.15
        world.poller.health.failures = int(tables.silent)  # the sentinels of traces tell
        tables.codes = {"approvals": 500} if chance.random() < 0.15 else {}
        await world.look(after=chance.choice([5, 60, 60, 1200]))
        if chance.random() < 0.2:
            world.ledger.close()
            now = world.now + chance.choice([0, 0, 3000])
            world = World(tmp_path / "state.db", tables, now)
    tables.silent, tables.codes, world.poller.health.failures = False, {}, 0
    for _ in range(8):
        await world.look()
    assert sum(world.counters(RESOLVED).values()) == ended["approvals"]
    assert sum(world.counters(RUNS).values()) == ended["runs"]
    assert world.counters(LOST) == {}
    waiting = world.value("agentos_approvals_pending", "required", "agent")
    assert waiting == len(approvals)
    world.ledger.close()
