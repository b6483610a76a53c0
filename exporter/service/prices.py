"""The prices in force: the user's file first, then those of genai-prices, which may be fetched again and again."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import structlog

from exporter.core.errors import ConfigError
from exporter.pricing import pricefile
from exporter.pricing.entries import NO_PRICES

if TYPE_CHECKING:
    from pathlib import Path

    from exporter.bookkeeping.shared import Shared
    from exporter.config import Config
    from exporter.pricing.entries import PriceFile
    from exporter.pricing.prices import Pricer

log = structlog.get_logger(__name__)
_RELOADED = "agentos_exporter_price_file_last_reload_successful"
_MADE = "agentos_exporter_price_data_timestamp_seconds"


def make_pricer(config: Config) -> Pricer:
    """The prices that are configured, not updated yet. Raises ConfigError."""
    from exporter.pricing.prices import Pricer  # noqa: PLC0415 - genai-prices takes a while to load

    user_file = pricefile.load(config.prices) if config.prices is not None else NO_PRICES
    return Pricer(user_file, prices_update=config.prices_update)


class Prices:
    """Keeps a pricer up to date, and shows how old it is and whether the user's file could be read."""

    def __init__(self, pricer: Pricer, path: Path | None, shared: Shared) -> None:
        """Keep the prices in force.

        Args:
            pricer: Prices calls.
            path: The user's price file, which `pricer` has read; None if there is none.
            shared: What all instances share.

        """
        self.pricer = pricer
        self._shared = shared
        pricer.start_updates()
        self._report_load(path, ok=True)

    async def refresh(self) -> None:
        """Put prices in force that were fetched meanwhile."""
        async with self._shared.lock:  # no call may be priced with half of the old and half of the new prices
            fetched = self.pricer.refresh()
        if fetched:
            self._show_age()

    async def load(self, path: Path | None) -> PriceFile:
        """Read the user's file again. Raises ConfigError, which is logged; then nothing has changed."""
        if path is None:
            return NO_PRICES
        try:
            return await asyncio.to_thread(pricefile.load, path)
        except ConfigError as error:
            reason = "the price file is refused, the old prices hold"
            log.warning("reload", reason=reason, problems=list(error.problems))
            self._report_load(path, ok=False)
            raise

    async def use(self, path: Path | None, prices: PriceFile) -> None:
        """Put the prices of the user's file in force."""
        async with self._shared.lock:  # see refresh
            self.pricer.use(prices)
        if path is None:
            self._shared.totals.gauge(_RELOADED, (), None)
            return
        log.info("reload", prices=str(path), entries=len(prices.entries))
        self._report_load(path, ok=True)

    def _report_load(self, path: Path | None, *, ok: bool) -> None:
        """Say what of the file has no effect; `ok`: it could be read."""
        dangling = (f"{entry}: the model it refers to has no price" for entry in self.pricer.dangling())
        for note in (*self.pricer.file.notes, *dangling) if ok else ():
            log.warning("price_file", reason=note)
        self._show_age()
        if path is not None:
            self._shared.totals.gauge(_RELOADED, (), int(ok))

    def _show_age(self) -> None:
        made = self.pricer.data_timestamp(self._shared.clock.now_us())
        self._shared.totals.gauge(_MADE, (), made)

    async def aclose(self) -> None:
        """Stop fetching prices."""
        await asyncio.to_thread(self.pricer.close)
