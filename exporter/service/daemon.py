"""The composition root: wires state, sources, pollers, publisher and web server, schedules, and stops in order."""

from __future__ import annotations

import asyncio
import gc
import platform
import signal
import sys
import time
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

import structlog
from apscheduler.schedulers.asyncio import AsyncIOScheduler
from apscheduler.triggers.interval import IntervalTrigger

from exporter import __version__, revision
from exporter.bookkeeping.enrich import EXPIRE_EVERY, Enricher, Fetch, expire_quietly, no_details
from exporter.bookkeeping.intake import Intake
from exporter.bookkeeping.treasury import Treasury
from exporter.config import changed_keys
from exporter.core.errors import ConfigError, StateError
from exporter.core.logs import as_logged
from exporter.core.model import MICROSECONDS, Clock
from exporter.ledger.store import Ledger
from exporter.metrics.totals import Totals
from exporter.pricing import pricefile
from exporter.service.connect import make_source
from exporter.service.poller import Poller, Shared
from exporter.service.publisher import Publisher
from exporter.service.web import InstanceStatus, Server, bind, make_app
from exporter.sources.database.source import DatabaseSource
from exporter.sources.position import Settings

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from exporter.config import AgentOS, Config
    from exporter.core.model import Span
    from exporter.counting.fold import Accounts
    from exporter.metrics.render import Rendered
    from exporter.pricing.prices import Priced, Pricer
    from exporter.sources.api.source import AgentOSSource

log = structlog.get_logger(__name__)

SYSTEM_CLOCK: Final = Clock(time.time, time.monotonic)
GRACE: Final = 2.0
"""Seconds that a batch in hand may take when the daemon stops; the whole stop is done within 5."""
SWITCH_INTERVAL: Final = 0.0005
"""Seconds after which a thread hands over the interpreter: 5 ms by default, which is what a scrape takes in all."""
_JITTER: Final = 0.1
_LIVE: Final = ("budgets", "prices")
"""Keys of the configuration that SIGHUP puts in force; all others wait for a restart."""


@dataclass(slots=True)
class Daemon:
    """One running exporter. `start`, then `stop`; or `run` until a signal.

    `load` reads the configuration anew for `reload`, except for the price file itself; it raises ConfigError.
    """

    config: Config
    clock: Clock = SYSTEM_CLOCK
    load: Callable[[], Config] | None = None
    pollers: list[Poller] = field(default_factory=list)
    sources: list[AgentOSSource | DatabaseSource] = field(default_factory=list)
    enrichers: list[Enricher] = field(default_factory=list)
    _totals: Totals | None = None
    _ledger: Ledger | None = None
    _publisher: Publisher | None = None
    _scheduler: AsyncIOScheduler | None = None
    _server: Server | None = None
    _pricer: Pricer | None = None
    _shared: Shared | None = None
    _treasury: Treasury | None = None
    _reloading: asyncio.Lock = field(default_factory=asyncio.Lock)
    _publishing: asyncio.Task[None] | None = None
    _polls: set[asyncio.Task[None]] = field(default_factory=set)

    # What the web server asks (web.Site)

    @property
    def version(self) -> str:
        """Version of the exporter."""
        return __version__

    @property
    def port(self) -> int:
        """The port that is served on; only while running."""
        assert self._server is not None  # noqa: S101
        return self._server.port

    @property
    def totals(self) -> Totals:
        """All series; only while running."""
        assert self._totals is not None  # noqa: S101
        return self._totals

    @property
    def ledger(self) -> Ledger:
        """The open state; only while running."""
        assert self._ledger is not None  # noqa: S101
        return self._ledger

    def rendered(self) -> Rendered | None:
        """What /metrics sends now."""
        return self._publisher.rendered if self._publisher is not None else None

    def scraped(self) -> None:
        """A scraper was given what is published."""
        if self._publisher is not None:
            self._publisher.scraped()

    def ready(self) -> bool:
        """Whether a first poll of each AgentOS has ended, well or badly."""
        return bool(self.pollers) and all(poller.polled for poller in self.pollers)

    def instances(self) -> Sequence[InstanceStatus]:
        """Every configured AgentOS."""
        return [
            InstanceStatus(
                poller.name,
                agentos.where,
                poller.health.outcome or "starting",
                poller.health.last_poll,
                poller.health.last_success,
                as_logged(poller.health.error),  # AgentOS, or what stands before it, may repeat the token
            )
            for poller, agentos in zip(self.pollers, self.config.agentos, strict=True)
        ]

    # Life

    async def start(self) -> None:
        """Open the state, serve what it holds, then poll. Raises StateError, ListenError, ConfigError."""
        config = self.config
        take_turns()
        for warning in config.warnings:
            log.warning("configuration", reason=warning)
        ledger = self._ledger = await asyncio.to_thread(Ledger, config.state)
        if ledger.begun_anew:
            reason = "their labels, buckets or unit changed with this version: their series count from 0 again"
            log.warning("series_begun_anew", metrics=", ".join(ledger.begun_anew), reason=reason)
        try:
            await self._compose(config, ledger)
        except BaseException:
            await self.stop()
            raise

    async def _compose(self, config: Config, ledger: Ledger) -> None:
        totals = self._totals = Totals(
            config.limits,
            zero_hold=config.zero_hold,
        )
        totals.restore(*await asyncio.to_thread(ledger.load))
        shared = self._shared = Shared(ledger, totals, self.clock)
        self._pricer = await self._prices(totals)
        self._treasury = await asyncio.to_thread(Treasury, ledger, totals, self.clock, user_labels=config.user_labels)
        await self._put_budgets_in_force(config)
        publisher = self._publisher = Publisher(totals, ledger, shared.lock, self.clock)
        shared.changed = publisher.changed
        self._describe_self(totals)
        for agentos in config.agentos:
            self.pollers.append(self._poller(agentos, shared))
            await asyncio.to_thread(self._intake(agentos.name, shared).announce)
        await asyncio.to_thread(self._let_go, shared)
        publisher.refresh_with(
            [*(poller.refresh for poller in self.pollers), self._refresh_budgets, self._refresh_prices]
        )
        # Restored totals are served before the first poll.
        await publisher.publish()
        self._server = Server(make_app(self), bind(config.listen_address.host, config.listen_address.port))
        await self._server.start()
        self._publishing = asyncio.create_task(publisher.run())
        self._schedule(config)
        state = "memory" if config.state is None else str(config.state)
        log.info(
            "started", version=__version__, port=self.port, state=state, agentos=[one.name for one in config.agentos]
        )
        if config.state is None:
            log.warning(
                "state_in_memory",
                reason="counters start at 0 with each start, and nothing that ended before is counted",
            )

    async def _prices(self, totals: Totals) -> Pricer:
        """The prices that hold, the user's file among them. Raises ConfigError."""
        pricer = await asyncio.to_thread(_pricer, self.config)
        pricer.start_updates()
        self._say_prices(pricer, totals, ok=True)
        return pricer

    def _say_prices(self, pricer: Pricer, totals: Totals, *, ok: bool) -> None:
        """Say how the price file was read, the first time or again: `ok`, it is in force."""
        notes = [*pricer.file.notes, *(f"{one}: the model it refers to has no price" for one in pricer.dangling())]
        for note in notes if ok else ():
            log.warning("price_file", reason=note)
        self._date_prices(pricer, totals)
        if self.config.prices is not None:
            totals.gauge("agentos_exporter_price_file_last_reload_successful", (), int(ok))

    def _date_prices(self, pricer: Pricer, totals: Totals) -> None:
        made = pricer.data_timestamp(self.clock.now_us())
        totals.gauge("agentos_exporter_price_data_timestamp_seconds", (), made)

    async def _put_budgets_in_force(self, config: Config) -> None:
        assert self._treasury is not None  # noqa: S101
        assert self._shared is not None  # noqa: S101
        names = [one.name for one in self.config.agentos]
        async with self._shared.lock:  # no batch is charged half to the old budgets and half to the new
            anew = await asyncio.to_thread(
                self._treasury.configure, config.budgets, names, lookback=_lookback(self.config)
            )
        for name in anew:
            log.warning("budget", budget=name, reason="what it is for has changed: its spending starts anew from now")

    async def _refresh_budgets(self) -> None:
        assert self._treasury is not None  # noqa: S101
        await asyncio.to_thread(self._treasury.refresh)

    async def _refresh_prices(self) -> None:
        """Put prices in force that were fetched meanwhile."""
        assert self._pricer is not None  # noqa: S101
        assert self._shared is not None  # noqa: S101
        async with self._shared.lock:  # nobody prices a call by half of one and half of the other
            fetched = self._pricer.refresh()
        if fetched:
            self._date_prices(self._pricer, self._shared.totals)

    async def reload(self) -> None:
        """Read the configuration and the price file anew; what is refused leaves the old in force, and says so."""
        async with self._reloading:
            if self._shared is None or self._pricer is None or self._treasury is None:
                return
            if self.load is not None:
                await self._reload_config(self.load)
            elif self.config.prices is None:
                log.info("reload", reason="there is no file to read anew")
            await self._reload_prices(self._pricer, self._shared)
            self._shared.changed()

    async def _reload_config(self, load: Callable[[], Config]) -> None:
        try:
            new = await asyncio.to_thread(load)
        except ConfigError as error:
            log.warning(
                "reload", reason="the configuration is refused, the old one holds", problems=list(error.problems)
            )
            return
        changed = changed_keys(self.config, new)
        if "budgets" in changed:
            try:
                await self._put_budgets_in_force(new)
            except StateError as error:
                log.warning("reload", reason="the state cannot be written, the old budgets hold", error=str(error))
                return
        self.config = replace(self.config, budgets=new.budgets, prices=new.prices)
        waiting = [key for key in changed if key not in _LIVE]
        if waiting:
            log.warning("reload", reason="these keys have changed and need a restart", keys=", ".join(waiting))
        log.info("reload", changed=", ".join(key for key in changed if key in _LIVE))

    async def _reload_prices(self, pricer: Pricer, shared: Shared) -> None:
        if self.config.prices is None:
            async with shared.lock:
                pricer.use(pricefile.NO_PRICES)
            shared.totals.gauge("agentos_exporter_price_file_last_reload_successful", (), None)
            return
        try:
            prices = await asyncio.to_thread(pricefile.load, self.config.prices)
        except ConfigError as error:
            log.warning(
                "reload", reason="the price file is refused, the old prices hold", problems=list(error.problems)
            )
            self._say_prices(pricer, shared.totals, ok=False)
        else:
            async with shared.lock:  # nobody prices a call by half of one and half of the other
                pricer.use(prices)
            log.info("reload", prices=str(self.config.prices), entries=len(prices.entries))
            self._say_prices(pricer, shared.totals, ok=True)

    def _describe_self(self, totals: Totals) -> None:
        totals.gauge("agentos_exporter_build_info", (__version__, revision(), platform.python_version()), 1)
        totals.gauge("agentos_exporter_state_durable", (), int(self.config.state is not None))

    @property
    def _accounts(self) -> Accounts:
        assert self._treasury is not None  # noqa: S101
        return self._treasury.accounts

    def _enricher(
        self, name: str, shared: Shared, *, fetch: Fetch, databases: Callable[[], Sequence[str]], enabled: bool = True
    ) -> Enricher:
        return Enricher(
            name,
            shared.ledger,
            shared.totals,
            clock=self.clock,
            price=self._price,
            one_price=self._one_price,
            fetch=fetch,
            databases=databases,
            lock=shared.lock,
            accounts=self._accounts,
            enabled=enabled,
        )

    def _let_go(self, shared: Shared) -> None:
        """What waits for the details of an AgentOS that is configured no more goes out without them."""
        for name in shared.ledger.waiting_names() - {agentos.name for agentos in self.config.agentos}:
            self._enricher(name, shared, fetch=no_details, databases=tuple).resolve({}, everything=True)

    def _intake(self, name: str, shared: Shared, enriches: Callable[[], bool] | None = None) -> Intake:
        config = self.config
        return Intake(
            name,
            shared.ledger,
            shared.totals,
            clock=self.clock,
            overlap=config.overlap,
            horizon=config.trace_horizon,
            price=self._price,
            accounts=self._accounts,
            enriches=enriches,
        )

    def _one_price(self, spans: Sequence[Span], cached: int) -> bool:
        assert self._pricer is not None  # noqa: S101
        first, calls = spans[0], [(span.start, span.usage.prompt or 0) for span in spans]
        return self._pricer.one_price(first.provider, first.model, calls, cached=cached, model_class=first.model_class)

    def _price(self, span: Span) -> Priced:
        assert self._pricer is not None  # noqa: S101
        return self._pricer.price(
            span.provider,
            span.model,
            span.usage,
            at=span.start,
            reported=span.reported_cost,
            exact_classes=span.usage.detailed,
            model_class=span.model_class,
        )

    def _poller(self, agentos: AgentOS, shared: Shared) -> Poller:
        config, name = self.config, agentos.name
        source = make_source(agentos, _settings(config), self.clock, _counter(shared.totals, name))
        self.sources.append(source)
        fetch: Fetch = no_details
        databases: Callable[[], Sequence[str]] = tuple
        if not isinstance(source, DatabaseSource):
            fetch, databases = source.run_detail, source.session_databases
        enricher = self._enricher(name, shared, fetch=fetch, databases=databases, enabled=agentos.enrich_runs)
        self.enrichers.append(enricher)
        return Poller(
            name,
            source,
            self._intake(name, shared, enricher.active),
            shared,
            interval=config.poll_interval,
            deadline=config.poll_deadline,
            hold=config.zero_hold,
            enricher=enricher,
        )

    def _schedule(self, config: Config) -> None:
        scheduler = self._scheduler = AsyncIOScheduler(
            timezone=UTC, job_defaults={"max_instances": 1, "coalesce": True, "misfire_grace_time": None}
        )
        for poller in self.pollers:
            for purpose, work, seconds in (
                ("traces", poller.poll, config.poll_interval),
                ("sessions", poller.survey, config.sessions_interval),
            ):
                scheduler.add_job(
                    self._tracked(work),
                    IntervalTrigger(seconds=seconds, jitter=max(seconds * _JITTER, 0.01)),
                    id=f"{purpose}:{poller.name}",
                    name=f"{purpose} of {poller.name}",
                    next_run_time=datetime.now(UTC),
                )
        scheduler.add_job(
            self._tracked(self._expire_waiting), IntervalTrigger(seconds=EXPIRE_EVERY), id="waiting", name="waiting"
        )
        scheduler.start()

    async def _expire_waiting(self) -> None:
        """Calls wait no longer than they may, whether polls go well or not."""
        for enricher in self.enrichers:
            if await expire_quietly(enricher) and self._shared is not None:
                self._shared.changed()

    def _tracked(self, work: Callable[[], object]) -> Callable[[], object]:
        """The job, known to `stop`, which lets it finish."""

        async def job() -> None:
            task = asyncio.current_task()
            assert task is not None  # noqa: S101
            self._polls.add(task)
            try:
                await work()  # type: ignore[misc]
            except asyncio.CancelledError:
                log.debug("stopped_waiting", reason="the daemon stops: AgentOS is not waited for")
            finally:
                self._polls.discard(task)

        return job

    async def stop(self) -> None:
        """Finish the batches in hand, serve no more, close the state. Takes less than 5 seconds."""
        for poller in self.pollers:
            poller.stop()
        if self._scheduler is not None:
            self._scheduler.pause()
        await self._finish_polls()
        if self._scheduler is not None:
            self._scheduler.shutdown(wait=False)
        if self._publishing is not None:
            self._publishing.cancel()
            await asyncio.gather(self._publishing, return_exceptions=True)
        if self._server is not None:
            await self._server.stop()
        for poller in self.pollers:
            await poller.aclose()
        if self._pricer is not None:
            await asyncio.to_thread(self._pricer.close)
        if self._ledger is not None:
            await asyncio.to_thread(self._ledger.close)
        log.info("stopped")

    async def _finish_polls(self) -> None:
        if not self._polls:
            return
        _, late = await asyncio.wait(set(self._polls), timeout=GRACE)
        for task in late:
            task.cancel()
        await asyncio.gather(*late, return_exceptions=True)

    async def run(self) -> None:
        """Run until SIGTERM or SIGINT. Raises what `start` raises."""
        stopping = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stopping.set)
        reloads: set[asyncio.Task[None]] = set()
        started = asyncio.Event()

        async def reload_once_started() -> None:
            await started.wait()
            await self.reload()

        def reload() -> None:
            task = asyncio.ensure_future(reload_once_started())
            reloads.add(task)
            task.add_done_callback(reloads.discard)

        loop.add_signal_handler(signal.SIGHUP, reload)
        await self.start()
        settle()
        started.set()
        try:
            await stopping.wait()
        finally:
            for task in reloads:
                task.cancel()
            await asyncio.gather(*reloads, return_exceptions=True)
            await self.stop()


def take_turns() -> None:
    """Decoding, counting and rendering run in threads; a scrape must not wait 5 ms for each turn of the event loop."""
    sys.setswitchinterval(SWITCH_INTERVAL)


def settle() -> None:
    """What is loaded by now stays; to look through it for garbage would stop every thread for 0.1 s at a time."""
    gc.collect()
    gc.freeze()


async def rehearse(config: Config) -> None:
    """Build what `run` builds of this configuration, but for the state and the web server, and drop it again.

    Nobody is asked for anything. Raises ConfigError.
    """
    pricer = await asyncio.to_thread(_pricer, config)
    await asyncio.to_thread(pricer.close)
    for agentos in config.agentos:
        await make_source(agentos, _settings(config), SYSTEM_CLOCK).aclose()


def _pricer(config: Config) -> Pricer:
    """Prices that are not updated yet. Raises ConfigError."""
    from exporter.pricing.prices import Pricer  # noqa: PLC0415 - genai-prices takes a while to load

    user_file = pricefile.load(config.prices) if config.prices is not None else pricefile.NO_PRICES
    return Pricer(user_file, prices_update=config.prices_update)


def _settings(config: Config) -> Settings:
    return Settings(
        overlap=round(config.overlap * MICROSECONDS),
        lookback=_lookback(config),
        horizon=round(config.trace_horizon * MICROSECONDS),
        stall_budget=config.stall_budget,
    )


def _lookback(config: Config) -> int:
    """Microseconds of history that an AgentOS shows which was never read before."""
    # Without a state file every start would count the past again.
    return round(config.initial_lookback * MICROSECONDS) if config.state is not None else 0


def _counter(totals: Totals, agentos: str) -> Callable[[str, str, int], None]:
    def count(endpoint: str, code: str, size: int) -> None:
        totals.add("agentos_exporter_api_requests_total", (agentos, endpoint, code))
        totals.add("agentos_exporter_api_response_bytes_total", (agentos, endpoint, code), size)

    return count
