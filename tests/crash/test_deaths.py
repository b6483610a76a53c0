"""A death at any write of a commit, or of an expose, loses nothing, doubles nothing and shows nothing early.

One process lives through the story. At each of its writes its files are copied as they are then, which is what is left
of it after `kill -9`; from each copy another process goes on until all is quiet.
"""

from dataclasses import dataclass, field
from pathlib import Path

import pytest
import sqlalchemy as sa

from exporter.ledger import sqlite
from exporter.ledger import store as ledger
from tests.harness import story, truth
from tests.harness.dying import WRITTEN, Key, Left, Write, Writes, told
from tests.harness.mortal import NAME, SOURCES, Home, Scraper

pytestmark = pytest.mark.usefixtures("at_once")


@dataclass(frozen=True)
class Death:
    """What is left at one write, and what a scraper has seen by then."""

    write: Write
    now: float
    left: Left
    seen: dict[Key, tuple[float, ...]]


@dataclass
class Witness:
    """Looks at the files at each write; of deaths that leave the same behind, one is kept."""

    home: Home
    scraper: Scraper
    path: Path
    deaths: list[Death] = field(default_factory=list)
    met: set[str] = field(default_factory=set)

    def __call__(self, write: Write) -> None:
        """Look."""
        self.met.add(write.what)
        left = Left.of(self.path)
        last = self.deaths[-1] if self.deaths else None
        if last is not None and not write.done:
            assert left == last.left, f"{write}: the file holds a part of a transaction"
        if last is None or (left, self.home.now, self.scraper.seen) != (last.left, last.now, last.seen):
            self.deaths.append(Death(write, self.home.now, left, dict(self.scraper.seen)))


async def deaths(kind: str, tables: story.Tables) -> Witness:
    """All deaths that one life through the story can end in."""
    path = tables.folder / "state.db"
    home, scraper = Home(kind, path, tables), Scraper()
    witness = Witness(home, scraper, path)
    Writes(home.ledger, witness)
    try:
        await home.start(scraper)
        await home.finish(scraper, story.STEPS)
    finally:
        await home.close()
    return witness


def steps_after(death: float) -> list[float]:
    """Some steps of the story: that of the death once more, the next one, and the last."""
    after = [step for step in story.STEPS if step > death]
    return sorted({death, *after[:1], *after[-1:]})


@pytest.mark.parametrize("kind", SOURCES)
async def test_a_death_at_any_write_changes_no_total_and_takes_nothing_back(kind, tables, expected):
    witness = await deaths(kind, tables)
    assert witness.met >= WRITTEN
    for number, death in enumerate(witness.deaths):
        path = tables.folder / f"{number}.db"
        death.left.put(path)
        tables.turn(death.now)
        home, scraper = Home(kind, path, tables, death.now), Scraper(death.seen)
        with told(f"died {death.write}, at {death.now} s"):
            try:
                home.check_passed(home.file)
                await home.start(scraper)
                await home.finish(scraper, steps_after(death.now))
                home.check(expected[kind])
            finally:
                await home.close()


@pytest.mark.parametrize("kind", SOURCES)
async def test_a_life_without_a_death_counts_all(kind, tables, expected):
    home, scraper = Home(kind, tables.folder / "state.db", tables), Scraper()
    try:
        await home.start(scraper)
        await home.finish(scraper, story.STEPS)
        home.check(expected[kind])
        assert truth.difference(expected[kind], truth.scrape(home.rendered())) == []
    finally:
        await home.close()


def test_a_first_start_that_is_killed_anywhere_leaves_a_file_to_start_with(tmp_path, monkeypatch):
    path, lefts = tmp_path / "state.db", list[Left]()
    make = sqlite.open_engine

    def watched(where: Path) -> sa.Engine:
        engine = make(where)
        for event in ("before_cursor_execute", "after_cursor_execute", "commit"):
            sa.event.listen(engine, event, lambda *_: lefts.append(Left.of(path)))
        return engine

    with monkeypatch.context() as patched:
        patched.setattr(sqlite, "open_engine", watched)
        ledger.Ledger(path).close()
    lefts.append(Left.of(path))
    assert len(lefts) > 20
    distinct = dict.fromkeys(lefts)
    assert len(distinct) > 1
    for number, left in enumerate(distinct):
        left.put(tmp_path / f"{number}.db")
        started = ledger.Ledger(tmp_path / f"{number}.db")
        assert (started.load(), started.cursors(NAME)) == (([], []), {})
        started.close()
