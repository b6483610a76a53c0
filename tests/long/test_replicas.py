"""Replicas that are killed, stopped and cut off again and again; and 200 instances over four of them."""

from pathlib import Path

import pytest

from tests.harness import upheavals
from tests.harness.postgres import Postgres
from tests.harness.replicas import IDLE, Replicas

pytestmark = pytest.mark.postgres


@pytest.mark.parametrize("what", upheavals.KINDS)
def test_each_span_counts_once(what: str, tmp_path: Path) -> None:
    upheavals.survive(tmp_path, what, times=3 if what == "fail over" else 20, seed=1, deadline=1200)


def test_killing_one_moves_only_its_share(tmp_path: Path, postgres: Postgres) -> None:
    names = {f"it{number}": "http://127.0.0.1:9" for number in range(200)}
    with Replicas(tmp_path, 4, names, postgres.url("state"), **IDLE) as replicas:
        before = replicas.wait_until_shared()
        replicas.exporters[2].kill()
        after = replicas.wait_until_shared()
    moved = {name for name in names if before[name] != after[name]}
    assert moved == {name for name, leader in before.items() if leader == 2}
    assert len(moved) in {50, 51}
