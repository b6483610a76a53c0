"""What is read of AgentOS beside its traces: odd rows, long lists, databases that fail, and each row counted once."""

import random
import shutil
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pytest

from exporter.sources.api.surfaces import lists
from exporter.sources.facts import moment
from exporter.sources.surfaces.evals import Data, score
from exporter.sources.surfaces.schedules import STUCK_AFTER
from tests.harness.surfaces import LOOKBACK, T0, Tables, World

RESOLVED = "agentos_approvals_resolved_total"
RUNS = "agentos_schedule_runs_total"
JOBS = "agentos_queue_jobs_finished_total"
EVALS = "agentos_eval_runs_total"
LOST = "agentos_exporter_ignored_rows_total"


@pytest.fixture
def tables() -> Tables:
    return Tables()


@pytest.fixture
def world(tables) -> World:
    return World(None, tables)


@pytest.fixture(params=["api", "database"])
def each(request, tables, empty, tmp_path) -> World:
    """The same AgentOS, read in either way."""
    if request.param == "api":
        return World(None, tables)
    return World(None, tables, database=Path(shutil.copy(empty, tmp_path / "agno.db")))


def iso(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).isoformat()


# --- Approvals ------------------------------------------------------------------------------------------------------


async def test_approvals_count_by_how_they_were_resolved(each, tables):
    for number in range(40):
        status = ("pending", "approved", "rejected", "expired")[number % 4]
        tables.approve(f"a{number}", status, T0 - 600 + number, None if status == "pending" else T0 - 500 + number)
    await each.look()
    await each.look()
    resolved = {("required", status): 10 for status in ("approved", "rejected", "expired")}
    assert each.counters(RESOLVED) == resolved
    assert each.value(RESOLVED, "required", "cancelled") == 0
    assert each.value("agentos_approvals_pending", "required", "agent") == 10
    oldest = each.value("agentos_approvals_oldest_pending_timestamp_seconds", "required", "agent")
    assert oldest == T0 - 600
    waits = next(series for series in each.totals.stored() if series.metric == "agentos_approval_wait_seconds")
    assert (sum(waits.counts), waits.total) == (30, 30 * 100_000_000)


async def test_an_approval_that_waited_for_days_counts_when_it_is_resolved(each, tables):
    tables.approve("old", "pending", T0 - 5 * 86_400)
    await each.look()
    assert each.counters(RESOLVED) == {}
    for number in range(300):
        tables.approve(f"new{number}", "approved", T0 + number / 10)
    tables.approve("old", "rejected", T0 - 5 * 86_400, T0 + 60)
    await each.look()
    assert each.counters(RESOLVED) == {("required", "approved"): 300, ("required", "rejected"): 1}
    await each.look()
    assert each.counters(RESOLVED) == {("required", "approved"): 300, ("required", "rejected"): 1}
    assert each.value("agentos_approvals_pending", "required", "agent") == 0


async def test_history_before_the_lookback_is_left_out(each, tables):
    tables.approve("before", "approved", T0 - LOOKBACK - 61)
    tables.approve("within", "approved", T0 - LOOKBACK + 61)
    await each.look()
    assert each.counters(RESOLVED) == {("required", "approved"): 1}


async def test_an_approval_that_was_deleted_while_it_waited_is_lost(each, tables):
    tables.approve("a", "pending", T0)
    tables.approve("b", "approved", T0)
    await each.look()
    del tables.approvals["a"]
    for _ in range(2):
        await each.look()
        assert each.value(LOST, "approvals", "gone") == 0, "AgentOS says 404 when its database fails, too"
    await each.look()
    await each.look()
    assert each.value(LOST, "approvals", "gone") == 1
    assert each.value("agentos_approvals_pending", "required", "agent") == 0


async def test_odd_approvals(world, tables):
    odd = [None, "text", True, -5, 0, 10**30, 1e300, "2026-13-45", [], {}]
    for number, value in enumerate(odd):
        tables.approve(f"odd{number}", "approved", T0, value)
        tables.approve(f"undated{number}", "approved", value)
    tables.approve("unknown", "escalated", T0, approval_type="vote", source_type=["x"])
    tables.approve("nameless", "approved", T0, id=7)
    tables.approve("untyped", "rejected", T0, approval_type=None, source_type=None)
    await world.look()
    await world.look()
    assert world.counters(RESOLVED) == {
        ("required", "approved"): len(odd),
        ("required", "rejected"): 1,
        ("other", "other"): 1,
    }
    assert world.value("agentos_surface_up", "approvals") == 1


async def test_more_approvals_wait_than_are_listed(world, tables, monkeypatch):
    monkeypatch.setattr("exporter.sources.api.surfaces.approvals.PAGES", 2)
    for number in range(250):
        tables.approve(f"a{number}", "pending", T0 + number)
    await world.look(after=1000)
    assert world.value("agentos_approvals_pending", "required", "agent") == 200
    assert world.value("agentos_approvals_pending", "other", "other") == 50


async def test_approvals_that_were_all_deleted_are_lost_in_the_end(world, tables):
    tables.approve("a", "pending", T0)
    await world.look()
    tables.approvals.clear()
    for _ in range(8):
        await world.look()
    assert world.value(LOST, "approvals", "gone") == 1
    world.api.requests.clear()
    await world.look()
    assert "approval" not in world.api.requests


async def test_one_of_old_approvals_that_is_deleted_is_not_asked_for_for_ever(each, tables):
    tables.approve("a", "pending", T0)
    tables.approve("b", "pending", T0)
    await each.look()
    await each.look(after=86_400)
    del tables.approvals["a"]
    for _ in range(3):
        await each.look(after=3600)
    assert each.value(LOST, "approvals", "gone") == 1


# --- Long lists -----------------------------------------------------------------------------------------------------


async def test_a_backlog_is_read_over_several_turns(world, tables):
    for number in range(2500):
        tables.evaluate(f"e{number}", "accuracy", iso(T0 - number), avg_score=7.5)
    await world.look()
    assert 0 < world.counters(EVALS)["accuracy", "test of accuracy", "Writer"] < 2500
    for number in range(30):
        tables.evaluate(f"later{number}", "accuracy", iso(T0 + 70), avg_score=7.5)
    for _ in range(12):
        await world.look()
    assert world.counters(EVALS) == {("accuracy", "test of accuracy", "Writer"): 2530}


async def test_fewer_rows_are_asked_for_where_they_are_large(world, tables, monkeypatch):
    monkeypatch.setattr(lists, "ANSWER_LIMIT", 20_000)
    tables.fat = 3000
    for number in range(20):
        tables.evaluate(f"e{number}", "performance", iso(T0 - number))
    for _ in range(8):
        await world.look()
    assert world.counters(EVALS) == {("performance", "test of performance", "Writer"): 20}


async def test_an_idle_agentos_is_asked_little(world, tables):
    for number in range(500):
        tables.approve(f"a{number}", "approved", T0 - 3000 + number)
        tables.job(f"j{number}", "completed", T0 - 3000, T0 - 2000 + number)
    tables.schedule("nightly", T0 + 80_000)
    await world.look()
    await world.look(after=3600)
    world.api.requests.clear()
    await world.look()
    assert world.api.requests == {
        "approvals": 2,
        "schedules": 1,
        "schedule_runs": 1,
        "queue_stats": 1,
        "queue_jobs": 1,
        "eval_runs": 1,
        "knowledge_content": 1,
        "user_memory_stats": 1,
        "memories": 1,
    }


@pytest.mark.parametrize("seed", range(10))
async def test_rows_count_once_whatever_comes_between_the_turns(each, tables, seed):
    chance = random.Random(seed)
    expected = 0
    await each.look(after=0)
    for turn in range(chance.randint(1, 6)):
        for number in range(chance.choice([0, 3, 9, 10, 11, 100, 130])):
            at = T0 + each.now - chance.randint(0, 100)
            tables.job(f"{turn}-{number}", chance.choice(["completed", "failed"]), at, at)
            expected += 1
        await each.look(after=chance.choice([5, 60, 86_400, 10 * 86_400]))
    for _ in range(3):
        await each.look()
    assert sum(each.counters(JOBS).values()) == expected


async def test_rows_that_a_slow_clock_dates_are_counted(each, tables):
    behind = 600
    await each.look(after=0)
    for number in range(40):
        at = T0 + each.now - behind
        tables.job(str(number), "completed", at, at)
        await each.look(after=(60, 7200)[number % 10 == 0])
    await each.look()
    assert each.counters(JOBS) == {("writer", "completed"): 40}


# --- Schedules ------------------------------------------------------------------------------------------------------


async def test_runs_of_schedules_count_when_they_end(each, tables):
    tables.schedule("s", T0 + 3600, name="nightly")
    tables.run("r1", "s", "success", T0 - 100)
    tables.run("r2", "s", "running", T0 - 50)
    await each.look()
    assert each.counters(RUNS) == {("nightly", "success"): 1}
    assert each.value(RUNS, "nightly", "failed") == 0
    assert each.value("agentos_schedule_last_run_timestamp_seconds", "nightly") == T0 - 50
    tables.run("r2", "s", "failed", T0 - 50)
    tables.schedule("s", T0 + 7200, name="nightly")
    await each.look(after=7000)
    await each.look()
    assert each.counters(RUNS) == {("nightly", "success"): 1, ("nightly", "failed"): 1}
    assert each.value("agentos_schedule_next_run_timestamp_seconds", "nightly") == T0 + 7200
    tables.schedule("s", T0 + 7200, name="nightly", enabled=False)
    await each.look()
    assert each.value("agentos_schedule_enabled", "nightly") == 0
    assert each.value("agentos_schedule_next_run_timestamp_seconds", "nightly") is None


async def test_a_run_that_is_triggered_by_hand_is_found_in_turn(each, tables):
    for number in range(23):
        tables.schedule(f"s{number}", T0 + 80_000)
    await each.look()
    await each.look()
    tables.run("by-hand", "s17", "success", T0 + 100)
    for _ in range(5):
        await each.look()
    assert each.counters(RUNS) == {("s17", "success"): 1}


async def test_of_many_schedules_that_are_due_none_is_forgotten(each, tables):
    for number in range(120):
        tables.schedule(f"s{number}", T0 + 80_000)
        tables.run(f"r{number}", f"s{number}", "failed", T0 - 10)
    for _ in range(3):
        await each.look()
    assert len(each.counters(RUNS)) == 120


async def test_a_run_that_never_ends_and_one_whose_schedule_is_deleted_are_lost(each, tables):
    tables.schedule("s", T0 + 9 * 86_400)
    tables.schedule("t", T0 + 9 * 86_400)
    tables.run("hangs", "s", "running", T0)
    tables.run("deleted", "t", "running", T0)
    await each.look()
    del tables.schedules["t"]
    await each.look()
    assert each.value(LOST, "schedules", "gone") == 1
    await each.look(after=STUCK_AFTER / 1_000_000)
    await each.look()
    assert (each.value(LOST, "schedules", "stuck"), each.value(LOST, "schedules", "gone")) == (1, 1)


async def test_a_schedule_that_was_not_listed_for_a_while_is_read_from_where_the_others_stand(each, tables):
    tables.schedule("s", T0 + 3600)
    tables.schedule("t", T0 + 3600)
    tables.run("r", "s", "success", T0)
    tables.run("other", "t", "success", T0)
    await each.look()
    for listed in (True, False, True):
        tables.schedules.pop("s", None)
        if listed:
            tables.schedule("s", T0 + 3600)
        await each.look(after=3 * 86_400)  # the id of the run is forgotten
    assert each.counters(RUNS) == {("s", "success"): 1, ("t", "success"): 1}


# --- The queue ------------------------------------------------------------------------------------------------------


async def test_the_queue(each, tables):
    tables.job("waits", "queued", T0 - 40)
    tables.job("done", "completed", T0 - 60, T0 - 50)
    tables.job("broken", "failed", T0 - 60, T0 - 50)
    await each.look()
    assert each.value("agentos_queue_jobs", "queued") == 1
    assert each.value("agentos_queue_jobs", "paused") == 0
    assert each.value("agentos_queue_oldest_job_timestamp_seconds") == T0 - 40
    tables.job("broken", "queued", T0 - 60, attempt=1)
    await each.look()
    tables.job("broken", "completed", T0 - 60, T0 + 110, attempt=2)
    del tables.jobs["waits"]
    await each.look()
    assert each.counters(JOBS) == {("writer", "completed"): 2, ("writer", "failed"): 1}
    assert each.value("agentos_queue_oldest_job_timestamp_seconds") is None


async def test_a_queue_that_says_nothing_is_not_believed(world, tables):
    tables.job("waits", "queued", T0)
    tables.job("done", "completed", T0, T0)
    await world.look()
    tables.silent = True
    for _ in range(2):
        await world.look()
        assert world.value("agentos_queue_jobs", "queued") is None, "unknown is not zero"
        assert world.value("agentos_surface_up", "queue") == 0
    tables.silent = False
    tables.job("done", "completed", T0, T0 + 90)
    await world.look()
    assert world.value("agentos_queue_jobs", "queued") == 1
    assert world.counters(JOBS) == {("writer", "completed"): 1}


async def test_a_queue_that_is_empty_is_believed_in_the_end(each, tables):
    tables.job("waits", "queued", T0)
    await each.look()
    tables.jobs.clear()
    for shown in (None, None, 0):
        await each.look()
        assert each.value("agentos_queue_jobs", "queued") == shown
    await each.look()
    assert each.value("agentos_surface_up", "queue") == 1


async def test_an_empty_queue_is_not_believed_while_traces_cannot_be_read(world, tables):
    tables.job("waits", "queued", T0)
    await world.look()
    tables.silent = True
    world.poller.health.failures = 1
    world.poller.health.outcome = "silent_empty"
    for _ in range(5):
        await world.look()
        assert world.value("agentos_queue_jobs", "queued") is None


# --- Evaluations ----------------------------------------------------------------------------------------------------


async def test_evaluations_of_each_type(each, tables):
    data = {
        "accuracy": {"avg_score": 7.5, "results": [{"output": "CONTENT"}]},
        "agent_as_judge": {"avg_score": None, "pass_rate": 50.0},
        "reliability": {"eval_status": "PASSED"},
        "performance": {"result": {"avg_run_time": 0.5}},
    }
    for kind, one in data.items():
        for number in range(30):
            tables.evaluate(f"{kind}{number}", kind, iso(T0 - 5), **one)
    for _ in range(3):
        await each.look()
    assert each.counters(EVALS) == {(kind, f"test of {kind}", "Writer"): 30 for kind in data}
    scores = {
        series.labels[1]: series.total for series in each.totals.stored() if series.metric == "agentos_eval_score"
    }
    assert scores == {"accuracy": 225_000, "agent_as_judge": 15_000, "reliability": 30_000}


async def test_a_database_that_is_listed_under_another_name_is_read_from_where_it_stood(world, tables):
    tables.evaluate("old", "accuracy", iso(T0), avg_score=5)
    await world.look()
    await world.look(after=3 * 86_400)  # its id is forgotten
    world.places["evals"] = [{"db_id": "a"}, {"db_id": "b"}]
    tables.evaluate("new", "accuracy", iso(T0 + world.now), avg_score=5)
    await world.look()
    assert world.counters(EVALS) == {("accuracy", "test of accuracy", "Writer"): 2}


@pytest.mark.parametrize("value", [None, "7", True, -1, 11, 1e300, [], {}])
def test_scores_that_are_none(value):
    assert score("accuracy", Data(avg_score=value)) is None
    assert score("reliability", Data(eval_status=value)) is None
    assert score("performance", Data(avg_score=5)) is None


# --- What AgentOS holds ---------------------------------------------------------------------------------------------


async def test_contents_and_memories(each, tables):
    statuses = ["processing", "completed", "partial", "failed", "completed", None, "odd"]
    tables.contents = [{"id": number, "status": status} for number, status in enumerate(statuses)]
    tables.memories = {"m1": "u1", "m2": "u1", "m3": "u2"}
    await each.look()
    shown = {status: each.value("agentos_knowledge_contents", status) for status in (*statuses[:4], "other")}
    assert shown == {"processing": 1, "completed": 2, "partial": 1, "failed": 1, "other": 2}
    assert (each.value("agentos_memories"), each.value("agentos_memory_users")) == (3, 2)


async def test_contents_that_are_gone_are_believed_to_be_so_in_the_end(each, tables):
    tables.contents = [{"id": 1, "status": "completed"}]
    tables.memories = {"m1": "u1"}
    await each.look()
    tables.contents.clear()
    tables.memories.clear()
    for shown in (None, None, 0, 0, 0):
        await each.look()
        assert each.value("agentos_knowledge_contents", "completed") == shown
        assert each.value("agentos_memories") == shown


async def test_many_contents_are_counted_over_several_turns_and_then_rarely(world, tables):
    tables.contents = [{"id": number, "status": "completed"} for number in range(1550)]
    await world.look()
    assert world.value("agentos_knowledge_contents", "completed") is None
    await world.look()
    assert world.value("agentos_knowledge_contents", "completed") == 1550
    world.api.requests.clear()
    await world.look()
    assert world.api.requests["knowledge_content"] == 1
    assert world.value("agentos_knowledge_contents", "completed") == 1550


# --- Values ---------------------------------------------------------------------------------------------------------


def test_moments():
    assert moment(1_790_000_000) == 1_790_000_000_000_000
    assert moment("2026-11-30T20:40:14Z") == moment("2026-11-30T20:40:14+00:00") == moment("2026-11-30T20:40:14")
    for value in (None, True, "", "soon", 0, -1, 5, 10**18, 1e300, float("inf"), float("nan"), [], "0001-01-01"):
        assert moment(value) is None


def test_content_is_never_decoded():
    decoder = lists.decoder(lists._Rowless)
    page = decoder.decode(b'{"data": [{"payload": {"a": 1}}], "meta": {"total_count": 3}}')
    assert (page.total, msgspec.to_builtins(page.data)) == (3, [{}])


async def test_what_was_read_is_not_read_again_while_the_list_looks_the_same(world, tables):
    await world.look()
    for number in range(90):
        tables.evaluate(f"e{number}", "accuracy", iso(T0 + 100), avg_score=5)
    await world.look()
    world.api.requests.clear()
    for _ in range(9):
        await world.look()
    assert world.api.requests["eval_runs"] == 9
    tables.evaluate("late", "accuracy", iso(T0 + 50), avg_score=5)
    await world.look()
    assert world.counters(EVALS) == {("accuracy", "test of accuracy", "Writer"): 91}
