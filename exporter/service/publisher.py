"""Totals → the bytes that /metrics sends, rendered once per publish and outside the event loop."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Final

import structlog

from exporter.core.errors import StateError
from exporter.core.model import MICROSECONDS
from exporter.metrics.render import Renderer, Snapshot

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from exporter.bookkeeping.shared import Shared
    from exporter.metrics.render import Rendered

log = structlog.get_logger(__name__)

TICK: Final = 5.0
"""Seconds between publishes while nothing changes: for gauges of time, and series whose 0 was shown long enough."""
PAUSE: Final = 0.5
"""Least seconds between publishes."""
_SHARE: Final = 4
"""A publish is followed by a pause so many times as long; with hundreds of instances it would take a whole core."""


class Publisher:
    """Publishes whenever something changed, and every few seconds."""

    def __init__(self, shared: Shared) -> None:
        self._shared = shared
        self._totals = shared.totals
        self._ledger = shared.ledger
        self._clock = shared.clock
        self._renderer = Renderer()
        # All other threads may wait for a database that hangs.
        self._thread = ThreadPoolExecutor(1, "render")
        self._wake = asyncio.Event()
        self._refresh: Sequence[Callable[[], Awaitable[None]]] = ()
        self._refreshed = float("-inf")
        self._version = 0
        self._term = 0
        self._began = shared.clock.now()
        self._snapshot: Snapshot | None = None
        self._showing = asyncio.Lock()

    @property
    def snapshot(self) -> Snapshot | None:
        """The last published snapshot; None while another replica may show some of it by now."""
        leases = self._ledger.leases
        if leases is None:
            return self._snapshot
        leases.expire()
        return self._snapshot if self._term == leases.term else None

    @property
    def rendered(self) -> Rendered | None:
        """The same as it is scraped."""
        snapshot = self.snapshot
        return None if snapshot is None else snapshot.rendered

    def refresh_with(self, *refresh: Callable[[], Awaitable[None]]) -> None:
        """What sets the gauges that change with time alone, before a publish, beside what does so already."""
        self._refresh = (*self._refresh, *refresh)

    def changed(self) -> None:
        """Something is new: publish soon."""
        self._wake.set()

    def scraped(self, version: int | None = None) -> None:
        """Note that a client was given the published bytes, or those of an earlier version."""
        self._totals.scraped(self._version if version is None else version, self._clock.monotonic())

    async def publish(self) -> None:
        """Expose new series that are due (committed first), render, and publish the bytes. State errors are logged."""
        try:
            if self._clock.monotonic() - self._refreshed >= TICK:
                for refresh in self._refresh:
                    await refresh()
                self._refreshed = self._clock.monotonic()
            async with self._shared.lock:
                due = self._totals.due(self._clock.monotonic())
                await asyncio.to_thread(self._ledger.expose, self._totals.durable(due))
                self._totals.show(due)
        except StateError as error:
            # Series that cannot be committed are not exposed; all others are served.
            log.warning("publish", error=str(error))
        await self.show()

    async def show(self) -> None:
        """Render the present values, and publish the bytes. The state is not used, since it may hang."""
        async with self._showing:
            term = self._shared.term
            loop = asyncio.get_running_loop()
            version, families = await loop.run_in_executor(self._thread, self._totals.families)
            rendered = await loop.run_in_executor(self._thread, self._renderer.render, families)
            created = self._ledger.created / MICROSECONDS
            snapshot = Snapshot(version, self._clock.now(), families, rendered, created, self._began)
            # In one step of the event loop, so a scrape is counted for the version that it got.
            self._version, self._snapshot, self._term = version, snapshot, term

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
