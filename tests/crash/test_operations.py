"""A death or a failure at any write of what waits and ended loses no row and doubles none."""

from pathlib import Path

import pytest

from tests.harness import stored
from tests.harness.dying import Left, Write, Writes, disk_full
from tests.harness.surfaces import T0, Tables, World

COUNTERS = {
    "agentos_approvals_resolved_total": {("required", "approved"): 2, ("required", "rejected"): 1},
    "agentos_schedule_runs_total": {("nightly", "success"): 1, ("nightly", "failed"): 1},
    "agentos_queue_jobs_finished_total": {("writer", "completed"): 1, ("writer", "failed"): 1},
    "agentos_eval_runs_total": {("accuracy", "test of accuracy", "Writer"): 1},
}

pytestmark = pytest.mark.usefixtures("at_once")


@pytest.fixture(params=["api", "database"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Path | None:
    """The tables that are read; None where the API is."""
    if request.param == "api":
        return None
    path = tmp_path / "agno.sqlite"
    stored.create(path)
    return path


def before() -> Tables:
    """What is there at first."""
    tables = Tables()
    tables.approve("a", "pending", T0)
    tables.approve("b", "approved", T0, T0)
    tables.schedule("s", T0 + 30, name="nightly")
    tables.run("r1", "s", "running", T0)
    tables.job("j1", "completed", T0, T0)
    return tables


def go_on(tables: Tables) -> None:
    """What waited ends, and more comes."""
    tables.approve("a", "approved", T0, T0 + 100)
    tables.approve("c", "rejected", T0 + 100, T0 + 100)
    tables.run("r1", "s", "failed", T0)
    tables.run("r2", "s", "success", T0 + 100)
    tables.job("j2", "failed", T0 + 100, T0 + 100)
    tables.evaluate("e", "accuracy", "2026-09-21T13:30:00Z", avg_score=5)


def check(world: World) -> None:
    """See that each row counted once."""
    assert {metric: world.counters(metric) for metric in COUNTERS} == COUNTERS


async def live(world: World) -> None:
    """Read what is there, and what it becomes."""
    await world.look()
    go_on(world.tables)
    for _ in range(2):
        await world.look()


async def test_a_death_at_any_write_changes_no_total(tmp_path: Path, database: Path | None) -> None:
    path = tmp_path / "state.db"
    world = World(path, before(), database=database)
    left: list[tuple[Write, Left, float]] = []
    Writes(world.ledger, lambda write: left.append((write, Left.of(path), world.now)))
    await live(world)
    check(world)
    world.ledger.close()
    assert {"INSERT INTO ended", "INSERT INTO surfaces", "INSERT INTO series"} <= {write.what for write, *_ in left}
    for number, (write, files, now) in enumerate(left):
        other = tmp_path / f"{number}.db"
        files.put(other)
        tables = before()
        go_on(tables)
        successor = World(other, tables, now, database=database)
        for _ in range(2):
            await successor.look()
        check(successor), str(write)
        successor.ledger.close()


async def test_a_failure_at_any_write_is_made_up_for(tmp_path: Path, database: Path | None) -> None:
    fails, at = True, 0
    while fails:
        at += 2  # every other one, of many that are alike
        fails = False

        def meet(write: Write) -> None:
            nonlocal fails
            if write.number == at and not write.done:  # noqa: B023 - it is called in this very turn
                fails = True
                disk_full()

        world = World(tmp_path / f"{at}.db", before(), database=database)
        Writes(world.ledger, meet)
        await live(world)
        await world.look()
        check(world)
        world.ledger.close()
    assert at > 20
