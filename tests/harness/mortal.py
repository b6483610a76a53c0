"""One AgentOS's way from its source to the page, wired as the daemon wires it, on a clock that the test drives.

A `Home` is a process: it lives on a state file, and whoever makes another one on the file that it left goes on as
after `kill -9`. The `Scraper` is the outside, which outlives it and finds fault with what it is shown.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any
from unittest import mock

from exporter.bookkeeping.intake import Intake
from exporter.bookkeeping.shared import Shared
from exporter.core.model import MICROSECONDS, Clock, Span, TraceState
from exporter.counting.budgets import Budget, Budgets, Calendar, Period
from exporter.counting.dimensions import Dimension, Dimensions, Origin
from exporter.ledger.store import Ledger
from exporter.metrics.catalog import METRICS, Life
from exporter.metrics.render import Renderer
from exporter.metrics.series import Family, Limits
from exporter.metrics.totals import Totals
from exporter.pricing.prices import Priced
from exporter.pricing.tokens import Classes
from exporter.service.poller import Poller
from exporter.service.publisher import Publisher
from exporter.sources.api import source as agentos
from exporter.sources.database.location import Engine, Location
from exporter.sources.database.source import DatabaseSource, DatabaseTarget
from exporter.sources.position import Settings
from exporter.sources.protocol import Description
from tests.harness import answers, days, story, truth
from tests.harness.cashiers import FixedPrices
from tests.harness.dying import Key, StateFile, Trace, hurry

OVERLAP, HORIZON, LOOKBACK, HOLD = 60, 300, 3600, 10
NAME = "it"
SOURCES = ("api", "database")
_WAITING = {TraceState.OPEN, TraceState.COMPLETE}


class _AgentOSSource(agentos.AgentOSSource):
    """Without names and session figures, which no total comes from."""

    async def describe(self, ledger: object) -> Description:
        """Return nothing."""
        return Description()


class _Families:
    """Renders nothing, so that a scrape can look at what would be rendered."""

    def render(self, families: Sequence[Family]) -> Sequence[Family]:
        """Return them."""
        return families


def _price(span: Span) -> Priced:
    usage = span.usage
    usd = {
        "input": (usage.prompt or 0) * story.PRICES["prompt"],
        "output": (usage.completion or 0) * story.PRICES["completion"],
    }
    return Priced(Classes(usage.prompt, None, None, usage.completion, None), usd, "listed", "")


class Home:
    """A process on a state file, with the source of this kind on the story's databases in `tables`."""

    def __init__(self, kind: str, state: Path, tables: story.Tables, now: float = 0.0) -> None:
        self.kind = kind
        self.now = now
        self.tables = tables
        clock = Clock(lambda: story.T0 + self.now, lambda: self.now)
        self.ledger = Ledger(state)
        self.file = StateFile(state)
        hurry(self.ledger)
        self.totals = self._restored()
        shared = self.shared = Shared(self.ledger, self.totals, clock)
        self.publisher = Publisher(shared)
        self.publisher._renderer = _Families()  # type: ignore[assignment]
        shared.changed = self.publisher.changed
        budget = Budget(name="all", period=Period.MONTH, limit=1)
        each = Budget(name="each", period=Period.MONTH, limit=1, per="chat")
        chat = Dimension("chat", Origin.SESSION)
        self.intake = Intake(
            NAME,
            shared,
            overlap=OVERLAP,
            horizon=HORIZON,
            cashier=FixedPrices(_price, budgets=Budgets([budget, each]), dimensions=Dimensions([chat])),
        )
        settings = Settings(OVERLAP * MICROSECONDS, LOOKBACK * MICROSECONDS, HORIZON * MICROSECONDS, 0.05)
        self.source = self._source(settings, clock)
        # Without an interval no failure asks for a pause.
        self.poller = Poller(NAME, self.source, self.intake, shared, interval=0, deadline=60, hold=HOLD)

    def _source(self, settings: Settings, clock: Clock) -> agentos.AgentOSSource | DatabaseSource:
        if self.kind == "api":
            target = agentos.Target(NAME, answers.Api.base_url, lambda: None, story.DATABASES)
            api = answers.Api(lambda: self.now)
            with mock.patch.object(agentos, "Api", return_value=api):
                return _AgentOSSource(target, settings, clock)
        targets = [DatabaseTarget(self._location(db), lambda: None) for db in story.DATABASES]
        return DatabaseSource(NAME, targets, settings, clock)

    def _location(self, db: str) -> Location:
        return Location(Engine.SQLITE, str(story.path(self.tables.folder, db)))

    def _restored(self) -> Totals:
        totals = Totals(Limits(), zero_hold=HOLD)
        totals.restore(*self.ledger.load())
        return totals

    async def close(self) -> None:
        """Free what it holds. Nothing is written."""
        await self.source.aclose()
        self.ledger.close()
        self.file.close()

    # What it does

    async def start(self, scraper: Scraper) -> None:
        """Announce, and show what was restored. Raises StateError, with which a daemon ends."""
        self.intake.announce()
        await self.show(scraper)

    async def step(self, now: float, scraper: Scraper) -> None:
        """Poll at a time of the story, in the end keep house, and let the page be scraped."""
        self.turn(now)
        await self.poller.poll()
        if now >= story.STEPS[-1]:
            await self.poller.survey()
        assert self.poller.health.outcome in {"ok", "state_error"}, self.poller.health
        self.check_position()
        await self.show(scraper)

    def turn(self, now: float) -> None:
        """Let it be this time of the story."""
        self.now = now
        self.tables.turn(now)

    async def finish(self, scraper: Scraper, steps: Sequence[float]) -> None:
        """Take these steps, and go on until all is quiet."""
        for now in (*steps, story.QUIET):
            await self.step(now, scraper)
            assert self.poller.health.outcome == "ok"
        self.now += HOLD
        await self.show(scraper)

    async def show(self, scraper: Scraper) -> None:
        """Publish, and be scraped."""
        await self.publisher.publish()
        scraper.scrape(self)

    # What must hold

    def _key(self, db: str) -> str:
        return db if self.kind == "api" else self._location(db).key

    def positions(self) -> dict[str, Any]:
        """Return where the source stands, as far as it knows, by the key of the database."""
        if isinstance(self.source, DatabaseSource):
            return {feed.db: feed.position for feed in self.source.feeds if feed.position is not None}
        return {reader.db: reader.position for reader in self.source.readers if reader.position is not None}

    def check_position(self) -> None:
        """The source acts on no position that is ahead of what is committed."""
        cutoffs = {db: position.cutoff for db, position in self.positions().items()}
        self.check_passed(self.file, cutoffs)
        if self.kind == "database":
            return  # it moves on where nothing is new, without a commit
        cursors = self.file.cursors()
        for db, position in self.positions().items():
            stands = {name: getattr(position, name) for name in ("cutoff", "sweep", "first")}
            committed = cursors.get(db, {"cutoff": position.floor, "sweep": 0, "first": True})
            assert stands == {name: committed[name] for name in stands}, db

    def check_passed(self, file: StateFile, cutoffs: dict[str, int] | None = None) -> None:
        """Each span that a cursor has passed is counted, or its trace is still asked for."""
        if cutoffs is None:
            cutoffs = {db: cursor["cutoff"] for db, cursor in file.cursors().items()}
        traces = file.traces()
        counted = {span for trace in traces.values() for span in trace.spans}
        check = self._passed_by_end if self.kind == "api" else self._passed_by_insertion
        for db in story.DATABASES:
            key = self._key(db)
            if key in cutoffs:
                check(db, cutoffs[key], {trace: one for (where, trace), one in traces.items() if where == key}, counted)

    def _passed_by_insertion(self, db: str, cutoff: int, traces: dict[str, Trace], counted: set[int]) -> None:
        for row in story.rows():
            if row.db == db and row.written <= self.now and story.us(row.written) < cutoff:
                waited_for = row.trace in traces and traces[row.trace].state == TraceState.OPEN
                assert row.number in counted or waited_for, f"the cursor has passed {row}"

    def _passed_by_end(self, db: str, cutoff: int, traces: dict[str, Trace], counted: set[int]) -> None:
        for one in answers.shown(db, self.now):
            if story.us(one.end) < cutoff:
                assert one.id in traces, f"the cursor has passed {one.rows[0]}"
                waited_for = traces[one.id].state in _WAITING
                assert waited_for or {row.number for row in one.visible} <= counted, f"the cursor has passed {one.id}"

    def check(self, expected: truth.Totals) -> None:
        """In the end all that the source has is counted, once, all of it shows, and a restart would know all of it."""
        restored = self._restored()
        assert {*restored.stored()} == {*self.totals.stored()}
        assert restored._admitted == self.totals._admitted
        spans = story.spans(orphans=self.kind == "database")
        traces = self.file.traces()
        assert {span for trace in traces.values() for span in trace.spans} == set(spans)
        assert not [trace for trace in traces.values() if trace.state in _WAITING]
        assert truth.difference(expected, self.samples()) == []
        cost = story.cost(list(spans.values()))
        assert self._sum("agentos_llm_cost_usd_total") == self.file.spent() == cost
        # Calls outside of any run have no session.
        assert self._sum("agentos_dimension_cost_usd_total") == cost
        assert self._sum("agentos_dimension_runs_total") == self._sum("agentos_runs_total")
        of_chats = [
            series
            for series in self.totals.stored()
            if series.metric == "agentos_dimension_cost_usd_total" and series.labels[2]
        ]
        assert sum(one.value for one in of_chats) == sum(self._allowances().values()) > 0
        assert days.sums(self.ledger) == days.counters(self.totals)
        idle = [row for row in spans.values() if row.written < story.IDLE and row.id not in story.hidden()]
        assert self._sum("agentos_session_runs") == sum(row.parent is None for row in idle)
        assert self._sum("agentos_session_cost_usd") == story.cost(idle)

    def _allowances(self) -> dict[str, int]:
        start, _ = Calendar(Period.MONTH, "UTC").bounds(story.T0 * MICROSECONDS)
        return self.ledger.allowances("each", start, most=1000, at_least=0, top=1000)

    def samples(self) -> truth.Totals:
        """Return the page as a scraper understands it; of histograms the count and the sum."""
        samples: truth.Totals = {}
        for family in self._families:
            metric = family.metric
            for sample in family.samples:
                labels = frozenset(zip(metric.labels, sample.labels, strict=True))
                if sample.counts:
                    samples[f"{metric.name}_count", labels] = sum(sample.counts)
                    samples[f"{metric.name}_sum", labels] = sample.total / metric.unit
                else:
                    samples[metric.name, labels] = sample.value / metric.unit
        return samples

    def rendered(self) -> str:
        """Return the page as it is sent."""
        return Renderer().render(self._families).text.decode()

    @property
    def _families(self) -> Sequence[Family]:
        families: Any = self.publisher.rendered  # see _Families
        return families  # type: ignore[no-any-return]

    def page(self) -> dict[Key, tuple[float, ...]]:
        """Return the persisted series of the page."""
        return {
            (family.metric.name, sample.labels): (sample.value, *sample.counts, sample.total)
            if sample.counts
            else (sample.value,)
            for family in self._families
            if METRICS[family.metric.name].life is Life.DURABLE
            for sample in family.samples
        }

    def _sum(self, metric: str) -> int:
        found = [series for series in self.totals.stored() if series.metric == metric]
        return sum(one.total if one.counts else one.value for one in found)


class Scraper:
    """Scrapes, and remembers: what it was shown never falls and never vanishes, and all of it is committed."""

    def __init__(self, seen: dict[Key, tuple[float, ...]] | None = None) -> None:
        self.seen = dict(seen or {})
        self.scrapes = 0

    def scrape(self, home: Home, *, meanwhile: bool = False) -> None:
        """Look at the page; `meanwhile` says that more may have been committed since it was made."""
        home.publisher.scraped()
        page = home.page()
        committed = home.file.series()
        missing = self.seen.keys() - page.keys()
        assert not missing, f"vanished: {missing}"
        for key, value in page.items():
            before = self.seen.get(key, value)
            assert all(new >= old for new, old in zip(value, before, strict=True)), f"{key} fell: {before} → {value}"
            assert key in committed, f"{key} shows and is not committed"
            held = committed[key]
            if not held.shown:
                assert not any(value), f"{key} shows {value}, and it is not committed that it may"
            elif meanwhile:
                assert all(one <= most for one, most in zip(value, held.value, strict=True)), key
            else:
                assert value == held.value, f"{key} shows {value}, committed is {held.value}"
        assert meanwhile or page.keys() == committed.keys()
        self.seen = page
        self.scrapes += 1
