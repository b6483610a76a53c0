"""What a poll tells of itself; the rest of it is told by the tests of sources, of the intake and of whole daemons."""

from __future__ import annotations

from exporter.bookkeeping.intake import Absorbed
from exporter.bookkeeping.shared import Shared
from exporter.core.errors import SourceTimeout
from exporter.core.model import Clock
from exporter.metrics.series import Limits
from exporter.metrics.totals import Totals
from exporter.service.poller import Poller
from exporter.sources.protocol import Batch, PollStats


class Source:
    """Says what it is told to say."""

    catching_up = False
    watermark = None

    def __init__(self) -> None:
        self.stats = PollStats()
        self.batches: list[Absorbed] = []
        self.failure: Exception | None = None

    async def read(self, ledger, *, deadline):
        for number in range(len(self.batches)):
            yield Batch(str(number))
        if self.failure:
            raise self.failure

    async def describe(self, ledger):
        raise self.failure or SourceTimeout("nothing to tell")


class Intake:
    """Absorbs what the source says its batches bring."""

    def __init__(self, source: Source) -> None:
        self.source = source

    def absorb(self, batch):
        return self.source.batches[int(batch.db)]


class World:
    """A poller, and the time that passes between its polls."""

    def __init__(self) -> None:
        self.now = 1_000_000.0
        self.source = Source()
        self.totals = Totals(Limits(), zero_hold=60)
        shared = Shared(None, self.totals, Clock(lambda: self.now, lambda: self.now))
        self.intake = Intake(self.source)
        self.poller = Poller("it", self.source, self.intake, shared, interval=15, deadline=60, hold=60)

    async def poll(self, *batches: Absorbed, after: float = 15) -> float:
        """Return `agentos_exporter_catching_up` after a poll that brings this."""
        self.now += after
        self.source.batches = list(batches)
        await self.poller.poll()
        return self.catching_up

    @property
    def catching_up(self) -> float:
        return self.totals.value("agentos_exporter_catching_up", ("it",))


async def test_what_was_missed_is_a_backlog_and_is_told_long_enough_for_two_scrapes():
    world = World()
    assert await world.poll(Absorbed(traces=3, spans=20, late=0)) == 0
    assert await world.poll(Absorbed(traces=3, spans=20, late=11), Absorbed(traces=1, spans=5)) == 1
    assert [await world.poll() for _ in range(5)] == [1, 1, 1, 0, 0]


async def test_one_late_trace_among_many_is_no_backlog():
    world = World()
    assert await world.poll(Absorbed(traces=9, spans=20, late=10)) == 0


async def test_a_backlog_that_lasts_is_told_as_long_as_it_does():
    world = World()
    world.source.catching_up = True
    assert [await world.poll(after=100) for _ in range(3)] == [1, 1, 1]
    world.source.catching_up = False
    assert [await world.poll(after=40) for _ in range(3)] == [1, 0, 0]


async def test_a_timeout_alone_is_no_backlog():
    world = World()
    world.source.failure = SourceTimeout("slow")
    assert await world.poll(Absorbed(traces=3, spans=20)) == 0
    assert world.poller.health.outcome == "timeout"
