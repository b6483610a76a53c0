"""Reloading the configuration, by SIGHUP or `POST /-/reload`: all of it takes effect, or nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Final

import structlog

from exporter.config import changed_keys
from exporter.core.errors import ConfigError, StateError
from exporter.core.model import MICROSECONDS
from exporter.service.fleet import lookback

if TYPE_CHECKING:
    from exporter.bookkeeping.shared import Shared
    from exporter.bookkeeping.treasury import Treasury
    from exporter.config import Config
    from exporter.service.discovery import Discoverer
    from exporter.service.fleet import Fleet
    from exporter.service.prices import Prices

log = structlog.get_logger(__name__)

_SUCCESSFUL: Final = "agentos_exporter_config_last_reload_successful"
_AT: Final = "agentos_exporter_config_last_reload_success_timestamp_seconds"
_AT_START: Final = ("state", "web", "push", "prices_update", "log_level", "log_format")
"""Keys of the configuration that need a restart; all others take effect at once."""


class Reloader:
    """Puts configurations in force.

    Attributes:
        config: What is in force.

    """

    def __init__(
        self,
        config: Config,
        load: Callable[[], Config] | None,
        shared: Shared,
        fleet: Fleet,
        treasury: Treasury,
        prices: Prices,
        discoverer: Discoverer,
    ) -> None:
        """Reload the configuration.

        Args:
            config: The configuration in force.
            load: Reads it again, without the price file; None if there is nothing to read.
            shared: What all instances share.
            fleet: The instances.
            treasury: The budgets.
            prices: The prices.
            discoverer: The lists of instances.

        """
        self.config = config
        self._load = load
        self._shared = shared
        self._fleet = fleet
        self._treasury = treasury
        self._prices = prices
        self._lock = asyncio.Lock()
        self._discoverer = discoverer
        self._applied = (discoverer.instances(config.agentos), shared.led)
        self._show_result(successful=True)

    async def reload(self) -> str:
        """Read the configuration and the price file again.

        Returns:
            What is wrong with them, '' if nothing is. What is refused changes nothing, and the log says why.

        """
        async with self._lock:
            problem = "a bug of agentos-exporter, please report it"
            try:
                problem = await self._reload()
            finally:
                self._show_result(successful=not problem)
                self._shared.changed()
            return problem

    async def _reload(self) -> str:
        if self._load is None and self.config.prices is None:
            log.info("reload", reason="there is no file to read anew")
        try:
            new = self.config if self._load is None else await asyncio.to_thread(self._load)
            changed = changed_keys(self.config, new)
            new = replace(new, **{key: getattr(self.config, key) for key in _AT_START})
            try:
                prices = await self._prices.load(new.prices)
            except ConfigError:
                return "the price file is refused, the old prices hold; the log says why"
            await self._put_in_force(new, changed)
        except ConfigError as error:
            reason = "the configuration is refused, the old one holds"
            log.warning("reload", reason=reason, problems=list(error.problems))
            return f"{reason}: {'; '.join(error.problems)}"
        except StateError as error:
            reason = "the state cannot be written, the old configuration holds"
            log.warning("reload", reason=reason, error=str(error))
            return f"{reason}: {error}"
        await self._prices.use(new.prices, prices)
        if self._load is not None:
            self._log_changes(changed)
        self.config = new
        return ""

    async def _put_in_force(self, new: Config, changed: tuple[str, ...], *, strict: bool = True) -> None:
        """Raises ConfigError and StateError; nothing has changed then."""
        lists = await self._discoverer.prepare(new.discovery) if "discovery" in changed else None
        complete = replace(new, agentos=self._discoverer.instances(new.agentos, lists))
        led = self._shared.led
        plan = await self._fleet.prepare(complete, strict=strict)
        try:
            divided = {"labels.user", "dimensions"} & set(changed)
            if divided:
                await asyncio.to_thread(self._shared.ledger.user_key)  # steps that can fail come first
            if {"budgets", "agentos", "discovery", "dimensions"} & set(changed):
                await put_budgets_in_force(self._treasury, self._shared, complete)
            if divided:
                async with self._shared.lock:
                    await asyncio.to_thread(self._treasury.divide, new.user_labels, new.dimensions)
        except StateError:
            await self._fleet.drop(plan)
            raise
        self._shared.totals.use(new.limits, zero_hold=new.zero_hold, dropped=new.dropped_labels)
        if lists is not None:
            await self._discoverer.use(lists)
        await self._fleet.apply(plan)
        self._applied = (complete.agentos, led)

    async def rediscover(self) -> None:
        """Read the instances that lists name now, and the led ones, if either has changed. Problems are logged."""
        async with self._lock:
            now = (self._discoverer.instances(self.config.agentos), self._shared.led)
            if now == self._applied and not self._fleet.skipped:
                return
            # Budgets do not depend on the led instances, and the database is not needed to stop reading.
            changed = () if now[0] == self._applied[0] else ("agentos",)
            try:
                await self._put_in_force(self.config, changed, strict=False)
            except (ConfigError, StateError) as error:
                log.warning("discovery", reason="what was found cannot be read; it is tried again", error=str(error))
            self._shared.changed()

    def _log_changes(self, changed: tuple[str, ...]) -> None:
        waiting = [key for key in changed if key in _AT_START]
        if waiting:
            log.warning("reload", reason="these keys have changed and need a restart", keys=", ".join(waiting))
        log.info("reload", changed=", ".join(key for key in changed if key not in _AT_START))

    def _show_result(self, *, successful: bool) -> None:
        self._shared.totals.gauge(_SUCCESSFUL, (), int(successful))
        if successful:
            self._shared.totals.gauge(_AT, (), int(self._shared.clock.now() * MICROSECONDS))


async def put_budgets_in_force(treasury: Treasury, shared: Shared, config: Config) -> None:
    """Use the budgets of a configuration. If that fails, the earlier budgets stay.

    Args:
        treasury: Keeps the budgets.
        shared: What all instances share.
        config: The configuration.

    Raises:
        StateError: The state cannot be written.

    """
    names = [agentos.name for agentos in config.own]
    # Only the shard that reads an AgentOS knows its spending.
    budgets = [budget for budget in config.budgets if not budget.agentos or config.shard.has(budget.agentos)]
    async with shared.lock:  # no batch is charged half to the old budgets and half to the new
        anew = await asyncio.to_thread(
            treasury.configure, budgets, names, lookback=lookback(config), dimensions=config.dimensions
        )
    for name in anew:
        log.warning("budget", budget=name, reason="what it is for has changed: its spending starts anew from now")
