"""A disk that is full at any write of a commit, or of an expose, loses nothing, doubles nothing, shows nothing early.

Here the process lives on, with all that it has in memory: what could not be committed must not be taken for done.
"""

from collections import Counter
from collections.abc import Callable

import pytest

from exporter.core.errors import StateError
from tests.harness import story
from tests.harness.dying import WRITTEN, Write, Writes, disk_full, told
from tests.harness.mortal import SOURCES, Home, Scraper

pytestmark = pytest.mark.usefixtures("at_once")

MOST = 1000
"""Failures after which all writes should have had their turn."""


class FullInTurn:
    """A disk on which each transaction fails at its first write, when it is tried again at its second, and so on.

    When it has failed at its COMMIT, too, it passes.
    """

    def __init__(self) -> None:
        self.now = 0.0
        self.failures = 0
        self.failed: Counter[str] = Counter()
        self._reached: Counter[tuple[float, str]] = Counter()

    def __call__(self, write: Write) -> None:
        """Fail, if it is this write's turn."""
        transaction = (self.now, write.transaction)
        if not write.done and write.place > self._reached[transaction]:
            self._reached[transaction] += 1
            self.failures += 1
            assert self.failures < MOST, "it goes round in circles"
            self.failed[write.what] += 1
            disk_full()


async def started(kind: str, tables: story.Tables, scraper: Scraper, meet: Callable[[Write], None]) -> Home:
    """A process that has come up at last: one that cannot write when it starts ends, and is started anew."""
    while True:
        home = Home(kind, tables.folder / "state.db", tables)
        Writes(home.ledger, meet)
        try:
            await home.start(scraper)
        except StateError:
            await home.close()
        else:
            return home


@pytest.mark.parametrize("kind", SOURCES)
async def test_a_failure_of_any_write_changes_no_total_and_takes_nothing_back(kind, tables, expected):
    disk, scraper = FullInTurn(), Scraper()
    home = await started(kind, tables, scraper, disk)
    try:
        for now in (*story.STEPS, story.QUIET, story.QUIET + 15):
            disk.now, before = now, -1
            while disk.failures > before:
                before = disk.failures
                with told(f"after failure {before} of the disk, at {now} s"):
                    await home.step(now, scraper)
            assert home.poller.health.outcome == "ok"
        home.check(expected[kind])
    finally:
        await home.close()
    assert disk.failed.keys() >= WRITTEN
