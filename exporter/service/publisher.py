"""Totals → the bytes that /metrics sends, rendered once per publish and outside the event loop."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

import structlog

from exporter.core.errors import StateError
from exporter.core.model import MICROSECONDS
from exporter.metrics.render import Renderer, Snapshot

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from exporter.core.model import Clock
    from exporter.ledger.store import Ledger
    from exporter.metrics.render import Rendered
    from exporter.metrics.totals import Totals

log = structlog.get_logger(__name__)

TICK: Final = 5.0
"""Seconds between publishes while nothing changes: gauges of time, series whose 0 was out for long enough."""
PAUSE: Final = 0.5
"""Least seconds between publishes."""
_SHARE: Final = 4
"""A publish is followed by a pause so many times as long: that of hundreds of instances would take a whole core."""


class Publisher:
    """Publishes whenever something changed, and every few seconds."""

    def __init__(self, totals: Totals, ledger: Ledger, lock: asyncio.Lock, clock: Clock) -> None:
        self._totals = totals
        self._ledger = ledger
        self._lock = lock
        self._clock = clock
        self._renderer = Renderer()
        self._wake = asyncio.Event()
        self._refresh: Sequence[Callable[[], Awaitable[None]]] = ()
        self._refreshed = float("-inf")
        self._version = 0
        self._began = clock.now()
        self.rendered: Rendered | None = None
        self.snapshot: Snapshot | None = None
        """what was published last, for those who do not scrape"""

    def refresh_with(self, *refresh: Callable[[], Awaitable[None]]) -> None:
        """What sets the gauges that change with time alone, before a publish, beside what does so already."""
        self._refresh = (*self._refresh, *refresh)

    def changed(self) -> None:
        """Something is new: publish soon."""
        self._wake.set()

    def scraped(self, version: int | None = None) -> None:
        """Take note that somebody was given the published bytes, or what was published as an earlier version."""
        self._totals.scraped(self._version if version is None else version, self._clock.monotonic())

    async def publish(self) -> None:
        """Expose what is due (committed first), render, and put the bytes in place. An error of the state is logged."""
        try:
            if self._clock.monotonic() - self._refreshed >= TICK:
                for refresh in self._refresh:
                    await refresh()
                self._refreshed = self._clock.monotonic()
            async with self._lock:
                due = self._totals.due(self._clock.monotonic())
                await asyncio.to_thread(self._ledger.expose, self._totals.durable(due))
                self._totals.show(due)
        except StateError as error:
            # What cannot be committed is not exposed; the rest is served.
            log.warning("publish", error=str(error))
        version, families = await asyncio.to_thread(self._totals.families)
        rendered = await asyncio.to_thread(self._renderer.render, families)
        # In one step of the event loop: a scrape is booked on the version it was given.
        self._version, self.rendered = version, rendered
        created = self._ledger.created / MICROSECONDS
        self.snapshot = Snapshot(version, self._clock.now(), families, rendered, created, self._began)

    async def run(self) -> None:
        """Publish until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            try:
                async with asyncio.timeout(TICK):
                    await self._wake.wait()
            except TimeoutError:
                pass
            self._wake.clear()
            began = loop.time()
            try:
                await self.publish()
            except Exception:
                log.exception("publish_bug")
            await asyncio.sleep(min(TICK, max(PAUSE, _SHARE * (loop.time() - began))))
