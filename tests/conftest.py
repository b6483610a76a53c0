"""What holds for every test. Fixtures live beside the tests that use them."""

import os
from collections.abc import Generator
from pathlib import Path

import pytest

from tests.harness import forks

pytest_plugins = ["tests.golden_plugin", "tests.harness.servers"]

_LONGEST_FIRST = ("crash", "slow", "postgres", "compat")
_LONG = Path(__file__).with_name("long")


@pytest.fixture(scope="session", autouse=True)
def forking() -> Generator[None]:
    """Start AgentOS and the daemon without importing all of them anew each time."""
    with forks.serving():
        yield


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Where CI is set, turn a skip into a failure that gives its reason: what was not run was not checked."""
    report = yield
    _refuse_skip(report)
    return report


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """Where CI is set, turn the skip of a whole file into an error."""
    report = yield
    _refuse_skip(report)
    return report


def _refuse_skip(report: pytest.TestReport | pytest.CollectReport) -> None:
    # An expected failure reports itself as skipped, with `wasxfail`.
    if not os.environ.get("CI") or not report.skipped or hasattr(report, "wasxfail"):
        return
    reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longreprtext
    report.outcome = "failed"
    report.longrepr = f"a skip fails in CI: {reason.removeprefix('Skipped: ')}"


@pytest.hookimpl(wrapper=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> Generator[None]:
    """For several workers: the longest begin first, and what shares a fixture of its file shares a worker."""
    for item in items:
        shared = [
            name
            for name, definitions in getattr(item, "_fixtureinfo").name2fixturedefs.items()  # noqa: B009 - pytest's own
            if any(definition.scope in {"module", "package"} for definition in definitions)
        ]
        if shared:
            item.add_marker(pytest.mark.xdist_group(f"{item.nodeid.partition('::')[0]}:{min(shared)}"))
    # Here pytest-xdist reads the groups, and pytest-randomly shuffles.
    yield
    items.sort(key=_rank)


def _rank(item: pytest.Item) -> int:
    """Tell the place of a test in the order; a test of tests/long is as one that is marked slow."""
    marks = {mark.name for mark in item.iter_markers()} | ({"slow"} if _LONG in item.path.parents else set())
    return min((_LONGEST_FIRST.index(mark) for mark in marks & set(_LONGEST_FIRST)), default=len(_LONGEST_FIRST))
