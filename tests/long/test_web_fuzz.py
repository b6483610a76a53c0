"""A hundred thousand requests that no client should send."""

from pathlib import Path

from tests.real.test_web_fuzz import check


def test_many(tmp_path: Path) -> None:
    check(tmp_path, 100_000, seed=2)
