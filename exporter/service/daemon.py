"""The composition root: wires state, prices, sources, pollers, publisher and web server, and ends them in order."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import platform
import signal
import sys
import time
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final

import structlog

from exporter import __version__, revision
from exporter.bookkeeping.enrich import EXPIRE_EVERY, Enricher, Fetch, expire_quietly, no_details
from exporter.bookkeeping.intake import Intake
from exporter.bookkeeping.shared import Shared
from exporter.bookkeeping.treasury import Treasury
from exporter.config import changed_keys
from exporter.core.errors import ConfigError, StateError
from exporter.core.logs import as_logged
from exporter.core.model import MICROSECONDS, Clock
from exporter.counting.cashier import Cashier
from exporter.ledger.store import Ledger
from exporter.metrics.totals import Totals
from exporter.service.connect import make_source
from exporter.service.jobs import Jobs
from exporter.service.poller import Poller
from exporter.service.prices import Prices, make_pricer
from exporter.service.publisher import Publisher
from exporter.service.web.app import make_app
from exporter.service.web.server import Server, bind
from exporter.service.web.site import InstanceStatus
from exporter.sources.database.source import DatabaseSource
from exporter.sources.position import Settings

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence

    from exporter.config import AgentOS, Config
    from exporter.metrics.render import Rendered

log = structlog.get_logger(__name__)

SYSTEM_CLOCK: Final = Clock(time.time, time.monotonic)
SWITCH_INTERVAL: Final = 0.0005
"""Seconds after which a thread hands over the interpreter: 5 ms by default, which is what a scrape takes in all."""
_LIVE: Final = ("budgets", "prices")
"""Keys of the configuration that SIGHUP puts in force; all others wait for a restart."""


@dataclass(slots=True)
class Site:
    """What the web server asks (see `web.site.Site`)."""

    publisher: Publisher
    pollers: Sequence[Poller]
    agentos: Sequence[AgentOS]
    version: str = __version__

    def rendered(self) -> Rendered | None:
        """What /metrics sends now."""
        return self.publisher.rendered

    def scraped(self) -> None:
        """Take note of a scrape."""
        self.publisher.scraped()

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
            for poller, agentos in zip(self.pollers, self.agentos, strict=True)
        ]


@dataclass(slots=True)
class Daemon:
    """A running exporter, as `running` hands it out.

    Attributes:
        config: What is in force; `reload` changes it.
        load: Reads the configuration anew, except for the price file itself. Raises ConfigError. None: there is none.
        shared: What all pollers share, the state and the totals among it.
        site: What the web server shows.

    """

    config: Config
    load: Callable[[], Config] | None
    shared: Shared
    prices: Prices
    treasury: Treasury
    site: Site
    server: Server
    jobs: Jobs
    publishing: asyncio.Task[None]
    _reloading: asyncio.Lock = field(default_factory=asyncio.Lock)

    @property
    def port(self) -> int:
        """The port that is served on."""
        return self.server.port

    @property
    def pollers(self) -> Sequence[Poller]:
        """One for each AgentOS, in the order of the configuration."""
        return self.site.pollers

    async def reload(self) -> None:
        """Read the configuration and the price file anew. If one is refused, the old one stays; the log says why."""
        async with self._reloading:
            if self.load is not None:
                await self._reload_config(self.load)
            elif self.config.prices is None:
                log.info("reload", reason="there is no file to read anew")
            await self.prices.reload(self.config.prices)
            self.shared.changed()

    async def _reload_config(self, load: Callable[[], Config]) -> None:
        try:
            new = await asyncio.to_thread(load)
        except ConfigError as error:
            reason = "the configuration is refused, the old one holds"
            log.warning("reload", reason=reason, problems=list(error.problems))
            return
        changed = changed_keys(self.config, new)
        if "budgets" in changed:
            try:
                await _put_budgets_in_force(self.treasury, self.shared, replace(self.config, budgets=new.budgets))
            except StateError as error:
                log.warning("reload", reason="the state cannot be written, the old budgets hold", error=str(error))
                return
        self.config = replace(self.config, budgets=new.budgets, prices=new.prices)
        waiting = [key for key in changed if key not in _LIVE]
        if waiting:
            log.warning("reload", reason="these keys have changed and need a restart", keys=", ".join(waiting))
        log.info("reload", changed=", ".join(key for key in changed if key in _LIVE))


@contextlib.asynccontextmanager
async def running(
    config: Config, clock: Clock = SYSTEM_CLOCK, load: Callable[[], Config] | None = None
) -> AsyncIterator[Daemon]:
    """Open the state, serve what it holds, then poll. In the end finish what is in hand and close all, in 5 seconds.

    Raises:
        StateError: The state cannot be used.
        ListenError: Somebody else has the port.
        ConfigError: An AgentOS or the prices cannot be read as they are configured.

    """
    # Decoding, counting and rendering run in threads; a scrape must not wait 5 ms for each turn of the event loop.
    sys.setswitchinterval(SWITCH_INTERVAL)
    for warning in config.warnings:
        log.warning("configuration", reason=warning)
    # What is entered first ends last.
    async with contextlib.AsyncExitStack() as stack:
        stack.callback(log.info, "stopped")
        shared = await _shared(config, clock)
        stack.push_async_callback(asyncio.to_thread, shared.ledger.close)
        prices = Prices(await asyncio.to_thread(make_pricer, config), config.prices, shared)
        stack.push_async_callback(prices.aclose)
        cashier = Cashier(prices.pricer)
        treasury = await asyncio.to_thread(Treasury, shared, cashier, user_labels=config.user_labels)
        await _put_budgets_in_force(treasury, shared, config)
        pollers: list[Poller] = []
        for agentos in config.agentos:
            pollers.append(_poller(agentos, config, shared, cashier))
            stack.push_async_callback(pollers[-1].aclose)
            await asyncio.to_thread(pollers[-1].intake.announce)
        await asyncio.to_thread(_let_go, config, shared, cashier)
        publisher = await _publisher(shared, pollers, treasury, prices)
        site = Site(publisher, pollers, config.agentos)
        server = Server(make_app(site), bind(config.listen_address.host, config.listen_address.port))
        stack.push_async_callback(server.stop)
        await server.start()
        publishing = asyncio.create_task(publisher.run())
        stack.push_async_callback(_cancelled, publishing)
        jobs = _jobs(config, shared, pollers)
        stack.push_async_callback(jobs.stop)
        for poller in pollers:
            stack.callback(poller.stop)
        jobs.start()
        _say_started(config, server.port)
        yield Daemon(config, load, shared, prices, treasury, site, server, jobs, publishing)


async def run(config: Config, load: Callable[[], Config] | None = None) -> None:
    """Run until SIGTERM or SIGINT; SIGHUP reloads. Raises what `running` raises."""
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    reloads: set[asyncio.Task[None]] = set()
    started: asyncio.Future[Daemon] = loop.create_future()

    async def reload_once_started() -> None:
        daemon = await asyncio.shield(started)
        await daemon.reload()

    def reload() -> None:
        task = asyncio.ensure_future(reload_once_started())
        reloads.add(task)
        task.add_done_callback(reloads.discard)

    loop.add_signal_handler(signal.SIGHUP, reload)
    async with running(config, load=load) as daemon:
        settle()
        started.set_result(daemon)
        try:
            await stopping.wait()
        finally:
            for task in reloads:
                task.cancel()
            await asyncio.gather(*reloads, return_exceptions=True)


def settle() -> None:
    """Keep what is loaded by now out of garbage collection, which would stop every thread for 0.1 s at a time."""
    gc.collect()
    gc.freeze()


async def rehearse(config: Config) -> None:
    """Build what `run` builds of this configuration, but for the state and the web server, and drop it again.

    No request is sent. Raises ConfigError.
    """
    pricer = await asyncio.to_thread(make_pricer, config)
    await asyncio.to_thread(pricer.close)
    for agentos in config.agentos:
        await make_source(agentos, _settings(config), SYSTEM_CLOCK).aclose()


# --- Parts ----------------------------------------------------------------------------------------------------------


async def _shared(config: Config, clock: Clock) -> Shared:
    """The state and the totals that it holds. Raises StateError."""
    ledger = await asyncio.to_thread(Ledger, config.state)
    try:
        if ledger.begun_anew:
            reason = "their labels, buckets or unit changed with this version: their series count from 0 again"
            log.warning("series_begun_anew", metrics=", ".join(ledger.begun_anew), reason=reason)
        totals = Totals(config.limits, zero_hold=config.zero_hold)
        totals.restore(*await asyncio.to_thread(ledger.load))
    except BaseException:
        await asyncio.to_thread(ledger.close)
        raise
    totals.gauge("agentos_exporter_build_info", (__version__, revision(), platform.python_version()), 1)
    totals.gauge("agentos_exporter_state_durable", (), int(config.state is not None))
    return Shared(ledger, totals, clock)


async def _put_budgets_in_force(treasury: Treasury, shared: Shared, config: Config) -> None:
    """Raises StateError; the budgets before then hold."""
    names = [one.name for one in config.agentos]
    async with shared.lock:  # no batch is charged half to the old budgets and half to the new
        anew = await asyncio.to_thread(treasury.configure, config.budgets, names, lookback=_lookback(config))
    for name in anew:
        log.warning("budget", budget=name, reason="what it is for has changed: its spending starts anew from now")


def _poller(agentos: AgentOS, config: Config, shared: Shared, cashier: Cashier) -> Poller:
    """The poller of one AgentOS, with its source. Raises ConfigError."""
    name = agentos.name
    source = make_source(agentos, _settings(config), shared.clock, _counter(shared.totals, name))
    fetch: Fetch = no_details
    databases: Callable[[], Sequence[str]] = tuple
    if not isinstance(source, DatabaseSource):
        fetch, databases = source.run_detail, source.session_databases
    enricher = Enricher(name, shared, cashier, fetch=fetch, databases=databases, enabled=agentos.enrich_runs)
    intake = Intake(
        name,
        shared,
        overlap=config.overlap,
        horizon=config.trace_horizon,
        cashier=cashier,
        enriches=enricher.active,
    )
    return Poller(
        name,
        source,
        intake,
        shared,
        interval=config.poll_interval,
        deadline=config.poll_deadline,
        hold=config.zero_hold,
        enricher=enricher,
    )


def _let_go(config: Config, shared: Shared, cashier: Cashier) -> None:
    """Count the calls that wait for details of an AgentOS which is no longer configured."""
    for name in shared.ledger.waiting_names() - {agentos.name for agentos in config.agentos}:
        enricher = Enricher(name, shared, cashier, fetch=no_details, databases=tuple)
        enricher.resolve({}, everything=True)


async def _publisher(shared: Shared, pollers: Sequence[Poller], treasury: Treasury, prices: Prices) -> Publisher:
    """The publisher; restored totals are published already, so that they are served before the first poll."""
    publisher = Publisher(shared.totals, shared.ledger, shared.lock, shared.clock)
    shared.changed = publisher.changed

    async def refresh_budgets() -> None:
        await asyncio.to_thread(treasury.refresh)

    publisher.refresh_with([*(poller.refresh for poller in pollers), refresh_budgets, prices.refresh])
    await publisher.publish()
    return publisher


def _jobs(config: Config, shared: Shared, pollers: Sequence[Poller]) -> Jobs:
    """Polls, surveys, and a look for calls that waited long enough, whether polls go well or not."""
    jobs = Jobs()
    for poller in pollers:
        jobs.add(f"traces of {poller.name}", poller.poll, config.poll_interval)
        jobs.add(f"sessions of {poller.name}", poller.survey, config.sessions_interval)

    async def expire_waiting() -> None:
        for poller in pollers:
            if poller.enricher is not None and await expire_quietly(poller.enricher):
                shared.changed()

    jobs.add("waiting", expire_waiting, EXPIRE_EVERY, at_once=False)
    return jobs


async def _cancelled(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


def _say_started(config: Config, port: int) -> None:
    state = "memory" if config.state is None else str(config.state)
    log.info("started", version=__version__, port=port, state=state, agentos=[one.name for one in config.agentos])
    if config.state is None:
        reason = "counters start at 0 with each start, and nothing that ended before is counted"
        log.warning("state_in_memory", reason=reason)


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
