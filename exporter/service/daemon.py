"""The composition root: wires state, prices, sources, pollers, publisher and web server, and ends them in order."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import platform
import signal
import socket
import sys
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

import structlog

from exporter import __version__, revision
from exporter.bookkeeping.shared import Shared
from exporter.bookkeeping.treasury import Treasury
from exporter.core.logs import as_logged
from exporter.core.model import Clock
from exporter.counting.cashier import Cashier
from exporter.metrics.totals import Totals
from exporter.service.capture import CostCapture
from exporter.service.connect import make_source, open_ledger
from exporter.service.discovery import LOOK, Discoverer
from exporter.service.fleet import Fleet, settings
from exporter.service.jobs import Jobs
from exporter.service.leadership import Leadership
from exporter.service.prices import Prices, make_pricer
from exporter.service.publisher import Publisher
from exporter.service.push.pusher import Pusher
from exporter.service.reload import Reloader, put_budgets_in_force
from exporter.service.web.app import make_app
from exporter.service.web.listen import from_systemd, listen
from exporter.service.web.live import LiveWebConfig
from exporter.service.web.server import Server
from exporter.service.web.site import InstanceStatus, Paths

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

    from exporter.config import Config, Web
    from exporter.ledger.store import Ledger
    from exporter.metrics.render import Rendered
    from exporter.service.poller import Poller

log = structlog.get_logger(__name__)

SYSTEM_CLOCK: Final = Clock(time.time, time.monotonic)
CLOSE_SECONDS: Final = 1.0
"""Most seconds for giving back the leases at the end."""
SWITCH_INTERVAL: Final = 0.0005
"""Seconds after which a thread releases the interpreter: the default of 5 ms is as long as a whole scrape."""


@dataclass(slots=True)
class Site:
    """The daemon as the web server sees it (see `web.site.Site`)."""

    publisher: Publisher
    fleet: Fleet
    discoverer: Discoverer
    leadership: Leadership | None = None
    version: str = __version__

    def rendered(self) -> Rendered | None:
        """What /metrics sends now."""
        return self.publisher.rendered

    def scraped(self) -> None:
        """Note a scrape."""
        self.publisher.scraped()

    def ready(self) -> bool:
        """Whether each list was read, and a first poll of each AgentOS has ended, well or badly."""
        return self.discoverer.tried and self.fleet.ready

    def instances(self) -> Sequence[InstanceStatus]:
        """Every configured AgentOS: those that are read here, then those that another replica reads."""
        read = {member.agentos.name for member in self.fleet.members}
        leaders = {} if self.leadership is None else self.leadership.leaders
        return [
            *(
                InstanceStatus(
                    member.agentos.name,
                    member.agentos.where,
                    member.poller.health.outcome or "starting",
                    member.poller.health.last_poll,
                    member.poller.health.last_success,
                    as_logged(member.poller.health.error),  # AgentOS, or what stands before it, may repeat the token
                )
                for member in self.fleet.members
            ),
            *(
                InstanceStatus(agentos.name, agentos.where, f"read by {leaders.get(agentos.name, 'nobody just now')}")
                for agentos in self.fleet.configured
                if self.leadership is not None and agentos.name not in read
            ),
        ]


@dataclass(slots=True)
class Daemon:
    """A running exporter, as `running` hands it out.

    Attributes:
        shared: What all pollers share, the state and the totals among it.
        site: What the web server shows.
        prices: The prices in force.
        publishing: What publishes again and again.
        reloader: Has the configuration in force, and reads it anew.

    """

    shared: Shared
    site: Site
    server: Server
    prices: Prices
    publishing: asyncio.Task[None]
    reloader: Reloader

    @property
    def config(self) -> Config:
        """The configuration in force."""
        return self.reloader.config

    @property
    def port(self) -> int:
        """The port that is served on."""
        return self.server.port

    @property
    def pollers(self) -> Sequence[Poller]:
        """One for each AgentOS, in the order of the configuration."""
        return [member.poller for member in self.site.fleet.members]

    async def reload(self) -> str:
        """Read the configuration and the price file again; returns what is wrong with them, '' if nothing is."""
        return await self.reloader.reload()


@contextlib.asynccontextmanager
async def running(
    config: Config, clock: Clock = SYSTEM_CLOCK, load: Callable[[], Config] | None = None
) -> AsyncIterator[Daemon]:
    """Run the daemon: open the state, serve its totals, then poll; at the end, close everything within 5 seconds.

    Args:
        config: The configuration.
        clock: The clocks.
        load: Reads the configuration again, for a reload; None if there is no file.

    Raises:
        StateError: The state cannot be used.
        ListenError: The port is in use.
        ConfigError: An AgentOS or the prices cannot be read as configured.

    """
    _prepare_process(config)
    # The first context ends last.
    async with contextlib.AsyncExitStack() as stack:
        shared = await _shared(config, clock)
        stack.push_async_callback(_close, shared.ledger)
        prices = Prices(await asyncio.to_thread(make_pricer, config), config.prices, shared)
        stack.push_async_callback(prices.aclose)
        cashier = Cashier(prices.pricer)
        treasury = await asyncio.to_thread(
            Treasury, shared, cashier, user_labels=config.user_labels, dimensions=config.dimensions
        )
        jobs = Jobs()
        fleet = Fleet(shared, cashier, jobs)
        stack.push_async_callback(fleet.aclose)
        discoverer = Discoverer(shared, jobs)
        await discoverer.use(await discoverer.prepare(config.discovery))
        complete = replace(config, agentos=discoverer.instances(config.agentos))
        leadership = await _leadership(shared, fleet, complete, stack)
        await put_budgets_in_force(treasury, shared, complete)
        await fleet.apply(await fleet.prepare(complete))
        live = await asyncio.to_thread(LiveWebConfig, config.web.config_file)
        publisher = await _publisher(shared, fleet, treasury, prices, live)
        site = Site(publisher, fleet, discoverer, leadership)
        reloader = Reloader(config, load, shared, fleet, treasury, prices, discoverer)
        jobs.add("instances", reloader.rediscover, LOOK)
        CostCapture(shared, jobs, lambda: reloader.config, lambda: fleet.configured)
        server = _server(config.web, site, live, reloader)
        stack.push_async_callback(server.stop)
        pusher = Pusher(config.push, _instance(server.port), publisher, shared, jobs)
        publisher.refresh_with(pusher.refresh)
        stack.push_async_callback(_at_once, pusher.finish, server.stop)
        await server.start()
        publishing = asyncio.create_task(publisher.run())
        stack.push_async_callback(_cancelled, publishing)
        if leadership is not None:
            following = asyncio.create_task(leadership.run(publisher.show, reloader.rediscover))
            stack.push_async_callback(_cancelled, following)
        stack.push_async_callback(jobs.stop)
        stack.callback(fleet.stop)
        jobs.start()
        _say_started(config, server.port)
        yield Daemon(shared, site, server, prices, publishing, reloader)


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
    log.info("stopped")


def settle() -> None:
    """Exclude the objects loaded so far from garbage collection, which would stop every thread for 0.1 s at a time."""
    gc.collect()
    gc.freeze()


async def rehearse(config: Config) -> None:
    """Build what `run` builds of this configuration, but for the state and the web server, and drop it again.

    No request is sent. Raises ConfigError.
    """
    pricer = await asyncio.to_thread(make_pricer, config)
    await asyncio.to_thread(pricer.close)
    for agentos in config.agentos:
        await make_source(agentos, settings(config), SYSTEM_CLOCK).aclose()


# --- Parts ----------------------------------------------------------------------------------------------------------


async def _shared(config: Config, clock: Clock) -> Shared:
    """The state, and totals with its content. Raises StateError."""
    ledger = await asyncio.to_thread(open_ledger, config.state)
    try:
        if ledger.begun_anew:
            reason = "their labels, buckets or unit changed with this version: their series count from 0 again"
            log.warning("series_begun_anew", metrics=", ".join(ledger.begun_anew), reason=reason)
        totals = Totals(config.limits, zero_hold=config.zero_hold, dropped=config.dropped_labels)
        if ledger.leases is None:
            totals.restore(*await asyncio.to_thread(ledger.load))
        await asyncio.to_thread(ledger.date, clock.now_us())
    except BaseException:
        await asyncio.to_thread(ledger.close)
        raise
    totals.gauge("agentos_exporter_build_info", (__version__, revision(), platform.python_version()), 1)
    totals.gauge("agentos_exporter_state_durable", (), int(config.state is not None))
    return Shared(ledger, totals, clock)


async def _publisher(
    shared: Shared, fleet: Fleet, treasury: Treasury, prices: Prices, live: LiveWebConfig
) -> Publisher:
    """The publisher; restored totals are published already, so that they are served before the first poll."""
    publisher = Publisher(shared)
    shared.changed = publisher.changed

    async def refresh_budgets() -> None:
        await asyncio.to_thread(treasury.refresh)

    async def refresh_web() -> None:
        live.refresh()
        if live.path is not None:
            shared.totals.gauge("agentos_exporter_web_config_last_reload_successful", (), int(not live.problems))

    publisher.refresh_with(fleet.refresh, refresh_budgets, prices.refresh, refresh_web)
    await publisher.publish()
    return publisher


def _server(web: Web, site: Site, live: LiveWebConfig, reloader: Reloader) -> Server:
    """The web server, which listens and does not answer yet. Raises ListenError."""
    paths = Paths(web.route_prefix, web.telemetry_path, web.external_path or web.route_prefix)
    app = make_app(site, live, paths, reload=reloader.reload if web.lifecycle else None)
    return Server(app, from_systemd() if web.systemd_socket else listen(web.addresses), live)


async def _at_once(*ends: Callable[[], Awaitable[None]]) -> None:
    """Close several things at the same time, since each takes a while."""
    await asyncio.gather(*(end() for end in ends))


def _instance(port: int) -> str:
    """The name of this exporter for targets of pushes; port 0 means that there is none."""
    return f"{socket.gethostname()}:{port}" if port else socket.gethostname()


async def _close(ledger: Ledger) -> None:
    """Close the state; do not wait for a database that hangs."""
    closing = asyncio.create_task(asyncio.to_thread(ledger.close))
    await asyncio.wait({closing}, timeout=CLOSE_SECONDS)
    if not closing.done():
        ledger.break_off(for_good=True)
    await closing


async def _cancelled(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


def _prepare_process(config: Config) -> None:
    # Decoding, counting and rendering run in threads; a scrape must not wait 5 ms for each turn of the event loop.
    sys.setswitchinterval(SWITCH_INTERVAL)
    for warning in config.warnings:
        log.warning("configuration", reason=warning)


async def _leadership(
    shared: Shared, fleet: Fleet, config: Config, stack: contextlib.AsyncExitStack
) -> Leadership | None:
    """Lead free instances, if replicas may share the state; None if they may not. Raises StateError."""
    if shared.ledger.leases is None:
        return None
    leadership = Leadership(shared, shared.ledger.leases, lambda: fleet.names, lambda: fleet.unreadable)
    await leadership.begin([agentos.name for agentos in config.own])
    stack.push_async_callback(_cancelled, asyncio.create_task(leadership.keep()))
    return leadership


def _say_started(config: Config, port: int) -> None:
    state = "memory" if config.state is None else str(config.state)
    log.info(
        "started", version=__version__, port=port, state=state, agentos=[agentos.name for agentos in config.agentos]
    )
    if config.state is None:
        reason = "counters start at 0 with each start, and nothing that ended before is counted"
        log.warning("state_in_memory", reason=reason)
