"""An expose and the commits beside it: neither begins before the other has ended, and none takes back what is shown."""

import asyncio
import threading
from collections.abc import AsyncGenerator, Callable
from typing import Self

import pytest

from exporter.counting.delta import Delta
from exporter.ledger.records import Changes
from tests.harness import story
from tests.harness.mortal import HOLD, SOURCES, Home, Scraper

NEWS = 150.0
"""When spans are to be counted, and series to be exposed."""
LONG = 20.0
"""Seconds that nothing here takes, on any machine."""


class Held:
    """Holds the thread that is about to call a method of the ledger, until the end of the block."""

    def __init__(self, home: Home, name: str) -> None:
        self._reached, self._go = threading.Event(), threading.Event()
        method = getattr(home.ledger, name)

        def held(*arguments: object) -> object:
            self._reached.set()
            assert self._go.wait(LONG)
            return method(*arguments)

        setattr(home.ledger, name, held)

    async def reached(self) -> None:
        """Return when a thread is held."""
        assert await asyncio.to_thread(self._reached.wait, LONG)

    def __enter__(self) -> Self:
        """Begin."""
        return self

    def __exit__(self, *_: object) -> None:
        """Let it go on, and hold nothing any more."""
        self._go.set()


@pytest.fixture
def scraper() -> Scraper:
    return Scraper()


@pytest.fixture
async def home(kind, tables, scraper) -> AsyncGenerator[Home]:
    """A process to which something is new, and which has series whose 0 was out for long enough."""
    home = Home(kind, tables.folder / "state.db", tables)
    await home.start(scraper)
    for now in story.STEPS[:2]:
        await home.step(now, scraper)
    await home.step(NEWS - HOLD, scraper)
    home.turn(NEWS)
    yield home
    await end(home)


async def end(home: Home) -> None:
    """Close it when no thread is at work any more, whatever has failed."""
    await asyncio.get_running_loop().shutdown_default_executor()
    await home.close()


async def until(condition: Callable[[], object]) -> None:
    """Let everything else go on until this holds."""
    async with asyncio.timeout(LONG):
        while not condition():  # noqa: ASYNC110 - what is waited for has no event
            await asyncio.sleep(0)


def journal(home: Home, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Note what is done to the totals, in its order."""
    done: list[str] = []

    def noted(name: str) -> Callable[..., object]:
        method = getattr(home.totals, name)

        def call(*arguments: object, **named: object) -> object:
            done.append(name)
            return method(*arguments, **named)

        return call

    for name in ("due", "show", "plan", "apply"):
        monkeypatch.setattr(home.totals, name, noted(name))
    absorb = home.intake.absorb
    monkeypatch.setattr(home.intake, "absorb", lambda batch: done.append("absorb") or absorb(batch))
    return done


def turned_away(home: Home) -> bool:
    """Whether somebody waits for the lock that keeps transactions apart."""
    return bool(home.shared.lock._waiters)


@pytest.mark.parametrize("kind", SOURCES)
async def test_no_batch_is_counted_while_series_are_exposed(home, scraper, monkeypatch):
    done = journal(home, monkeypatch)
    with Held(home, "expose") as held:
        publishing = asyncio.create_task(home.publisher.publish())
        await held.reached()
        polling = asyncio.create_task(home.poller.poll())
        await until(lambda: turned_away(home) or "absorb" in done)
        assert done == ["due"]
    await asyncio.gather(publishing, polling)
    assert done[:3] == ["due", "show", "absorb"]
    await home.show(scraper)


@pytest.mark.parametrize("kind", SOURCES)
async def test_no_series_is_exposed_while_a_batch_is_committed(home, scraper, monkeypatch):
    done = journal(home, monkeypatch)
    with Held(home, "commit") as held:
        polling = asyncio.create_task(home.poller.poll())
        await held.reached()
        publishing = asyncio.create_task(home.publisher.publish())
        await until(lambda: turned_away(home) or "due" in done)
        assert done[-2:] == ["absorb", "plan"]
        assert "due" not in done
    await asyncio.gather(publishing, polling)
    assert done.index("apply") < done.index("due")
    await home.show(scraper)


@pytest.mark.parametrize("kind", SOURCES)
async def test_what_was_planned_before_an_expose_and_is_written_after_it_hides_nothing(home, scraper):
    """As it would be if nothing kept them apart: a plan holds what was shown when it was made."""
    key = next(key for key, stored in home.file.series().items() if not stored.shown and any(stored.value))
    before = home.file.series()[key].value
    delta = Delta("it")
    assert len(before) == 1
    delta.add(*key, 5)
    plan = home.totals.plan(delta, show=False)
    assert not plan.series[key].shown
    home.ledger.expose([key])
    home.totals.show([key])
    home.ledger.commit(Changes("it", plan=plan))
    home.totals.apply(plan)
    assert home.file.series()[key].shown
    await home.show(scraper)
    assert scraper.seen[key] == home.file.series()[key].value == (before[0] + 5,)


@pytest.mark.parametrize("kind", SOURCES)
async def test_a_page_shows_only_what_is_committed_whatever_is_written_meanwhile(kind, tables, expected):
    """Polls and publishes of the story go on at once, in threads, and each page is scraped."""
    home, scraper = Home(kind, tables.folder / "state.db", tables), Scraper()

    async def publish() -> None:
        for _ in range(8):
            await home.publisher.publish()
            scraper.scrape(home, meanwhile=True)

    try:
        await home.start(scraper)
        for now in story.STEPS:
            home.turn(now)
            await asyncio.gather(publish(), home.poller.poll())
            await home.step(now + HOLD, scraper)
        await home.finish(scraper, ())
        home.check(expected[kind])
    finally:
        await end(home)
