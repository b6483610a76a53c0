"""What holds for every test. Fixtures live beside the tests that use them."""

import os
from collections.abc import Generator

import pytest
from hypothesis import HealthCheck, settings

from tests.harness import forks

pytest_plugins = ["tests.golden_plugin", "tests.harness.servers", "tests.harness.worlds"]

_LAYERS = ("long", "real", "tools", "daemon", "crash", "unit", "deploy")
"""Folders of tests, those with the longest tests first: what begins last is to be short."""

# The same examples each time, however slow the machine is; `--hypothesis-profile=random` draws others.
settings.register_profile("fixed", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("random", settings.get_profile("fixed"), derandomize=False, print_blob=True)
settings.load_profile("fixed")


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


def _rank(item: pytest.Item) -> tuple[bool, int]:
    """Return the place of the test in the order: those marked slow come first, then it goes by layer."""
    layer = next((place for place, layer in enumerate(_LAYERS) if layer in item.path.parts), len(_LAYERS))
    return item.get_closest_marker("slow") is None, layer
